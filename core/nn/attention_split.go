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
	buf, groups := t.buf[chunk*t.per:(chunk+1)*t.per], t.ctx.groups
	for i := chunk * t.size; i < min((chunk+1)*t.size, t.items*t.spanCount); i++ {
		item, span := i%t.items, i/t.items
		l := t.lanes(groups[item%len(groups)], item/len(groups))
		if keys := t.keys(l.last()); span*SpanTokens < keys {
			p := t.at(item, span)
			t.span(l, &p, span*SpanTokens, keys, buf)
		}
	}
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
