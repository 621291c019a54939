package pool

import (
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// sizes cover each kind of home: slots, slab borders, small runs, large runs, chunks of their own.
var sizes = []int{0, 1, 63, 64, 65, 512, 513, 4096, smallBlock - 1, smallBlock, smallBlock + 1, 100_000, largeBlock - 1, largeBlock,
	3<<20 + 5, largeChunkBytes, largeChunkBytes + 1, 40 << 20}

func mustAlloc(t testing.TB, p *HybridMemoryPool, n int) *Block {
	t.Helper()
	b, err := p.Alloc(n, "test")
	require.NoError(t, err)
	return b
}

func isFilledWith(b []byte, v byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != v })
}

func TestBlocksOfEverySizeAreAlignedZeroedAndWritable(t *testing.T) {
	for _, huge := range []bool{false, true} {
		p := New(Options{HugePages: huge})
		for round := range 3 {
			for _, n := range sizes {
				b := mustAlloc(t, p, n)
				assert.Equal(t, n, b.Len())
				assert.Len(t, b.Bytes(), n)
				assert.Equal(t, n, cap(b.Bytes()), "append must not write into a neighbour")
				assert.Equal(t, "test", b.Tag())
				assert.Zero(t, uintptr(unsafe.Pointer(unsafe.SliceData(b.Bytes())))%Align)
				assert.True(t, isFilledWith(b.Bytes(), 0), "%d bytes in round %d: not zero", n, round)
				fill(b.Bytes(), 0xA5)
				b.Release()
			}
		}
		require.NoError(t, p.Close())
	}
}

func TestBlockViewsHaveTheTypesOfTheirNames(t *testing.T) {
	p := New(Options{})
	b := mustAlloc(t, p, 15)
	b.Float32()[2] = 1
	assert.Len(t, b.Float32(), 3)
	assert.Equal(t, []int32{0, 0, 0x3f800000}, b.Int32())
	assert.Len(t, b.Int8(), 15)
	assert.Equal(t, b.Bytes()[:12], BytesOf(b.Float32()))
	b.Release()
	require.NoError(t, p.Close())
}

func TestAOneGibibyteBlockWorksAndIsGivenBack(t *testing.T) {
	p := New(Options{Budget: 1<<30 + 64<<20, HugePages: true})
	for range 2 { // the second finds the budget whole again
		b := mustAlloc(t, p, 1<<30)
		b.Bytes()[0], b.Bytes()[1<<30-1] = 1, 2
		assert.Equal(t, int64(1<<30), p.Stats().Reserved)
		b.Release()
		assert.Zero(t, p.Stats().Reserved)
	}
}

func TestLargeMappingsStartOnHugePages(t *testing.T) {
	p := New(Options{HugePages: true})
	b := mustAlloc(t, p, 64<<20)
	assert.Zero(t, uintptr(unsafe.Pointer(unsafe.SliceData(b.Bytes())))%hugePage)
	b.Release()
}

func TestABlockLivesUntilItsLastReference(t *testing.T) {
	p := New(Options{})
	b := mustAlloc(t, p, 100)
	c := b.Retain()
	b.Release()
	c.Bytes()[0] = 1
	assert.EqualValues(t, 1, p.Stats().LiveBlocks)
	c.Release()
	assert.Zero(t, p.Stats().LiveBlocks)
}

func TestImpossibleSizesAreSizeErrors(t *testing.T) {
	p := New(Options{Budget: math.MaxInt64})
	for _, n := range []int{-1, math.MinInt, math.MaxInt, maxBlock + 1} {
		_, err := p.Alloc(n, "w")
		var size *SizeError
		require.ErrorAs(t, err, &size)
		assert.ErrorIs(t, err, ErrSize)
		assert.Equal(t, SizeError{"w", int64(n)}, *size)
		assert.Contains(t, err.Error(), `"w"`)
	}
	assert.EqualValues(t, 4, p.Stats().Failures.Size)
	assert.Zero(t, p.Stats().LiveBlocks)
}

