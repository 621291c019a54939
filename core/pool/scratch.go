package pool

import (
	"slices"
	"unsafe"
)

// maxPlans is how many plans a Scratch keeps; the least recently used one makes room.
const maxPlans = 16

// Scratch is the memory of a step that repeats: Begin, any number of Alloc and Free in any order, End.
//
// The first step with a key records what is allocated and freed, on blocks of the pool, and End computes a plan. Later steps with the
// key take their memory by offset from one arena that all plans of the Scratch share: no lock and no Go allocation. A step that leaves
// its trace (another size, more blocks, a block freed later than recorded) gets pool blocks from there on, and the next step with that
// key records again. So choose keys such that equal keys mean equal steps; the number of rows is a good one.
//
// Memory from a Scratch has undefined contents. A Scratch belongs to one goroutine at a time.
type Scratch struct {
	pool  *HybridMemoryPool
	plans map[uint64]*plan
	arena *Block // nil before the first plan
	base  []byte // of the arena

	// The step that runs.
	mode   stepMode
	key    uint64
	step   uint64         // number of the step, from 1
	plan   *plan          // planned mode, also after the step left it
	next   int            // planned mode: the next block of the plan
	freed  int            // planned mode: plan.frees[:freed] are known to be freed
	trace  trace          // recording mode
	blocks map[*byte]held // recording mode, and after the step left its plan
	broken bool           // the step ran out of memory, its trace is not whole

	count ScratchStats
}

type stepMode uint8

const (
	idle      stepMode = iota // between End and Begin
	recording                 // first step of a key
	planned                   // by offset from the arena
	fallback                  // the step left its plan
)

// held is a pool block of a step, and its number in the trace when it is recorded.
type held struct {
	block  *Block
	number int32
}

// ScratchStats are counters of a Scratch. Sizes are bytes; those of a plan belong to the last planned step.
type ScratchStats struct {
	Steps, Planned, Recorded, Fallbacks int64 // Steps = Planned + Recorded + Fallbacks + those cut short by a lack of memory

	Plans  int   // kept
	Arena  int64 // mapped for all plans together: the largest Reserved
	Blocks int   // of the plan

	PeakLive    int64 // the most that was live at once, as asked for
	PeakRounded int64 // the same with sizes rounded up to Align: no plan can need less
	Reserved    int64 // what the plan takes of the arena
}

// NewScratch returns an empty Scratch on p.
func (p *HybridMemoryPool) NewScratch() *Scratch {
	return &Scratch{pool: p, plans: map[uint64]*plan{}, blocks: map[*byte]held{}}
}

// Begin starts a step. The key names its shape: steps with equal keys are expected to allocate and free alike.
func (s *Scratch) Begin(key uint64) {
	if s.mode != idle {
		panic("pool: Scratch.Begin before End of the last step")
	}
	s.key, s.next, s.freed, s.broken = key, 0, 0, false
	s.step++
	s.count.Steps++
	s.plan = s.plans[key]
	if s.plan == nil || s.plan.extent > len(s.base) {
		s.mode, s.plan, s.trace = recording, nil, trace{}
		return
	}
	s.mode = planned
	s.plan.lastUsed = s.step
}

// Alloc returns n bytes that start on a multiple of Align, with undefined contents, until Free or End. n may be 0.
//
// When the pool cannot give them it panics with a *ScratchError, which Recover, deferred in whatever runs the step, turns into an error.
// End is to be called then as well.
func (s *Scratch) Alloc(n int) []byte {
	if s.mode == planned {
		if p := s.plan; s.next < len(p.sizes) && p.sizes[s.next] == n && s.freedAsPlanned() {
			i := s.next
			s.next++
			p.holder[p.slotOf[i]] = int32(i)
			at := p.offsets[i]
			b := s.base[at : at+n : at+max(n, 1)]
			if s.pool.registry != nil {
				fill(b, poison)
			}
			return b
		}
		s.mode = fallback
	}
	return s.allocBlock(n)
}

// freedAsPlanned reports whether all blocks that the plan has freed before the next one really are: its place may be theirs.
func (s *Scratch) freedAsPlanned() bool {
	p := s.plan
	for due := int(p.trace.freed[s.next]); s.freed < due; s.freed++ {
		if p.freedIn[p.frees[s.freed]] != s.step {
			return false
		}
	}
	return true
}

// allocBlock takes a block from the pool, and records it if the step is recorded.
func (s *Scratch) allocBlock(n int) []byte {
	if s.mode == idle {
		panic("pool: Scratch.Alloc outside Begin and End")
	}
	size := n
	if n == 0 { // an empty block has an address of its own as well
		size = 1
	}
	b, err := s.pool.AllocUninit(size, "scratch")
	if err != nil {
		s.broken = true
		panic(&ScratchError{err})
	}
	h := held{block: b}
	if s.mode == recording {
		h.number = s.trace.alloc(n)
	}
	s.blocks[unsafe.SliceData(b.data)] = h
	return b.data[:n]
}

