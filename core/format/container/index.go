package container

import (
	"fmt"
	"slices"
)

// Indexed is a file whose header was read: the tensors and where they lie. It
// has the methods of Set, for formats to embed.
type Indexed struct {
	*File
	tensors []Info // by offset
	byName  map[string]int
	start   int // where offsets count from, in bytes from the start of the file
}

// Index ties the tensors, sorted by offset and checked to lie in the file, to
// the file; their offsets count from byte start.
func Index(f *File, tensors []Info, start int) Indexed {
	x := Indexed{File: f, tensors: tensors, byName: make(map[string]int, len(tensors)), start: start}
	for i, t := range tensors {
		x.byName[t.Name] = i
	}
	return x
}

// Tensors lists the file's tensors by offset. After Close it still works.
func (x *Indexed) Tensors() []Info {
	out := slices.Clone(x.tensors)
	for i := range out {
		out[i].Shape = slices.Clone(out[i].Shape)
	}
	return out
}

// Has says whether the file holds the tensor.
func (x *Indexed) Has(name string) bool {
	_, ok := x.byName[name]
	return ok
}

// Tensor returns a view of the named tensor, or an Error of kind
// ErrTensorMissing; after Close, ErrClosed.
func (x *Indexed) Tensor(name string) (View, error) {
	i, ok := x.byName[name]
	if !ok {
		return View{}, &Error{Kind: ErrTensorMissing, Path: x.path, Tensor: name}
	}
	t := &x.tensors[i]
	v := View{Name: t.Name, DType: t.DType, Shape: slices.Clone(t.Shape), File: x.File, begin: x.start + int(t.Offset)}
	v.end = v.begin + int(t.Size)
	if !x.Mapped() {
		return v, nil
	}
	var err error
	if v.Data, err = x.Part(v.begin, v.end); err != nil {
		return View{}, fmt.Errorf("tensor %s: %w", Quote(name), err)
	}
	return v, nil
}
