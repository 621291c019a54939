package model

import (
	"fmt"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// Weight is a tensor of a model in full precision, as a checkpoint of master weights has it.
type Weight struct {
	Name    string // in a checkpoint: "model.layers.0.mlp.up_proj.weight"
	Shape   []int  // [out, in], or [n]
	Ternary bool   // the master weights of a ternary layer

	read func(dst []float32)
}

// Len is the number of elements.
func (w *Weight) Len() int {
	n := 1
	for _, d := range w.Shape {
		n *= d
	}
	return n
}

// Weights lists the model's tensors in the order of a forward pass. Those of ternary layers are the master weights of a
// trainable model; of another they are made up so that quantizing them gives the codes and scales that the model has, see
// LoadOptions.Trainable. A model whose scales were learned has no such weights (ErrExport).
func (m *Model) Weights() ([]Weight, error) {
	if m.LearnsScales() {
		return nil, fmt.Errorf("%w: its scales were learned, and of master weights the scale would be their mean", ErrExport)
	}
	var all []Weight
	vector := func(name string, values []float32) {
		if values != nil {
			all = append(all, Weight{Name: name, Shape: []int{len(values)}, read: func(dst []float32) { copy(dst, values) }})
		}
	}
	norm := func(name string, n *nn.Norm) error {
		vector(name+".weight", n.Weight)
		vector(name+".bias", n.Bias)
		return nil
	}
	err := m.eachWeight(func(name string, l *nn.Linear) error {
		if l.Norm != nil {
			vector(name+".rms_norm.weight", l.Norm.Weight)
		}
		all = append(all, Weight{Name: name + ".weight", Shape: []int{l.Out, l.In}, Ternary: l.Ternary != nil, read: func(dst []float32) { readMasters(dst, l) }})
		vector(name+".bias", l.Bias)
		return nil
	}, norm)
	return all, err
}

// readMasters fills w with the master weights of a layer that is in memory.
func readMasters(w []float32, l *nn.Linear) {
	switch {
	case l.Weight != nil:
		copy(w, l.Weight.Data)
	case l.Ternary != nil:
		copyRows(w, l.In, derivedMasters(l.Ternary))
	default:
		copyRows(w, l.In, l.Dense.Row)
	}
}

// ReadWeight gives the tensor of that name in Weights. The model must be acquired.
func (m *Model) ReadWeight(name string) ([]float32, error) {
	all, err := m.Weights()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(w Weight) bool { return w.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("%w: the model has no %q", ErrWeight, name)
	}
	dst := make([]float32, all[i].Len())
	all[i].read(dst)
	return dst, nil
}
