package nn

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Attention is multi-head attention with grouped queries (Ainslie et al. 2023) and, where there are angles, rotary positions. BitNet models normalize
// the heads' output (SubNorm) before the output projection.
type Attention struct {
	Layer               int     // index in the caches
	Heads, KVHeads, Dim int     // Dim is head_dim
	Q, K, V, O          *Linear // projections to the heads, and from them
	SubNorm             *Norm   // attn_sub_norm, or nil

	// Bidirectional lets each row attend to all rows of its sequence, and not only to itself and those before it. The step reads
	// its sequences whole then. Sequences of different lengths need no mask: a row knows no other sequence.
	Bidirectional bool
}

// Forward reads x [rows, hidden_size], normalized by norm, appends the rows' keys and values to their caches and
// returns [rows, hidden_size].
func (a *Attention) Forward(c *Ctx, x *tensor.Tensor, norm *Norm, angles Angles) *tensor.Tensor {
	c.enter(a.Layer)
	qkv := Project(c, x, norm, a.Q, a.K, a.V) // [rows, heads*head_dim], [rows, kv_heads*head_dim] twice
	c.did(OpQKV, a.Q, a.K, a.V)
	q, k, v := qkv[0], qkv[1], qkv[2]
	c.rotate(angles, a.Dim, q)
	c.rotate(angles, a.Dim, k)
	c.did(OpRoPE)
	c.storeKV(a, k, v)
	few := len(c.rows) <= lateRows
	if !few {
		c.Free(k)
		c.Free(v)
	}
	h := c.attention(a, q, k, v) // [rows, heads*head_dim]
	c.didAttention(a)
	if c.Attended != nil {
		c.Attended(a, q)
	}
	c.Free(q)
	if few {
		c.Free(k)
		c.Free(v)
	}
	o := Project(c, h, a.SubNorm, a.O)[0]
	c.did(OpO, a.O)
	c.Free(h)
	return o
}

// lateRows is up to how many rows keys and values are there until attention has ended, whether it stores them or not: steps of as many rows have one
// memory plan.
const lateRows = 64

// storeKV copies the rows' keys and values to their places in the caches, or leaves that to attention: of a few rows that decode, each key is read by one of
// its items only, which has asked memory for its place before.
func (c *Ctx) storeKV(a *Attention, k, v *tensor.Tensor) {
	c.store = storeTask{ctx: c, a: a, k: k.Float32s(), v: v.Float32s()}
	if c.store.late = len(c.rows) <= lateRows && a.Heads/a.KVHeads <= maxHeads && c.decodes(a) && c.groupRows(2) == 1; c.store.late {
		return
	}
	cpu.Parallel((len(c.rows)+storeRows-1)/storeRows*a.KVHeads, &c.store)
	c.did(OpStoreKV)
}

// decodes says whether rows that have no neighbour are tokens that follow what their sequences have read.
func (c *Ctx) decodes(a *Attention) bool { return c.tape == nil && !a.Bidirectional }

// storeRows is how many rows one chunk stores, of one head: as many keys as fill a cache line of the transposed page. Even the key of a single
// row goes to as many lines as it has elements.
const storeRows = 16

type storeTask struct {
	ctx  *Ctx
	a    *Attention
	k, v []float32
	late bool // in attention
}

// Run takes runs of neighbouring positions within a page.
func (t *storeTask) Run(chunk int) {
	rows, head := t.ctx.rows, chunk%t.a.KVHeads
	chunk /= t.a.KVHeads
	end := min((chunk+1)*storeRows, len(rows))
	for r, n := chunk*storeRows, 0; r < end; r += n {
		for n = 1; r+n < end && rows[r+n] == (Row{rows[r].Seq, rows[r].Pos + int32(n)}) && int(rows[r+n].Pos)%PageTokens != 0; n++ {
		}
		t.store(r, n, head)
	}
}

// store is for n neighbouring positions of a page, from row r on.
func (t *storeTask) store(r, n, head int) {
	at, dim := t.ctx.rows[r], t.a.Dim
	p := t.ctx.caches[at.Seq].at(t.a.Layer, head, int(at.Pos)/PageTokens)
	src := (r*t.a.KVHeads + head) * dim
	p.store(int(at.Pos)%PageTokens, n, t.k[src:], t.v[src:], t.a.KVHeads*dim, dim)
}

