package tensor

import (
	"math"
	"slices"
	"unsafe"
)

// Releaser owns the bytes under a tensor when they are not Go heap memory, for
// example a block of core/pool. Release is called when no tensor uses them.
type Releaser interface{ Release() }

// Tensor is an N-dimensional array. The zero value is an empty header for
// [Tensor.Rebind]; every other tensor comes from a constructor or an operation.
//
// Headers are not changed by operations and may be read concurrently. Data is
// as safe as any slice: concurrent reads are fine, writes are the caller's.
type Tensor struct {
	dtype   DType
	shape   []int
	strides []int // in elements; Ternary rows start at multiples of four elements
	offset  int   // in elements
	data    []byte
	owner   *ownership
}

// ownership is shared by a tensor and its views so that the owner is released
// once.
type ownership struct{ r Releaser }

// New returns a tensor of zeros on the Go heap.
func New(dt DType, shape ...int) (*Tensor, error) {
	bytes, err := storageBytes(dt, shape)
	if err != nil {
		return nil, err
	}
	if limit := memoryLimit(); int64(bytes) > limit {
		return nil, memoryErrorf(dt, shape, bytes, limit)
	}
	words := make([]uint64, (bytes+7)/8) // keeps every dtype aligned
	if dt == Ternary {
		for i := range words {
			words[i] = 0x5555555555555555 // the code of 0 is 1
		}
	}
	return header(dt, shape, bytesOf(words)[:bytes:bytes]), nil
}

// FromBytes makes a tensor over data without copying; data is row-major,
// little-endian, of exactly the size that dtype and shape ask for. A Bool or
// Ternary tensor's bytes are checked, since other values would break kernels.
func FromBytes(dt DType, data []byte, shape ...int) (*Tensor, error) {
	want, err := storageBytes(dt, shape)
	if err != nil {
		return nil, err
	}
	if want != len(data) {
		return nil, shapeErrorf("%s tensor of shape %s takes %d bytes, got %d", dt, formatShape(shape), want, len(data))
	}
	if err := validateCodes(dt, data); err != nil {
		return nil, err
	}
	return header(dt, shape, data), nil
}

// FromOwned is FromBytes over memory that owner holds: [Tensor.Release] gives
// it back. On error the memory stays the caller's.
func FromOwned(dt DType, data []byte, owner Releaser, shape ...int) (*Tensor, error) {
	t, err := FromBytes(dt, data, shape...)
	if err == nil {
		t.owner = &ownership{owner}
	}
	return t, err
}

// FromFloat32 makes a float32 tensor over data without copying.
func FromFloat32(data []float32, shape ...int) (*Tensor, error) {
	return FromBytes(Float32, bytesOf(data), shape...)
}

// FromInt8 makes an int8 tensor over data without copying.
func FromInt8(data []int8, shape ...int) (*Tensor, error) {
	return FromBytes(Int8, bytesOf(data), shape...)
}

// FromInt32 makes an int32 tensor over data without copying.
func FromInt32(data []int32, shape ...int) (*Tensor, error) {
	return FromBytes(Int32, bytesOf(data), shape...)
}

// FromInt64 makes an int64 tensor over data without copying.
func FromInt64(data []int64, shape ...int) (*Tensor, error) {
	return FromBytes(Int64, bytesOf(data), shape...)
}

// Rebind points t at other contiguous float32 memory, as an engine does with
// the headers of its scratch tensors. It does not allocate once t has had this
// many dimensions. The shape must cover data exactly: a mismatch is a bug of
// the caller and panics. Views made earlier keep the old memory.
func (t *Tensor) Rebind(data []float32, shape ...int) {
	n := 1
	for _, d := range shape {
		n *= d
	}
	if n != len(data) {
		panic("tensor: Rebind: shape does not cover the data")
	}
	t.dtype, t.offset, t.owner = Float32, 0, nil
	t.data = bytesOf(data)
	t.shape = append(t.shape[:0], shape...)
	t.strides = append(t.strides[:0], shape...)
	rowMajor(t.strides, Float32, shape)
}

// Release gives the memory back to its owner, if it has one; later calls do
// nothing. No view of t may be used afterwards.
func (t *Tensor) Release() {
	if t.owner != nil && t.owner.r != nil {
		r := t.owner.r
		t.owner.r = nil
		t.data = nil
		r.Release()
	}
}

// Owner returns who holds the memory, nil if it is on the Go heap or was given
// back.
func (t *Tensor) Owner() Releaser {
	if t.owner == nil {
		return nil
	}
	return t.owner.r
}

// Shape returns the lengths of the axes. The slice belongs to t.
func (t *Tensor) Shape() []int { return t.shape }

// Strides returns the step of each axis in elements. The slice belongs to t.
func (t *Tensor) Strides() []int { return t.strides }

// Dim returns the length of axis i; negative i counts from the last axis.
// An axis that does not exist panics as an index into Shape would.
func (t *Tensor) Dim(i int) int {
	if i < 0 {
		i += len(t.shape)
	}
	return t.shape[i]
}

