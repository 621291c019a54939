package tensor

import (
	"math"
	"slices"
)

// None stands for a bound of [Tensor.Slice] that is left out, as in x[::-1].
const None = math.MinInt

// view returns a new header over the memory of t.
func (t *Tensor) view(shape, strides []int, offset int) *Tensor {
	return &Tensor{dtype: t.dtype, shape: shape, strides: strides, offset: offset, data: t.data, owner: t.owner}
}

// axis resolves an axis that may count from the end.
func axisOf(op string, axis int, shape []int) (int, error) {
	n := len(shape)
	if axis < -n || axis >= n {
		return 0, indexErrorf("%s: axis %d is out of range for shape %s", op, axis, formatShape(shape))
	}
	if axis < 0 {
		axis += n
	}
	return axis, nil
}

// Slice is Python's x[start:stop:step] on one axis, as a view: negative bounds
// count from the end, bounds are clipped, [None] leaves one out, step may be
// negative but not 0.
func (t *Tensor) Slice(axis, start, stop, step int) (*Tensor, error) {
	axis, err := axisOf("slice", axis, t.shape)
	if err != nil {
		return nil, err
	}
	if step == 0 || step == None {
		return nil, valueErrorf("slice: step must not be zero (shape %s, axis %d)", formatShape(t.shape), axis)
	}
	first, count := sliceBounds(t.shape[axis], start, stop, step)
	shape, strides := slices.Clone(t.shape), slices.Clone(t.strides)
	shape[axis] = count
	offset := t.offset
	if count > 0 {
		offset += first * strides[axis]
	}
	if count > 1 {
		strides[axis] *= step
	}
	return t.view(shape, strides, offset), nil
}

// sliceBounds resolves a slice of an axis of length n to its first index and
// its number of elements.
func sliceBounds(n, start, stop, step int) (first, count int) {
	low, high := 0, n
	if step < 0 {
		low, high = -1, n-1
	}
	clip := func(i, missing int) int {
		if i == None {
			return missing
		}
		if i < 0 {
			i += n
		}
		return min(max(i, low), high)
	}
	if step > 0 {
		start, stop = clip(start, low), clip(stop, high)
		if start < stop {
			count = (stop-start-1)/step + 1
		}
		return start, count
	}
	start, stop = clip(start, high), clip(stop, low)
	if start > stop {
		count = (start-stop-1)/-step + 1
	}
	return start, count
}

// Select is x[..., i, ...]: it takes index i of an axis and drops the axis.
func (t *Tensor) Select(axis, i int) (*Tensor, error) {
	axis, err := axisOf("select", axis, t.shape)
	if err != nil {
		return nil, err
	}
	n := t.shape[axis]
	if i < -n || i >= n {
		return nil, indexErrorf("select: index %d is out of range for axis %d of shape %s", i, axis, formatShape(t.shape))
	}
	if i < 0 {
		i += n
	}
	return t.view(without(t.shape, axis), without(t.strides, axis), t.offset+i*t.strides[axis]), nil
}

// Transpose swaps two axes, as a view.
func (t *Tensor) Transpose(a, b int) (*Tensor, error) {
	a, err := axisOf("transpose", a, t.shape)
	if err != nil {
		return nil, err
	}
	if b, err = axisOf("transpose", b, t.shape); err != nil {
		return nil, err
	}
	shape, strides := slices.Clone(t.shape), slices.Clone(t.strides)
	shape[a], shape[b] = shape[b], shape[a]
	strides[a], strides[b] = strides[b], strides[a]
	return t.view(shape, strides, t.offset), nil
}

// T reverses the order of the axes, as a view.
func (t *Tensor) T() *Tensor {
	shape, strides := slices.Clone(t.shape), slices.Clone(t.strides)
	slices.Reverse(shape)
	slices.Reverse(strides)
	return t.view(shape, strides, t.offset)
}

// Permute reorders the axes, as a view: axis i of the result is axis axes[i]
// of t. Every axis must appear once.
func (t *Tensor) Permute(axes ...int) (*Tensor, error) {
	if len(axes) != len(t.shape) {
		return nil, shapeErrorf("permute: %d axes given for shape %s", len(axes), formatShape(t.shape))
	}
	shape, strides := make([]int, len(axes)), make([]int, len(axes))
	seen := make([]bool, len(axes))
	for i, a := range axes {
		a, err := axisOf("permute", a, t.shape)
		if err != nil {
			return nil, err
		}
		if seen[a] {
			return nil, valueErrorf("permute: axis %d appears twice in %v", a, axes)
		}
		seen[a] = true
		shape[i], strides[i] = t.shape[a], t.strides[a]
	}
	return t.view(shape, strides, t.offset), nil
}

// Unsqueeze inserts an axis of length one before axis; axis may be one past
// the last, and negative ones count from there.
func (t *Tensor) Unsqueeze(axis int) (*Tensor, error) {
	n := len(t.shape)
	if axis < -n-1 || axis > n {
		return nil, indexErrorf("unsqueeze: axis %d is out of range for shape %s", axis, formatShape(t.shape))
	}
	if axis < 0 {
		axis += n + 1
	}
	shape := slices.Insert(slices.Clone(t.shape), axis, 1)
	strides := slices.Insert(slices.Clone(t.strides), axis, 0)
	return t.view(shape, strides, t.offset), nil
}

