// Package container is what the formats of named tensors have in common: a file,
// mapped into memory or read, whose parts are handed out as views, the interface that
// hides whether a checkpoint is one file or several, and the error that says
// what is wrong with a file and where. Packages safetensors and gguf read and
// write the formats themselves.
package container

import (
	"fmt"
	"io"
)

// Info describes a tensor of an open file.
type Info struct {
	Name  string // unique in the file
	DType string // as the format spells it: "F32", "BF16", "U8", "TQ2_0", ...
	Shape []int  // slowest dimension first, empty for a scalar
	Path  string // file that holds it
	// Offset and Size in bytes, counted from the start of the file's data.
	Offset, Size int64
}

// View is a tensor in the mapped file. Data is the file itself, not a copy: it
// must not be written to, and is valid until the file is closed. It may start at
// any byte address; decode it accordingly. Of a file that is not in memory (see
// OpenReader) it is nil, and Open reads the bytes.
type View struct {
	Name  string // as in Info
	DType string // as in Info
	Shape []int  // as in Info
	Data  []byte
	File  *File // that has it

	begin, end int // in the file
}

// Path returns the name of the file that holds the tensor.
func (v View) Path() string { return v.File.path }

// Size is how many bytes the file has of the tensor.
func (v View) Size() int {
	if v.Data != nil {
		return len(v.Data)
	}
	return v.end - v.begin
}

// Open reads the tensor's bytes from the first one on, wherever the file is.
func (v View) Open() io.Reader { return v.File.open(v.Data, v.begin, v.end) }

// Elements returns the product of the shape.
func (v View) Elements() int {
	n := 1
	for _, d := range v.Shape {
		n *= d
	}
	return n
}

// Check returns an Error of kind ErrMismatch unless the view has one of the
// dtypes and exactly the shape, where -1 stands for any extent. It is what
// loaders call before they believe a tensor's size.
func (v View) Check(shape []int, dtypes ...string) error {
	e := &Error{Kind: ErrMismatch, Path: v.File.path, Tensor: v.Name}
	known := len(dtypes) == 0
	for _, d := range dtypes {
		known = known || d == v.DType
	}
	if !known {
		e.Field, e.Found, e.Expected = "dtype", v.DType, fmt.Sprintf("one of %v", dtypes)
		return e
	}
	same := len(shape) == len(v.Shape)
	for i := 0; same && i < len(shape); i++ {
		same = shape[i] == v.Shape[i] || shape[i] == -1
	}
	if !same {
		e.Field, e.Found, e.Expected = "shape", Clip(fmt.Sprint(v.Shape)), fmt.Sprint(shape)
		return e
	}
	return nil
}

// Advise tells the system how the view will be used.
func (v View) Advise(a Advice) error { return v.named(v.File.Advise(v.Data, a)) }

// ReleasePages gives the view's resident pages back; see File.ReleasePages.
func (v View) ReleasePages() error { return v.named(v.File.ReleasePages(v.Data)) }

func (v View) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("tensor %s: %w", Quote(v.Name), err)
}

// Set is a checkpoint: one file, or several that belong together. Its methods
// may be called from several goroutines.
type Set interface {
	// Tensors lists what the set holds, sorted by file and offset: reading in
	// this order reads the disk forward.
	Tensors() []Info
	// Tensor returns a view, or an Error of kind ErrTensorMissing.
	Tensor(name string) (View, error)
	// Has says whether the set holds the tensor.
	Has(name string) bool
	// Path is what the set was opened from.
	Path() string
	// Close invalidates all views. Closing twice is fine.
	Close() error
}
