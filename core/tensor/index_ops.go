package tensor

import "slices"

// Gather takes elements along an axis by index, as numpy.take_along_axis does:
// out[..., i, ...] = x[..., index[..., i, ...], ...]. The index is of an
// integer dtype with as many axes as x; outside the axis the two broadcast.
// Negative indices count from the end.
func Gather(x, index *Tensor, axis int) (*Tensor, error) {
	axis, err := axisOf("gather", axis, x.shape)
	if err != nil {
		return nil, err
	}
	if err := checkIndex("gather", index); err != nil {
		return nil, err
	}
	if len(index.shape) != len(x.shape) {
		return nil, shapeErrorf("gather: index shape %s must have as many axes as shape %s", formatShape(index.shape), formatShape(x.shape))
	}
	rest, err := BroadcastShapes(withLength(x.shape, axis, 1), withLength(index.shape, axis, 1))
	if err != nil {
		return nil, shapeErrorf("gather: shapes %s and %s do not broadcast outside axis %d", formatShape(x.shape), formatShape(index.shape), axis)
	}
	out, err := New(x.dtype, withLength(rest, axis, index.shape[axis])...)
	if err != nil {
		return nil, err
	}
	from := lastAxis(broadcastTo(x, withLength(rest, axis, x.shape[axis])), axis)
	to, at := lastAxis(out, axis), lastAxis(broadcastTo(index, out.shape), axis)
	n, m := x.shape[axis], index.shape[axis]
	if m == 0 {
		return out, nil
	}
	move, last := mover(out, x), len(from.shape)-1
	source := newCursor(from.shape[:last], from.strides[:last], from.offset)
	target := newCursor(to.shape[:last], to.strides[:last], to.offset)
	indices := read[int64](at)
	for range product(from.shape[:last]) {
		pos, _, _ := source.next(1)
		dst, _, _ := target.next(1)
		for i, j := range indices.next(m) {
			k, err := wrapIndex("gather", j, n, x.shape, axis)
			if err != nil {
				return nil, err
			}
			move(dst+i*to.strides[last], pos+k*from.strides[last])
		}
	}
	return out, nil
}

// ScatterAdd returns a copy of x with src added at the indices along an axis:
// out[..., index[..., i, ...], ...] += src[..., i, ...]. Index and src
// broadcast to x's shape with the axis as long as index's. An index that
// appears often is added in order, in float32 for the 16-bit floats.
func ScatterAdd(x, index, src *Tensor, axis int) (*Tensor, error) {
	axis, err := axisOf("scatter_add", axis, x.shape)
	if err != nil {
		return nil, err
	}
	if err := checkIndex("scatter_add", index); err != nil {
		return nil, err
	}
	if len(index.shape) != len(x.shape) {
		return nil, shapeErrorf("scatter_add: index shape %s must have as many axes as shape %s", formatShape(index.shape), formatShape(x.shape))
	}
	shape := withLength(x.shape, axis, index.shape[axis])
	if _, ok := broadcastStrides(index, shape); !ok {
		return nil, shapeErrorf("scatter_add: index shape %s does not broadcast to %s", formatShape(index.shape), formatShape(shape))
	}
	if _, ok := broadcastStrides(src, shape); !ok {
		return nil, shapeErrorf("scatter_add: source shape %s does not broadcast to %s", formatShape(src.shape), formatShape(shape))
	}
	index, src = lastAxis(broadcastTo(index, shape), axis), lastAxis(broadcastTo(src, shape), axis)
	switch dt := x.dtype; dt {
	case Float32, Float16, BFloat16:
		return scatterAdd[float32](Float32, x, index, src, axis)
	case Int8:
		return scatterAdd[int8](dt, x, index, src, axis)
	case UInt8:
		return scatterAdd[uint8](dt, x, index, src, axis)
	case Int32:
		return scatterAdd[int32](dt, x, index, src, axis)
	case Int64:
		return scatterAdd[int64](dt, x, index, src, axis)
	default:
		return nil, dtypeErrorf("scatter_add: not defined for %s (shape %s)", dt, formatShape(x.shape))
	}
}

