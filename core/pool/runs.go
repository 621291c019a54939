package pool

import (
	"math/bits"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/core/logs"
)

// Sizes of mappings, in bytes.
const (
	chunkBytes      = 4 << 20  // under slabs and blocks below largeBlock
	largeBlock      = 1 << 20  // from here on blocks lie in large chunks
	largeChunkBytes = 16 << 20 // under large blocks; a block of more than half of it gets a chunk cut to its size
	idleBytes       = 64 << 20 // of wholly free chunks that an allocator keeps for the next block
)

// chunk is one mapping, divided into runs. first is the run at its start.
type chunk struct {
	mem     []byte
	first   *run
	used    int    // pages in runs that are not free
	touched []bool // by page: handed out since it was last known to be zero; owned by whoever owns the page
}

// run is some pages of a chunk in a row, either in use by one block or slab, or free. Two neighbours are never both free.
type run struct {
	chunk            *chunk
	page, pages      int
	free             bool
	before, after    *run // neighbours in the chunk
	binPrev, binNext *run // free runs of about the same size
}

// bytes is the run's memory.
func (r *run) bytes() []byte {
	lo, hi := r.page*pageSize, (r.page+r.pages)*pageSize
	return r.chunk.mem[lo:hi:hi]
}

// take prepares the memory of a run that its new owner just got: zeroed if asked for. Pages never handed out are zero already, and are
// left untouched so that the kernel need not back them before they are used.
func (r *run) take(zero bool) {
	touched := r.chunk.touched[r.page : r.page+r.pages]
	if zero {
		mem := r.bytes()
		eachRange(touched, func(lo, hi int) { clear(mem[lo*pageSize : hi*pageSize]) })
	}
	for i := range touched {
		touched[i] = true
	}
}

// eachRange calls f with the bounds of each maximal range of true.
func eachRange(flags []bool, f func(lo, hi int)) {
	for lo := 0; lo < len(flags); lo++ {
		if !flags[lo] {
			continue
		}
		hi := lo + 1
		for hi < len(flags) && flags[hi] {
			hi++
		}
		f(lo, hi)
		lo = hi
	}
}

// Free runs are kept in bins by size: exactly up to 4 pages, then four bins a doubling.
const binCount = 4 * 62

// bin is the list that a free run of so many pages belongs to.
func bin(pages int) int {
	if pages < 4 {
		return pages
	}
	e := bits.Len(uint(pages)) - 3 // pages>>e is 4..7
	return 4*e + pages>>e
}

// runAllocator divides chunks into runs of pages: best fit over all chunks, neighbours coalesced when they are freed.
type runAllocator struct {
	pool  *HybridMemoryPool
	large bool // chunks start on 2 MiB and ask for huge pages if the pool has them

	mu     sync.Mutex
	bins   [binCount]*run
	filled [(binCount + 63) / 64]uint64 // bit i: bins[i] is not empty
	chunks map[*chunk]struct{}
	idle   int // bytes in wholly free chunks
	live   int // runs in use
}

// alloc returns a run of at least n bytes (n > 0). Its memory is not prepared: see take.
func (a *runAllocator) alloc(n int) (*run, error) {
	pages := (n + pageSize - 1) / pageSize
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.bestFit(pages)
	if r == nil {
		var err error
		if r, err = a.grow(pages); err != nil {
			return nil, err
		}
	}
	a.unlist(r)
	if r.chunk.used == 0 {
		a.idle -= len(r.chunk.mem)
	}
	r.free = false
	r.chunk.used += pages
	a.live++
	if rest := r.pages - pages; rest > 0 {
		tail := &run{chunk: r.chunk, page: r.page + pages, pages: rest, before: r, after: r.after}
		if r.after != nil {
			r.after.before = tail
		}
		r.after, r.pages = tail, pages
		a.list(tail)
	}
	return r, nil
}

// release frees a run and coalesces it with free neighbours.
func (a *runAllocator) release(r *run) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := r.chunk
	c.used -= r.pages
	a.live--
	if n := r.after; n != nil && n.free {
		a.unlist(n)
		r.absorb(n)
	}
	if b := r.before; b != nil && b.free {
		a.unlist(b)
		b.absorb(r)
		r = b
	}
	a.list(r)
	if c.used > 0 {
		return
	}
	a.idle += len(c.mem)
	if a.idle > idleBytes {
		a.drop(c)
	}
}

// absorb adds the pages of r's right neighbour n to r.
func (r *run) absorb(n *run) {
	r.pages += n.pages
	r.after = n.after
	if n.after != nil {
		n.after.before = r
	}
}

