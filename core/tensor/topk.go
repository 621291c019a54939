package tensor

import "slices"

// TopK returns the k largest (or smallest) elements along an axis, best first,
// and their indices (int64). Of equal elements the one with the lower index
// comes first; NaN counts as larger than everything.
func TopK(x *Tensor, k, axis int, largest bool) (values, indices *Tensor, err error) {
	axis, err = axisOf("topk", axis, x.shape)
	if err != nil {
		return nil, nil, err
	}
	if k < 0 || k > x.shape[axis] {
		return nil, nil, shapeErrorf("topk: k is %d, expected 0 to %d, the length of axis %d of shape %s", k, x.shape[axis], axis, formatShape(x.shape))
	}
	if indices, err = New(Int64, withLength(x.shape, axis, k)...); err != nil || k == 0 {
		if err == nil {
			values, err = New(x.dtype, withLength(x.shape, axis, k)...)
		}
		return values, indices, err
	}
	switch x.dtype.computed() {
	case Int32, Int64:
		mapLines(indices, x, axis, topKernel[int64](largest))
	case Int8:
		mapLines(indices, x, axis, topKernel[int8](largest))
	case UInt8, Bool:
		mapLines(indices, x, axis, topKernel[uint8](largest))
	default:
		mapLines(indices, x, axis, topKernel[float32](largest))
	}
	values, err = Gather(x, indices, axis)
	return values, indices, err
}

// topKernel writes the indices of the len(dst) best elements of x. It keeps
// the best so far in a heap whose root is the worst of them.
func topKernel[T number](largest bool) func(dst []int64, x []T) {
	return func(dst []int64, x []T) {
		// order is negative when a comes before b in the result.
		order := func(a, b int64) int {
			c := compare(x[b], x[a])
			if !largest {
				c = -c
			}
			if c == 0 {
				c = int(a - b)
			}
			return c
		}
		k := len(dst)
		for i := range dst {
			dst[i] = int64(i)
		}
		for i := k/2 - 1; i >= 0; i-- {
			siftDown(dst, i, order)
		}
		for i := int64(k); i < int64(len(x)); i++ {
			if order(i, dst[0]) < 0 {
				dst[0] = i
				siftDown(dst, 0, order)
			}
		}
		slices.SortFunc(dst, order)
	}
}

// siftDown restores the heap below i: no element comes before its parent.
func siftDown(heap []int64, i int, order func(a, b int64) int) {
	for {
		child := 2*i + 1
		if child >= len(heap) {
			return
		}
		if child+1 < len(heap) && order(heap[child+1], heap[child]) > 0 {
			child++
		}
		if order(heap[child], heap[i]) <= 0 {
			return
		}
		heap[i], heap[child] = heap[child], heap[i]
		i = child
	}
}

// compare orders numbers with NaN as the largest.
func compare[T number](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	case a == b:
		return 0
	case a == a: // b is NaN
		return -1
	case b == b:
		return 1
	}
	return 0
}
