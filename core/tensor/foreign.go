package tensor

import (
	"math"
	"slices"
	"unsafe"
)

// FromForeign makes a tensor over memory that another library laid out, without copying: element [0, ..., 0] is at first,
// strides are in elements and may be negative, and owner keeps the memory for as long as a tensor over it is reachable. Bools are checked as
// in [FromBytes]; Ternary has no such memory. The caller vouches for the memory that shape and strides reach.
func FromForeign(dt DType, first unsafe.Pointer, owner Releaser, shape, strides []int) (*Tensor, error) {
	if dt == Ternary {
		return nil, dtypeErrorf("ternary tensors have a memory of their own kind")
	}
	if len(shape) != len(strides) {
		return nil, shapeErrorf("shape %s with %d strides", formatShape(shape), len(strides))
	}
	if _, err := storageBytes(dt, shape); err != nil {
		return nil, err
	}
	t := &Tensor{dtype: dt, shape: slices.Clone(shape), strides: slices.Clone(strides), owner: &ownership{owner}}
	if t.Len() == 0 {
		rowMajor(t.strides, dt, shape)
		return t, nil
	}
	low, high := 0, 0 // the elements that are reached, from the first
	for i, n := range shape {
		if n == 1 {
			t.strides[i] = 0 // says nothing, and may be anything
			continue
		}
		const most = math.MaxInt / 32
		if s := strides[i]; s > most/n || s < -most/n || high-low > most {
			return nil, shapeErrorf("shape %s with strides %v is too large to address", formatShape(shape), strides)
		}
		reach := (n - 1) * strides[i]
		low, high = low+min(reach, 0), high+max(reach, 0)
	}
	size := dt.Size()
	t.offset = -low
	t.data = unsafe.Slice((*byte)(unsafe.Add(first, low*size)), (high-low+1)*size)
	return t, validateCodes(dt, t.data)
}

// First is where element [0, ..., 0] lies, nil for a tensor of no elements. The memory stays there while the tensor is reachable.
// Ternary tensors, whose elements share bytes, have no such place.
func (t *Tensor) First() (unsafe.Pointer, error) {
	if t.dtype == Ternary {
		return nil, dtypeErrorf("ternary elements share bytes: cast to int8 to share memory")
	}
	if t.Len() == 0 {
		return nil, nil
	}
	return unsafe.Pointer(&t.data[t.offset*t.dtype.Size()]), nil
}