func TestARefusalOfTheSystemIsASystemError(t *testing.T) {
	p := New(Options{Budget: math.MaxInt64})
	_, err := p.Alloc(1<<56, "too large for any address space")
	var system *SystemError
	require.ErrorAs(t, err, &system)
	assert.ErrorIs(t, err, ErrOutOfMemory)
	assert.NotErrorIs(t, err, ErrBudget)
	assert.Error(t, errors.Unwrap(err))
	assert.Contains(t, err.Error(), "mmap")
	assert.EqualValues(t, 1, p.Stats().Failures.System)
	assert.Zero(t, p.Stats().Reserved)
}

func TestAClosedPoolGivesNothing(t *testing.T) {
	p := New(Options{Debug: true})
	b := mustAlloc(t, p, 1000)
	err := p.Close()
	var inUse *InUseError
	require.ErrorAs(t, err, &inUse)
	assert.ErrorIs(t, err, ErrInUse)
	assert.EqualValues(t, 1, inUse.Blocks)
	assert.EqualValues(t, 1000, inUse.Bytes)
	assert.Contains(t, err.Error(), "TestAClosedPoolGivesNothing")
	mustAlloc(t, p, 1).Release()
	b.Release()

	require.NoError(t, p.Close())
	require.NoError(t, p.Close())
	assert.Zero(t, p.Stats().Reserved)
	_, err = p.Alloc(1, "late")
	assert.ErrorIs(t, err, ErrClosed)
}

// After any sequence of allocations and releases: no block overlaps another, memory is zeroed, the statistics are those of a plain list of
// blocks, and when all are released every chunk is one free run again.
func TestPoolBehavesLikeAListOfBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := New(Options{HugePages: rapid.Bool().Draw(t, "huge")})
		type live struct {
			b    *Block
			mark byte
		}
		var blocks []live
		var requested, peak, allocs int64
		mark := byte(0)
		release := func(t *rapid.T, i int) {
			l := blocks[i]
			if b := l.b.Bytes(); !isFilledWith(b, l.mark) {
				t.Fatalf("a block of %d bytes was written by somebody else", len(b))
			}
			requested -= int64(l.b.Len())
			l.b.Release()
			blocks = slices.Delete(blocks, i, i+1)
		}
		size := rapid.OneOf(rapid.IntRange(0, 2000), rapid.IntRange(0, 3*smallBlock), rapid.IntRange(0, 3*largeBlock))
		t.Repeat(map[string]func(*rapid.T){
			"alloc": func(t *rapid.T) {
				n := size.Draw(t, "n")
				zero := rapid.Bool().Draw(t, "zero")
				b, err := p.alloc(n, "", zero, false)
				if err != nil {
					t.Fatal(err)
				}
				if zero && !isFilledWith(b.Bytes(), 0) {
					t.Fatalf("%d bytes not zeroed", n)
				}
				mark++
				fill(b.Bytes(), mark)
				blocks = append(blocks, live{b, mark})
				requested += int64(n)
				peak = max(peak, requested)
				allocs++
			},
			"release": func(t *rapid.T) {
				if len(blocks) == 0 {
					t.Skip()
				}
				release(t, rapid.IntRange(0, len(blocks)-1).Draw(t, "i"))
			},
			"trim": func(t *rapid.T) { p.Trim() },
			"": func(t *rapid.T) {
				s := p.Stats()
				if s.Requested != requested || s.PeakRequested != peak || s.LiveBlocks != int64(len(blocks)) || s.Allocs != allocs {
					t.Fatalf("counted %+v; true: requested %d, peak %d, live %d, allocs %d", s, requested, peak, len(blocks), allocs)
				}
				if s.Requested > s.InUse || s.InUse > s.Reserved || s.Reserved > s.PeakReserved {
					t.Fatalf("requested <= in use <= reserved <= peak does not hold: %+v", s)
				}
				if got := s.Runs.Reserved + s.LargeRuns.Reserved; got != s.Reserved {
					t.Fatalf("chunks hold %d, %d reserved", got, s.Reserved)
				}
			},
		})
		for len(blocks) > 0 {
			release(t, len(blocks)-1)
		}
		s := p.Stats()
		for _, c := range s.Classes {
			if c.Live != 0 || c.Slabs > 1 {
				t.Fatalf("class after the last release: %+v", c)
			}
		}
		if s.LargeRuns.FreeRuns != s.LargeRuns.Chunks || s.LargeRuns.Live != 0 {
			t.Fatalf("free runs not coalesced: %+v", s.LargeRuns)
		}
		if p.Trim(); p.Stats().Reserved != 0 {
			t.Fatalf("mapped after Trim of an empty pool: %+v", p.Stats())
		}
	})
}

