package pool

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// replay runs a recorded trace on a Scratch as one step.
func replay(s *Scratch, key uint64, tr *trace, held [][]byte) {
	s.Begin(key)
	k := 0
	for i, n := range tr.sizes {
		for ; k < int(tr.freed[i]); k++ {
			s.Free(held[tr.frees[k]])
		}
		held[i] = s.Alloc(n)
	}
	for ; k < len(tr.frees); k++ {
		s.Free(held[tr.frees[k]])
	}
	s.End()
}

func sameStart(a, b []byte) bool { return unsafe.SliceData(a) == unsafe.SliceData(b) }

func TestTheSecondStepOfAKeyIsServedFromTheArena(t *testing.T) {
	p := New(Options{})
	s := p.NewScratch()
	var first, second []byte
	for step := range 4 {
		s.Begin(7)
		a := s.Alloc(1000)
		b := s.Alloc(5000)
		s.Free(a)
		c := s.Alloc(900)
		assert.True(t, step == 0 || sameStart(a, c), "c lies where a was")
		assert.Len(t, b, 5000)
		first, second = second, b
		s.End()
	}
	assert.True(t, sameStart(first, second), "each step has the same offsets")
	live, reserved := s.Efficiency()
	assert.EqualValues(t, 6000, live)
	assert.EqualValues(t, 1024+5056, reserved)
	assert.Equal(t, ScratchStats{Steps: 4, Planned: 3, Recorded: 1, Plans: 1, Arena: 6080, Blocks: 3, PeakLive: 6000, PeakRounded: 6080,
		Reserved: 6080}, s.Stats())
	assert.EqualValues(t, 1, p.Stats().LiveBlocks, "the arena")
	s.Close()
	assert.Zero(t, p.Stats().LiveBlocks)
}

func TestPlannedStepsAllocateNothingOnTheGoHeap(t *testing.T) {
	s := New(Options{HugePages: true}).NewScratch()
	defer s.Close()
	var tr tracer
	tr.forward(shapes["2B"], 1, 1)
	held := make([][]byte, len(tr.sizes))
	replay(s, 1, &tr.trace, held)
	assert.Zero(t, testing.AllocsPerRun(10, func() { replay(s, 1, &tr.trace, held) }))
	live, reserved := s.Efficiency()
	assert.GreaterOrEqual(t, float64(live)/float64(reserved), 0.98)
	assert.Zero(t, s.Stats().Fallbacks)
}

func TestAllPlansShareOneArena(t *testing.T) {
	p := New(Options{})
	s := p.NewScratch()
	for range 2 {
		for key := range uint64(5) {
			s.Begin(key)
			b := s.Alloc(100_000 * int(key+1))
			fill(b, 1)
			s.End()
		}
	}
	assert.EqualValues(t, 500_032, s.Stats().Arena)
	assert.EqualValues(t, 500_032, p.Stats().Requested)
	assert.EqualValues(t, 5, s.Stats().Planned)
	s.Close()
}

// Whatever the steps do, planned or not, live memory is never shared and is always aligned.
func TestLiveScratchMemoryIsNeverShared(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := New(Options{Debug: rapid.Bool().Draw(t, "debug")})
		s := p.NewScratch()
		type block struct {
			mem  []byte
			mark byte
		}
		// Steps are scripts of sizes and frees; a mutation of a script makes a step that leaves its plan somewhere.
		type op struct{ free, n int }
		drawOp := func(t *rapid.T) op {
			if rapid.IntRange(0, 2).Draw(t, "kind") == 0 {
				return op{free: 1, n: rapid.IntRange(0, 5).Draw(t, "which")}
			}
			return op{n: rapid.SampledFrom([]int{0, 1, 64, 100, 1000, 5000}).Draw(t, "n")}
		}
		script := rapid.SliceOfN(rapid.Custom(drawOp), 0, 25).Draw(t, "script")
		mark := byte(0)
		for range 8 {
			if rapid.IntRange(0, 3).Draw(t, "change") == 0 && len(script) > 0 {
				script = slices.Clone(script)
				at := rapid.IntRange(0, len(script)-1).Draw(t, "at")
				switch rapid.IntRange(0, 2).Draw(t, "how") {
				case 0:
					script[at] = drawOp(t)
				case 1:
					script = slices.Delete(script, at, at+1)
				case 2:
					script = slices.Insert(script, at, drawOp(t))
				}
			}
			s.Begin(uint64(rapid.IntRange(0, 1).Draw(t, "key")))
			var live []block
			check := func() {
				for _, b := range live {
					require.True(t, isFilledWith(b.mem, b.mark), "written by another block")
				}
			}
			for _, o := range script {
				if o.free == 1 {
					if o.n < len(live) {
						s.Free(live[o.n].mem)
						live = slices.Delete(live, o.n, o.n+1)
					}
					continue
				}
				mem := s.Alloc(o.n)
				require.Len(t, mem, o.n)
				require.Zero(t, uintptr(unsafe.Pointer(unsafe.SliceData(mem)))%Align)
				for _, b := range live {
					require.False(t, sameStart(mem, b.mem))
				}
				mark++
				fill(mem, mark)
				live = append(live, block{mem, mark})
				check()
			}
			check()
			s.End()
		}
		c := s.Stats()
		require.Equal(t, c.Steps, c.Planned+c.Recorded+c.Fallbacks)
		s.Close()
		require.Zero(t, p.Stats().LiveBlocks)
	})
}

