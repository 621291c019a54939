package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// FeedForward is the gated network down(subnorm(act(gate(x)) * up(x))), or without Gate down(subnorm(act(up(x)))).
type FeedForward struct {
	Act            Activation // the activation
	Gate, Up, Down *Linear    // Gate may be nil
	SubNorm        *Norm      // ffn_sub_norm, or nil
}

// Forward reads x [rows, hidden_size], normalized by norm, and returns [rows, hidden_size].
func (f *FeedForward) Forward(c *Ctx, x *tensor.Tensor, norm *Norm) *tensor.Tensor {
	if f.Gate == nil {
		up := Project(c, x, norm, f.Up)[0]
		c.did(OpUp, f.Up)
		h := Activate(c, f.Act, up)
		c.did(OpActivation)
		return f.project(c, h)
	}
	if c.tape == nil && c.training.Float == 0 && x.Dim(0) <= skipRows && f.skips() {
		return f.forwardSkipping(c, x, norm)
	}
	gu := Project(c, x, norm, f.Gate, f.Up) // [rows, intermediate_size] twice
	c.did(OpGateUp, f.Gate, f.Up)
	if c.tape == nil && c.training.Float == 0 && f.Down.Ternary != nil && f.Down.Norm == nil {
		return f.projectGated(c, gu[0], gu[1])
	}
	return f.project(c, c.gated(f.Act, gu[0], gu[1]))
}

// projectGated is project of act(gate) * up, which goes through memory only as int8, and frees both.
func (f *FeedForward) projectGated(c *Ctx, gate, up *tensor.Tensor) *tensor.Tensor {
	q := c.quantizeGated(f.Act, gate, up, f.SubNorm)
	c.Free(gate)
	c.Free(up)
	y := c.New(q.rows, f.Down.Out)
	c.multiplyTernary(q, f.Down, y)
	c.did(OpDown, f.Down)
	return y
}

// project takes h [rows, intermediate_size] down to hidden_size, and frees it.
func (f *FeedForward) project(c *Ctx, h *tensor.Tensor) *tensor.Tensor {
	y := Project(c, h, f.SubNorm, f.Down)[0]
	c.did(OpDown, f.Down)
	c.Free(h)
	return y
}

// gated returns act(gate) * up and frees both.
func (c *Ctx) gated(act Activation, gate, up *tensor.Tensor) *tensor.Tensor {
	h := gate
	if c.tape != nil {
		h = c.New(gate.Dim(0), gate.Dim(1))
		c.keep(gate, up)
		op := &gateOp{c: c, act: act, gate: gate, up: up, out: h}
		c.made(h, op)
		c.tape.Record(op)
	}
	c.multiplyGate(act, gate, up, h)
	if h != gate {
		c.Free(gate)
	}
	c.Free(up)
	c.did(OpActivation)
	return h
}

// multiplyGate computes out = act(gate) * up; out may be gate.
func (c *Ctx) multiplyGate(act Activation, gate, up, out *tensor.Tensor) {
	c.gate = gateTask{act: act, gate: gate.Float32s(), up: up.Float32s(), out: out.Float32s(), dim: gate.Dim(1)}
	c.eachRow(gate.Dim(0), &c.gate)
}

// gateTask computes out = act(gate) * up; out may be gate.
type gateTask struct {
	act           Activation
	gate, up, out []float32
	dim           int
}

func (t *gateTask) row(r int) {
	a, b := r*t.dim, (r+1)*t.dim
	t.act.apply(t.out[a:b], t.gate[a:b])
	cpu.Mul(t.out[a:b], t.out[a:b], t.up[a:b])
}

// Add returns x + y for the residual stream and frees both. It works in place unless a tape is attached.
func Add(c *Ctx, x, y *tensor.Tensor) *tensor.Tensor {
	sum := x
	if c.tape != nil {
		sum = c.New(x.Dim(0), x.Dim(1))
		c.tape.Record(&addOp{x: x, y: y, sum: sum})
	}
	c.add = addTask{x: x.Float32s(), y: y.Float32s(), sum: sum.Float32s(), dim: x.Dim(1)}
	c.eachRow(x.Dim(0), &c.add)
	c.did(OpAdd)
	if sum != x {
		c.Free(x)
	}
	c.Free(y)
	return sum
}

type addTask struct {
	x, y, sum []float32
	dim       int
}

func (t *addTask) row(r int) {
	a, b := r*t.dim, (r+1)*t.dim
	cpu.Add(t.sum[a:b], t.x[a:b], t.y[a:b])
}
