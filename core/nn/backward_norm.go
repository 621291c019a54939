package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// normOp is y = norm(x), for a norm that is not part of a projection.
type normOp struct {
	c    *Ctx
	norm *Norm
	x, y *tensor.Tensor
}

func (o *normOp) Backward(t *autograd.Tape) {
	o.c.recall(o.x)
	if dy := t.Take(o.y); dy != nil {
		dx := o.c.New(o.x.Dim(0), o.x.Dim(1))
		copy(dx.Float32s(), dy.Float32s())
		t.Done(o.y)
		o.c.addNormBackward(t, o.norm, o.x, dx)
	}
	o.c.drop(o.x)
}

// addNormBackward gives the gradient of x to the tape, from that of norm(x), which it takes over.
func (c *Ctx) addNormBackward(t *autograd.Tape, n *Norm, x, dy *tensor.Tensor) {
	if sum := t.Sum(x); sum != nil {
		c.normBackward(n, x, dy, sum, true)
		c.Free(dy)
		return
	}
	c.normBackward(n, x, dy, dy, false)
	t.Add(x, dy)
}

// normGrad is the backward pass of y = norm(x), see cpu.RMSNormGrad and centered. It writes dx, which may be dy, or adds to it. Rows are summed
// for the gradient of the weight in blocks of normBlock, blocks in ascending order.
type normGrad struct {
	norm      *Norm
	x, dy, dx []float32
	add       bool
	dim       int
	rows      int
	part      []float32 // [blocks, dim]
}

const normBlock = 64

func (c *Ctx) normBackward(n *Norm, x, dy, dx *tensor.Tensor, add bool) {
	rows, dim := x.Dim(0), x.Dim(1)
	blocks := (rows + normBlock - 1) / normBlock
	if n.BiasParam != nil {
		c.addColumns(n.BiasParam.Grad, dy)
	}
	mem := c.scratch.Alloc(4 * blocks * dim)
	c.normGrad = normGrad{norm: n, x: x.Float32s(), dy: dy.Float32s(), dx: dx.Float32s(), add: add, dim: dim, rows: rows, part: pool.View[float32](mem)}
	cpu.Parallel(blocks, &c.normGrad)
	if n.Param != nil {
		for b := range blocks {
			cpu.Add(n.Param.Grad, n.Param.Grad, c.normGrad.part[b*dim:(b+1)*dim])
		}
	}
	c.scratch.Free(mem)
}

// Run does one block of rows.
func (t *normGrad) Run(block int) {
	dw := t.part[block*t.dim : (block+1)*t.dim]
	clear(dw)
	for r := block * normBlock; r < min((block+1)*normBlock, t.rows); r++ {
		a, b := r*t.dim, (r+1)*t.dim
		x := t.x[a:b]
		if t.norm.Center {
			t.centered(t.dx[a:b], dw, x, t.dy[a:b])
		} else {
			cpu.RMSNormGrad(t.dx[a:b], dw, x, t.norm.Weight, t.dy[a:b], t.norm.inverse(x), t.add)
		}
	}
}

// centered is the row of a LayerNorm: with xhat = (x - mean) * inv and h = dy*w
//
//	dw += dy * xhat    dx = (h - mean(h) - xhat * mean(h * xhat)) * inv
func (t *normGrad) centered(dx, dw, x, dy []float32) {
	mean, inv := t.norm.moments(x)
	h := func(i int) float32 {
		if t.norm.Weight == nil {
			return dy[i]
		}
		return dy[i] * t.norm.Weight[i]
	}
	sum, dot := 0.0, 0.0
	for i, v := range x {
		xhat := (v - mean) * inv
		sum += float64(h(i))
		dot += float64(float64(h(i)) * float64(xhat))
		dw[i] += float32(dy[i] * xhat)
	}
	n := float64(len(x))
	meanH, meanDot := float32(sum/n), float32(dot/n)
	for i, v := range x {
		xhat := (v - mean) * inv
		d := float32(inv * (float32(h(i)) - meanH - float32(xhat*meanDot)))
		if t.add {
			d += dx[i]
		}
		dx[i] = d
	}
}
