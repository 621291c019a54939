package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// attentionOp is out = softmax(q k^T scale) v. Of the forward pass it keeps q, out, the caches, and two numbers for every
// row and head, from which the backward pass computes the probabilities again block by block (Dao et al. 2022): memory
// grows with the length of a sequence, not with its square.
type attentionOp struct {
	c            *Ctx
	a            *Attention
	q, k, v, out *tensor.Tensor
	rows         []Row
	caches       []*KVCache
	stats        []float32 // as in attendTask
	mem          []byte    // backs stats
	scale        float32
	mask         mask
}

func (o *attentionOp) Backward(t *autograd.Tape) {
	c, a := o.c, o.a
	pad := PaddedDim(a.Dim)
	spans := sequenceSpans(o.rows, len(o.caches))
	longest := 0
	for _, s := range spans {
		longest = max(longest, s.n)
	}
	dq, dk, dv := c.New(len(o.rows), a.Heads*a.Dim), c.New(len(o.rows), a.KVHeads*a.Dim), c.New(len(o.rows), a.KVHeads*a.Dim)
	per := 2*longest*pad + 3*PageTokens*pad + 4*PageTokens*PageTokens + PageTokens
	chunks := len(spans) * a.KVHeads
	buf := c.scratch.Alloc(4 * chunks * per)
	c.attendGrad = attendGrad{
		attentionOp: o, spans: spans, pad: pad, per: per, buf: pool.View[float32](buf),
		qs: o.q.Float32s(), o: o.out.Float32s(), do: t.Take(o.out).Float32s(),
		dq: dq.Float32s(), dk: dk.Float32s(), dv: dv.Float32s(),
	}
	cpu.Parallel(chunks, &c.attendGrad)
	c.scratch.Free(buf)
	c.scratch.Free(o.mem)
	t.Done(o.out)
	t.Add(o.q, dq)
	t.Add(o.k, dk)
	t.Add(o.v, dv)
	c.drop(o.q, o.out)
}

// span is the rows of one sequence.
type span struct{ first, n int }

// sequenceSpans finds the rows of each sequence: differentiated and bidirectional steps read whole sequences, one after the
// other.
func sequenceSpans(rows []Row, sequences int) []span {
	spans := make([]span, sequences)
	for r, at := range rows {
		s := &spans[at.Seq]
		if s.n == 0 {
			s.first = r
		}
		if int(at.Pos) != s.n || r != s.first+s.n {
			panic("nn: a differentiated or bidirectional step must read its sequences whole and in order")
		}
		s.n++
	}
	return spans
}

// attendGrad is the work of attentionOp.Backward. One chunk is a sequence and a kv head with all its query heads, so that every sum
// belongs to one chunk and runs in one order.
type attendGrad struct {
	*attentionOp
	spans      []span
	pad, per   int
	buf        []float32 // per floats a chunk
	qs, o, do  []float32
	dq, dk, dv []float32
}

// blockBuffers are a chunk's buffers: rows of [pad], square blocks of [PageTokens, PageTokens].
type blockBuffers struct {
	dk, dv       []float32 // [n, pad]
	q, do, dq    []float32 // [PageTokens, pad]
	p, ds        []float32 // probabilities and score gradients, row i a query
	pT, dsT      []float32 // the same, row j a key
	delta        []float32 // [PageTokens] dot(do, o)
	first, n, kv int
}

func (t *attendGrad) Run(chunk int) {
	s, kvHead := t.spans[chunk/t.a.KVHeads], chunk%t.a.KVHeads
	free := t.buf[chunk*t.per : (chunk+1)*t.per]
	take := func(n int) []float32 {
		b := free[:n:n]
		free = free[n:]
		return b
	}
	block, square := PageTokens*t.pad, PageTokens*PageTokens
	b := blockBuffers{
		dk: take(s.n * t.pad), dv: take(s.n * t.pad), q: take(block), do: take(block), dq: take(block),
		p: take(square), ds: take(square), pT: take(square), dsT: take(square), delta: take(PageTokens),
		first: s.first, n: s.n, kv: kvHead,
	}
	clear(b.dk)
	clear(b.dv)
	group := t.a.Heads / t.a.KVHeads
	for h := kvHead * group; h < (kvHead+1)*group; h++ {
		for q0 := 0; q0 < s.n; q0 += PageTokens {
			t.queries(&b, h, q0, min(PageTokens, s.n-q0), t.caches[t.rows[s.first].Seq])
		}
	}
	for i := range s.n {
		at := ((s.first+i)*t.a.KVHeads + kvHead) * t.a.Dim
		copy(t.dk[at:at+t.a.Dim], b.dk[i*t.pad:])
		copy(t.dv[at:at+t.a.Dim], b.dv[i*t.pad:])
	}
}

