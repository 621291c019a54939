package tensor

import "slices"

// Concat joins tensors along an axis into a new one; the other axes must
// agree, the dtypes promote.
func Concat(axis int, tensors ...*Tensor) (*Tensor, error) {
	if len(tensors) == 0 {
		return nil, valueErrorf("concat: no tensors given")
	}
	first := tensors[0]
	axis, err := axisOf("concat", axis, first.shape)
	if err != nil {
		return nil, err
	}
	dt, n := first.dtype, 0
	for _, t := range tensors {
		if len(t.shape) != len(first.shape) || !slices.Equal(without(t.shape, axis), without(first.shape, axis)) {
			return nil, shapeErrorf("concat: shapes %s and %s differ outside axis %d", formatShape(first.shape), formatShape(t.shape), axis)
		}
		if t.dtype != dt {
			dt = Promote(dt, t.dtype)
		}
		n += t.shape[axis]
	}
	out, err := New(dt, withLength(first.shape, axis, n)...)
	if err != nil {
		return nil, err
	}
	at := 0
	for _, t := range tensors {
		copyAs(out.view(t.shape, out.strides, out.offset+at*out.strides[axis]), t)
		at += t.shape[axis]
	}
	return out, nil
}

// Stack joins tensors of one shape along a new axis.
func Stack(axis int, tensors ...*Tensor) (*Tensor, error) {
	rows := make([]*Tensor, len(tensors))
	for i, t := range tensors {
		if !slices.Equal(t.shape, tensors[0].shape) {
			return nil, shapeErrorf("stack: shapes %s and %s differ", formatShape(tensors[0].shape), formatShape(t.shape))
		}
		row, err := t.Unsqueeze(axis)
		if err != nil {
			return nil, err
		}
		rows[i] = row
	}
	if axis < 0 && len(tensors) > 0 {
		axis += len(tensors[0].shape) + 1
	}
	return Concat(axis, rows...)
}

// Split cuts an axis into pieces of the given sizes, which must add up to its
// length. The pieces are views.
func (t *Tensor) Split(axis int, sizes ...int) ([]*Tensor, error) {
	axis, err := axisOf("split", axis, t.shape)
	if err != nil {
		return nil, err
	}
	left, at := t.shape[axis], 0
	parts := make([]*Tensor, len(sizes))
	for i, n := range sizes {
		if n < 0 || n > left {
			return nil, shapeErrorf("split: sizes %v do not add up to %d, the length of axis %d of shape %s", sizes, t.shape[axis], axis, formatShape(t.shape))
		}
		if parts[i], err = t.Slice(axis, at, at+n, 1); err != nil {
			return nil, err
		}
		at += n
		left -= n
	}
	if left != 0 {
		return nil, shapeErrorf("split: sizes %v do not add up to %d, the length of axis %d of shape %s", sizes, t.shape[axis], axis, formatShape(t.shape))
	}
	return parts, nil
}

// Chunk cuts an axis into n pieces as equal as can be; the first ones are one
// longer, as in numpy.array_split.
func (t *Tensor) Chunk(axis, n int) ([]*Tensor, error) {
	axis, err := axisOf("chunk", axis, t.shape)
	if err != nil {
		return nil, err
	}
	if n < 1 || n > 1<<20 {
		return nil, valueErrorf("chunk: %d pieces asked for (shape %s)", n, formatShape(t.shape))
	}
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = t.shape[axis] / n
		if i < t.shape[axis]%n {
			sizes[i]++
		}
	}
	return t.Split(axis, sizes...)
}

// Triu keeps the elements on and above diagonal k of each matrix (the last two
// axes) and zeroes the others; k > 0 lies above the main diagonal.
func Triu(x *Tensor, k int) (*Tensor, error) {
	return triangle("triu", x, func(row, n int) (lo, hi int) { return min(max(row+min(k, n), 0), n), n })
}

// Tril keeps the elements on and below diagonal k.
func Tril(x *Tensor, k int) (*Tensor, error) {
	return triangle("tril", x, func(row, n int) (lo, hi int) { return 0, min(max(row+1+min(k, n), 0), n) })
}

// triangle copies the elements lo..hi of each row into zeros.
func triangle(op string, x *Tensor, keep func(row, n int) (lo, hi int)) (*Tensor, error) {
	d := len(x.shape)
	if d < 2 {
		return nil, shapeErrorf("%s: at least two axes expected, got shape %s", op, formatShape(x.shape))
	}
	out, err := New(x.dtype, x.shape...)
	if err != nil {
		return nil, err
	}
	for row := range x.shape[d-2] {
		lo, hi := keep(row, x.shape[d-1])
		shape := append(slices.Clone(x.shape[:d-2]), hi-lo)
		part := func(t *Tensor) *Tensor {
			strides := append(slices.Clone(t.strides[:d-2]), t.strides[d-1])
			return t.view(shape, strides, t.offset+row*t.strides[d-2]+lo*t.strides[d-1])
		}
		copyAs(part(out), part(x))
	}
	return out, nil
}
