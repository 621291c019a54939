package pool

import "unsafe"

// Scratch is one step's memory. It belongs to one goroutine at a time; memory from Alloc has undefined contents.
type Scratch struct {
	pool *HybridMemoryPool
	live map[*byte]*Block
}

// NewScratch returns an empty Scratch.
func (p *HybridMemoryPool) NewScratch() *Scratch {
	return &Scratch{pool: p, live: map[*byte]*Block{}}
}

// Begin starts a step; key names its shape.
func (s *Scratch) Begin(key uint64) {}

// Alloc returns n bytes, 64-byte aligned, contents undefined. It panics with a *ScratchError when the budget is spent: Recover turns that into an error.
func (s *Scratch) Alloc(n int) []byte {
	b, err := s.pool.AllocUninit(max(n, 1), "scratch")
	if err != nil {
		panic(&ScratchError{err})
	}
	s.live[unsafe.SliceData(b.data)] = b
	return b.data[:n]
}

// Free gives b back before the step ends, in any order.
func (s *Scratch) Free(b []byte) {
	k := unsafe.SliceData(b)
	s.live[k].Release()
	delete(s.live, k)
}

// End ends the step and frees what Free did not.
func (s *Scratch) End() {
	for k, b := range s.live {
		b.Release()
		delete(s.live, k)
	}
}

// Close gives all memory back.
func (s *Scratch) Close() { s.End() }

// Efficiency returns the peak of live bytes and the reserved bytes of the last planned step.
func (s *Scratch) Efficiency() (peakLive, reserved int64) { return 0, 0 }

// ScratchError is what Scratch.Alloc panics with when the pool has no memory left.
type ScratchError struct{ Err error }

func (e *ScratchError) Error() string { return "pool: scratch: " + e.Err.Error() }

// Unwrap returns the pool's error.
func (e *ScratchError) Unwrap() error { return e.Err }

// Recover, deferred by whoever runs a step, turns a ScratchError panic into an error and lets every other panic go on.
func Recover(err *error) {
	switch r := recover().(type) {
	case nil:
	case *ScratchError:
		*err = r
	default:
		panic(r)
	}
}
