package model

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// The types in which SaveONNXWeights writes ternary layers.
const (
	ONNXInt8 = "int8"
	ONNXInt2 = "int2"
)

// onnxFrequencies is the name of RoPE's inverse frequencies among the weights of an ONNX model.
const onnxFrequencies = "model.rotary_emb.inv_freq"

// SaveONNXWeights writes a safetensors file with what the initializers of an ONNX model hold, under the names of a Hugging Face
// checkpoint. Whoever builds the graph copies the tensors into it, or lets it refer to their places in this file.
//
// Matrices of linears are [in, out], as MatMul wants them: ternary ones int8 codes with a float32 weight_scale (mean|W|) beside
// them, those that stay float as they are. In type ONNXInt2 codes are two's complements of two bits, the first of a byte in its lowest
// bits; the file's dtype is U8 then, and its metadata has the shape under the tensor's name. Biases are float32 and what is added last;
// tables are written as they are, norms as bfloat16 where that holds every value and as float32 otherwise.
//
// Errors: ErrOption for a type.
func (m *Model) SaveONNXWeights(ctx context.Context, path, kind string) error {
	if kind != ONNXInt8 && kind != ONNXInt2 {
		return fmt.Errorf("%w: onnx_type %q: must be one of %s, %s", ErrOption, kind, ONNXInt8, ONNXInt2)
	}
	if err := m.refuseGPT2("ONNX"); err != nil {
		return err
	}
	if err := m.acquireSound(ctx); err != nil {
		return err
	}
	defer m.Release()
	w := onnxWriter{hfWriter: hfWriter{ctx: ctx, model: m}, int2: kind == ONNXInt2, shapes: map[string]string{}}
	if err := m.eachWeight(w.linear, w.norm); err != nil {
		return err
	}
	w.float32s(onnxFrequencies, m.RoPE.InvFreq)
	safetensors.ByAlignment(w.tensors)
	if planned(ctx, w.tensors) {
		return nil
	}
	return safetensors.Write(path, stoppable(ctx, w.tensors), w.shapes)
}

// onnxWriter collects the tensors. What is no linear is written as in a Hugging Face checkpoint.
type onnxWriter struct {
	hfWriter
	int2   bool
	shapes map[string]string // of matrices of two bits
}

func (w *onnxWriter) linear(name string, l *nn.Linear) error {
	switch {
	case l.Ternary != nil:
		w.codes(name, l.Ternary)
		w.float32s(name+".weight_scale", []float32{l.Ternary.Scale})
	case name == "model.embed_tokens" || name == "lm_head":
		w.dense(name, name, l.Dense)
	default:
		w.columns(name, l.Dense)
	}
	if len(l.Bias) > 0 {
		w.float32s(name+".bias", l.Bias)
	}
	if l.Norm != nil {
		w.vector(name+".rms_norm.weight", l.Norm.Weight)
	}
	return nil
}

func (w *onnxWriter) float32s(name string, values []float32) {
	w.tensors = append(w.tensors, container.Tensor{Name: name, DType: safetensors.F32, Shape: []int{len(values)},
		Data: appendFloats(nil, safetensors.F32, values)})
}

// codes streams the columns of a ternary matrix.
func (w *onnxWriter) codes(name string, t *quant.Ternary) {
	dtype, shape := safetensors.I8, []int{t.Cols, t.Rows}
	if w.int2 {
		w.shapes[name+".weight"] = fmt.Sprintf("[%d, %d]", t.Cols, t.Rows)
		dtype, shape = safetensors.U8, []int{(t.Cols*t.Rows + 3) / 4}
	}
	w.add(name, dtype, shape, func(to io.Writer) error {
		codes := turnedCodes(t)
		if w.int2 {
			codes = joinInt2(codes)
		}
		_, err := to.Write(codes)
		return err
	})
}

// turnedCodes are the columns of a ternary matrix, one after the other, made of some rows on each thread.
func turnedCodes(t *quant.Ternary) []byte {
	panels, columns := t.Panels(), make([]byte, t.Rows*t.Cols)
	eachRows(t.Rows, func(first, rows int) {
		codes := make([]int8, rows*t.Cols)
		cpu.UnpackTernary(codes, panels[cpu.TernaryBytes(first, t.Cols):], rows, t.Cols)
		turn(columns[first:], t.Rows, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(codes))), len(codes)), t.Cols, rows, t.Cols)
	})
	return columns
}

// joinInt2 puts four codes into a byte, in place.
func joinInt2(codes []byte) []byte {
	n := len(codes) / 4
	for i := range n {
		v := binary.LittleEndian.Uint32(codes[4*i:]) & 0x03030303
		codes[i] = byte(v | v>>6 | v>>12 | v>>18)
	}
	if rest := codes[4*n:]; len(rest) > 0 {
		var b byte
		for i, c := range rest {
			b |= c & 3 << (2 * i)
		}
		codes[n] = b
		n++
	}
	return codes[:n]
}

// columns streams the columns of a float matrix.
func (w *onnxWriter) columns(name string, d *quant.Dense) {
	w.add(name, safetensors.F32, []int{d.Cols, d.Rows}, func(to io.Writer) error {
		values := make([]float32, d.Rows*d.Cols)
		for r := range d.Rows {
			d.Row(values[r*d.Cols:(r+1)*d.Cols], r)
		}
		column, text := make([]float32, d.Rows), []byte(nil)
		for c := range d.Cols {
			for r := range column {
				column[r] = values[r*d.Cols+c]
			}
			text = appendFloats(text[:0], safetensors.F32, column)
			if _, err := to.Write(text); err != nil {
				return err
			}
		}
		return nil
	})
}

// add notes the matrix of a module; stream is called when that is in memory.
func (w *onnxWriter) add(name, dtype string, shape []int, stream func(to io.Writer) error) {
	w.tensors = append(w.tensors, container.Tensor{Name: name + ".weight", DType: dtype, Shape: shape, Stream: func(to io.Writer) error {
		return w.model.with(w.ctx, name, func() error { return stream(to) })
	}})
}
