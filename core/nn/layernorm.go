package nn

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// LayerNorm is (x - mean(x)) / sqrt(var(x) + eps) * weight + bias (Ba et al. 2016), the variance that of the row itself
// (divided by dim). Mean and variance are float64 sums in ascending order.
type LayerNorm struct {
	Weight    []float32 // [dim], nil: one
	Bias      []float32 // [dim], nil: zero
	Eps       float32
	Param     *autograd.Param // Weight as a trainable parameter, or nil
	BiasParam *autograd.Param // Bias as one, or nil
}

// Forward returns the normalized rows of x [rows, dim].
func (n *LayerNorm) Forward(c *Ctx, x *tensor.Tensor) *tensor.Tensor {
	y := c.New(x.Dim(0), x.Dim(1))
	if c.tape != nil {
		c.keep(x)
		c.tape.Record(&layerNormOp{c: c, norm: n, x: x, y: y})
	}
	c.center = centerTask{norm: n, x: x.Float32s(), y: y.Float32s(), dim: x.Dim(1)}
	c.eachRow(x.Dim(0), &c.center)
	return y
}

// moments are the row's mean and 1/sqrt(var + eps).
func (n *LayerNorm) moments(x []float32) (mean, inv float32) {
	sum := 0.0
	for _, v := range x {
		sum += float64(v)
	}
	m := sum / float64(len(x))
	sum = 0
	for _, v := range x {
		d := float64(v) - m
		sum += float64(d * d)
	}
	return float32(m), float32(1 / math.Sqrt(sum/float64(len(x))+float64(n.Eps)))
}

type centerTask struct {
	norm *LayerNorm
	x, y []float32
	dim  int
}

func (t *centerTask) row(r int) {
	x, y := t.x[r*t.dim:(r+1)*t.dim], t.y[r*t.dim:(r+1)*t.dim]
	mean, inv := t.norm.moments(x)
	for i, v := range x {
		y[i] = (v - mean) * inv
	}
	if t.norm.Weight != nil {
		cpu.Mul(y, y, t.norm.Weight)
	}
	if t.norm.Bias != nil {
		cpu.Add(y, y, t.norm.Bias)
	}
}

// layerNormOp is y = norm(x): with xhat = (x - mean)/deviation and h = dy*w,
//
//	dx = (h - mean(h) - xhat * mean(h * xhat)) / deviation    dw = sum over rows of dy * xhat    db = sum over rows of dy
//
// Rows are summed for dw in blocks of normBlock, blocks in ascending order.
type layerNormOp struct {
	c    *Ctx
	norm *LayerNorm
	x, y *tensor.Tensor

	xs, dy, dx, part []float32 // part is [blocks, dim], nil without a weight that is trained
	rows, dim        int
}

func (o *layerNormOp) Backward(t *autograd.Tape) {
	c := o.c
	c.recall(o.x)
	defer c.drop(o.x)
	dy := t.Take(o.y)
	if dy == nil {
		return
	}
	o.rows, o.dim = o.x.Dim(0), o.x.Dim(1)
	blocks := (o.rows + normBlock - 1) / normBlock
	if o.norm.BiasParam != nil {
		c.addColumns(o.norm.BiasParam.Grad, dy)
	}
	dx := c.New(o.rows, o.dim)
	o.xs, o.dy, o.dx = o.x.Float32s(), dy.Float32s(), dx.Float32s()
	var mem []byte
	if o.norm.Param != nil {
		mem = c.scratch.Alloc(4 * blocks * o.dim)
		o.part = pool.View[float32](mem)
	}
	cpu.Parallel(blocks, o)
	if o.norm.Param != nil {
		for b := range blocks {
			cpu.Add(o.norm.Param.Grad, o.norm.Param.Grad, o.part[b*o.dim:(b+1)*o.dim])
		}
		c.scratch.Free(mem)
	}
	t.Done(o.y)
	t.Add(o.x, dx)
}

// Run does one block of rows.
func (o *layerNormOp) Run(block int) {
	var dw []float32
	if o.part != nil {
		dw = o.part[block*o.dim : (block+1)*o.dim]
		clear(dw)
	}
	for r := block * normBlock; r < min((block+1)*normBlock, o.rows); r++ {
		x, dy, dx := o.xs[r*o.dim:(r+1)*o.dim], o.dy[r*o.dim:(r+1)*o.dim], o.dx[r*o.dim:(r+1)*o.dim]
		mean, inv := o.norm.moments(x)
		copy(dx, dy)
		if o.norm.Weight != nil {
			cpu.Mul(dx, dx, o.norm.Weight)
		}
		sum, dot := 0.0, 0.0
		for i, h := range dx {
			xhat := (x[i] - mean) * inv
			sum += float64(h)
			dot += float64(float64(h) * float64(xhat))
		}
		sum, dot = sum/float64(o.dim), dot/float64(o.dim)
		for i, h := range dx {
			xhat := (x[i] - mean) * inv
			dx[i] = inv * (h - float32(sum) - float32(xhat*float32(dot)))
		}
		for i := range dw {
			dw[i] += float32(dy[i] * float32((x[i]-mean)*inv))
		}
	}
}
