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
	cpu.Parallel((len(c.rows)+storeRows-1)/storeRows, &c.store)
}

// storeRows is how many rows one chunk stores: as many keys as fill a cache line of the transposed page.
const storeRows = 16

type storeTask struct {
	ctx  *Ctx
	a    *Attention
	k, v []float32
}

// Run takes runs of neighbouring positions within a page.
func (t *storeTask) Run(chunk int) {
	rows := t.ctx.rows
	end := min((chunk+1)*storeRows, len(rows))
	for r, n := chunk*storeRows, 0; r < end; r += n {
		for n = 1; r+n < end && rows[r+n] == (Row{rows[r].Seq, rows[r].Pos + int32(n)}) && int(rows[r+n].Pos)%PageTokens != 0; n++ {
		}
		t.run(r, n)
	}
}

func (t *storeTask) run(r, n int) {
	at, heads := t.ctx.rows[r], t.a.KVHeads
	dim, page := t.a.Dim, int(at.Pos)/PageTokens
	for h := range heads {
		p := t.ctx.caches[at.Seq].at(t.a.Layer, h, page)
		src := (r*heads + h) * dim
		p.store(int(at.Pos)%PageTokens, n, t.k[src:], t.v[src:], heads*dim, dim)
	}
}

// attention returns softmax(q k^T / sqrt(head_dim)) v for every row and head, over the keys up to the row's position, or all of
// its sequence.
// Keys and values are read from the caches; k and v only name the values that gradients belong to.
func (c *Ctx) attention(a *Attention, q, k, v *tensor.Tensor) *tensor.Tensor {
	rows := len(c.rows)
	out := c.New(rows, a.Heads*a.Dim)
	c.groupRows()
	units := a.Heads
	if len(c.groups) == rows { // nobody has a neighbour: heads are worked on together
		units = a.KVHeads * ((a.Heads/a.KVHeads + groupSize - 1) / groupSize)
	}
	items, most := len(c.groups)*units, 8*cpu.NumThreads()
	chunks := min(items, most)
	size := (items + chunks - 1) / chunks
	chunks = (items + size - 1) / size
	per := groupSize*(PageTokens+2*PaddedDim(a.Dim)) + 16
	buf := c.scratch.Alloc(4 * min(rows*a.Heads, most) * per) // as much however the rows are grouped: steps of as many rows have one shape
	c.attend = attendTask{
		ctx: c, a: a, q: q.Float32s(), out: out.Float32s(), buf: pool.View[float32](buf),
		units: units, items: items, size: size, per: per, scale: float32(1 / math.Sqrt(float64(a.Dim))),
		mask: c.nextMask(c.training.AttentionDropout),
	}
	if a.Bidirectional {
		c.attend.spans = sequenceSpans(c.rows, len(c.caches))
	}
	if c.tape != nil {
		op := &attentionOp{c: c, a: a, q: q, k: k, v: v, out: out, rows: c.rows, caches: c.caches, scale: c.attend.scale, mask: c.attend.mask}
		op.mem = c.scratch.Alloc(8 * rows * a.Heads)
		op.stats = pool.View[float32](op.mem)
		c.attend.stats = op.stats
		c.keep(q, out)
		c.tape.Record(op)
	}
	cpu.Parallel(chunks, &c.attend)
	c.scratch.Free(buf)
	return out
}

// groupSize is how many neighbouring rows of a sequence, or query heads that share keys and values, are worked on at once, so that a page
// is read once for all of them.
const groupSize = 4

// rowGroup is rows [first, first+n) of a step: neighbouring positions of one sequence.
type rowGroup struct{ first, n int }

// groupRows groups the step's rows.
func (c *Ctx) groupRows() {
	c.groups = c.groups[:0]
	for r, at := range c.rows {
		if last := len(c.groups) - 1; last >= 0 {
			if g := &c.groups[last]; g.n < groupSize && c.rows[r-1] == (Row{at.Seq, at.Pos - 1}) {
				g.n++
				continue
			}
		}
		c.groups = append(c.groups, rowGroup{r, 1})
	}
}

// attendTask computes heads; item i is group i%groups and unit i/groups: a head, or up to groupSize heads of one kv head for a group of
// one row.
type attendTask struct {
	ctx         *Ctx
	a           *Attention
	q, out      []float32
	buf         []float32 // per floats a chunk
	stats       []float32 // [rows, heads, 2] maximum of the scores and sum of exp(score - maximum), or nil
	units       int
	items, size int
	per         int
	scale       float32
	mask        mask   // of the probabilities: a row for each row and head, columns are positions
	spans       []span // of bidirectional attention
}

