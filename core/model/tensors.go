package model

import (
	"errors"
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// ErrWeight is what errors about a weight that a model does not have, or not in the form asked for, match with errors.Is.
var ErrWeight = errors.New("no such weight")

// LoadedTensor is a tensor of a model in memory, as the model computes with it.
type LoadedTensor struct {
	Name  string   `json:"name"`            // as in a Hugging Face checkpoint: "model.layers.0.mlp.up_proj.weight"
	Shape []int    `json:"shape"`           // [out, in] of a matrix, [n] of a bias or a norm
	DType string   `json:"dtype"`           // "ternary", or what floats are kept as: "float32", "bfloat16", "float16", "int8", "int4"
	Bytes int      `json:"bytes"`           // in memory, without a trainable model's master weights and gradients
	Scale *float32 `json:"scale,omitempty"` // of a ternary tensor: what a code is multiplied by
}

// Tensors lists the model's tensors in the order of a forward pass; a tied table is one. The model must be acquired.
func (m *Model) Tensors() []LoadedTensor {
	var out []LoadedTensor
	for _, t := range m.matrices() {
		info := LoadedTensor{Name: t.name, Shape: []int{t.rows, t.cols}, DType: t.dtype, Bytes: t.bytes}
		if t.vector {
			info.Shape = []int{t.cols}
		}
		if t.ternary != nil {
			info.Scale = &t.ternary.Scale
		}
		out = append(out, info)
	}
	return out
}

// ReadTensor gives the numbers of the tensor of that name, row-major: the codes -1, 0, 1 of a ternary one, the values of others. ErrWeight for a
// name that Tensors does not list. The model must be acquired.
func (m *Model) ReadTensor(name string) (codes []int8, values []float32, err error) {
	t, err := m.matrix(name)
	if err != nil {
		return nil, nil, err
	}
	if t.ternary != nil {
		return t.ternary.Codes(nil), nil, nil
	}
	values = make([]float32, t.rows*t.cols)
	copyRows(values, t.cols, t.row)
	return nil, values, nil
}

// QuantizationError says how far the ternary tensor of that name is from the master weights that it was made of. It needs a trainable model,
// which must be acquired: ErrWeight otherwise, and for a tensor that is not ternary.
func (m *Model) QuantizationError(name string) (quant.Metrics, error) {
	t, err := m.matrix(name)
	if err != nil {
		return quant.Metrics{}, err
	}
	if t.ternary == nil || t.master == nil {
		return quant.Metrics{}, fmt.Errorf("%w: %s: expected a ternary one of a trainable model, which has what it was quantized from", ErrWeight, name)
	}
	var meter quant.Meter
	row, codes, next := make([]float32, t.cols), make([]int8, t.cols), t.reader()
	for r := range t.rows {
		next(row, codes, r)
		meter.Add(t.master.Data[r*t.cols:(r+1)*t.cols], row)
	}
	return meter.Metrics(), nil
}

func (m *Model) matrix(name string) (matrix, error) {
	for _, t := range m.matrices() {
		if t.name == name {
			return t, nil
		}
	}
	return matrix{}, fmt.Errorf("%w: the model has no %q", ErrWeight, name)
}

// matrix is a tensor of a model as it computes.
type matrix struct {
	name       string
	vector     bool // one row, of one axis
	rows, cols int
	dtype      string                     // of LoadedTensor
	bytes      int                        // in memory
	master     *autograd.Param            // what a trainable model quantizes, or nil
	ternary    *quant.Ternary             // nil for floats
	row        func(dst []float32, r int) // of floats
}

// matrices lists what a model has: matrices, norms and biases; a vector is one row.
func (m *Model) matrices() []matrix {
	var out []matrix
	vector := func(name string, values []float32) {
		if values != nil {
			out = append(out, matrix{name: name, vector: true, rows: 1, cols: len(values), bytes: 4 * len(values), dtype: headFormatName(cpu.DenseF32), row: func(dst []float32, _ int) { copy(dst, values) }})
		}
	}
	_ = m.eachWeight(func(name string, l *nn.Linear) error { // which fails only if these do
		one := matrix{name: name + ".weight", rows: l.Out, cols: l.In, ternary: l.Ternary, master: l.Weight}
		if l.Ternary != nil {
			one.dtype, one.bytes = "ternary", l.Ternary.Bytes()
		} else {
			one.dtype, one.bytes, one.row = headFormatName(l.Dense.Format), l.Dense.Bytes(), l.Dense.Row
		}
		out = append(out, one)
		vector(name+".bias", l.Bias)
		if l.Norm != nil {
			vector(name+".rms_norm.weight", l.Norm.Weight)
		}
		return nil
	}, func(name string, n *nn.Norm) error {
		vector(name+".weight", n.Weight)
		vector(name+".bias", n.Bias)
		return nil
	})
	return out
}

// reader gives the rows as numbers, and of a ternary matrix as codes too.
func (m matrix) reader() func(dst []float32, codes []int8, r int) {
	if m.ternary == nil {
		return func(dst []float32, _ []int8, r int) { m.row(dst, r) }
	}
	next := m.ternary.RowReader()
	return func(dst []float32, codes []int8, r int) {
		next(codes, r)
		for c, code := range codes {
			dst[c] = float32(code) * m.ternary.Scale
		}
	}
}
