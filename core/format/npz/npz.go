// Package npz reads and writes NumPy's array files: .npy (one array) and .npz
// (a zip archive of .npy files, what numpy.savez makes). The project's golden
// vectors come in them, and users exchange calibration data and logits by them.
//
// It is a thin room over codeberg.org/sbinet/npyio, which parses the header's
// Python literal. What it adds is distrust and shape: sizes in a file are
// checked against the bytes that are there before anything is allocated (a
// deflated archive can claim a thousand times its size), arrays of any rank
// load and save, Fortran order and big-endian files arrive as row-major
// little-endian, and errors are typed.
//
// Not supported, with a typed error: strings, records, complex numbers and
// pickled objects (loading those runs code of the file's author).
package npz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Errors, wrapped in messages that name file, array, found and expected.
var (
	ErrFormat = errors.New("npz: malformed file")
	ErrDType  = errors.New("npz: dtype")
	ErrTooBig = errors.New("npz: larger than the limit")
)

// Element lists the Go types an array's elements can be read as. Float16 comes
// as its bits in uint16 through Float16Bits.
type Element interface {
	bool | int8 | uint8 | int16 | uint16 | int32 | uint32 | int64 | uint64 | float32 | float64
}

// widths gives the bytes per element of the dtypes that load, by NumPy's name.
var widths = map[string]int{
	"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2,
	"int32": 4, "uint32": 4, "float32": 4, "int64": 8, "uint64": 8, "float64": 8,
}

// Array is an array in memory: row-major, whatever the file's order was.
type Array struct {
	DType string // NumPy's name: "float32", "int8", ...
	Shape []int  // empty for a scalar
	data  []byte // little-endian
}

// New makes an array from row-major elements. The product of the shape must be
// the number of elements.
func New[T Element](data []T, shape ...int) (Array, error) {
	if n, ok := elements(shape); !ok || n != len(data) {
		return Array{}, fmt.Errorf("%w: %d elements cannot have shape %v", ErrFormat, len(data), shape)
	}
	raw, err := binary.Append(nil, binary.LittleEndian, data)
	if err != nil {
		return Array{}, fmt.Errorf("npz: %w", err)
	}
	return Array{DType: fmt.Sprintf("%T", *new(T)), Shape: slices.Clone(shape), data: raw}, nil
}

// Len returns the number of elements.
func (a Array) Len() int {
	if a.DType == "" {
		return 0
	}
	return len(a.data) / widths[a.DType]
}

// Bytes returns the elements as row-major little-endian bytes, without a copy.
func (a Array) Bytes() []byte { return a.data }

// Values returns the elements as []T, which must be the array's own dtype: the
// package never converts silently.
func Values[T Element](a Array) ([]T, error) {
	out := make([]T, a.Len())
	if want := fmt.Sprintf("%T", *new(T)); want != a.DType {
		return nil, fmt.Errorf("%w: found %s, expected %s", ErrDType, a.DType, want)
	}
	if _, err := binary.Decode(a.data, binary.LittleEndian, out); err != nil {
		return nil, fmt.Errorf("npz: %w", err)
	}
	return out, nil
}

// Float32s returns a float32 array's elements.
func (a Array) Float32s() ([]float32, error) { return Values[float32](a) }

// Int8s returns an int8 array's elements.
func (a Array) Int8s() ([]int8, error) { return Values[int8](a) }

// Uint8s returns a uint8 array's elements.
func (a Array) Uint8s() ([]uint8, error) { return Values[uint8](a) }

// Int32s returns an int32 array's elements.
func (a Array) Int32s() ([]int32, error) { return Values[int32](a) }

// Int64s returns an int64 array's elements.
func (a Array) Int64s() ([]int64, error) { return Values[int64](a) }

// Float16Bits returns a float16 array's elements as their IEEE bits.
func (a Array) Float16Bits() ([]uint16, error) {
	if a.DType != "float16" {
		return nil, fmt.Errorf("%w: found %s, expected float16", ErrDType, a.DType)
	}
	return Values[uint16](Array{DType: "uint16", Shape: a.Shape, data: a.data})
}

// elements is the product of a shape, false when it is negative or overflows.
func elements(shape []int) (int, bool) {
	n, empty := 1, false
	for _, d := range shape {
		switch {
		case d < 0:
			return 0, false
		case d == 0:
			empty = true
		case n > math.MaxInt/16/d: // leaves room for the element's width
			return 0, false
		default:
			n *= d
		}
	}
	if empty {
		n = 0
	}
	return n, true
}
