package pool

import (
	"math/bits"
	"sync"
)

const (
	smallBlock = 32 << 10 // blocks up to here live in slabs
	slabBytes  = 64 << 10 // a slab, or 8 slots if those are more
)

// classSizes are the slot sizes, all multiples of Align: every 64 bytes up to 512, then four a doubling, so that rounding up wastes at
// most a fifth of a block above 512 bytes.
var classSizes = func() (sizes []int) {
	for n := Align; n <= 512; n += Align {
		sizes = append(sizes, n)
	}
	for base := 512; base < smallBlock; base *= 2 {
		for i := 1; i <= 4; i++ {
			sizes = append(sizes, base+i*base/4)
		}
	}
	return sizes
}()

// classOf is the index of the smallest class that holds n bytes, 0 <= n <= smallBlock.
func classOf(n int) int {
	if n <= 512 {
		return (max(n, 1) - 1) / Align
	}
	e := bits.Len(uint(n-1)) - 1 // 1<<e <= n-1
	return 8 + 4*(e-9) + (n-1-1<<e)>>(e-2)
}

// sizeClass hands out slots of one size. Its slabs are cut from page runs.
type sizeClass struct {
	size int
	runs *runAllocator

	mu      sync.Mutex
	partial []*slab // with at least one free slot; the last is used first
	empty   int     // of those, without a single used slot
	slabs   int
	live    int
	allocs  int64
}

// slab is a run divided into slots of one class.
type slab struct {
	class *sizeClass
	run   *run
	slots int
	used  int
	at    int      // index in class.partial, -1 when full
	free  []uint64 // bit i: slot i is free
}

// slabSize is the bytes of a slab, slots the number of slots in it.
func (c *sizeClass) slabSize() int { return max(slabBytes, 8*c.size) }
func (c *sizeClass) slots() int    { return c.slabSize() / c.size }

// alloc takes a slot; its memory is not zeroed.
func (c *sizeClass) alloc() (*slab, int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.partial) == 0 {
		if err := c.grow(); err != nil {
			return nil, 0, err
		}
	}
	s := c.partial[len(c.partial)-1]
	slot := s.firstFree()
	s.free[slot/64] &^= 1 << (slot % 64)
	if s.used == 0 {
		c.empty--
	}
	if s.used++; s.used == s.slots {
		c.partial = c.partial[:len(c.partial)-1]
		s.at = -1
	}
	c.live++
	c.allocs++
	return s, slot, nil
}

func (s *slab) firstFree() int {
	for w, m := range s.free {
		if m != 0 {
			return w*64 + bits.TrailingZeros64(m)
		}
	}
	panic("pool: a full slab was listed as partial")
}

// memory is the slot's bytes.
func (s *slab) memory(slot int) []byte {
	lo := slot * s.class.size
	return s.run.bytes()[lo : lo+s.class.size]
}

// release gives a slot back. One empty slab is kept for the next allocation, further ones return to the page runs.
func (c *sizeClass) release(s *slab, slot int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.free[slot/64] |= 1 << (slot % 64)
	if s.at < 0 {
		s.at = len(c.partial)
		c.partial = append(c.partial, s)
	}
	c.live--
	if s.used--; s.used > 0 {
		return
	}
	if c.empty++; c.empty > 1 {
		c.drop(s)
	}
}

func (c *sizeClass) grow() error {
	r, err := c.runs.alloc(c.slabSize())
	if err != nil {
		return err
	}
	r.take(false)
	s := &slab{class: c, run: r, slots: c.slots()}
	s.free = make([]uint64, (s.slots+63)/64)
	for i := range s.slots {
		s.free[i/64] |= 1 << (i % 64)
	}
	c.partial = append(c.partial, s)
	s.at = len(c.partial) - 1
	c.empty++
	c.slabs++
	return nil
}

// drop returns an empty slab to the page runs.
func (c *sizeClass) drop(s *slab) {
	last := c.partial[len(c.partial)-1]
	c.partial[s.at], last.at = last, s.at
	c.partial = c.partial[:len(c.partial)-1]
	c.empty--
	c.slabs--
	c.runs.release(s.run)
}

// trim drops all empty slabs.
func (c *sizeClass) trim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.partial) - 1; i >= 0 && c.empty > 0; i-- {
		if s := c.partial[i]; s.used == 0 {
			c.drop(s)
		}
	}
}