// bestFit finds the smallest free run of at least so many pages. All runs of a higher bin are large enough, so the search ends with the
// first bin that gives one.
func (a *runAllocator) bestFit(pages int) *run {
	for i := a.nextFilled(bin(pages)); i >= 0; i = a.nextFilled(i + 1) {
		var best *run
		for r := a.bins[i]; r != nil; r = r.binNext {
			if r.pages >= pages && (best == nil || r.pages < best.pages) {
				best = r
			}
		}
		if best != nil {
			return best
		}
	}
	return nil
}

// nextFilled is the first bin from i on that is not empty, or -1.
func (a *runAllocator) nextFilled(i int) int {
	for w := i / 64; w < len(a.filled); w++ {
		m := a.filled[w]
		if w == i/64 {
			m &= ^uint64(0) << (i % 64)
		}
		if m != 0 {
			return w*64 + bits.TrailingZeros64(m)
		}
	}
	return -1
}

// list puts a free run into its bin.
func (a *runAllocator) list(r *run) {
	i := bin(r.pages)
	r.free, r.binPrev, r.binNext = true, nil, a.bins[i]
	if r.binNext != nil {
		r.binNext.binPrev = r
	}
	a.bins[i] = r
	a.filled[i/64] |= 1 << (i % 64)
}

// unlist takes a free run out of its bin.
func (a *runAllocator) unlist(r *run) {
	i := bin(r.pages)
	if r.binPrev != nil {
		r.binPrev.binNext = r.binNext
	} else {
		a.bins[i] = r.binNext
	}
	if r.binNext != nil {
		r.binNext.binPrev = r.binPrev
	}
	if a.bins[i] == nil {
		a.filled[i/64] &^= 1 << (i % 64)
	}
	r.binPrev, r.binNext = nil, nil
}

// grow maps a chunk with room for so many pages. Under a small budget, and near the end of any, it is no larger than it must be.
func (a *runAllocator) grow(pages int) (*run, error) {
	need, size, align := pages*pageSize, chunkBytes, pageSize
	if a.large {
		size, align = largeChunkBytes, hugePage
	}
	if share := a.pool.budget.Load() / 16; int64(size) > share {
		size = roundUp(int(share), pageSize)
	}
	if a.large && need > size/2 {
		size = roundUp(need, hugePage)
	}
	size = max(size, need)
	if !a.pool.reserve(size) {
		if size = need; !a.pool.reserve(size) {
			return nil, errNoBudget
		}
	}
	mem, err := mapMemory(size, align)
	if err != nil {
		a.pool.unreserve(size)
		return nil, err
	}
	if a.large && a.pool.opts.HugePages {
		if err := adviseHuge(mem); err != nil {
			a.pool.refused.Do(func() { logs.Get().Warn("huge pages refused: weights stream about a quarter slower", "error", err) })
		}
	}
	c := &chunk{mem: mem, touched: make([]bool, size/pageSize)}
	c.first = &run{chunk: c, pages: len(c.touched)}
	a.chunks[c] = struct{}{}
	a.idle += size
	a.list(c.first)
	logs.Get().Debug("memory mapped", "bytes", size, "reserved", a.pool.count.reserved.now.Load(), "budget", a.pool.budget.Load())
	return c.first, nil
}

// drop unmaps a wholly free chunk. If the system refuses, the chunk stays for the next block.
func (a *runAllocator) drop(c *chunk) (touched int) {
	eachRange(c.touched, func(lo, hi int) { touched += (hi - lo) * pageSize })
	if unmapMemory(c.mem) != nil {
		return 0
	}
	a.unlist(c.first)
	delete(a.chunks, c)
	a.idle -= len(c.mem)
	a.pool.unreserve(len(c.mem))
	return touched
}

// trim unmaps all wholly free chunks and, if pages is set, gives back the free pages of the others. It returns the bytes given back
// that had ever been handed out: those the system may really have had to back.
func (a *runAllocator) trim(pages bool) (given int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for c := range a.chunks {
		if c.used == 0 {
			given += a.drop(c)
			continue
		}
		if !pages {
			continue
		}
		for r := c.first; r != nil; r = r.after {
			if !r.free {
				continue
			}
			touched := c.touched[r.page : r.page+r.pages]
			mem := r.bytes()
			eachRange(touched, func(lo, hi int) {
				zeroed := adviseUnused(mem[lo*pageSize : hi*pageSize])
				given += (hi - lo) * pageSize
				for i := lo; zeroed && i < hi; i++ {
					touched[i] = false
				}
			})
		}
	}
	return given
}

func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }
