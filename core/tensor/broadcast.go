package tensor

import "slices"

// BroadcastShapes returns the shape to which the given shapes broadcast by
// NumPy's rules: aligned at the last axis, lengths equal or one.
func BroadcastShapes(shapes ...[]int) ([]int, error) {
	var out []int
	for _, s := range shapes {
		if len(s) > len(out) {
			out = append(slices.Repeat([]int{1}, len(s)-len(out)), out...)
		}
		lead := len(out) - len(s)
		for i, n := range s {
			switch o := &out[lead+i]; {
			case *o == 1:
				*o = n
			case n != 1 && n != *o:
				return nil, broadcastError("broadcast", shapes...)
			}
		}
	}
	return slices.Clone(out), nil
}

func broadcastError(op string, shapes ...[]int) error {
	text := ""
	for i, s := range shapes {
		if i > 0 {
			text += " and "
		}
		text += formatShape(s)
	}
	return shapeErrorf("%s: shapes %s do not broadcast", op, text)
}

// broadcastStrides gives the strides with which t reads as shape; ok is false
// when t does not broadcast to it.
func broadcastStrides(t *Tensor, shape []int) (strides []int, ok bool) {
	lead := len(shape) - len(t.shape)
	if lead < 0 {
		return nil, false
	}
	strides = make([]int, len(shape))
	for i, n := range t.shape {
		switch {
		case n == shape[lead+i]:
			strides[lead+i] = t.strides[i]
		case n != 1:
			return nil, false
		}
	}
	return strides, true
}
