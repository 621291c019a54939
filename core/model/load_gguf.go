package model

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// GGUFExt is how the names of GGUF files end.
const GGUFExt = ".gguf"

// loadGGUF loads a GGUF file, or all files of a split one.
func loadGGUF(ctx context.Context, path string, l *loader) (*Model, error) {
	set, err := gguf.OpenSet(path)
	if err != nil {
		return nil, err
	}
	m, err := buildGGUF(ctx, set, l)
	if err != nil {
		return nil, err
	}
	m.Info.Path = path
	return m, nil
}

// buildGGUF loads an open file, which it closes, or leaves to the model if weights are deferred.
func buildGGUF(ctx context.Context, set gguf.Set, l *loader) (*Model, error) {
	warning := ""
	m, err := l.copyOut(ctx, set, func() (*Model, findMasters, error) {
		m, src, err := planGGUF(set, l)
		if err == nil {
			warning, err = checkI2SLayout(ctx, set, m.Config.NumHiddenLayers, l.opts.I2SLayout)
		}
		return m, src.masterRows, err
	})
	if err != nil {
		return nil, err
	}
	m.Info.Format = "gguf"
	if warning != "" {
		m.Info.Warnings = append(m.Info.Warnings, warning)
	}
	return m, nil
}

// planGGUF assembles the model, and leaves the weights to the loader.
func planGGUF(set gguf.Set, l *loader) (*Model, *ggufSource, error) {
	cfg, err := ggufConfig(set)
	if err != nil {
		return nil, nil, err
	}
	src := &ggufSource{newTensorSource(l, set, cfg)}
	m, err := build(cfg, src)
	if err != nil {
		return nil, nil, err
	}
	if err := l.checkUse(set, "gguf", src.quantizes()); err != nil {
		return nil, nil, err
	}
	return m, src, src.settle("a GGUF file of architecture "+cfg.Architecture, func(name string) bool { return name == ropeFactors })
}

// ggufSource is a GGUF file as a source.
type ggufSource struct{ tensorSource }

// ggufModules are GGUF's names of modules.
var ggufModules = map[string]string{
	"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
	"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
	"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
	"self_attn.attn_sub_norm": "attn_sub_norm",
	"mlp.gate_proj":           "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.ffn_sub_norm": "ffn_sub_norm",
}

// ggufName translates the name of a module.
func ggufName(module string) string {
	if rest, ok := strings.CutPrefix(module, "model.layers."); ok {
		layer, name, _ := strings.Cut(rest, ".")
		return "blk." + layer + "." + ggufModules[name]
	}
	return ggufModules[module]
}

func (s *ggufSource) norm(name, part string, dim int) ([]float32, error) {
	return s.vector(ggufName(name)+"."+part, dim)
}

func (s *ggufSource) table(name string, rows, cols int) (*nn.Linear, error) {
	w, err := s.view(ggufName(name)+".weight", rows, cols)
	if err != nil {
		return nil, err
	}
	format, decode := cpu.DenseBF16, gguf.Dequantize // of what was quantized
	if slices.Contains(floats, w.DType) {
		format, decode = natural(w.DType), nil
	}
	if s.cfg.isHead(name) {
		format = s.head.or(format)
	}
	d, err := s.dense(w, rows, cols, format, decode)
	if err != nil {
		return nil, err
	}
	return &nn.Linear{Out: rows, In: cols, Dense: d}, nil
}

// decodeBlocks widens Q8_0 to float32, in chunks of blocks on the worker pool.
func decodeBlocks(out []byte, dtype string, data []byte) {
	values, size := gguf.Block(dtype)
	cpu.Parallel((len(data)/size+chunkBlocks-1)/chunkBlocks, task(func(chunk int) {
		var numbers [256]float32
		end := min((chunk+1)*chunkBlocks*size, len(data))
		for at := chunk * chunkBlocks * size; at < end; at += size {
			_ = gguf.Dequantize(numbers[:values], dtype, data[at:at+size]) // one block of a type that it decodes
			for i, x := range numbers[:values] {
				binary.LittleEndian.PutUint32(out[4*(at/size*values+i):], math.Float32bits(x))
			}
		}
	}))
}

