package nn

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Attention is multi-head attention with grouped queries (Ainslie et al. 2023) and rotary positions. BitNet models normalize
// the heads' output (SubNorm) before the output projection.
type Attention struct {
	Layer               int // index in the caches
	Heads, KVHeads, Dim int // Dim is head_dim
	Q, K, V, O          *Linear
	SubNorm             *RMSNorm // attn_sub_norm, or nil

	// Bidirectional lets each row attend to all rows of its sequence, and not only to itself and those before it. The step reads
	// its sequences whole then. Sequences of different lengths need no mask: a row knows no other sequence.
	Bidirectional bool
}

// Forward reads x [rows, hidden_size], normalized by norm, appends the rows' keys and values to their caches and
// returns [rows, hidden_size].
func (a *Attention) Forward(c *Ctx, x *tensor.Tensor, norm *RMSNorm, angles Angles) *tensor.Tensor {
	qkv := Project(c, x, norm, a.Q, a.K, a.V) // [rows, heads*head_dim], [rows, kv_heads*head_dim] twice
	q, k, v := qkv[0], qkv[1], qkv[2]
	c.rotate(angles, a.Dim, q)
	c.rotate(angles, a.Dim, k)
	c.storeKV(a, k, v)
	c.Free(k)
	c.Free(v)
	h := c.attention(a, q, k, v) // [rows, heads*head_dim]
	c.Free(q)
	o := Project(c, h, a.SubNorm, a.O)[0]
	c.Free(h)
	return o
}

// storeKV copies the rows' keys and values to their places in the caches.
func (c *Ctx) storeKV(a *Attention, k, v *tensor.Tensor) {
	c.store = storeTask{ctx: c, a: a, k: k.Float32s(), v: v.Float32s()}
	c.eachRow(len(c.rows), &c.store)
}

type storeTask struct {
	ctx  *Ctx
	a    *Attention
	k, v []float32
}

func (t *storeTask) row(r int) {
	at := t.ctx.rows[r]
	dim, pad := t.a.Dim, PaddedDim(t.a.Dim)
	page, slot := int(at.Pos)/PageTokens, int(at.Pos)%PageTokens
	for h := range t.a.KVHeads {
		k, v := t.ctx.caches[at.Seq].Page(t.a.Layer, h, page)
		src := (r*t.a.KVHeads + h) * dim
		put(k[slot*pad:(slot+1)*pad], t.k[src:src+dim])
		put(v[slot*pad:(slot+1)*pad], t.v[src:src+dim])
	}
}

// put copies src and zeroes what is left of dst.
func put(dst, src []float32) { clear(dst[copy(dst, src):]) }

// attention returns softmax(q k^T / sqrt(head_dim)) v for every row and head, over the keys up to the row's position, or all of
// its sequence.
// Keys and values are read from the caches; k and v only name the values that gradients belong to.
func (c *Ctx) attention(a *Attention, q, k, v *tensor.Tensor) *tensor.Tensor {
	rows := len(c.rows)
	out := c.New(rows, a.Heads*a.Dim)
	items := rows * a.Heads
	chunks := min(items, 8*cpu.NumThreads())
	size := (items + chunks - 1) / chunks
	chunks = (items + size - 1) / size
	pad := PaddedDim(a.Dim)
	per := PageTokens + 2*pad + 16
	buf := c.scratch.Alloc(4 * chunks * per)
	c.attend = attendTask{
		ctx: c, a: a, q: q.Float32s(), out: out.Float32s(), buf: pool.View[float32](buf),
		items: items, size: size, per: per, scale: float32(1 / math.Sqrt(float64(a.Dim))),
		mask: c.nextMask(c.training.AttentionDropout),
	}
	if a.Bidirectional {
		c.attend.spans = sequenceSpans(c.rows, len(c.caches))
	}
	if c.tape != nil {
		op := &attentionOp{c: c, a: a, q: q, k: k, v: v, out: out, rows: c.rows, caches: c.caches, scale: c.attend.scale, mask: c.attend.mask}
		op.mem = c.scratch.Alloc(8 * items)
		op.stats = pool.View[float32](op.mem)
		c.attend.stats = op.stats
		c.keep(q, out)
		c.tape.Record(op)
	}
	cpu.Parallel(chunks, &c.attend)
	c.scratch.Free(buf)
	return out
}

// attendTask computes heads; item i is head i%heads of row i/heads.
type attendTask struct {
	ctx         *Ctx
	a           *Attention
	q, out      []float32
	buf         []float32 // per floats a chunk
	stats       []float32 // [items, 2] maximum of the scores and sum of exp(score - maximum), or nil
	items, size int
	per         int
	scale       float32
	mask        mask   // of the probabilities: row i is item i, columns are positions
	spans       []span // of bidirectional attention
}

func (t *attendTask) Run(chunk int) {
	buf := t.buf[chunk*t.per : (chunk+1)*t.per]
	for i := chunk * t.size; i < min((chunk+1)*t.size, t.items); i++ {
		t.head(i/t.a.Heads, i%t.a.Heads, buf)
	}
}

// head is online softmax (Milakov & Gimelshein 2018) over the pages of keys in ascending order. The order depends on
// the row's position alone: decoding one token, reading a prompt and training give the same bits.
func (t *attendTask) head(r, h int, buf []float32) {
	dim, pad := t.a.Dim, PaddedDim(t.a.Dim)
	scores, buf := buf[:PageTokens], buf[PageTokens:]
	q, acc, one := buf[:pad], buf[pad:2*pad], buf[2*pad:2*pad+1]
	src := (r*t.a.Heads + h) * dim
	cpu.ScaleMul(q[:dim], t.q[src:src+dim], nil, t.scale)
	clear(q[dim:])
	clear(acc)

	at := t.ctx.rows[r]
	kvHead := h / (t.a.Heads / t.a.KVHeads)
	cache := t.ctx.caches[at.Seq]
	keys := int(at.Pos) + 1
	if t.spans != nil {
		keys = t.spans[at.Seq].n
	}
	top, sum := float32(math.Inf(-1)), float32(0)
	for first := 0; first < keys; first += PageTokens {
		n := min(PageTokens, keys-first)
		k, v := cache.Page(t.a.Layer, kvHead, first/PageTokens)
		s := scores[:n]
		cpu.DotRows(s, q, k, n, pad, pad)
		if m := cpu.MaxF32(s); m > top { // earlier sums were relative to a smaller maximum
			one[0] = top
			shrink := cpu.ExpSum(one, m)
			cpu.ScaleMul(acc, acc, nil, shrink)
			sum *= shrink
			top = m
		}
		sum += cpu.ExpSum(s, top)
		if t.mask.drops() {
			t.mask.apply(s, s, r*t.a.Heads+h, first)
		}
		cpu.AccumRows(acc, s, v, n, pad, pad)
	}
	cpu.ScaleMul(t.out[src:src+dim], acc[:dim], nil, 1/sum)
	if t.stats != nil {
		i := 2 * (r*t.a.Heads + h)
		t.stats[i], t.stats[i+1] = top, sum
	}
}
