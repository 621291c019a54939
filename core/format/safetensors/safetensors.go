// Package safetensors reads and writes the safetensors container: a plain file
// of named tensors that can be mapped into memory and used in place.
//
// A file is
//
//	8 bytes    n, length of the header, little-endian uint64
//	n bytes    JSON: {"name": {"dtype": "BF16", "shape": [r, c], "data_offsets": [begin, end]}, ...,
//	                  "__metadata__": {"key": "value", ...}}, may be padded with spaces
//	the rest   the tensors' bytes, row-major, little-endian; offsets count from here
//
// The bytes come from strangers, so the package trusts none of them: Open
// parses the header, validates every number in it against the file's real size
// (header length, dtype, shape product, offsets, overlaps, holes), and only
// then hands out views. It never allocates by a number read from the file, only
// in proportion to bytes that are there. Each way to be wrong has its own error
// value, see errors.go; tests_go/testdata/attacks holds a file for each.
//
// Checkpoints too large for one file are split: model.safetensors.index.json
// maps every tensor to its shard. OpenSet hides the difference behind Set.
package safetensors

import "fmt"

// Info describes a tensor of an open file.
type Info struct {
	Name  string
	DType string // as the file spells it: "F32", "BF16", "U8", ...
	Shape []int  // empty for a scalar
	Path  string // file that holds it
	// Offset and Size in bytes, counted from the start of the file's data.
	Offset, Size int64
}

// View is a tensor in the mapped file. Data is the file itself, not a copy: it
// must not be written to, and is valid until the File is closed (see
// File.Retain). Data may start at any byte address; decode it accordingly.
type View struct {
	Name  string
	DType string
	Shape []int
	Data  []byte
	file  *File
}

// Path returns the file that holds the tensor.
func (v View) Path() string { return v.file.path }

// Elements returns the product of the shape.
func (v View) Elements() int {
	n := 1
	for _, d := range v.Shape {
		n *= d
	}
	return n
}

// Check returns a FormatError of kind ErrMismatch unless the view has one of
// the dtypes and exactly the shape, where -1 stands for any extent. It is what
// loaders call before they believe a tensor's size.
func (v View) Check(shape []int, dtypes ...string) error {
	e := &FormatError{Kind: ErrMismatch, Path: v.file.path, Tensor: v.Name}
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
		e.Field, e.Found, e.Expected = "shape", clip(fmt.Sprint(v.Shape)), fmt.Sprint(shape)
		return e
	}
	return nil
}

// Advise tells the system how the view will be used.
func (v View) Advise(a Advice) error { return v.file.Advise(v, a) }

// ReleasePages gives the view's resident pages back; see File.ReleasePages.
func (v View) ReleasePages() error { return v.file.ReleasePages(v) }

// Advice is a hint about a view's future use.
type Advice uint8

const (
	// WillNeed starts reading the pages in the background.
	WillNeed Advice = iota
	// Sequential asks for a large read-ahead.
	Sequential
	// Random turns read-ahead off.
	Random
)

// Set is a checkpoint: one file, or several that an index ties together. Its
// methods may be called from several goroutines.
type Set interface {
	// Tensors lists what the set holds, sorted by file and offset: reading in
	// this order reads the disk forward.
	Tensors() []Info
	// Tensor returns a view, or a FormatError of kind ErrTensorMissing.
	Tensor(name string) (View, error)
	// Has says whether the set holds the tensor.
	Has(name string) bool
	// Metadata returns a copy of the file's __metadata__ (for shards: of all,
	// the first shard in name order winning).
	Metadata() map[string]string
	// Path is what the set was opened from.
	Path() string
	// Close invalidates all views. Closing twice is fine.
	Close() error
}