// chunkBlocks is how many blocks a worker decodes at a time.
const chunkBlocks = 1024

// linear plans a linear layer: the ternary types as they are, others by their values.
func (s *ggufSource) linear(name string, out, in int) (*nn.Linear, error) {
	w, err := s.view(ggufName(name)+".weight", out, in)
	if err != nil {
		return nil, err
	}
	l := &nn.Linear{Out: out, In: in, Ternary: s.ternary(name, out, in)}
	if err := w.Check([]int{out, in}, gguf.F32, gguf.F16, gguf.BF16, gguf.Q8_0, gguf.TQ1_0, gguf.TQ2_0, gguf.I2_S, gguf.IQ1_BN, gguf.IQ2_BN); err != nil {
		return nil, err
	}
	scale, err := s.extraScale(name)
	if err != nil {
		return nil, err
	}
	order := s.cfg.ggufRowOrder(name)
	fill := s.codes(l.Ternary)
	s.plan(w, 0, func() (err error) {
		if format := s.ternaryFormat(w.DType); format != "" {
			err = packGGML(l.Ternary, format, w, order)
		} else {
			err = fill(func(panels []byte) (err error) {
				l.Ternary.Scale, err = s.packValues(panels, w, out, in, order)
				return err
			})
		}
		l.Ternary.Scale *= scale
		return err
	})
	return l, s.bias(l, name, order)
}

// extraScale is the factor that some converters store beside a layer's weights.
func (s *ggufSource) extraScale(name string) (float32, error) {
	stored := ggufName(name) + ".scale"
	if !s.set.Has(stored) {
		return 1, nil
	}
	_, factor, err := s.number(stored)
	return factor, err
}

// ggufRowOrder says which row of a GGUF file has a row of the layer, nil where they are the same. Files of architecture llama have the
// rows of queries and keys in the order of interleaved rotation: the pairs that are rotated together, rows i and i+head_dim/2 of a
// head here, lie beside each other.
func (c *Config) ggufRowOrder(name string) func(row int) int {
	if c.Architecture != ArchLlama || !(strings.HasSuffix(name, ".q_proj") || strings.HasSuffix(name, ".k_proj")) {
		return nil
	}
	d := c.HeadDim
	return func(row int) int { return row/d*d + row%d%(d/2)*2 + row%d/(d/2) }
}

// bias reads the bias that a layer has if the first layer has one.
func (s *ggufSource) bias(l *nn.Linear, name string, order func(row int) int) error {
	if !s.cfg.hasBias(name) {
		return nil
	}
	v, err := s.vector(ggufName(name)+".bias", l.Out)
	if err != nil {
		return err
	}
	l.Bias = v
	if order != nil {
		l.Bias = make([]float32, len(v))
		for i := range v {
			l.Bias[i] = v[order(i)]
		}
	}
	return nil
}

// ternaryFormat is how package quant calls a ternary type, "" for others.
func (s *ggufSource) ternaryFormat(dtype string) string {
	switch dtype {
	case gguf.TQ1_0, gguf.TQ2_0, gguf.IQ1_BN, gguf.IQ2_BN:
		return dtype
	case gguf.I2_S:
		return dtype + " " + cmp.Or(s.opts.I2SLayout, gguf.I2SX86)
	}
	return ""
}

// packGGML fills a layer with codes and scale of a tensor of a ternary type.
func packGGML(t *quant.Ternary, format string, w container.View, order func(row int) int) error {
	err := quant.PackGGML(t, format, w.Data, order)
	if err == nil && (!(t.Scale > 0) || math.IsInf(float64(t.Scale), 0)) {
		err = &quant.ValueError{Kind: quant.ErrScale, Found: fmt.Sprintf("a scale of %v", t.Scale), Expected: "a positive, finite one"}
	}
	return err
}