// queries does m query rows from q0 of one head, against all keys they saw.
func (t *attendGrad) queries(b *blockBuffers, head, q0, m int, cache *KVCache) {
	dim, pad := t.a.Dim, t.pad
	clear(b.dq)
	for i := range m {
		at := ((b.first+q0+i)*t.a.Heads + head) * dim
		q, do := b.q[i*pad:(i+1)*pad], b.do[i*pad:(i+1)*pad]
		cpu.ScaleMul(q[:dim], t.qs[at:at+dim], nil, t.scale)
		clear(q[dim:])
		put(do, t.do[at:at+dim])
		put(b.p[:pad], t.o[at:at+dim])
		cpu.DotRows(b.delta[i:i+1], do, b.p[:pad], 1, pad, pad)
	}
	keys := q0 + m // that the last of the rows saw
	if t.a.Bidirectional {
		keys = b.n
	}
	for k0 := 0; k0 < keys; k0 += PageTokens {
		k, v := cache.Page(t.a.Layer, b.kv, k0/PageTokens)
		for i := range m {
			seen := min(PageTokens, q0+i+1-k0)
			if t.a.Bidirectional {
				seen = min(PageTokens, keys-k0)
			}
			p, ds := b.p[i*PageTokens:(i+1)*PageTokens], b.ds[i*PageTokens:(i+1)*PageTokens]
			q, do := b.q[i*pad:(i+1)*pad], b.do[i*pad:(i+1)*pad]
			item := (b.first+q0+i)*t.a.Heads + head
			stat := 2 * item
			cpu.DotRows(p[:seen], q, k, seen, pad, pad)
			cpu.ExpSum(p[:seen], t.stats[stat])
			cpu.ScaleMul(p[:seen], p[:seen], nil, 1/t.stats[stat+1])
			cpu.DotRows(ds[:seen], do, v, seen, pad, pad)
			if t.mask.drops() { // out = (mask*p) v, so the gradient of p is masked
				t.mask.apply(ds[:seen], ds[:seen], item, k0)
			}
			for j := range seen {
				ds[j] = p[j] * (ds[j] - b.delta[i])
			}
			if t.mask.drops() {
				t.mask.apply(p[:seen], p[:seen], item, k0)
			}
			clear(p[seen:])
			clear(ds[seen:])
			cpu.AccumRows(b.dq[i*pad:(i+1)*pad], ds[:seen], k, seen, pad, pad)
		}
		flip(b.pT, b.p, m)
		flip(b.dsT, b.ds, m)
		for j := range min(PageTokens, b.n-k0) {
			dk, dv := b.dk[(k0+j)*pad:(k0+j+1)*pad], b.dv[(k0+j)*pad:(k0+j+1)*pad]
			cpu.AccumRows(dv, b.pT[j*PageTokens:][:m], b.do, m, pad, pad)
			cpu.AccumRows(dk, b.dsT[j*PageTokens:][:m], b.q, m, pad, pad)
		}
	}
	for i := range m {
		at := ((b.first+q0+i)*t.a.Heads + head) * dim
		cpu.ScaleMul(t.dq[at:at+dim], b.dq[i*pad:i*pad+dim], nil, t.scale)
	}
}

// flip transposes the first m rows of a square block.
func flip(dst, src []float32, m int) {
	for i := range m {
		row := src[i*PageTokens : (i+1)*PageTokens]
		for j, v := range row {
			dst[j*PageTokens+i] = v
		}
	}
}
