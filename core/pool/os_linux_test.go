package pool

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// near allows for what the runtime and the test framework do to the RSS meanwhile.
const near = 8 * mib

func TestTrimMakesTheResidentMemoryFall(t *testing.T) {
	debug.FreeOSMemory() // what earlier tests left would go at a moment of its own
	for _, huge := range []bool{false, true} {
		p := New(Options{HugePages: huge})
		// Whole chunks of small and of large blocks, and one chunk that stays in use at its end.
		var small, large []*Block
		for range 1 << 10 {
			small = append(small, mustAlloc(t, p, smallBlock))
		}
		for range 48 / 8 {
			large = append(large, mustAlloc(t, p, 8*mib))
		}
		keep := large[len(large)-1]
		for _, b := range append(small, large...) {
			fill(b.Bytes(), 1)
		}
		full := ResidentBytes()
		for _, b := range append(small, large[:len(large)-1]...) {
			b.Release()
		}
		assert.InDelta(t, full, ResidentBytes(), near, "free memory stays for the next block")

		given := p.Trim()
		assert.GreaterOrEqual(t, given, int64(72*mib))
		assert.Equal(t, given, p.Stats().Trimmed)
		assert.InDelta(t, full-given, ResidentBytes(), near)
		assert.True(t, isFilledWith(keep.Bytes(), 1), "live memory is untouched")
		assert.Zero(t, p.Trim(), "nothing is given back twice")

		again := mustAlloc(t, p, 8*mib) // where the trimmed neighbour was
		assert.Same(t, keep.run.chunk, again.run.chunk)
		assert.True(t, isFilledWith(again.Bytes(), 0))
		again.Release()
		keep.Release()
		require.NoError(t, p.Close())
		assert.InDelta(t, full-80*mib, ResidentBytes(), near)
	}
}

func TestFreshMemoryIsNotResidentBeforeItIsUsed(t *testing.T) {
	debug.FreeOSMemory()
	p := New(Options{})
	before := ResidentBytes()
	b := mustAlloc(t, p, 256*mib)
	assert.InDelta(t, before, ResidentBytes(), near)
	b.Release()
}
