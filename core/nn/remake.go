package nn

import (
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Some values that backward passes need are cheap to make again from others that are kept anyway: the outputs of ternary
// projections from their int8 inputs, and a gate's product from its factors. Their memory is given back in the forward pass. It
// is the wide values of the feed-forward network, more than half of what a layer would keep.

// maker is a recorded operation that makes one of its outputs again, to the same bits.
type maker interface{ remake(out *tensor.Tensor) }

// keepsake counts the recorded operations that need a value.
type keepsake struct {
	uses  int
	freed bool  // by the forward pass
	maker maker // makes the value again, or nil
	gone  bool  // its memory is given back, maker is asked when it is needed
}

// keep holds values for a recorded operation. Its backward pass recalls them before it uses them, and drops or claims each.
func (c *Ctx) keep(values ...*tensor.Tensor) {
	for _, t := range values {
		k := c.kept[t]
		if k == nil {
			k = &keepsake{maker: c.makers[t]}
			c.kept[t] = k
		}
		k.uses++
	}
}

// made says that op can make t again. In a step that recomputes whole blocks nothing is made again for its own.
func (c *Ctx) made(t *tensor.Tensor, op maker) {
	if !c.training.Recompute {
		c.makers[t] = op
	}
}

// changed says that t is not what its maker made.
func (c *Ctx) changed(t *tensor.Tensor) { delete(c.makers, t) }

// recall makes values that are gone again.
func (c *Ctx) recall(values ...*tensor.Tensor) {
	for _, t := range values {
		if k := c.kept[t]; k != nil && k.gone {
			rows, cols := t.Dim(0), t.Dim(1)
			t.Rebind(pool.View[float32](c.scratch.Alloc(4*rows*cols)), rows, cols)
			k.gone = false
			k.maker.remake(t)
		}
	}
}

// drop ends one keep of each value.
func (c *Ctx) drop(values ...*tensor.Tensor) {
	for _, t := range values {
		k := c.kept[t]
		if k.uses--; k.uses == 0 {
			delete(c.kept, t)
			if k.freed && !k.gone {
				c.Free(t)
			}
		}
	}
}

// claim ends one keep of t, which is there, and gives a value of its size to write to: t itself when nothing else needs it.
func (c *Ctx) claim(t *tensor.Tensor) *tensor.Tensor {
	if k := c.kept[t]; k.uses > 1 || !k.freed {
		c.drop(t)
		return c.New(t.Dim(0), t.Dim(1))
	}
	delete(c.kept, t)
	return t
}