func TestAStepThatLeavesItsPlanFallsBackAndIsRecordedAgain(t *testing.T) {
	type step func(s *Scratch)
	usual := func(s *Scratch) {
		a, b := s.Alloc(100), s.Alloc(200)
		s.Free(a)
		s.Free(b)
		s.Alloc(300)
	}
	for name, other := range map[string]step{
		"another size":   func(s *Scratch) { s.Free(s.Alloc(101)); s.Alloc(200); s.Alloc(300) },
		"more blocks":    func(s *Scratch) { usual(s); s.Alloc(1); s.Free(s.Alloc(1)) },
		"a free missing": func(s *Scratch) { s.Alloc(100); b := s.Alloc(200); s.Free(b); s.Alloc(300) },
		"a free too late": func(s *Scratch) {
			a, b := s.Alloc(100), s.Alloc(200)
			s.Free(b)
			s.Alloc(300)
			s.Free(a)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := New(Options{})
			s := p.NewScratch()
			defer s.Close()
			run := func(f step) (c ScratchStats) {
				s.Begin(1)
				f(s)
				s.End()
				assert.LessOrEqual(t, p.Stats().LiveBlocks, int64(1), "only the arena outlives a step")
				return s.Stats()
			}
			run(usual)
			assert.EqualValues(t, 1, run(usual).Planned)
			assert.EqualValues(t, 1, run(other).Fallbacks)
			assert.EqualValues(t, 2, run(other).Recorded)
			assert.EqualValues(t, 2, run(other).Planned)
		})
	}
}

func TestHarmlessDifferencesKeepThePlan(t *testing.T) {
	s := New(Options{}).NewScratch()
	defer s.Close()
	s.Begin(1)
	a, b := s.Alloc(100), s.Alloc(200)
	s.Free(a)
	s.Free(b)
	s.Alloc(300)
	s.End()

	s.Begin(1) // the other order of frees, and one more that the record has not
	a, b = s.Alloc(100), s.Alloc(200)
	s.Free(b)
	s.Free(a)
	s.Free(s.Alloc(300))
	s.End()

	s.Begin(1) // fewer blocks
	s.Alloc(100)
	s.End()
	assert.EqualValues(t, 2, s.Stats().Planned)
	assert.Zero(t, s.Stats().Fallbacks)
}

func TestTheLeastRecentlyUsedPlanMakesRoom(t *testing.T) {
	s := New(Options{}).NewScratch()
	defer s.Close()
	run := func(key uint64) {
		s.Begin(key)
		s.Alloc(int(key) * 1000)
		s.End()
	}
	for key := range uint64(maxPlans) {
		run(key)
	}
	run(0)   // planned; now 1 is the oldest
	run(100) // drops 1
	assert.Equal(t, maxPlans, s.Stats().Plans)
	recorded := s.Stats().Recorded
	run(0)
	run(100)
	assert.Equal(t, recorded, s.Stats().Recorded)
	run(1)
	assert.Equal(t, recorded+1, s.Stats().Recorded)
}

func TestTheArenaShrinksWhenLargePlansAreGone(t *testing.T) {
	s := New(Options{}).NewScratch()
	defer s.Close()
	run := func(key uint64, n int) {
		s.Begin(key)
		s.Alloc(n)
		s.End()
	}
	run(0, 4*mib)
	for key := range uint64(maxPlans) {
		run(key+1, 1000)
	}
	assert.EqualValues(t, 1024, s.Stats().Arena)
}

func TestRecordingLeavesNoSecondCopyOfTheMemoryBehind(t *testing.T) {
	p := New(Options{})
	s := p.NewScratch()
	for range 2 {
		s.Begin(1)
		for range 10 {
			s.Alloc(3 * mib)
		}
		s.End()
	}
	assert.EqualValues(t, 30*mib, s.Stats().Reserved)
	assert.LessOrEqual(t, p.Stats().Reserved, int64(32*mib))
	s.Close()
}

