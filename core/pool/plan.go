package pool

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// trace is what one step asked for. Time is counted in allocations: block i is allocated at time i, and a block freed when k blocks
// had been allocated lives during [i, k).
type trace struct {
	sizes []int   // bytes asked for
	frees []int32 // blocks, in the order they were freed; those of End are left out
	freed []int32 // freed[i]: how many of frees came before block i was allocated
}

func (t *trace) alloc(n int) (block int32) {
	t.sizes = append(t.sizes, n)
	t.freed = append(t.freed, int32(len(t.frees)))
	return int32(len(t.sizes) - 1)
}

func (t *trace) free(block int32) { t.frees = append(t.frees, block) }

// intervals are the blocks of the trace with sizes rounded up to Align. An empty block takes Align bytes too, so that each live block
// has an address of its own.
func (t *trace) intervals() []interval {
	iv := make([]interval, len(t.sizes))
	for i, n := range t.sizes {
		iv[i] = interval{size: roundUp(max(n, 1), Align), start: i, end: len(t.sizes)}
	}
	k := 0
	for i := range t.sizes {
		for ; k < int(t.freed[i]); k++ {
			iv[t.frees[k]].end = i
		}
	}
	return iv
}

// plan says where each block of a trace lies in the arena.
type plan struct {
	trace
	offsets  []int
	extent   int // bytes of arena it needs
	peakLive int // most bytes, as asked for, that are ever live at once
	bound    int // the same of rounded sizes: no plan can need less

	starts   []int    // distinct offsets, ascending
	slotOf   []int32  // by block: index of its offset in starts
	holder   []int32  // by start: the block that lies there now
	freedIn  []uint64 // by block: the last step in which it was freed
	lastUsed uint64   // step
}

func newPlan(t trace) *plan {
	iv := t.intervals()
	p := &plan{trace: t, bound: peak(iv)}
	p.offsets, p.extent = pack(iv, p.bound)
	for i := range iv {
		iv[i].size = t.sizes[i]
	}
	p.peakLive = peak(iv)
	p.starts = slices.Compact(slices.Sorted(slices.Values(p.offsets)))
	p.holder = make([]int32, len(p.starts))
	p.slotOf = make([]int32, len(p.offsets))
	for i, o := range p.offsets {
		slot, _ := slices.BinarySearch(p.starts, o)
		p.slotOf[i] = int32(slot)
	}
	p.freedIn = make([]uint64, len(p.sizes))
	return p
}

// interval is a block of size bytes that lives during [start, end).
type interval struct{ size, start, end int }

// peak is the most bytes that are live at once; start ascends over iv.
func peak(iv []interval) int {
	ending := make([]int, len(iv)+1) // bytes whose life ends at each time
	live, most := 0, 0
	for i, v := range iv {
		live += v.size
		ending[v.end] += v.size
		most = max(most, live-ending[i])
		live -= ending[i]
	}
	return most
}

// Effort that packing may take, in steps over placed blocks: some milliseconds. It is spent once a plan.
const packEffort = 1 << 22

// pack finds offsets for the blocks such that no two lie over each other while both live, in as little extent as it can; bound is the
// extent that no packing can beat.
//
// The problem ("dynamic storage allocation") is NP-hard, but the traces of models are kind: greedy placement in a good order mostly
// meets the bound. Several orders are tried. If none meets it, the blocks that stick out at the top are placed earlier and everything
// again, as in "squeaky wheel" optimization (Joslin and Clements, 1999), with a random exchange against going round in circles.
func pack(iv []interval, bound int) (offsets []int, extent int) {
	n := len(iv)
	size := func(i int32) int { return iv[i].size }
	life := func(i int32) int { return iv[i].end - iv[i].start }
	area := func(i int32) int { return size(i) * life(i) }
	start := func(i int32) int { return -iv[i].start }

	order, tried := make([]int32, n), make([]int, n)
	best, offsets := make([]int32, n), make([]int, n)
	extent = math.MaxInt
	attempt := func() bool {
		if e := place(iv, order, tried); e < extent {
			extent = e
			copy(best, order)
			copy(offsets, tried)
		}
		return extent <= bound
	}
	for _, by := range [][2]func(int32) int{{size, life}, {area, size}, {life, size}, {start, size}} {
		for i := range order {
			order[i] = int32(i)
		}
		slices.SortStableFunc(order, func(a, b int32) int {
			return cmp.Or(cmp.Compare(by[0](b), by[0](a)), cmp.Compare(by[1](b), by[1](a)))
		})
		if attempt() {
			return offsets, extent
		}
	}

	random := rand.New(rand.NewPCG(1, 2)) // fixed: equal traces get equal plans
	copy(order, best)
	copy(tried, offsets)
	for range packEffort / (n*n + 1) {
		promoteTop(iv, order, tried, bound, random)
		if attempt() {
			break
		}
	}
	return offsets, extent
}

// promoteTop moves the blocks that end above bound to any earlier place in the order, and lets two blocks change places.
func promoteTop(iv []interval, order []int32, offsets []int, bound int, random *rand.Rand) {
	for at, i := range order {
		if offsets[i]+iv[i].size <= bound {
			continue
		}
		to := random.IntN(at + 1)
		copy(order[to+1:at+1], order[to:at])
		order[to] = i
	}
	i, j := random.IntN(len(order)), random.IntN(len(order))
	order[i], order[j] = order[j], order[i]
}

// place puts the blocks, one after the other, into the smallest gap between those placed before that live at the same time, or on top
// of them. It fills offsets and returns the extent.
func place(iv []interval, order []int32, offsets []int) (extent int) {
	type spot struct{ lo, hi, start, end int }
	placed := make([]spot, 0, len(order)) // by lo
	for _, i := range order {
		v := iv[i]
		top, at, gap := 0, -1, math.MaxInt
		for _, s := range placed {
			if s.end <= v.start || v.end <= s.start {
				continue
			}
			if g := s.lo - top; g >= v.size && g < gap {
				at, gap = top, g
			}
			top = max(top, s.hi)
		}
		if at < 0 {
			at = top
		}
		offsets[i] = at
		extent = max(extent, at+v.size)
		pos, _ := slices.BinarySearchFunc(placed, at, func(s spot, lo int) int { return cmp.Compare(s.lo, lo) })
		placed = slices.Insert(placed, pos, spot{at, at + v.size, v.start, v.end})
	}
	return extent
}
