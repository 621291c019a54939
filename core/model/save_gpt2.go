package model

import (
	"fmt"
	"io"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// gpt2Writer collects the tensors of a GPT-2 as transformers has them: matrices are [in, out], and q, k and v are one.
type gpt2Writer struct {
	*hfWriter
	fused []gpt2Part // what there is so far of a layer's c_attn
}

// gpt2Part is columns of a matrix: a layer's weights.
type gpt2Part struct {
	module string
	l      *nn.Linear
	dtype  string
	open   func() (masterRows, error)
}

// linear collects the weights of a module outside of layers as hfWriter does, and those of layers turned around.
func (w *gpt2Writer) linear(module string, l *nn.Linear) error {
	if LayerOf(module) < 0 {
		name := module
		if name != "lm_head" {
			name, _ = gpt2Name(module)
			name = "transformer." + name
		}
		w.dense(name, module, l.Dense)
		return nil
	}
	p := gpt2Part{module: module, l: l}
	switch {
	case l.Ternary == nil:
		p.dtype, p.open = w.denseType(l.Dense), func() (masterRows, error) { return l.Dense.Row, nil }
	case w.masters == "":
		return fmt.Errorf("%w: %s is ternary, and transformers has no ternary layers for a %s: expected masters, of which the ternary weights are derived", ErrExport, module, ArchGPT2)
	default:
		var err error
		if p.open, err = w.masterOf(module, l); err != nil {
			return err
		}
		p.dtype = w.masters
	}
	name, part := gpt2Name(module)
	if part < 0 {
		w.turned("transformer."+name, p)
		return nil
	}
	if w.fused = append(w.fused, p); len(w.fused) == len(gpt2Fused) {
		w.turned("transformer."+name, w.fused...)
		w.fused = nil
	}
	return nil
}

// turned adds the matrix [in, out of all parts] and its bias.
func (w *gpt2Writer) turned(name string, parts ...gpt2Part) {
	dtype, in, width := parts[0].dtype, parts[0].l.In, 0
	var bias []float32
	for _, p := range parts {
		if p.dtype != dtype {
			dtype = safetensors.F32
		}
		width += p.l.Out
		bias = append(bias, p.l.Bias...)
	}
	w.tensors = append(w.tensors, container.Tensor{Name: name + ".weight", DType: dtype, Shape: []int{in, width}, Stream: func(out io.Writer) error {
		size := dtypeBytes(dtype)
		data := make([]byte, in*width*size)
		first := 0
		for _, p := range parts {
			if err := w.model.with(w.ctx, p.module, func() error {
				read, err := p.open()
				if err != nil {
					return err
				}
				const most = 8 * turnedRows
				values := make([]float32, min(most, p.l.Out)*in)
				for from := 0; from < p.l.Out; from += most {
					n := min(most, p.l.Out-from)
					for r := range n { // in their order: see derivedMasters
						read(values[r*in:(r+1)*in], from+r)
					}
					eachRows(n, func(r, rows int) {
						text := appendFloats(make([]byte, 0, rows*in*size), dtype, values[r*in:(r+rows)*in])
						turnFloats(data[(first+from+r)*size:], width, text, in, rows, in, size)
					})
				}
				return nil
			}); err != nil {
				return err
			}
			first += p.l.Out
		}
		_, err := out.Write(data)
		return err
	}})
	w.vector(name+".bias", bias)
}

func (w *gpt2Writer) norm(module string, n *nn.Norm) error {
	name, _ := gpt2Name(module)
	return w.hfWriter.norm("transformer."+name, n)
}

// refuseGPT2 is the error of formats that have no place for a GPT-2.
func (m *Model) refuseGPT2(format string) error {
	if m.Config.Architecture != ArchGPT2 {
		return nil
	}
	return fmt.Errorf("%w: a %s is not written as %s: save it in the native format, or as a Hugging Face checkpoint of master weights", ErrExport, ArchGPT2, format)
}
