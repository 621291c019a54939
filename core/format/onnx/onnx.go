// Package onnx reads ONNX models: the graph's nodes, and its initializers as
// the named tensors of a container.Set. A file is a protobuf message
// (onnx.proto of github.com/onnx/onnx), which is read as it lies in the mapped
// file: tensors are views of it, or of the data files beside it that it names.
// What a node computes is for others to know.
//
// Every count, length and shape is checked before anything is allocated for it,
// and a data file has to be a regular file beside the model.
package onnx

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// Node is one operation of the graph.
type Node struct {
	Name, Op        string   // of the node, and of its operation: "MatMul"
	Domain          string   // "" for ONNX's own operations
	Inputs, Outputs []string // names of values; "" for one that is left out
	Ints            []Ints   // attributes that are integers or lists of them
	Subgraph        bool     // it has attributes that are graphs: a branch or a loop
	Scopes          string   // the modules it is in, as PyTorch notes them: a Python list of names
}

// Ints is an attribute of a node: an integer, or a list of them.
type Ints struct {
	Name   string  // of the attribute
	Values []int64 // one, or those of the list
}

// Int returns the attribute of that name if it is one integer, and else 0.
func (n *Node) Int(name string) int64 {
	for _, a := range n.Ints {
		if a.Name == name && len(a.Values) == 1 {
			return a.Values[0]
		}
	}
	return 0
}

// Value is an input or output of the graph. Dimensions without a fixed size,
// such as a batch, are 0.
type Value struct {
	Name  string // by which nodes use it
	Shape []int  // slowest dimension first
}

// Model is an open ONNX model. Its methods may be called from several
// goroutines, Close included.
type Model struct {
	Producer string            // name and version of the program that wrote it
	Opset    int               // version of ONNX's own operations
	Metadata map[string]string // metadata_props
	Nodes    []Node            // in the order of the file
	Inputs   []Value           // without those that are initializers
	Outputs  []Value           // of the graph

	file    *container.File
	data    map[string]*container.File // data files by name
	tensors []container.Info           // by file and offset
	places  map[string]place
}

var _ container.Set = (*Model)(nil)

// place is where a tensor's bytes lie.
type place struct {
	index int // among the tensors
	file  *container.File
	typed bool // int32_data: a number for each element
}

// Open maps a model and the data files that it names, and checks them.
//
// Errors: a container.Error naming what is wrong, or the system's error (test
// with errors.Is(err, fs.ErrNotExist)).
func Open(path string) (*Model, error) {
	f, err := container.Open(path)
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	return newModel(f, path)
}

// OpenBytes checks content that is already in memory, under a name used in
// errors. It has no data files. The views alias content.
func OpenBytes(name string, content []byte) (*Model, error) {
	return newModel(container.OpenBytes(name, content), "")
}

func newModel(f *container.File, path string) (*Model, error) {
	m := &Model{file: f, data: map[string]*container.File{}, places: map[string]place{}, Metadata: map[string]string{}}
	p := parser{model: m, path: f.Path(), beside: path}
	if err := f.Parse(p.parse); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	m.order()
	return m, nil
}

// order sorts the tensors by file and offset.
func (m *Model) order() {
	slices.SortStableFunc(m.tensors, func(a, b container.Info) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Offset, b.Offset))
	})
	for i, t := range m.tensors {
		at := m.places[t.Name]
		at.index = i
		m.places[t.Name] = at
	}
}

// Tensors lists the initializers, and the values of Constant nodes under the
// names of their outputs. After Close it still works.
func (m *Model) Tensors() []container.Info {
	out := slices.Clone(m.tensors)
	for i := range out {
		out[i].Shape = slices.Clone(out[i].Shape)
	}
	return out
}

// Has says whether there is a tensor of that name.
func (m *Model) Has(name string) bool {
	_, ok := m.places[name]
	return ok
}

// Tensor returns a view, or an Error of kind ErrTensorMissing. Numbers that are
// stored one by one (int32_data) are a copy.
func (m *Model) Tensor(name string) (container.View, error) {
	at, ok := m.places[name]
	if !ok {
		return container.View{}, &container.Error{Kind: container.ErrTensorMissing, Path: m.Path(), Tensor: name}
	}
	t := &m.tensors[at.index]
	data, err := at.file.Part(int(t.Offset), int(t.Offset+t.Size))
	if err != nil {
		return container.View{}, fmt.Errorf("tensor %s: %w", container.Quote(name), err)
	}
	v := container.View{Name: name, DType: t.DType, Shape: slices.Clone(t.Shape), Data: data, File: at.file}
	if at.typed {
		if v.Data, err = joinNumbers(v); err != nil {
			return container.View{}, err
		}
		v.File = container.OpenBytes(at.file.Path(), v.Data)
	}
	return v, nil
}

// Path returns the name the model was opened by.
func (m *Model) Path() string { return m.file.Path() }

// Close takes the mappings away: views handed out before must not be touched
// any more. Closing again does nothing.
func (m *Model) Close() error {
	errs := []error{m.file.Close()}
	for _, f := range m.data {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
