package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// split computes the attention of rows that decode, some of them over many keys: threads share the spans of a row's keys, and join what they gave
// in their order, which is the order of attend.
func (t *attendTask) split(spans int) {
	n := t.width * (PaddedDim(t.a.Dim) + 2)
	items := t.items * spans
	chunks := min(items, spanChunks*cpu.NumThreads())
	mem, buf := t.ctx.scratch.Alloc(4*items*n), t.ctx.scratch.Alloc(4*chunks*t.per)
	t.spanCount, t.partials, t.buf = spans, pool.View[float32](mem), pool.View[float32](buf)
	t.size = (items + chunks - 1) / chunks
	cpu.Parallel((items+t.size-1)/t.size, (*spanTask)(t))
	cpu.Parallel(t.items, (*joinTask)(t))
	t.ctx.scratch.Free(buf)
	t.ctx.scratch.Free(mem)
}

// spanChunks is how many pieces there are for each thread: of a few heads and spans each is one, and threads end together.
const spanChunks = 32

// at is the place for a span of an item.
func (t *attendTask) at(item, span int) partial {
	n := t.width * (PaddedDim(t.a.Dim) + 2)
	p, _ := t.partial(t.partials[(item*t.spanCount+span)*n:])
	return p
}

// spanTask computes spans; item i is span i/items of item i%items.
type spanTask attendTask

func (s *spanTask) Run(chunk int) {
	t := (*attendTask)(s)
	buf := t.buf[chunk*t.per : (chunk+1)*t.per]
	all, end := t.items*t.spanCount, (chunk+1)*t.size
	for i := chunk * t.size; i < min(end, all); i++ {
		then := i + 1
		if then == end { // while others do their chunks
			then += (cpu.NumThreads() - 1) * t.size
		}
		var ahead []byte
		if then < all {
			l, from, keys := t.piece(then)
			ahead = t.page(l, from, keys)
		}
		if l, from, keys := t.piece(i); from < keys {
			p := t.at(i%t.items, i/t.items)
			t.span(l, &p, from, keys, ahead, buf)
		}
	}
}

// piece is the span i/items of item i%items: keys from the one up to the other.
func (t *attendTask) piece(i int) (l lanes, from, keys int) {
	item, groups := i%t.items, t.ctx.groups
	l = t.lanes(groups[item%len(groups)], item/len(groups))
	return l, i / t.items * SpanTokens, t.keys(l.last())
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
