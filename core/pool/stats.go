package pool

import (
	"math/bits"
	"sync/atomic"
)

// Stats are the pool's counters. Each number is exact; numbers that change while Stats reads the others may be of a moment later.
// Sizes are bytes.
type Stats struct {
	Budget int64 `json:"budget"` // the most the pool may reserve

	Requested int64 `json:"requested"` // asked for by the live blocks
	InUse     int64 `json:"in_use"`    // taken by the live blocks: requested, rounded up to slots and pages
	Reserved  int64 `json:"reserved"`  // mapped from the operating system: in use, and free for the next block

	// The largest values since the pool was made.
	PeakRequested int64 `json:"peak_requested"`
	PeakInUse     int64 `json:"peak_in_use"`
	PeakReserved  int64 `json:"peak_reserved"`

	LiveBlocks int64    `json:"live_blocks"` // handles not released yet
	Allocs     int64    `json:"allocs"`      // since the pool was made
	Failures   Failures `json:"failures"`    // of Alloc, by their reason
	Trimmed    int64    `json:"trimmed"`     // given back by Trim, in all

	// InternalFragmentation is the share of InUse lost to rounding, 1 - Requested/InUse.
	InternalFragmentation float64 `json:"internal_fragmentation"`
	// ExternalFragmentation is the share of the free page runs outside the largest one, 1 - LargestFree/Free: near 0 the free
	// memory serves one large block, near 1 only many small ones.
	ExternalFragmentation float64 `json:"external_fragmentation"`

	Classes   []ClassStats `json:"classes"`    // of small blocks, by size
	Runs      RunStats     `json:"runs"`       // page runs for slabs and middling blocks
	LargeRuns RunStats     `json:"large_runs"` // page runs for blocks from 1 MiB, on huge pages where there are any
	Histogram []Bucket     `json:"histogram"`  // of the sizes asked for; empty buckets are left out
}

// Failures counts the allocations that gave an error, by its kind.
type Failures struct {
	Budget int64 `json:"budget"` // BudgetError
	Size   int64 `json:"size"`   // SizeError
	System int64 `json:"system"` // SystemError
}

// ClassStats are the counters of one size class.
type ClassStats struct {
	Size   int   `json:"size"`   // bytes a slot
	Slabs  int   `json:"slabs"`  // mapped
	Slots  int   `json:"slots"`  // in those slabs
	Live   int   `json:"live"`   // slots in use
	Allocs int64 `json:"allocs"` // since the pool was made
}

// RunStats are the counters of one page-run allocator.
type RunStats struct {
	Chunks      int   `json:"chunks"`       // mappings
	Reserved    int64 `json:"reserved"`     // their bytes
	Live        int   `json:"live"`         // runs in use, by blocks and slabs
	FreeRuns    int   `json:"free_runs"`    // after coalescing
	Free        int64 `json:"free"`         // bytes in free runs
	LargestFree int64 `json:"largest_free"` // bytes of the largest one
	Idle        int64 `json:"idle"`         // bytes in chunks without any run in use
}

// Bucket counts blocks of more than half of UpTo and at most UpTo bytes; the first also those of 64 bytes and less.
type Bucket struct {
	UpTo   int64 `json:"up_to"`
	Live   int64 `json:"live"`   // of now
	Allocs int64 `json:"allocs"` // since the pool was made
}

// gauge is a level and the highest it ever was.
type gauge struct{ now, peak atomic.Int64 }

func (g *gauge) add(n int64) int64 {
	now := g.now.Add(n)
	g.raise(now)
	return now
}

// raise notes a level that was reached.
func (g *gauge) raise(level int64) {
	for peak := g.peak.Load(); level > peak && !g.peak.CompareAndSwap(peak, level); {
		peak = g.peak.Load()
	}
}

// counters are the pool-wide numbers; those of classes and runs are kept under their locks.
type counters struct {
	requested, inUse, reserved, live gauge
	trimmed                          atomic.Int64
	failed                           struct{ budget, size, system atomic.Int64 }
	sizes                            [bits.UintSize]struct{ live, allocs atomic.Int64 }
}

// bucket is the index of the histogram's bucket for blocks of n bytes; its UpTo is Align << index.
func bucket(n int) int { return bits.Len(uint(max(n, 1)-1) / Align) }

// allocated counts a new block and returns the bytes now in use.
func (c *counters) allocated(n, capacity int) int64 {
	size := &c.sizes[bucket(n)]
	size.live.Add(1)
	size.allocs.Add(1)
	c.requested.add(int64(n))
	return c.inUse.add(int64(capacity))
}

// freed counts a released block and returns the bytes now in use.
func (c *counters) freed(n, capacity int) int64 {
	c.sizes[bucket(n)].live.Add(-1)
	c.requested.add(-int64(n))
	return c.inUse.add(-int64(capacity))
}

// InUse is Stats().InUse, at no cost.
func (p *HybridMemoryPool) InUse() int64 { return p.count.inUse.now.Load() }

// Stats returns the counters as they are now.
func (p *HybridMemoryPool) Stats() Stats {
	c := &p.count
	s := Stats{
		Budget:        p.budget.Load(),
		Requested:     c.requested.now.Load(),
		InUse:         c.inUse.now.Load(),
		Reserved:      c.reserved.now.Load(),
		PeakRequested: c.requested.peak.Load(),
		PeakInUse:     c.inUse.peak.Load(),
		PeakReserved:  c.reserved.peak.Load(),
		LiveBlocks:    c.live.now.Load(),
		Trimmed:       c.trimmed.Load(),
		Failures:      Failures{c.failed.budget.Load(), c.failed.size.Load(), c.failed.system.Load()},
		Runs:          p.runs.stats(),
		LargeRuns:     p.large.stats(),
	}
	for i := range c.sizes {
		b := Bucket{Align << i, c.sizes[i].live.Load(), c.sizes[i].allocs.Load()}
		if b.Allocs > 0 {
			s.Histogram = append(s.Histogram, b)
			s.Allocs += b.Allocs
		}
	}
	for i := range p.classes {
		s.Classes = append(s.Classes, p.classes[i].stats())
	}
	if s.InUse > 0 {
		s.InternalFragmentation = 1 - float64(s.Requested)/float64(s.InUse)
	}
	if free := s.Runs.Free + s.LargeRuns.Free; free > 0 {
		s.ExternalFragmentation = 1 - float64(max(s.Runs.LargestFree, s.LargeRuns.LargestFree))/float64(free)
	}
	return s
}

func (c *sizeClass) stats() ClassStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ClassStats{Size: c.size, Slabs: c.slabs, Slots: c.slabs * c.slots(), Live: c.live, Allocs: c.allocs}
}

func (a *runAllocator) stats() RunStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := RunStats{Chunks: len(a.chunks), Live: a.live, Idle: int64(a.idle)}
	for c := range a.chunks {
		s.Reserved += int64(len(c.mem))
	}
	for _, r := range a.bins {
		for ; r != nil; r = r.binNext {
			n := int64(r.pages * pageSize)
			s.FreeRuns++
			s.Free += n
			s.LargestFree = max(s.LargestFree, n)
		}
	}
	return s
}