func scatterAdd[T number](dt DType, x, index, src *Tensor, axis int) (*Tensor, error) {
	out, err := New(dt, x.shape...)
	if err != nil {
		return nil, err
	}
	copyAs(out, x)
	to, data := lastAxis(out, axis), elems[T](out)
	n, last := x.shape[axis], len(x.shape)-1
	m := index.shape[last]
	if m > 0 {
		rows := newCursor(to.shape[:last], to.strides[:last], 0)
		indices, values := read[int64](index), read[T](src)
		for range product(index.shape[:last]) {
			row, _, _ := rows.next(1)
			v := values.next(m)
			for i, j := range indices.next(m) {
				k, err := wrapIndex("scatter_add", j, n, x.shape, axis)
				if err != nil {
					return nil, err
				}
				data[row+k*to.strides[last]] += v[i]
			}
		}
	}
	return out.Cast(x.dtype)
}

// Embedding looks up rows of a table: table [V, D...] and integer ids of any
// shape give ids.shape + [D...]. An id below 0 or from V up is an [ErrIndex].
func Embedding(table, ids *Tensor) (*Tensor, error) {
	if len(table.shape) == 0 {
		return nil, shapeErrorf("embedding: the table has shape (), expected at least one axis (ids %s)", formatShape(ids.shape))
	}
	if err := checkIndex("embedding", ids); err != nil {
		return nil, err
	}
	out, err := New(table.dtype, slices.Concat(ids.shape, table.shape[1:])...)
	if err != nil {
		return nil, err
	}
	indices, v, lead := read[int64](ids), table.shape[0], len(ids.shape)
	rows := newCursor(out.shape[:lead], out.strides[:lead], 0)
	for n := range chunks(ids.Len()) {
		for _, id := range indices.next(n) {
			if id < 0 || id >= int64(v) {
				return nil, indexErrorf("embedding: id %d is out of range for a table of shape %s", id, formatShape(table.shape))
			}
			to, _, _ := rows.next(1)
			row := table.view(table.shape[1:], table.strides[1:], table.offset+int(id)*table.strides[0])
			copyAs(out.view(row.shape, out.strides[lead:], to), row)
		}
	}
	return out, nil
}

func checkIndex(op string, index *Tensor) error {
	if !index.dtype.IsInteger() || index.dtype == Ternary {
		return dtypeErrorf("%s: the index (shape %s) is %s, expected an integer dtype", op, formatShape(index.shape), index.dtype)
	}
	return nil
}

func wrapIndex(op string, i int64, n int, shape []int, axis int) (int, error) {
	if i < -int64(n) || i >= int64(n) {
		return 0, indexErrorf("%s: index %d is out of range for axis %d of shape %s", op, i, axis, formatShape(shape))
	}
	if i < 0 {
		i += int64(n)
	}
	return int(i), nil
}

// mover returns a function that copies one element between two tensors of one
// dtype by storage position.
func mover(dst, src *Tensor) func(to, from int) {
	switch src.dtype.Size() {
	case 1:
		return moveElement(elems[uint8](dst), elems[uint8](src))
	case 2:
		return moveElement(elems[uint16](dst), elems[uint16](src))
	case 4:
		return moveElement(elems[uint32](dst), elems[uint32](src))
	case 8:
		return moveElement(elems[uint64](dst), elems[uint64](src))
	}
	get, set := fillFrom[int8](src), storeInto[int8](dst)
	var one [1]int8
	return func(to, from int) {
		get(one[:], from, 0)
		set(one[:], to, 0)
	}
}

func moveElement[T any](dst, src []T) func(to, from int) {
	return func(to, from int) { dst[to] = src[from] }
}