func TestGoroutinesShareAPool(t *testing.T) {
	p := New(Options{})
	var wg sync.WaitGroup
	shared := make(chan *Block, 64)
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var mine []*Block
			for i := range 300 {
				b, err := p.Alloc((i*7919+g*104729)%(200<<10), "shared")
				if !assert.NoError(t, err) {
					return
				}
				assert.True(t, isFilledWith(b.Bytes(), 0))
				fill(b.Bytes(), byte(g+1))
				mine = append(mine, b)
				switch {
				case i%3 == 0:
					assert.True(t, isFilledWith(mine[0].Bytes(), byte(g+1)))
					mine[0].Release()
					mine = mine[1:]
				case i%7 == 0: // released by whoever takes it
					select {
					case shared <- b.Retain():
					case other := <-shared:
						other.Release()
						b.Release() // the reference meant for the channel
					}
				case i%50 == 0:
					p.Trim()
					p.Stats()
				}
			}
			for _, b := range mine {
				b.Release()
			}
		}()
	}
	wg.Wait()
	for len(shared) > 0 {
		(<-shared).Release()
	}
	assert.Zero(t, p.Stats().LiveBlocks)
	assert.Zero(t, p.Stats().InUse)
	require.NoError(t, p.Close())
	assert.Zero(t, p.Stats().Reserved)
}

func TestEveryByteCountHasTheSmallestClassThatHoldsIt(t *testing.T) {
	for n := 0; n <= smallBlock; n++ {
		i := classOf(n)
		require.GreaterOrEqual(t, classSizes[i], n)
		if i > 0 {
			require.Less(t, classSizes[i-1], max(n, 1))
		}
	}
	assert.Equal(t, smallBlock, classSizes[len(classSizes)-1])
	for _, size := range classSizes {
		assert.Zero(t, size%Align)
	}
}

func TestBinsAscendWithTheSizeOfRuns(t *testing.T) {
	last := 0
	for pages := 1; pages < 1<<16; pages++ {
		require.GreaterOrEqual(t, bin(pages), last)
		require.LessOrEqual(t, bin(pages), last+1)
		last = bin(pages)
	}
	assert.Less(t, bin(math.MaxInt/pageSize), binCount)
}

func TestOnlyPagesThatWereHandedOutAreCleared(t *testing.T) {
	p := New(Options{})
	small := mustAlloc(t, p, largeBlock)
	c := small.run.chunk
	small.Release()
	wide := mustAlloc(t, p, 3*largeBlock) // over the page used before and fresh ones
	assert.Same(t, c, wide.run.chunk)
	assert.True(t, isFilledWith(wide.Bytes(), 0))
	wide.Release()
}

func TestIdleChunksAreKeptOnlyUpToALimit(t *testing.T) {
	p := New(Options{})
	var blocks []*Block
	for range 8 {
		blocks = append(blocks, mustAlloc(t, p, largeChunkBytes))
	}
	for _, b := range blocks {
		b.Release()
	}
	assert.EqualValues(t, idleBytes, p.Stats().Reserved)
	assert.EqualValues(t, idleBytes, p.Stats().LargeRuns.Idle)
}

func BenchmarkAlloc(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"64B", 64}, {"4KiB", 4 << 10}, {"256KiB", 256 << 10}, {"4MiB", 4 << 20}} {
		p := New(Options{})
		b.Run(size.name+"/alone", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m, _ := p.AllocUninit(size.n, "bench")
				m.Release()
			}
		})
		b.Run(size.name+"/contended", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					m, _ := p.AllocUninit(size.n, "bench")
					m.Release()
				}
			})
		})
	}
}
