package nn

import (
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Block is a part of a model that changes the residual stream.
type Block interface {
	// Forward takes x [rows, hidden_size] and returns as much; it frees x.
	Forward(c *Ctx, x *tensor.Tensor, angles Angles) *tensor.Tensor
}

// Recompute is b.Forward(c, x, angles). In a differentiated step that recomputes activations (Chen et al. 2016) only x is kept
// of it: the backward pass runs it once more, to the same bits, and then has everything that it needs, for one block at a
// time. The keys and values of attention are written again as well, so blocks may share the place for them.
func Recompute(c *Ctx, b Block, x *tensor.Tensor, angles Angles) *tensor.Tensor {
	if c.tape == nil || !c.training.Recompute {
		return b.Forward(c, x, angles)
	}
	op := &recomputeOp{c: c, block: b, x: x, angles: angles, site: c.site}
	tape := c.tape
	c.tape = nil
	y := c.New(x.Dim(0), x.Dim(1)) // Forward works in place now
	copy(y.Float32s(), x.Float32s())
	op.out = b.Forward(c, y, angles)
	c.tape = tape
	c.keep(x)
	c.Free(x)
	tape.Record(op)
	return op.out
}

// recomputeOp is out = block.Forward(x).
type recomputeOp struct {
	c      *Ctx
	block  Block
	x, out *tensor.Tensor
	angles Angles
	site   uint64 // dropout before the block
}

// Backward records the block's own operations, which the tape walks next.
func (o *recomputeOp) Backward(t *autograd.Tape) {
	o.c.recall(o.x)
	after := o.c.site
	o.c.site = o.site
	out := o.block.Forward(o.c, o.x, o.angles)
	o.c.site = after
	t.Move(o.out, out)
	o.c.Free(out)
	o.c.drop(o.x)
}