func (t *attendTask) Run(chunk int) {
	buf, groups := t.buf[chunk*t.per:(chunk+1)*t.per], t.ctx.groups
	for i := chunk * t.size; i < min((chunk+1)*t.size, t.items); i++ {
		g, h, n := groups[i%len(groups)], i/len(groups), 1
		if share := t.a.Heads / t.a.KVHeads; g.n == 1 && share > 1 {
			if t.units == t.a.Heads {
				if h%share%groupSize > 0 { // done with the head before it
					continue
				}
			} else {
				perKV := t.units / t.a.KVHeads
				h = h/perKV*share + h%perKV*groupSize
			}
			n = min(groupSize, share-h%share)
		}
		t.heads(g, h, n, buf)
	}
}

// heads is online softmax (Milakov & Gimelshein 2018) over the pages of keys in ascending order, for the rows of a group under head h, or for its
// only row under the heads from h to h+n. The order of a row's sums depends on its position alone: decoding one token, reading a prompt
// and training give the same bits.
func (t *attendTask) heads(g rowGroup, h, n int, buf []float32) {
	lanes, item, step := g.n*n, g.first*t.a.Heads+h, t.a.Heads // lane i is the row and head item+i*step: the next row, or
	if n > 1 {
		step = 1 // the next head
	}
	dim, pad := t.a.Dim, PaddedDim(t.a.Dim)
	scores, buf := buf[:groupSize*PageTokens], buf[groupSize*PageTokens:]
	q, acc, one := buf[:groupSize*pad], buf[groupSize*pad:2*groupSize*pad], buf[2*groupSize*pad:][:1]
	var top, sum [groupSize]float32
	for i := range lanes {
		src := (item + i*step) * dim
		cpu.ScaleMul(q[i*pad:i*pad+dim], t.q[src:src+dim], nil, t.scale)
		top[i] = float32(math.Inf(-1))
	}
	clear(acc[:lanes*pad])

	kvHead := h / (t.a.Heads / t.a.KVHeads)
	cache := t.ctx.caches[t.ctx.rows[g.first].Seq]
	keys := t.keys(g.first + g.n - 1) // that the last row sees, the most
	for first := 0; first < keys; first += PageTokens {
		page := cache.at(t.a.Layer, kvHead, first/PageTokens)
		width := padded(min(PageTokens, keys-first))
		clear(scores[:lanes*PageTokens])
		page.addScores(scores, q, lanes, width, dim)
		seen := [groupSize]int{}
		for i := range lanes {
			n := max(0, min(PageTokens, t.keys((item+i*step)/t.a.Heads)-first))
			seen[i] = n
			if n == 0 {
				continue
			}
			s := scores[i*PageTokens:][:padded(n)]
			for j := n; j < len(s); j++ { // these count for nothing below
				s[j] = float32(math.Inf(-1))
			}
			if m := cpu.MaxF32(s); m > top[i] { // earlier sums were relative to a smaller maximum
				one[0] = top[i]
				shrink := cpu.ExpSum(one, m)
				cpu.ScaleMul(acc[i*pad:(i+1)*pad], acc[i*pad:(i+1)*pad], nil, shrink)
				sum[i] *= shrink
				top[i] = m
			}
			sum[i] += cpu.ExpSum(s, top[i])
			if t.mask.drops() {
				t.mask.apply(s[:n], s[:n], item+i*step, first)
			}
			page.weigh(s, n)
		}
		page.addValues(acc, scores, lanes, 0, seen[0])
		for i := 1; i < lanes; i++ { // what row i sees and the one before it does not
			page.addValues(acc[i*pad:], scores[i*PageTokens:], lanes-i, seen[i-1], seen[i])
		}
	}
	for i := range lanes {
		at := item + i*step
		cpu.ScaleMul(t.out[at*dim:(at+1)*dim], acc[i*pad:i*pad+dim], nil, 1/sum[i])
		if t.stats != nil {
			t.stats[2*at], t.stats[2*at+1] = top[i], sum[i]
		}
	}
}

// keys is how many keys a row sees.
func (t *attendTask) keys(r int) int {
	at := t.ctx.rows[r]
	if t.spans != nil {
		return t.spans[at.Seq].n
	}
	return int(at.Pos) + 1
}

// padded is n rounded up to what the kernels take at once.
func padded(n int) int { return (n + cpu.Lanes - 1) &^ (cpu.Lanes - 1) }
