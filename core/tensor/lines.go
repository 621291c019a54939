package tensor

import "slices"

// mapLines runs kernel on every line of x along an axis and writes the lines
// of out, a new tensor of the same shape except along that axis.
func mapLines[T, U number](out, x *Tensor, axis int, kernel func(dst []U, x []T)) {
	n, m := x.shape[axis], out.shape[axis]
	lines := product(without(x.shape, axis))
	if n == 0 && m == 0 {
		return
	}
	parallel(lines, grain/(n+m)+1, func(lo, hi int) {
		from, to := lastAxis(x, axis), lastAxis(out, axis)
		r, w := read[T](from), write[U](to)
		r.seek(lo * n)
		w.seek(lo * m)
		for ; lo < hi; lo++ {
			kernel(w.next(m), r.next(n))
			w.done()
		}
	})
}

// lastAxis moves an axis to the end, as a view.
func lastAxis(t *Tensor, axis int) *Tensor {
	return t.view(append(without(t.shape, axis), t.shape[axis]), append(without(t.strides, axis), t.strides[axis]), t.offset)
}

// withLength is a shape with one length replaced.
func withLength(shape []int, axis, n int) []int {
	shape = slices.Clone(shape)
	shape[axis] = n
	return shape
}