// attention returns softmax(q k^T / sqrt(head_dim)) v for every row and head, over the keys up to the row's position, or all of
// its sequence.
// Keys and values are read from the caches, after storeKV; k and v only name the values that gradients belong to.
func (c *Ctx) attention(a *Attention, q, k, v *tensor.Tensor) *tensor.Tensor {
	rows := len(c.rows)
	out := c.New(rows, a.Heads*a.Dim)
	heads := min(a.Heads/a.KVHeads, maxHeads)
	units := a.KVHeads * ((a.Heads/a.KVHeads + maxHeads - 1) / maxHeads)
	together := maxLanes / heads
	for together > stripRows && rows/together*units < 4*cpu.NumThreads() {
		together /= 2
	}
	most := 8 * cpu.NumThreads()
	// As much memory however the rows are grouped: steps of as many rows have one shape.
	room := min(rows*units, most*min(rows, together)) * heads // lanes
	perLane := PageTokens + 3*PaddedDim(a.Dim) + 16
	width := c.groupRows(together) * heads
	items := len(c.groups) * units
	chunks := min(items, most, room/width)
	size := (items + chunks - 1) / chunks
	chunks = (items + size - 1) / size
	c.attend = attendTask{
		ctx: c, a: a, q: q.Float32s(), out: out.Float32s(),
		units: units, items: items, size: size, width: width, per: width * perLane, scale: float32(1 / math.Sqrt(float64(a.Dim))),
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
	c.attend.alone = c.decodes(a) && len(c.groups) == rows // nobody has a neighbour
	if spans := Spans(c.rows); c.attend.alone && spans > 1 {
		c.attend.split(spans)
		return out
	}
	buf := c.scratch.Alloc(4 * room * perLane)
	c.attend.buf = pool.View[float32](buf)
	cpu.Parallel(chunks, &c.attend)
	c.scratch.Free(buf)
	return out
}

// Neighbouring rows of a sequence, and query heads that share keys and values, are worked on together, so that a page is read from the outer
// caches once for all of them.
const (
	maxLanes  = 128 // pairs of a row and a head together
	maxHeads  = 4   // of these, heads of one row
	stripRows = 4   // rows that do not all see the whole page are worked on in strips, each as far as its last row sees
)

// rowGroup is rows [first, first+n) of a step: neighbouring positions of one sequence.
type rowGroup struct{ first, n int }

// groupRows groups the step's rows, at most so many together, and returns how many the largest group has.
func (c *Ctx) groupRows(most int) (largest int) {
	c.groups = c.groups[:0]
	for r, at := range c.rows {
		if last := len(c.groups) - 1; last >= 0 {
			if g := &c.groups[last]; g.n < most && c.rows[r-1] == (Row{at.Seq, at.Pos - 1}) {
				g.n++
				largest = max(largest, g.n)
				continue
			}
		}
		c.groups = append(c.groups, rowGroup{r, 1})
		largest = max(largest, 1)
	}
	return largest
}

// attendTask computes heads; item i is group i%groups and unit i/groups: up to maxHeads heads of one kv head.
type attendTask struct {
	ctx         *Ctx
	a           *Attention
	q, out      []float32
	buf         []float32 // per floats a chunk
	stats       []float32 // [rows, heads, 2] maximum of the scores and sum of exp(score - maximum), or nil
	units       int
	items, size int
	width       int // lanes that a chunk has room for
	per         int
	scale       float32
	mask        mask   // of the probabilities: a row for each row and head, columns are positions
	spans       []span // of bidirectional attention
	alone       bool   // items are single rows that decode

	// Of split.
	beside    int // units of a piece
	pieces    int
	spanCount int
	partials  []float32
}

func (t *attendTask) Run(chunk int) {
	buf, groups := t.buf[chunk*t.per:(chunk+1)*t.per], t.ctx.groups
	end := (chunk + 1) * t.size
	for i := chunk * t.size; i < min(end, t.items); i++ {
		if then := t.after(i, end); t.alone && then < t.items {
			t.ask(t.lanes(groups[then%len(groups)], then/len(groups)))
		}
		l := t.lanes(groups[i%len(groups)], i/len(groups))
		if t.ctx.store.late {
			t.ctx.store.store(l.row, 1, l.kvHead)
		}
		t.attend(l, buf)
	}
}

// after is the item that a thread takes after item i of a chunk that ends before end: others do their chunks meanwhile.
func (t *attendTask) after(i, end int) int {
	if i+1 < end {
		return i + 1
	}
	return end + (cpu.NumThreads()-1)*t.size
}

// ask asks memory for the first keys and values that a row reads, where it has few: products with them are done before they could ask.
func (t *attendTask) ask(l lanes) {
	keys := t.keys(l.row)
	page := t.ctx.caches[t.ctx.rows[l.row].Seq].at(t.a.Layer, l.kvHead, 0)
	page.ask(min(keys, PageTokens))
}

// lanes are n pairs of a row and a head: the heads of a group's first row, then those of the next. The heads share keys and values.
type lanes struct {
	row, rows   int
	head, heads int
	kvHead      int
	n           int
	all         int // heads that the model has
}

func (t *attendTask) lanes(g rowGroup, unit int) lanes {
	parts := t.units / t.a.KVHeads
	share, from := t.a.Heads/t.a.KVHeads, unit%parts*maxHeads
	kvHead := unit / parts
	heads := min(maxHeads, share-from)
	return lanes{row: g.first, rows: g.n, head: kvHead*share + from, heads: heads, kvHead: kvHead, n: g.n * heads, all: t.a.Heads}
}

// pair is the number of lane i among all pairs, heads of one row side by side.
func (l *lanes) pair(i int) int { return l.at(i)*l.all + l.head + i%l.heads }

// at is the row of lane i.
func (l *lanes) at(i int) int { return l.row + i/l.heads }

// last is the row that sees the most keys.
func (l *lanes) last() int { return l.row + l.rows - 1 }

// SpanTokens is how many keys are walked before what they gave is joined with what came before: also the piece of a long sequence that one
// thread takes when a token is decoded. It is part of the numbers contract.
const SpanTokens = 16 * PageTokens

// Spans is how many pieces of SpanTokens keys the longest of the rows' sequences has.
func Spans(rows []Row) int {
	last := int32(0)
	for _, r := range rows {
		last = max(last, r.Pos)
	}
	return int(last)/SpanTokens + 1
}

// partial is the attention of lanes to a span of keys, before the division by the sum.
type partial struct {
	acc      []float32 // [lanes, pad]
	top, sum []float32 // [lanes] the largest score, and the sum of exp(score - top)
}

func (t *attendTask) partial(mem []float32) (p partial, rest []float32) {
	n := t.width * PaddedDim(t.a.Dim)
	return partial{acc: mem[:n], top: mem[n : n+t.width], sum: mem[n+t.width : n+2*t.width]}, mem[n+2*t.width:]
}

// attend computes the outputs of lanes: span by span in ascending order, as far as the keys go. The order of a row's sums depends on
// its position alone: decoding one token, reading a prompt and training give the same bits.
func (t *attendTask) attend(l lanes, buf []float32) {
	whole, buf := t.partial(buf)
	next, buf := t.partial(buf)
	keys := t.keys(l.last())
	ls := []lanes{l}
	t.span(ls, []partial{whole}, 0, keys, t.page(ls, SpanTokens, keys), buf)
	for from := SpanTokens; from < keys; from += SpanTokens {
		t.span(ls, []partial{next}, from, keys, t.page(ls, from+SpanTokens, keys), buf)
		t.join(l, &whole, &next)
	}
	t.finish(l, &whole)
}

// span is online softmax (Milakov & Gimelshein 2018) over the pages of the span of keys that begins at from, for units side by side: ls are lanes
// of the same rows. then is what the thread will probably read after these pages, or nil.
func (t *attendTask) span(ls []lanes, ps []partial, from, keys int, then []byte, buf []float32) {
	dim, pad := t.a.Dim, PaddedDim(t.a.Dim)
	cache := t.ctx.caches[t.ctx.rows[ls[0].row].Seq]
	var qs [maxUnits]leftFactor
	for u, l := range ls {
		q, p := &qs[u], &ps[u]
		*q, buf = newLeftFactor(buf, t.width, pad)
		for i := range l.n {
			src, to := l.pair(i)*dim, q.floats[i*pad:(i+1)*pad]
			cpu.ScaleMul(to[:dim], t.q[src:src+dim], nil, t.scale)
			clear(to[dim:])
			p.top[i], p.sum[i] = float32(math.Inf(-1)), 0
		}
		clear(p.acc[:l.n*pad])
		if cache.dtype == KVInt8 {
			q.quantize(l.n, pad, dim)
		}
	}
	var page kvPage
	w := t.newWeights(buf)
	single := ls[0].rows == 1 && !t.mask.drops()
	end := min(keys, from+SpanTokens)
	for first := from; first < end; first += PageTokens {
		next := then
		if first+PageTokens < end {
			next = t.page(ls, first+PageTokens, keys)
		}
		for u := range ls {
			l, p, q := &ls[u], &ps[u], &qs[u]
			page.turn(cache, t.a.Layer, l.kvHead, first/PageTokens)
			page.next, page.done = next, u
			switch {
			case single && first+PageTokens <= keys:
				p.addPage(&page, l.n, dim, q, &w)
			case t.seen(l.row, first) == t.seen(l.last(), first):
				t.strip(l, p, &page, 0, l.n, first, q, &w)
			default:
				for i := 0; i < l.n; i += stripRows * l.heads {
					t.strip(l, p, &page, i, min(stripRows*l.heads, l.n-i), first, q, &w)
				}
			}
		}
	}
}

// weights are what a page's values are weighed by, of some lanes.
type weights struct {
	leftFactor
	sums, was []float32
}

// newWeights takes its memory from buf.
func (t *attendTask) newWeights(buf []float32) (w weights) {
	w.leftFactor, buf = newLeftFactor(buf, t.width, PageTokens)
	w.sums, w.was = buf[:t.width], buf[t.width:2*t.width]
	return w
}

// addPage is strip for the heads of a single row that sees the whole page: what a token that is decoded mostly does.
func (p *partial) addPage(page *kvPage, heads, dim int, q *leftFactor, w *weights) {
	sums, was := w.sums[:heads], w.was[:heads]
	copy(was, p.top)
	page.softmax(&w.leftFactor, q, heads, dim, p.top, sums)
	p.follow(0, page.pad, was)
	for i, sum := range sums {
		p.sum[i] += sum
	}
	if page.dtype == KVInt8 {
		page.addInt8Values(p.acc, &w.leftFactor, heads, PageTokens)
	} else {
		page.addValues(p.acc, &w.leftFactor, heads, 0, PageTokens)
	}
}

// page gives the keys and values of units from a position on, if there are any.
func (t *attendTask) page(ls []lanes, from, keys int) []byte {
	if from >= keys {
		return nil
	}
	first, last := ls[0], ls[len(ls)-1]
	return t.ctx.caches[t.ctx.rows[first.row].Seq].headsBytes(t.a.Layer, first.kvHead, last.kvHead+1, from/PageTokens)
}

// strip adds the page of keys from first on to n lanes from lane at on: all heads of neighbouring rows.
func (t *attendTask) strip(l *lanes, p *partial, page *kvPage, at, n, first int, q *leftFactor, w *weights) {
	dim, pad := t.a.Dim, PaddedDim(t.a.Dim)
	most := t.seen(l.at(at+n-1), first)
	if most == 0 {
		return
	}
	left, scores, sums, was := q.from(at, pad), w.floats[:n*PageTokens], w.sums[:n], w.was[:n]
	copy(was, p.top[at:])
	whole := t.seen(l.at(at), first) == PageTokens
	ints := whole && page.dtype == KVInt8 && !t.mask.drops()
	if ints || whole && page.dtype != KVInt8 {
		page.softmax(&w.leftFactor, &left, n, dim, p.top[at:], sums)
	} else {
		clear(scores)
		page.addScores(scores, &left, n, padded(most), dim)
		if whole {
			cpu.ExpRows(scores, PageTokens, n, PageTokens, page.keyScale, page.valueScale, p.top[at:], sums)
		} else {
			t.maskedRows(l, p, page, at, n, first, scores, sums)
		}
	}
	p.follow(at, pad, was)
	for i, sum := range sums {
		lane := at + i
		p.sum[lane] += sum
		if t.mask.drops() {
			s := scores[i*PageTokens:][:t.seen(l.at(lane), first)]
			t.mask.apply(s, s, l.pair(lane), first)
		}
	}
	from := 0
	for i := 0; i < n && from < most; i += l.heads { // what a row sees and the one before it does not
		to, seeing := t.seen(l.at(at+i), first), w.from(i, PageTokens)
		switch {
		case page.dtype != KVInt8:
			page.addValues(p.acc[(at+i)*pad:], &seeing, n-i, from, to)
		case to > 0: // the first row that sees any: what a row does not see weighs nothing
			if !ints {
				seeing.quantize(n-i, PageTokens, PageTokens)
			}
			page.addInt8Values(p.acc[(at+i)*pad:], &seeing, n-i, most)
			return
		}
		from = to
	}
}

// maskedRows is ExpRows where rows see only the first keys of a page, or none.
func (t *attendTask) maskedRows(l *lanes, p *partial, page *kvPage, at, n, first int, scores, sums []float32) {
	for i := 0; i < n; i += l.heads {
		seen := t.seen(l.at(at+i), first)
		if clear(sums[i : i+l.heads]); seen == 0 {
			continue
		}
		rows, cols := scores[i*PageTokens:(i+l.heads)*PageTokens], padded(seen)
		for row := 0; row < len(rows); row += PageTokens {
			s := rows[row:][:cols]
			if page.keyScale != nil {
				cpu.Mul(s[:seen], s[:seen], page.keyScale[:seen])
			}
			for j := seen; j < cols; j++ { // these count for nothing below
				s[j] = float32(math.Inf(-1))
			}
		}
		cpu.ExpRows(rows, PageTokens, l.heads, cols, nil, page.valueScale, p.top[at+i:], sums[i:])
		for row := 0; row < len(rows); row += PageTokens {
			clear(rows[row+seen : row+PageTokens])
		}
	}
}

// seen is how many keys of the page that begins at first a row sees.
func (t *attendTask) seen(row, first int) int { return max(0, min(PageTokens, t.keys(row)-first)) }

// follow makes lanes from lane at on, which were relative to the maxima was, relative to top. It changes was.
func (p *partial) follow(at, pad int, was []float32) {
	tops := p.top[at : at+len(was)]
	moved := false
	for i, top := range tops {
		moved = moved || top > was[i]
	}
	if !moved {
		return
	}
	for i, top := range tops {
		if top > was[i] {
			was[i] -= top
		} else {
			was[i] = 0
		}
	}
	cpu.ExpSum(was, 0)
	for i, factor := range was {
		if factor != 1 {
			p.shrink(at+i, pad, factor)
		}
	}
}

// shrink multiplies what lane i has.
func (p *partial) shrink(i, pad int, factor float32) {
	acc := p.acc[i*pad : (i+1)*pad]
	cpu.ScaleMul(acc, acc, nil, factor)
	p.sum[i] *= factor
}

// expOf is the exponential of one number.
func expOf(x float32) float32 {
	one := [1]float32{x}
	return cpu.ExpSum(one[:], 0)
}

// join adds the next span to p, which it may change.
func (t *attendTask) join(l lanes, p, next *partial) {
	pad := PaddedDim(t.a.Dim)
	for i := range l.n {
		if next.sum[i] == 0 { // a row that sees none of its keys
			continue
		}
		if was := p.top[i]; next.top[i] > was {
			p.top[i] = next.top[i]
			p.shrink(i, pad, expOf(was-p.top[i]))
		} else {
			next.shrink(i, pad, expOf(next.top[i]-was))
			next.top[i] = was
		}
		acc := p.acc[i*pad : (i+1)*pad]
		cpu.Add(acc, acc, next.acc[i*pad:(i+1)*pad])
		p.sum[i] += next.sum[i]
	}
}

// finish writes outputs, and what the backward pass needs.
func (t *attendTask) finish(l lanes, p *partial) {
	dim, pad := t.a.Dim, PaddedDim(t.a.Dim)
	for i := range l.n {
		pair := l.pair(i)
		cpu.ScaleMul(t.out[pair*dim:(pair+1)*dim], p.acc[i*pad:i*pad+dim], nil, 1/p.sum[i])
		if t.stats != nil {
			t.stats[2*pair], t.stats[2*pair+1] = p.top[i], p.sum[i]
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