func TestStepsGoOnWithoutAnArenaWhileTheBudgetIsShort(t *testing.T) {
	p := New(Options{Budget: slabBytes})
	hold := mustAlloc(t, p, 1000) // its slab is the whole budget, but has free slots
	s := p.NewScratch()
	step := func() ScratchStats {
		s.Begin(1)
		for range 6 {
			s.Alloc(1000)
		}
		s.End()
		return s.Stats()
	}
	step()
	assert.EqualValues(t, 2, step().Recorded)
	assert.Zero(t, s.Stats().Arena)
	hold.Release()
	step()
	assert.EqualValues(t, 1, step().Planned)
	s.Close()
	require.NoError(t, p.Close())
}

func TestALackOfMemoryIsAnErrorForWhoeverRunsTheStep(t *testing.T) {
	p := New(Options{Budget: 4 * mib})
	s := p.NewScratch()
	step := func(n int) (err error) {
		defer Recover(&err)
		s.Begin(1)
		defer s.End()
		s.Alloc(1000)
		s.Alloc(n)
		return nil
	}
	err := step(5 * mib)
	var scratch *ScratchError
	require.ErrorAs(t, err, &scratch)
	assert.ErrorIs(t, err, ErrBudget)
	assert.Contains(t, err.Error(), "scratch")
	assert.ErrorIs(t, step(-1), ErrSize)
	assert.Zero(t, s.Stats().Plans, "a broken step is not planned")
	assert.Zero(t, p.Stats().LiveBlocks)

	require.NoError(t, step(mib))
	require.NoError(t, step(mib))
	assert.EqualValues(t, 1, s.Stats().Planned)
	assert.ErrorIs(t, step(5*mib), ErrBudget)
	require.NoError(t, step(mib), "recorded again")
	s.Close()
	require.NoError(t, p.Close())
}

func TestRecoverLeavesOtherPanicsAlone(t *testing.T) {
	other := errors.New("other")
	assert.PanicsWithValue(t, other, func() {
		var err error
		defer Recover(&err)
		panic(other)
	})
	func() {
		err := error(nil)
		defer func() { assert.NoError(t, err) }()
		defer Recover(&err)
	}()
}

func TestMisuseOfAScratchPanics(t *testing.T) {
	s := New(Options{}).NewScratch()
	assert.Panics(t, func() { s.Alloc(1) }, "outside a step")
	assert.Panics(t, func() { s.End() })
	for range 2 { // recorded, then planned
		s.Begin(1)
		assert.Panics(t, func() { s.Begin(1) })
		a, b := s.Alloc(100), s.Alloc(100)
		assert.Panics(t, func() { s.Free(b[1:]) })
		assert.Panics(t, func() { s.Free(make([]byte, 100)) })
		s.Free(a[:3])
		assert.Panics(t, func() { s.Free(a) }, "freed twice")
		s.End()
	}
	assert.Panics(t, func() { s.End() })
	assert.EqualValues(t, 1, s.Stats().Planned)
	s.Close()
}

func TestCloseEndsARunningStepAndLeavesAUsableScratch(t *testing.T) {
	p := New(Options{})
	s := p.NewScratch()
	for range 2 {
		for range 3 {
			s.Begin(1)
			s.Alloc(100)
			s.End()
		}
		s.Begin(1)
		s.Alloc(100)
		s.Close()
		s.Close()
		assert.Zero(t, p.Stats().LiveBlocks)
		assert.Zero(t, s.Stats().Plans)
	}
}

func TestDebugModePoisonsPlannedMemory(t *testing.T) {
	s := New(Options{Debug: true}).NewScratch()
	defer s.Close()
	for range 2 {
		s.Begin(1)
		a := s.Alloc(100)
		s.Alloc(100)
		assert.True(t, isFilledWith(a, poison))
		fill(a, 1)
		if s.mode == planned {
			s.Free(a)
			assert.True(t, isFilledWith(a, poison))
		}
		s.End()
	}
}

func TestScratchesOfManyGoroutinesShareAPool(t *testing.T) {
	p := New(Options{})
	var tr tracer
	tr.forward(shapes["tiny"], 3, 1)
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s := p.NewScratch()
			defer s.Close()
			held := make([][]byte, len(tr.sizes))
			for i := range 20 {
				replay(s, uint64(i%3), &tr.trace, held)
			}
			assert.EqualValues(t, 17, s.Stats().Planned)
		}()
	}
	wg.Wait()
	require.NoError(t, p.Close())
}

func BenchmarkScratchStep(b *testing.B) {
	var tr tracer
	tr.forward(shapes["2B"], 1, 1)
	held := make([][]byte, len(tr.sizes))
	s := New(Options{HugePages: true}).NewScratch()
	replay(s, 1, &tr.trace, held)
	b.Run("planned", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			replay(s, 1, &tr.trace, held)
		}
		live, reserved := s.Efficiency()
		b.ReportMetric(float64(live)/float64(reserved), "live/reserved")
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(held)), "ns/block")
	})
	b.Run("recorded", func(b *testing.B) {
		key := uint64(1)
		for b.Loop() {
			key++
			replay(s, key, &tr.trace, held)
		}
	})
}
