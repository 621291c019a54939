package tensor

// extreme is the best element so far and where it was.
type extreme[T number] struct {
	best T
	at   int64
	seen int64
}

// extremes finds the first largest (or smallest) element for each output; a
// NaN beats everything.
func extremes[T number](p reduction, largest bool) []extreme[T] {
	return fold(p, zero[extreme[T]], func(e extreme[T], x []T) extreme[T] {
		for _, v := range x {
			better := v > e.best
			if !largest {
				better = v < e.best
			}
			if e.seen == 0 || better && e.best == e.best || v != v && e.best == e.best {
				e.best, e.at = v, e.seen
			}
			e.seen++
		}
		return e
	})
}

// Max returns the largest element over the axes (nil: all) in x's dtype; NaN
// wins. Over nothing it is an [ErrValue], as in NumPy.
func Max(x *Tensor, axes []int, keepDims bool) (*Tensor, error) {
	return extremum("max", x, axes, keepDims, true)
}

// Min is [Max] for the smallest element.
func Min(x *Tensor, axes []int, keepDims bool) (*Tensor, error) {
	return extremum("min", x, axes, keepDims, false)
}

// ArgMax returns the index (int64) of the first largest element, or of the
// first NaN, along one axis; without an axis, in the flattened tensor.
func ArgMax(x *Tensor, axes []int, keepDims bool) (*Tensor, error) {
	return argExtremum("argmax", x, axes, keepDims, true)
}

// ArgMin is [ArgMax] for the smallest element.
func ArgMin(x *Tensor, axes []int, keepDims bool) (*Tensor, error) {
	return argExtremum("argmin", x, axes, keepDims, false)
}

func extremum(op string, x *Tensor, axes []int, keepDims, largest bool) (*Tensor, error) {
	p, err := planReduction(op, x, axes, keepDims)
	if err != nil {
		return nil, err
	}
	if p.inner == 0 {
		return nil, emptyError(op, p)
	}
	switch dt := x.dtype.computed(); dt {
	case Int8:
		return best[int8](p, dt, largest)
	case UInt8:
		return best[uint8](p, dt, largest)
	case Int32:
		return best[int32](p, dt, largest)
	case Int64:
		return best[int64](p, dt, largest)
	case Bool:
		return best[bit](p, dt, largest)
	default:
		return best[float32](p, dt, largest)
	}
}

func best[T number](p reduction, dt DType, largest bool) (*Tensor, error) {
	return collect(p, dt, extremes[T](p, largest), func(e extreme[T]) T { return e.best })
}

func argExtremum(op string, x *Tensor, axes []int, keepDims, largest bool) (*Tensor, error) {
	if len(axes) > 1 {
		return nil, valueErrorf("%s: one axis or none expected, got %v", op, axes)
	}
	p, err := planReduction(op, x, axes, keepDims)
	if err != nil {
		return nil, err
	}
	if p.inner == 0 {
		return nil, emptyError(op, p)
	}
	switch x.dtype.computed() {
	case Int32, Int64:
		return place[int64](p, largest)
	case Int8:
		return place[int8](p, largest)
	case UInt8, Bool:
		return place[uint8](p, largest)
	default:
		return place[float32](p, largest)
	}
}

func place[T number](p reduction, largest bool) (*Tensor, error) {
	return collect(p, Int64, extremes[T](p, largest), func(e extreme[T]) int64 { return e.at })
}

func emptyError(op string, p reduction) error {
	return valueErrorf("%s: nothing to choose from, shape %s reduced over axes %v", op, formatShape(p.x.shape), p.reduced)
}
