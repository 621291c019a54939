package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Backward passes of the layers that go row by row. Those of linear layers and attention have files of their own.

// addOp is sum = x + y.
type addOp struct{ x, y, sum *tensor.Tensor }

func (o *addOp) Backward(t *autograd.Tape) {
	t.Move(o.sum, o.x)
	t.Share(o.x, o.y)
}

// gateOp is out = act(gate) * up.
type gateOp struct {
	c             *Ctx
	act           Activation
	gate, up, out *tensor.Tensor

	g, u, dy, dg, du []float32
	dim              int
}

func (o *gateOp) Backward(t *autograd.Tape) {
	c := o.c
	c.recall(o.gate, o.up)
	o.g, o.u, o.dy = o.gate.Float32s(), o.up.Float32s(), t.Take(o.out).Float32s()
	dg, du := c.claim(o.gate), c.claim(o.up) // mostly in place
	o.dg, o.du, o.dim = dg.Float32s(), du.Float32s(), o.gate.Dim(1)
	c.eachRow(o.gate.Dim(0), o)
	t.Done(o.out)
	t.Add(o.gate, dg)
	t.Add(o.up, du)
}

func (o *gateOp) remake(out *tensor.Tensor) {
	o.c.recall(o.gate, o.up)
	o.c.multiplyGate(o.act, o.gate, o.up, out)
}

// row may write over the gate and up.
func (o *gateOp) row(r int) {
	a, b := r*o.dim, (r+1)*o.dim
	g, u, dy, dg, du := o.g[a:b], o.u[a:b], o.dy[a:b], o.dg[a:b], o.du[a:b]
	if o.act == ReLU2 {
		cpu.ReLU2Grad(dg, du, g, u, dy)
		return
	}
	const piece = 256
	var values, slopes [piece]float32
	for len(g) > 0 {
		n := min(piece, len(g))
		value, slope := values[:n], slopes[:n]
		o.act.slopes(value, slope, g[:n])
		cpu.Mul(slope, slope, dy[:n])
		cpu.Mul(dg[:n], slope, u[:n])
		cpu.Mul(du[:n], value, dy[:n])
		g, u, dy, dg, du = g[n:], u[n:], dy[n:], dg[n:], du[n:]
	}
}

// lookupOp is out = table[ids].
type lookupOp struct {
	table *autograd.Param
	ids   []int32
	out   *tensor.Tensor
}

// Backward adds rows in ascending order, so that equal ids always sum alike.
func (o *lookupOp) Backward(t *autograd.Tape) {
	dim := o.out.Dim(1)
	dy := t.Take(o.out).Float32s()
	for r, id := range o.ids {
		g := o.table.Grad[int(id)*dim : (int(id)+1)*dim]
		cpu.Add(g, g, dy[r*dim:(r+1)*dim])
	}
	t.Done(o.out)
}

// rotateOp turned x by angles, in place: its backward pass turns the gradient back.
type rotateOp struct {
	c       *Ctx
	angles  Angles
	headDim int
	x       *tensor.Tensor
}

func (o *rotateOp) Backward(t *autograd.Tape) {
	o.c.turn(o.angles, o.headDim, t.Take(o.x), -1)
}
