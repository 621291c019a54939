package tensor

import "slices"

// MatMul multiplies matrices as NumPy's @ does: the last two axes are the
// matrices, the others broadcast; a one-axis operand is a row on the left and
// a column on the right, and that axis is dropped from the result. Transposed
// and sliced operands are read where they are.
//
// Floats multiply in float32 and answer in the promoted dtype; each element is
// the sum over k in four accumulators by k mod 4, (a0+a1)+(a2+a3), whatever
// the shapes and the number of threads. int8, uint8, ternary and int32 answer
// exactly in int32, and int64 in int64 (modulo 2^32 and 2^64); bools answer
// whether any pair is true.
func MatMul(a, b *Tensor) (*Tensor, error) {
	p, err := planMatMul(a, b)
	if err != nil {
		return nil, err
	}
	if p.out.Len() > 0 && p.k > 0 {
		switch p.out.dtype {
		case Bool:
			err = p.boolean()
		case Int64:
			matmulInt[int64](p)
		case Int32:
			matmulInt[int32](p)
		default:
			p.float()
		}
	}
	if err != nil {
		return nil, err
	}
	return p.out.view(p.shape, slices.Clone(p.strides), 0), nil
}

// Dot is NumPy's dot: scalars multiply, otherwise the last axis of a meets the
// second to last of b (the only one of a vector), and the remaining axes of a
// and then of b make the result.
func Dot(a, b *Tensor) (*Tensor, error) {
	switch {
	case len(a.shape) == 0 || len(b.shape) == 0:
		return Mul(a, b)
	case len(b.shape) == 1 || len(a.shape) <= 2 && len(b.shape) == 2:
		return MatMul(a, b)
	}
	axis := len(b.shape) - 2
	k := a.shape[len(a.shape)-1]
	if k != b.shape[axis] {
		return nil, shapeErrorf("dot: shapes %s and %s do not fit, %d and %d", formatShape(a.shape), formatShape(b.shape), k, b.shape[axis])
	}
	lead, rest := a.shape[:len(a.shape)-1], without(b.shape, axis)
	left, err := a.Reshape(product(lead), k)
	if err != nil {
		return nil, err
	}
	right, err := lastAxis(b, axis).Reshape(product(rest), k)
	if err != nil {
		return nil, err
	}
	out, err := MatMul(left, right.T())
	if err != nil {
		return nil, err
	}
	return out.Reshape(slices.Concat(lead, rest)...)
}

// Outer multiplies every element of a with every element of b, both flattened:
// the result is [a.Len(), b.Len()].
func Outer(a, b *Tensor) (*Tensor, error) {
	column, err := a.Reshape(a.Len(), 1)
	if err != nil {
		return nil, err
	}
	row, err := b.Reshape(1, b.Len())
	if err != nil {
		return nil, err
	}
	return Mul(column, row)
}

// matmul is a batch of products [m, k] x [k, n].
type matmul struct {
	a, b    *Tensor // [batch..., m, k] and [batch..., k, n]
	out     *Tensor // [batch..., m, n]
	m, k, n int
	batches int
	shape   []int // of the result, without the axes that were added
	strides []int
}

func planMatMul(a, b *Tensor) (*matmul, error) {
	fail := func(why string) error {
		return shapeErrorf("matmul: shapes %s and %s do not fit, %s", formatShape(a.shape), formatShape(b.shape), why)
	}
	if len(a.shape) == 0 || len(b.shape) == 0 {
		return nil, fail("each needs at least one axis")
	}
	p := &matmul{a: a, b: b}
	var err error
	if len(a.shape) == 1 {
		if p.a, err = a.Unsqueeze(0); err != nil {
			return nil, err
		}
	}
	if len(b.shape) == 1 {
		if p.b, err = b.Unsqueeze(1); err != nil {
			return nil, err
		}
	}
	la, lb := len(p.a.shape)-2, len(p.b.shape)-2
	p.m, p.k, p.n = p.a.shape[la], p.a.shape[la+1], p.b.shape[lb+1]
	if p.b.shape[lb] != p.k {
		return nil, fail("the last axis of the first and the second to last of the second must have one length")
	}
	batch, err := BroadcastShapes(p.a.shape[:la], p.b.shape[:lb])
	if err != nil {
		return nil, fail("the leading axes do not broadcast")
	}
	dt := Promote(a.dtype, b.dtype)
	if dt.IsInteger() && dt != Int64 {
		dt = Int32
	}
	if p.out, err = New(dt, append(slices.Clone(batch), p.m, p.n)...); err != nil {
		return nil, err
	}
	p.batches = product(batch)
	p.a = broadcastTo(p.a, append(slices.Clone(batch), p.m, p.k))
	p.b = broadcastTo(p.b, append(slices.Clone(batch), p.k, p.n))
	p.shape, p.strides = slices.Clone(batch), slices.Clone(p.out.strides[:len(batch)])
	if len(a.shape) > 1 {
		p.shape, p.strides = append(p.shape, p.m), append(p.strides, p.n)
	}
	if len(b.shape) > 1 {
		p.shape, p.strides = append(p.shape, p.n), append(p.strides, 1)
	}
	return p, nil
}

