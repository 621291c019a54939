package tensor

// cursor walks the elements of a strided layout in row-major order, run by run
// along the innermost axis. Axes of length one are dropped and neighbouring
// axes that one stride covers are merged, so that a contiguous tensor is one
// run and a broadcast scalar one run of stride 0.
type cursor struct {
	shape, strides []int
	index          []int
	pos            int // storage position of the next element
	start          int
}

func newCursor(shape, strides []int, offset int) cursor {
	c := cursor{pos: offset, start: offset}
	for i, n := range shape {
		last := len(c.shape) - 1
		switch {
		case n == 1:
		case last >= 0 && c.strides[last] == n*strides[i]:
			c.shape[last] *= n
			c.strides[last] = strides[i]
		default:
			c.shape = append(c.shape, n)
			c.strides = append(c.strides, strides[i])
		}
	}
	if len(c.shape) == 0 {
		c.shape, c.strides = []int{1}, []int{1}
	}
	c.index = make([]int, len(c.shape))
	return c
}

// oneRun reports whether a single run covers everything.
func (c *cursor) oneRun() bool { return len(c.shape) == 1 }

// next returns the next run: n elements at pos, pos+stride, ...; n is at most
// limit and at least 1. The caller stops after the last element.
func (c *cursor) next(limit int) (pos, stride, n int) {
	last := len(c.shape) - 1
	pos, stride = c.pos, c.strides[last]
	n = min(limit, c.shape[last]-c.index[last])
	c.index[last] += n
	c.pos += n * stride
	for i := last; i > 0 && c.index[i] == c.shape[i]; i-- {
		c.index[i] = 0
		c.pos += c.strides[i-1] - c.shape[i]*c.strides[i]
		c.index[i-1]++
	}
	return pos, stride, n
}

// seek moves to element i of the row-major order.
func (c *cursor) seek(i int) {
	c.pos = c.start
	for d := len(c.shape) - 1; d >= 0; d-- {
		n := c.shape[d]
		if d == 0 {
			n = i + 1
		}
		c.index[d] = i % n
		c.pos += c.index[d] * c.strides[d]
		i /= n
	}
}