// Free gives memory of Alloc back before the step ends. b starts where the slice from Alloc does; its length does not matter. Freeing
// anything else, or the same twice, panics.
func (s *Scratch) Free(b []byte) {
	start := unsafe.SliceData(b)
	if s.plan != nil {
		if i := s.planned(start); i >= 0 {
			s.plan.freedIn[i] = s.step
			if s.pool.registry != nil {
				fill(s.base[s.plan.offsets[i]:][:s.plan.sizes[i]], poison)
			}
			return
		}
	}
	h, ok := s.blocks[start]
	if !ok {
		panic("pool: Scratch.Free of memory that this step does not hold")
	}
	delete(s.blocks, start)
	if s.mode == recording {
		s.trace.free(h.number)
	}
	h.block.Release()
}

// planned returns the number of the live block of the plan that starts at an address, or -1.
func (s *Scratch) planned(start *byte) int {
	p := s.plan
	slot, found := slices.BinarySearch(p.starts, int(uintptr(unsafe.Pointer(start))-uintptr(unsafe.Pointer(unsafe.SliceData(s.base)))))
	if !found {
		return -1
	}
	i := int(p.holder[slot])
	if i >= s.next || p.freedIn[i] == s.step { // of an earlier step, or freed in this one
		return -1
	}
	return i
}

// End ends the step and frees what Free did not. After a recorded step it plans, which takes some milliseconds.
func (s *Scratch) End() {
	for start, h := range s.blocks {
		h.block.Release()
		delete(s.blocks, start)
	}
	mode, p := s.mode, s.plan
	s.mode, s.plan = idle, nil
	switch {
	case mode == idle:
		panic("pool: Scratch.End without Begin")
	case mode == fallback:
		delete(s.plans, s.key)
	}
	switch {
	case s.broken:
	case mode == planned:
		s.count.Planned++
		s.report(p)
	case mode == fallback:
		s.count.Fallbacks++
	case mode == recording:
		s.count.Recorded++
		s.keep(newPlan(s.trace))
		s.trace = trace{}
	}
}

// keep adds a plan for the step's key and makes the arena as large as the largest plan.
func (s *Scratch) keep(p *plan) {
	p.lastUsed = s.step
	s.plans[s.key] = p
	if len(s.plans) > maxPlans {
		oldest := s.key
		for key, q := range s.plans {
			if q.lastUsed < s.plans[oldest].lastUsed {
				oldest = key
			}
		}
		delete(s.plans, oldest)
	}
	want := 0
	for _, q := range s.plans {
		want = max(want, q.extent)
	}
	if want <= len(s.base) && len(s.base) <= 2*want {
		return
	}
	// The recorded step left its blocks free in the pool: their memory makes room for the arena.
	s.dropArena()
	if want >= largeBlock {
		s.pool.Trim()
	}
	// Without memory for an arena the steps go on with pool blocks, and record until there is one.
	if b, err := s.pool.AllocUninit(want, "scratch arena"); err == nil {
		s.arena, s.base = b, b.Bytes()
	}
}

func (s *Scratch) dropArena() {
	if s.arena != nil {
		s.arena.Release()
		s.arena, s.base = nil, nil
	}
}

// Close ends the step if one runs, drops all plans and gives the arena back. The Scratch may be used again.
func (s *Scratch) Close() {
	if s.mode != idle {
		s.broken = true
		s.End()
	}
	clear(s.plans)
	s.dropArena()
}

// Efficiency returns the most bytes, as asked for, that were live at once in the last planned step, and the bytes of arena reserved for
// it. Both are 0 before the first planned step. Their ratio is below 1 by what the plan wastes and by the rounding of sizes to Align.
func (s *Scratch) Efficiency() (peakLive, reserved int64) {
	return s.count.PeakLive, s.count.Reserved
}

// Stats returns the counters.
func (s *Scratch) Stats() ScratchStats {
	c := s.count
	c.Plans, c.Arena = len(s.plans), int64(len(s.base))
	return c
}

func (s *Scratch) report(p *plan) {
	s.count.Blocks = len(p.sizes)
	s.count.PeakLive, s.count.PeakRounded, s.count.Reserved = int64(p.peakLive), int64(p.bound), int64(p.extent)
}

// ScratchError is the panic of Scratch.Alloc when the pool has no memory left; Err is what the pool's Alloc returned.
type ScratchError struct{ Err error }

// Error has the words of Err.
func (e *ScratchError) Error() string { return "scratch memory: " + e.Err.Error() }

// Unwrap returns Err.
func (e *ScratchError) Unwrap() error { return e.Err }

// Recover turns a panic with a *ScratchError into *err and lets every other panic go on. It must be deferred directly:
//
//	func (e *Engine) Step(...) (err error) {
//		defer pool.Recover(&err)
func Recover(err *error) {
	switch r := recover().(type) {
	case nil:
	case *ScratchError:
		*err = r
	default:
		panic(r)
	}
}
