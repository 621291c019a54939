package nn

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// AttentionWeights computes, for Ctx.Attended and from the queries q that it is shown, how much each row of the step attends to each position:
// softmax(q k^T / sqrt(head_dim)). Row r of the step and head h have out[(h*stride+at(r))*stride:][:stride], zero for positions behind
// theirs, where at is the row's position. The step must have a single sequence of at most stride tokens, whose cache is of KVFloat32. Forward
// passes never have these numbers as a whole; they are made from the same scores, up to a last rounding.
func (c *Ctx) AttentionWeights(a *Attention, q *tensor.Tensor, out []float32, stride int) {
	t := &weighTask{ctx: c, a: a, q: q.Float32s(), out: out, stride: stride, scale: float32(1 / math.Sqrt(float64(a.Dim)))}
	cpu.Parallel(len(c.rows)*a.Heads, t)
}

// weighTask is a row and a head a chunk.
type weighTask struct {
	ctx    *Ctx
	a      *Attention
	q, out []float32
	stride int
	scale  float32
}

func (t *weighTask) Run(chunk int) {
	row, head := chunk/t.a.Heads, chunk%t.a.Heads
	at, dim := int(t.ctx.rows[row].Pos), t.a.Dim
	q := make([]float32, PaddedDim(dim))
	cpu.ScaleMul(q[:dim], t.q[chunk*dim:(chunk+1)*dim], nil, t.scale)
	kvHead, pages := head/(t.a.Heads/t.a.KVHeads), at/PageTokens+1
	scores := make([]float32, pages*PageTokens)
	for i := range pages {
		p := t.ctx.caches[0].at(t.a.Layer, kvHead, i)
		page := scores[i*PageTokens : (i+1)*PageTokens]
		cpu.AddProduct(page, PageTokens, q, len(q), 1, pool.View[float32](p.keys), PageTokens, 1, PageTokens, dim, cpu.Ahead{})
	}
	dst := t.out[(head*t.stride+at)*t.stride:][:t.stride]
	clear(dst[copy(dst, scores[:at+1]):])
	top, sum := math.Inf(-1), 0.0
	for _, s := range dst[:at+1] {
		top = max(top, float64(s))
	}
	for i, s := range dst[:at+1] {
		e := math.Exp(float64(s) - top)
		dst[i] = float32(e)
		sum += e
	}
	for i, e := range dst[:at+1] {
		dst[i] = float32(float64(e) / sum)
	}
}
