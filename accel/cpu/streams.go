package cpu

import "slices"

// manyStreams says whether a thread reads memory faster from as many places as sides at once than from one. On processors with AMX it is a third and
// more: a prefetcher works within a page, and each page has its own. Zen 4 is faster with one stream.
var manyStreams = slices.Contains(detected.isas, AMX)

// sides is how many panels or lines are read side by side where there are manyStreams.
const sides = 8

// How many lines are read side by side, where that is faster: fewer are too soon at their ends.
const (
	leastSides = 4 * sides
	mostSides  = 256
)

// lineWalk is an order of lines that goes through them at as many places as sides, in turns.
type lineWalk struct {
	n   int
	ids [mostSides + 2*LineQuad]int32 // the last one again past n
	at  [mostSides]uint8              // which of the lines of begin each is
}

func (w *lineWalk) begin(ids []int32) {
	run := ceilDiv(len(ids), sides)
	w.n = 0
	for first := range run {
		for i := first; i < len(ids); i += run {
			w.ids[w.n], w.at[w.n] = ids[i], uint8(i)
			w.n++
		}
	}
	for i := range 2 * LineQuad {
		w.ids[w.n+i] = w.ids[w.n-1]
	}
}
