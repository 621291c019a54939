package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// split computes the attention of rows that decode, some of them over many keys: threads share the spans of a row's keys, and join what they gave
// in their order, which is the order of attend.
func (t *attendTask) split(spans int) {
	pad := PaddedDim(t.a.Dim)
	n := t.width * (pad + 2)
	t.beside = 1
	if t.ctx.caches[0].dtype == KVInt8 {
		t.beside = besides(t.units, len(t.ctx.groups)*spans)
	}
	runs := (t.units + t.beside - 1) / t.beside
	t.per += (t.beside - 1) * t.width * (pad + 1)
	t.pieces = len(t.ctx.groups) * runs * spans
	chunks := min(t.pieces, spanChunks*cpu.NumThreads())
	mem, buf := t.ctx.scratch.Alloc(4*t.items*spans*n), t.ctx.scratch.Alloc(4*chunks*t.per)
	t.spanCount, t.partials, t.buf = spans, pool.View[float32](mem), pool.View[float32](buf)
	t.size = (t.pieces + chunks - 1) / chunks
	cpu.Parallel((t.pieces+t.size-1)/t.size, (*spanTask)(t))
	cpu.Parallel(t.items, (*joinTask)(t))
	t.ctx.scratch.Free(buf)
	t.ctx.scratch.Free(mem)
}

const (
	// spanChunks is how many pieces there are for each thread: of a few heads and spans each is one, and threads end together.
	spanChunks = 32

	// A piece is the span of some units, page by page. The pages of a layer's heads lie side by side, and memory gives more of a long stretch; of
	// halves a single page is long enough. There are at least evenChunks pieces for each thread, and at most maxUnits units in one.
	evenChunks = 8
	maxUnits   = 8
)

// besides is how many of the units a piece has, where rows have so many spans.
func besides(units, spans int) int {
	n := min(units, maxUnits)
	for n > 1 && (units+n-1)/n*spans < evenChunks*cpu.NumThreads() {
		n--
	}
	runs := (units + n - 1) / n
	return (units + runs - 1) / runs
}

// at is the place for a span of an item.
func (t *attendTask) at(item, span int) partial {
	n := t.width * (PaddedDim(t.a.Dim) + 2)
	p, _ := t.partial(t.partials[(item*t.spanCount+span)*n:])
	return p
}

// spanTask computes pieces.
type spanTask attendTask

func (s *spanTask) Run(chunk int) {
	t := (*attendTask)(s)
	buf := t.buf[chunk*t.per : (chunk+1)*t.per]
	end := (chunk + 1) * t.size
	var mem [2][maxUnits]lanes
	var ps [maxUnits]partial
	for i := chunk * t.size; i < min(end, t.pieces); i++ {
		var ahead []byte
		if then := t.after(i, end); then < t.pieces {
			ls, _, from, keys := t.piece(then, &mem[1])
			ahead = t.page(ls, from, keys)
		}
		if ls, item, from, keys := t.piece(i, &mem[0]); from < keys {
			for u := range ls {
				ps[u] = t.at(item+u*len(t.ctx.groups), from/SpanTokens)
				if t.ctx.store.late && keys <= from+SpanTokens {
					t.ctx.store.store(ls[u].row, 1, ls[u].kvHead)
				}
			}
			t.span(ls, ps[:len(ls)], from, keys, ahead, buf)
		}
	}
}

// piece is the lanes of piece i, the first of which is item, and its span: keys from the one up to the other. Pieces go over rows, then over runs
// of units, then over spans.
func (t *attendTask) piece(i int, mem *[maxUnits]lanes) (ls []lanes, item, from, keys int) {
	groups := t.ctx.groups
	group, i := i%len(groups), i/len(groups)
	runs := (t.units + t.beside - 1) / t.beside
	unit := i % runs * t.beside
	ls = mem[:min(t.beside, t.units-unit)]
	for u := range ls {
		ls[u] = t.lanes(groups[group], unit+u)
	}
	return ls, unit*len(groups) + group, i / runs * SpanTokens, t.keys(ls[0].last())
}

// joinTask joins the spans of an item.
type joinTask attendTask

func (j *joinTask) Run(item int) {
	t := (*attendTask)(j)
	groups := t.ctx.groups
	l := t.lanes(groups[item%len(groups)], item/len(groups))
	whole := t.at(item, 0)
	for span := 1; span*SpanTokens < t.keys(l.last()); span++ {
		next := t.at(item, span)
		t.join(l, &whole, &next)
	}
	t.finish(l, &whole)
}