// Squeeze drops the given axes, which must have length one; without axes it
// drops every axis of length one.
func (t *Tensor) Squeeze(axes ...int) (*Tensor, error) {
	drop := make([]bool, len(t.shape))
	for i, n := range t.shape {
		drop[i] = len(axes) == 0 && n == 1
	}
	for _, a := range axes {
		a, err := axisOf("squeeze", a, t.shape)
		if err != nil {
			return nil, err
		}
		if t.shape[a] != 1 {
			return nil, shapeErrorf("squeeze: axis %d of shape %s has length %d, expected 1", a, formatShape(t.shape), t.shape[a])
		}
		drop[a] = true
	}
	shape, strides := make([]int, 0, len(drop)), make([]int, 0, len(drop))
	for i, d := range drop {
		if !d {
			shape = append(shape, t.shape[i])
			strides = append(strides, t.strides[i])
		}
	}
	return t.view(shape, strides, t.offset), nil
}

// Expand broadcasts t to shape as a view, with stride 0 along repeated axes.
// A length of -1 keeps the axis as it is. Writing to such a view is not
// meaningful: many of its elements are one.
func (t *Tensor) Expand(shape ...int) (*Tensor, error) {
	shape = slices.Clone(shape)
	lead := len(shape) - len(t.shape)
	for i := range shape {
		if shape[i] == -1 && i >= lead && lead >= 0 {
			shape[i] = t.shape[i-lead]
		}
	}
	if _, err := storageBytes(t.dtype, shape); err != nil {
		return nil, err
	}
	strides, ok := broadcastStrides(t, shape)
	if !ok {
		return nil, shapeErrorf("expand: shape %s does not broadcast to %s", formatShape(t.shape), formatShape(shape))
	}
	return t.view(shape, strides, t.offset), nil
}

// Reshape gives the elements, in row-major order, another shape; one length
// may be -1 and is worked out. The result is a view when the strides allow it
// and a copy otherwise.
func (t *Tensor) Reshape(shape ...int) (*Tensor, error) {
	shape, err := inferShape(t.shape, shape)
	if err != nil {
		return nil, err
	}
	if strides, ok := reshapeStrides(t, shape); ok {
		return t.view(shape, strides, t.offset), nil
	}
	if t.dtype == Ternary { // rows are padded, so the bytes change with the shape
		out, err := New(Ternary, shape...)
		if err != nil {
			return nil, err
		}
		copyElements[int8](out, t)
		return out, nil
	}
	out, err := t.Clone()
	if err != nil {
		return nil, err
	}
	return header(t.dtype, shape, out.data), nil
}

// Flatten merges the axes from first to last (inclusive) into one, like
// Reshape.
func (t *Tensor) Flatten(first, last int) (*Tensor, error) {
	if len(t.shape) == 0 {
		return t.Reshape(1)
	}
	first, err := axisOf("flatten", first, t.shape)
	if err != nil {
		return nil, err
	}
	if last, err = axisOf("flatten", last, t.shape); err != nil {
		return nil, err
	}
	if first > last {
		return nil, indexErrorf("flatten: axis %d lies behind axis %d (shape %s)", first, last, formatShape(t.shape))
	}
	shape := slices.Clone(t.shape[:first+1])
	shape[first] = product(t.shape[first : last+1])
	return t.Reshape(append(shape, t.shape[last+1:]...)...)
}

// inferShape checks a requested shape against the one at hand and fills in -1.
func inferShape(have, want []int) ([]int, error) {
	shape, known, missing := slices.Clone(want), 1, -1
	for i, n := range want {
		switch {
		case n == -1 && missing < 0:
			missing = i
		case n < 0:
			return nil, shapeErrorf("reshape: cannot reshape %s to %s, only one length may be -1", formatShape(have), formatShape(want))
		case n > 0 && known > math.MaxInt/n:
			return nil, shapeErrorf("reshape: cannot reshape %s to %s, which is too large", formatShape(have), formatShape(want))
		default:
			known *= n
		}
	}
	size := product(have)
	if missing >= 0 && known > 0 && size%known == 0 {
		shape[missing] = size / known
		known = size
	}
	if known != size || missing >= 0 && shape[missing] < 0 {
		return nil, shapeErrorf("reshape: cannot reshape %s to %s, %d elements", formatShape(have), formatShape(want), size)
	}
	return shape, nil
}

// reshapeStrides finds strides that read the elements of t in the same order
// under another shape of as many elements, if there are any: each group of new
// axes has to split one run of old axes that a single stride covers.
func reshapeStrides(t *Tensor, shape []int) ([]int, bool) {
	strides := make([]int, len(shape))
	rowMajor(strides, t.dtype, shape)
	if product(shape) == 0 {
		return strides, true
	}
	runs := newCursor(t.shape, t.strides, 0)
	run := len(runs.shape) - 1
	step, left := runs.strides[run], runs.shape[run]
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] == 1 {
			continue
		}
		if left == 1 {
			run--
			step, left = runs.strides[run], runs.shape[run]
		}
		if left%shape[i] != 0 {
			return nil, false
		}
		strides[i] = step
		step *= shape[i]
		left /= shape[i]
	}
	return strides, true
}

func without(s []int, i int) []int { return slices.Delete(slices.Clone(s), i, i+1) }