// matrix is one [rows, cols] matrix of a batch.
type matrix struct {
	t          *Tensor
	pos        int // storage position of element 0, 0
	rows, cols int
	down, side int // strides
}

// at returns matrix i of a batched tensor.
func at(t *Tensor, i int) matrix {
	d := len(t.shape) - 2
	c := newCursor(t.shape[:d], t.strides[:d], t.offset)
	c.seek(i)
	return matrix{t, c.pos, t.shape[d], t.shape[d+1], t.strides[d], t.strides[d+1]}
}

func (m matrix) transposed() matrix {
	m.rows, m.cols, m.down, m.side = m.cols, m.rows, m.side, m.down
	return m
}

// sub is the part of m from row r and column c on.
func (m matrix) sub(r, rows, c, cols int) matrix {
	m.pos += r*m.down + c*m.side
	m.rows, m.cols = rows, cols
	return m
}

// load copies m into dst row-major, with a row length of ld.
func load[T number](dst []T, ld int, m matrix) {
	fill := fillFrom[T](m.t)
	direct := isNative[T](m.t.dtype)
	var src []T
	if direct {
		src = elems[T](m.t)
	}
	row := func(dst []T, pos, stride int) {
		if direct {
			gather(dst, src, pos, stride)
		} else {
			fill(dst, pos, stride)
		}
	}
	if abs(m.side) <= abs(m.down) || m.rows == 1 {
		for i := range m.rows {
			row(dst[i*ld:i*ld+m.cols], m.pos+i*m.down, m.side)
		}
		return
	}
	// The columns are what lies together in memory: read them in runs and turn
	// the block, a few lines at a time so that both sides stay in cache.
	const block = 32
	var line [block]T
	for i := 0; i < m.rows; i += block {
		n := min(block, m.rows-i)
		for j := range m.cols {
			row(line[:n], m.pos+i*m.down+j*m.side, m.down)
			for l, v := range line[:n] {
				dst[(i+l)*ld+j] = v
			}
		}
	}
}

// blocks runs body on blocks of at most rows x cols of every product, on
// several threads when there is enough to do.
func (p *matmul) blocks(rows, cols int, body func(batch, r, nr, c, nc int)) {
	down, side := (p.m+rows-1)/rows, (p.n+cols-1)/cols
	work := min(rows, p.m) * min(cols, p.n) * p.k
	parallel(p.batches*down*side, grain/(work/8+1)+1, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			r, c := i/side%down*rows, i%side*cols
			body(i/(side*down), r, min(rows, p.m-r), c, min(cols, p.n-c))
		}
	})
}

// matmulInt multiplies in T, in which sums are exact up to its range.
func matmulInt[T int32 | int64](p *matmul) {
	const rows, cols = 32, 512
	out := elems[T](p.out)
	p.blocks(rows, cols, func(batch, r, nr, c, nc int) {
		a := make([]T, nr*p.k)
		loadInt(a, p.k, at(p.a, batch).sub(r, nr, 0, p.k))
		line, b := make([]T, nc), at(p.b, batch)
		base := batch*p.m*p.n + c
		for k := range p.k {
			loadInt(line, nc, b.sub(k, 1, c, nc))
			for i := range nr {
				v := a[i*p.k+k]
				if v == 0 {
					continue
				}
				dst := out[base+(r+i)*p.n:][:nc]
				for j, w := range line {
					dst[j] += v * w
				}
			}
		}
	})
}

func loadInt[T int32 | int64](dst []T, ld int, m matrix) {
	switch d := any(dst).(type) {
	case []int32:
		load(d, ld, m)
	case []int64:
		load(d, ld, m)
	}
}

// boolean computes counts of true pairs and keeps whether there are any.
func (p *matmul) boolean() error {
	counts, err := New(Int32, p.out.shape...)
	if err != nil {
		return err
	}
	result := p.out
	p.out = counts
	matmulInt[int32](p)
	p.out = result
	copyAs(result, counts)
	return nil
}
