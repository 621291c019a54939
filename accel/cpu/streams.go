package cpu

import "slices"

// manyStreams says whether a thread reads memory faster from as many places as sides at once than from one. On processors with AMX it is a third and
// more: a prefetcher works within a page, and each page has its own. Zen 4 is faster with one stream.
var manyStreams = slices.Contains(detected.isas, AMX)

// sides is how many panels or lines are read side by side where there are manyStreams.
const sides = 8

// LineWalk puts ids, in ascending order, in one in which [TernaryDotLines] and [TernaryAddLines] read them fast: where there are many streams,
// from as many places as sides in turns. dst has room for as many.
func LineWalk(dst, ids []int32) {
	dst = dst[:len(ids)]
	run := ceilDiv(len(ids), sides)
	if !manyStreams || run < 4 { // fewer are too soon at their ends
		copy(dst, ids)
		return
	}
	n := 0
	for first := range run {
		for i := first; i < len(ids); i += run {
			dst[n] = ids[i]
			n++
		}
	}
}