// packValues takes weights of which none but 0 and two opposite values occur as they are, and others as master weights, which the
// BitNet architectures quantize by their mean.
func (s *ggufSource) packValues(panels []byte, w container.View, out, in int, order func(row int) int) (float32, error) {
	dtype, data, done, err := s.values(w, out, order)
	if err != nil {
		return 0, err
	}
	defer done()
	scale, same, err := quant.Magnitude(dtype, data, out, in)
	if err != nil {
		return 0, err
	}
	if same {
		return scale, quant.TernarizeScaled(panels, dtype, data, out, in, scale)
	}
	if err := s.fullPrecision(); err != nil {
		return 0, err
	}
	return quant.Ternarize(panels, dtype, data, out, in)
}

// quantizes says whether there are layers that may be float and that Quantize makes ternary.
func (s *ggufSource) quantizes() bool {
	return s.cfg.Architecture == ArchLlama && slices.ContainsFunc(s.set.Tensors(), func(t container.Info) bool {
		return strings.HasPrefix(t.Name, "blk.") && len(t.Shape) == 2 && !gguf.IsTernary(t.DType)
	})
}

// fullPrecision is the error of a layer that is not ternary, nil where its weights are taken as master weights.
func (s *ggufSource) fullPrecision() error {
	if s.cfg.Architecture != ArchLlama || s.opts.Quantize {
		return nil
	}
	return fmt.Errorf("%w: the layer is not ternary: this is a model of full precision; quantize=True (on the command line --quantize) takes its weights as master weights", errNotTernary)
}

// refused is why a linear with such numbers is not loaded, or nil.
func (s *ggufSource) refused(t *TensorInfo) error {
	switch {
	case t.Ternary != nil && !(t.Ternary.Scale > 0):
		return fmt.Errorf("a scale of %v: expected a positive number", t.Ternary.Scale)
	case t.Float != nil && (t.Float.several || t.Float.magnitude == 0):
		return s.fullPrecision()
	}
	return nil
}

// values are those of a matrix in one of the float types, its rows in the order of the layer, until they are done with.
func (s *ggufSource) values(w container.View, out int, order func(row int) int) (dtype string, data []byte, done func(), err error) {
	dtype, data, done = w.DType, w.Data, func() {}
	if !slices.Contains(floats, dtype) {
		b, err := s.borrow(4 * w.Elements())
		if err != nil {
			return "", nil, nil, err
		}
		decodeBlocks(b.Bytes(), dtype, data)
		dtype, data, done = gguf.F32, b.Bytes(), b.Release
	}
	if order == nil {
		return dtype, data, done, nil
	}
	defer done()
	ordered, err := s.borrow(len(data))
	if err != nil {
		return "", nil, nil, err
	}
	for r, stride := 0, len(data)/out; r < out; r++ {
		copy(ordered.Bytes()[r*stride:(r+1)*stride], data[order(r)*stride:])
	}
	return dtype, ordered.Bytes(), ordered.Release, nil
}

// masterRows reads the master weights of a layer, nil where it has codes.
func (s *ggufSource) masterRows(name string, out, in int) (masterRows, error) {
	v, err := s.set.Tensor(ggufName(name) + ".weight")
	if err != nil || !slices.Contains([]string{gguf.F32, gguf.F16, gguf.BF16, gguf.Q8_0}, v.DType) {
		return nil, err
	}
	dtype, data, done, err := s.values(v, out, nil)
	if err != nil {
		return nil, err
	}
	_, same, err := quant.Magnitude(dtype, data, out, in)
	done()
	if err != nil || same {
		return nil, errors.Join(err, v.ReleasePages())
	}
	read, order := rowsOf(v.DType, v.Data, in), s.cfg.ggufRowOrder(name)
	if v.DType == gguf.Q8_0 {
		stride := len(v.Data) / out
		read = func(row []float32, r int) { _ = gguf.Dequantize(row, v.DType, v.Data[r*stride:][:stride]) } // whole blocks
	}
	return func(row []float32, r int) {
		from := r
		if order != nil {
			from = order(r)
		}
		read(row, from)
		if r == out-1 {
			_ = v.ReleasePages() // they are read again when they are needed
		}
	}, v.ReleasePages()
}

var errNotTernary = errors.New("weights of many values")
