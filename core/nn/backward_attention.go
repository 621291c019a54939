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
	c.recall(o.q, o.out)
	pad := PaddedDim(a.Dim)
	spans := sequenceSpans(o.rows, len(o.caches))
	longest := 0
	for _, s := range spans {
		longest = max(longest, s.n)
	}
	dq, dk, dv := c.New(len(o.rows), a.Heads*a.Dim), c.New(len(o.rows), a.KVHeads*a.Dim), c.New(len(o.rows), a.KVHeads*a.Dim)
	longest = (longest + PageTokens - 1) / PageTokens * PageTokens
	per := 4*longest*pad + 3*PageTokens*pad + 2*PageTokens*PageTokens + PageTokens
	items := len(spans) * a.KVHeads
	chunks := min(items, 8*cpu.NumThreads())
	size := (items + chunks - 1) / chunks
	chunks = (items + size - 1) / size
	buf := c.scratch.Alloc(4 * chunks * per)
	c.attendGrad = attendGrad{
		attentionOp: o, spans: spans, pad: pad, per: per, items: items, size: size, buf: pool.View[float32](buf),
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

// attendGrad is the work of attentionOp.Backward. An item is a sequence and a kv head with all its query heads, so that every sum
// belongs to one item and runs in one order.
type attendGrad struct {
	*attentionOp
	spans       []span
	pad         int
	items, size int       // size items are a chunk
	buf         []float32 // per floats a chunk
	per         int
	qs, o, do   []float32
	dq, dk, dv  []float32
}

// blockBuffers are a chunk's buffers for the sequence of rows [first, first+n) and a kv head.
type blockBuffers struct {
	k, vT        []float32 // of its pages: keys [n, pad], values transposed [pad, PageTokens] page by page
	dk, dv       []float32 // [n, pad]
	q, do, dq    []float32 // [PageTokens, pad]
	p, ds        []float32 // [PageTokens, PageTokens] probabilities and score gradients, row i a query
	delta        []float32 // [PageTokens] dot(do, o)
	first, n, kv int
	cache        *KVCache
}

func (t *attendGrad) Run(chunk int) {
	for i := chunk * t.size; i < min((chunk+1)*t.size, t.items); i++ {
		t.item(t.spans[i/t.a.KVHeads], i%t.a.KVHeads, t.buf[chunk*t.per:(chunk+1)*t.per])
	}
}

func (t *attendGrad) item(s span, kvHead int, free []float32) {
	take := func(n int) []float32 {
		b := free[:n:n]
		free = free[n:]
		return b
	}
	block, square := PageTokens*t.pad, PageTokens*PageTokens
	pages := (s.n + PageTokens - 1) / PageTokens
	b := blockBuffers{
		k: take(pages * block), vT: take(pages * block), dk: take(pages * block), dv: take(pages * block),
		q: take(block), do: take(block), dq: take(block), p: take(square), ds: take(square), delta: take(PageTokens),
		first: s.first, n: s.n, kv: kvHead, cache: t.caches[t.rows[s.first].Seq],
	}
	clear(b.dk)
	clear(b.dv)
	clear(b.k)
	for page := range pages {
		k, v := b.cache.Page(t.a.Layer, kvHead, page)
		n := min(PageTokens, s.n-page*PageTokens)
		cpu.Transpose(b.k[page*block:], t.pad, k, PageTokens, t.a.Dim, n)
		cpu.Transpose(b.vT[page*block:], PageTokens, v, t.pad, n, t.a.Dim)
	}
	group := t.a.Heads / t.a.KVHeads
	for h := kvHead * group; h < (kvHead+1)*group; h++ {
		for q0 := 0; q0 < s.n; q0 += PageTokens {
			t.queries(&b, h, q0, min(PageTokens, s.n-q0))
		}
	}
	for i := range s.n {
		at := ((s.first+i)*t.a.KVHeads + kvHead) * t.a.Dim
		copy(t.dk[at:at+t.a.Dim], b.dk[i*t.pad:])
		copy(t.dv[at:at+t.a.Dim], b.dv[i*t.pad:])
	}
}

// queries does m query rows from q0 of one head, against all keys they saw.
func (t *attendGrad) queries(b *blockBuffers, head, q0, m int) {
	dim, pad := t.a.Dim, t.pad
	clear(b.dq)
	for i := range m {
		at := ((b.first+q0+i)*t.a.Heads + head) * dim
		q := b.q[i*pad : (i+1)*pad]
		cpu.ScaleMul(q[:dim], t.qs[at:at+dim], nil, t.scale)
		clear(q[dim:])
		put(b.do[i*pad:(i+1)*pad], t.do[at:at+dim])
		b.delta[i] = cpu.Dot(t.do[at:at+dim], t.o[at:at+dim])
	}
	keys := q0 + m // that the last of the rows saw
	if t.a.Bidirectional {
		keys = b.n
	}
	for k0 := 0; k0 < keys; k0 += PageTokens {
		t.page(b, head, q0, m, k0, min(PageTokens, keys-k0))
	}
	for i := range m {
		at := ((b.first+q0+i)*t.a.Heads + head) * dim
		cpu.ScaleMul(t.dq[at:at+dim], b.dq[i*pad:i*pad+dim], nil, t.scale)
	}
}

// page does m query rows from q0 against n keys from k0, strip by strip: a strip of queries meets only the keys that its last row
// saw, a strip of keys only the queries from the first that saw them.
func (t *attendGrad) page(b *blockBuffers, head, q0, m, k0, n int) {
	const strip = 8
	pad, dim := t.pad, t.a.Dim
	seen := func(i int) int { // keys of the page that row i saw
		if t.a.Bidirectional {
			return n
		}
		return min(n, q0+i+1-k0)
	}
	kT, _ := b.cache.Page(t.a.Layer, b.kv, k0/PageTokens)
	k, vT := b.k[k0*pad:], b.vT[k0*pad:]
	clear(b.p[:m*PageTokens])
	clear(b.ds[:m*PageTokens])
	for i := 0; i < m; i += strip {
		rows := min(strip, m-i)
		last := seen(i + rows - 1)
		p, ds := b.p[i*PageTokens:], b.ds[i*PageTokens:]
		cpu.AddProduct(p, PageTokens, b.q[i*pad:], pad, 1, kT, PageTokens, rows, padded(last), dim, cpu.Ahead{})
		cpu.AddProduct(ds, PageTokens, b.do[i*pad:], pad, 1, vT, PageTokens, rows, padded(last), dim, cpu.Ahead{})
		for r := range rows {
			t.scores(p[r*PageTokens:(r+1)*PageTokens], ds[r*PageTokens:(r+1)*PageTokens], seen(i+r), b.delta[i+r], (b.first+q0+i+r)*t.a.Heads+head, k0)
		}
		cpu.AddProduct(b.dq[i*pad:], pad, ds, PageTokens, 1, k, pad, rows, pad, last, cpu.Ahead{})
	}
	for j := 0; j < n; j += strip {
		rows, from := min(strip, n-j), 0
		if !t.a.Bidirectional {
			from = max(0, k0+j-q0)
		}
		at := (k0 + j) * pad
		cpu.AddProduct(b.dv[at:], pad, b.p[from*PageTokens+j:], 1, PageTokens, b.do[from*pad:], pad, rows, pad, m-from, cpu.Ahead{})
		cpu.AddProduct(b.dk[at:], pad, b.ds[from*PageTokens+j:], 1, PageTokens, b.q[from*pad:], pad, rows, pad, m-from, cpu.Ahead{})
	}
}

// scores turns a row's scores into the probabilities p of the n keys it saw and the gradients of these into those of scores. What is
// left of the rows becomes zero.
func (t *attendGrad) scores(p, ds []float32, n int, delta float32, item, k0 int) {
	clear(ds[n:])
	cpu.ExpSum(p[:n], t.stats[2*item])
	cpu.ScaleMul(p[:n], p[:n], nil, 1/t.stats[2*item+1])
	clear(p[n:])
	if t.mask.drops() { // out = (mask*p) v, so the gradient of p is masked
		t.mask.apply(ds[:n], ds[:n], item, k0)
	}
	cpu.SubMul(ds[:n], ds[:n], p[:n], delta)
	if t.mask.drops() {
		t.mask.apply(p[:n], p[:n], item, k0)
	}
}
