package nn

import (
	"context"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// The operations that lie inside of layers, for callers who put layers together themselves (core/functional). With a tape
// attached they record themselves as the layers' do.

// Watch replaces the context that Err asks: a step whose backward pass runs in a later call has another one then.
func (c *Ctx) Watch(ctx context.Context) { c.done = ctx }

// Store gives a step that has begun the caches that its rows belong to.
func (c *Ctx) Store(caches []*KVCache) { c.caches = caches }

// Rotate turns the heads of x [rows, heads*head_dim] in place by the angles of the rows' positions.
func Rotate(c *Ctx, x *tensor.Tensor, angles Angles, headDim int) { c.rotate(angles, headDim, x) }

// Attend is attention without its projections: it writes the keys and values of the step's rows to their caches and returns
// softmax(q k^T / sqrt(head_dim)) v, [rows, heads*head_dim], for q [rows, heads*head_dim] and k, v [rows, kv_heads*head_dim].
func (a *Attention) Attend(c *Ctx, q, k, v *tensor.Tensor) *tensor.Tensor {
	c.storeKV(a, k, v)
	return c.attention(a, q, k, v)
}

// Gate returns act(gate) * up and frees both.
func Gate(c *Ctx, act Activation, gate, up *tensor.Tensor) *tensor.Tensor {
	return c.gated(act, gate, up)
}

// CrossEntropy writes -log softmax(row)[target] to nats for each row of logits [rows, classes], 0 where the target is
// ignored. It leaves other numbers in logits: with differentiate the gradient of scale times the sum of nats.
func (c *Ctx) CrossEntropy(logits *tensor.Tensor, targets []int32, nats []float64, scale float32, differentiate bool) {
	rows := logits.Dim(0)
	hits := c.scratch.Alloc(rows)
	c.entropy = entropyTask{logits: logits.Float32s(), vocab: logits.Dim(1), targets: targets, nats: nats, hits: hits,
		scale: scale, differentiate: differentiate}
	c.eachRow(rows, &c.entropy)
	c.scratch.Free(hits)
}

// Recording says whether a tape is attached.
func (c *Ctx) Recording() bool { return c.tape != nil }