// NDim returns the number of axes.
func (t *Tensor) NDim() int { return len(t.shape) }

// DType returns the element type.
func (t *Tensor) DType() DType { return t.dtype }

// Len returns the number of elements.
func (t *Tensor) Len() int { return product(t.shape) }

// IsContiguous reports whether the elements lie in row-major order without
// gaps, as a new tensor of this dtype and shape has them.
func (t *Tensor) IsContiguous() bool {
	if t.dtype == Ternary && t.offset%4 != 0 {
		return false
	}
	want := 1
	for i := len(t.shape) - 1; i >= 0; i-- {
		n := t.shape[i]
		if n == 0 {
			return true
		}
		if n != 1 && t.strides[i] != want {
			return false
		}
		want *= n
		if t.dtype == Ternary && i == len(t.shape)-1 {
			want = padTo4(want)
		}
	}
	return true
}

// Bytes returns the stored bytes of a contiguous tensor, row-major, without a
// copy. It panics when t is not contiguous.
func (t *Tensor) Bytes() []byte {
	if !t.IsContiguous() {
		panic("tensor: Bytes of a tensor that is not contiguous, shape " + formatShape(t.shape))
	}
	n, err := storageBytes(t.dtype, t.shape)
	if err != nil {
		panic(err) // a tensor's own shape was checked when it was made
	}
	if n == 0 {
		return nil
	}
	start := t.offset * t.dtype.Size()
	if t.dtype == Ternary {
		start = t.offset / 4
	}
	return t.data[start : start+n : start+n]
}

// Float32s returns the elements of a contiguous float32 tensor without a copy;
// it panics on any other tensor. Int8s, Int32s and Int64s are its siblings.
func (t *Tensor) Float32s() []float32 { return contiguous[float32](t, Float32) }

// Int8s returns the elements of a contiguous int8 tensor without a copy.
func (t *Tensor) Int8s() []int8 { return contiguous[int8](t, Int8) }

// Int32s returns the elements of a contiguous int32 tensor without a copy.
func (t *Tensor) Int32s() []int32 { return contiguous[int32](t, Int32) }

// Int64s returns the elements of a contiguous int64 tensor without a copy.
func (t *Tensor) Int64s() []int64 { return contiguous[int64](t, Int64) }

func contiguous[T any](t *Tensor, want DType) []T {
	if t.dtype != want {
		panic("tensor: elements of a " + t.dtype.String() + " tensor asked for as " + want.String())
	}
	return cast[T](t.Bytes())
}

// header makes a contiguous tensor over data; sizes were checked before.
func header(dt DType, shape []int, data []byte) *Tensor {
	t := &Tensor{dtype: dt, shape: slices.Clone(shape), strides: make([]int, len(shape)), data: data}
	rowMajor(t.strides, dt, shape)
	return t
}

// rowMajor fills strides with those of a contiguous tensor.
func rowMajor(strides []int, dt DType, shape []int) {
	step := 1
	for i := len(shape) - 1; i >= 0; i-- {
		strides[i] = step
		step *= max(shape[i], 1)
		if dt == Ternary && i == len(shape)-1 {
			step = padTo4(step)
		}
	}
}

// storageBytes checks a shape and returns the bytes it takes.
func storageBytes(dt DType, shape []int) (int, error) {
	if !dt.Valid() {
		return 0, dtypeErrorf("dtype %d does not exist", dt)
	}
	zero := false
	for _, n := range shape {
		if n < 0 {
			return 0, shapeErrorf("shape %s has a negative length", formatShape(shape))
		}
		zero = zero || n == 0
	}
	size := max(dt.Size(), 1)
	for i, n := range shape {
		if dt == Ternary && i == len(shape)-1 {
			n = (n + 3) / 4
		}
		// Axes of length zero are skipped: the strides of the others must fit too.
		if n > 0 && size > math.MaxInt/8/n {
			return 0, shapeErrorf("shape %s of %s is too large to address", formatShape(shape), dt)
		}
		size *= max(n, 1)
	}
	if zero {
		return 0, nil
	}
	return size, nil
}

func validateCodes(dt DType, data []byte) error {
	for i, b := range data {
		switch {
		case dt == Bool && b > 1:
			return valueErrorf("byte %d of a bool tensor is %d, expected 0 or 1", i, b)
		case dt == Ternary && b&(b>>1)&0x55 != 0:
			return valueErrorf("byte %d of a ternary tensor holds the code 3, expected 0, 1 or 2", i)
		case dt != Bool && dt != Ternary:
			return nil
		}
	}
	return nil
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

func padTo4(n int) int { return (n + 3) &^ 3 }

// bytesOf and cast see one run of memory as another element type. The
// supported processors load unaligned words, so borrowed bytes need not be
// aligned.
func bytesOf[T any](s []T) []byte { return cast[byte](s) }

func cast[T, S any](s []S) []T {
	if len(s) == 0 {
		return nil
	}
	var from S
	var to T
	n := len(s) * int(unsafe.Sizeof(from)) / int(unsafe.Sizeof(to))
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(s))), n)
}
