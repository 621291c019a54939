package nn

import (
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Dropout (Srivastava et al. 2014) with a counter-based generator, as in Salmon et al. 2011: whether an element is dropped
// is a hash of the step's seed, the place in the model, the row and the column, and of nothing else. So a mask needs no
// memory, the backward pass makes it again, and threads, instruction sets and recomputation cannot change it.

// Dropout sets each element of x [rows, cols] to zero with the probability Training.Dropout of the step and divides the
// others by 1 less that probability. It returns the result and frees x; outside of training that is x itself.
func Dropout(c *Ctx, x *tensor.Tensor) *tensor.Tensor {
	return c.Drop(x, c.training.Dropout)
}

// Drop is Dropout with a probability 0 <= p < 1 of its own.
func (c *Ctx) Drop(x *tensor.Tensor, p float32) *tensor.Tensor {
	if p == 0 {
		return x
	}
	m := c.nextMask(p)
	y := x
	if c.tape != nil {
		y = c.New(x.Dim(0), x.Dim(1))
		c.tape.Record(&dropoutOp{c: c, mask: m, x: x, y: y})
		c.Free(x)
	}
	c.drops = dropTask{mask: m, x: x.Float32s(), y: y.Float32s(), dim: x.Dim(1)}
	c.eachRow(x.Dim(0), &c.drops)
	return y
}

// dropoutOp is y = mask * x.
type dropoutOp struct {
	c    *Ctx
	mask mask
	x, y *tensor.Tensor
}

// Backward leaves the gradient of y as it is: it may be that of another term of a sum too.
func (o *dropoutOp) Backward(t *autograd.Tape) {
	dx := o.c.New(o.y.Dim(0), o.y.Dim(1))
	o.c.drops = dropTask{mask: o.mask, x: t.Take(o.y).Float32s(), y: dx.Float32s(), dim: dx.Dim(1)}
	o.c.eachRow(dx.Dim(0), &o.c.drops)
	t.Done(o.y)
	t.Add(o.x, dx)
}

type dropTask struct {
	mask mask
	x, y []float32
	dim  int
}

func (t *dropTask) row(r int) {
	a, b := r*t.dim, (r+1)*t.dim
	t.mask.apply(t.y[a:b], t.x[a:b], r, 0)
}

// mask is one place's dropout in one step. The zero value drops nothing.
type mask struct {
	key   uint64
	limit uint32  // an element whose 32 random bits are less is dropped
	scale float32 // 1/(1-p)
}

// nextMask is the mask of the step's next place.
func (c *Ctx) nextMask(p float32) mask {
	if p == 0 {
		return mask{}
	}
	c.site++
	return mask{
		key:   mix(c.training.Seed + c.site*weyl),
		limit: uint32(float64(p) * (1 << 32)),
		scale: float32(1 / (1 - float64(p))),
	}
}

func (m *mask) drops() bool { return m.limit != 0 }

// apply writes x times the mask of one row from column first on, which is even; dst may be x.
func (m *mask) apply(dst, x []float32, row, first int) {
	key := mix(m.key+uint64(row+1)*weyl) + uint64(first/2)*weyl
	for i := 0; i < len(x); i += 2 {
		key += weyl
		bits := mix(key)
		dst[i] = m.one(x[i], uint32(bits))
		if i+1 < len(x) {
			dst[i+1] = m.one(x[i+1], uint32(bits>>32))
		}
	}
}

func (m *mask) one(x float32, bits uint32) float32 {
	if bits < m.limit {
		return 0
	}
	return x * m.scale
}

// weyl is the step of SplitMix64's counter, the odd number nearest to 2^64 divided by the golden ratio.
const weyl = 0x9e3779b97f4a7c15

// mix is the output function of SplitMix64 (Steele, Lea & Flood 2014).
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
