package pool

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// panicOf runs f and returns the error it panics with.
func panicOf(t *testing.T, f func()) (err error) {
	t.Helper()
	defer func() {
		err, _ = recover().(error)
		require.NotNil(t, err, "no panic")
	}()
	f()
	return nil
}

func allocateHere(t *testing.T, p *HybridMemoryPool, n int, tag string) *Block {
	b, err := p.Alloc(n, tag)
	require.NoError(t, err)
	return b
}

func releaseHere(b *Block) { b.Release() }

func TestLeaksAreListedWithTheirPlaces(t *testing.T) {
	p := New(Options{Debug: true})
	small, large := allocateHere(t, p, 10, "small"), allocateHere(t, p, 1<<20, "large").Retain()
	leaks := p.Leaks()
	require.Len(t, leaks, 2)
	assert.Equal(t, []string{"large", "small"}, []string{leaks[0].Tag, leaks[1].Tag})
	assert.Equal(t, 1<<20, leaks[0].Bytes)
	assert.Equal(t, 2, leaks[0].Refs)
	assert.Contains(t, leaks[0].Stack[0], "allocateHere")
	assert.Contains(t, leaks[0].Stack[0], "debug_test.go:")
	assert.Contains(t, leaks[0].String(), `"large": 1048576 bytes, 2 references`)
	large.Release()
	large.Release()
	small.Release()
	assert.Empty(t, p.Leaks())
	assert.Nil(t, New(Options{}).Leaks(), "not known without debug mode")
}

func TestMisuseIsCaughtWithAllPlacesInDebugMode(t *testing.T) {
	for what, misuse := range map[string]func(*Block){
		"released twice":                  releaseHere,
		"used after its last Release":     func(b *Block) { b.Float32() },
		"retained after its last Release": func(b *Block) { b.Retain() },
	} {
		p := New(Options{Debug: true})
		b := allocateHere(t, p, 100, "weights")
		releaseHere(b)
		for range 2 { // the block is not changed by being misused
			err := panicOf(t, func() { misuse(b) })
			var use *UseError
			require.ErrorAs(t, err, &use)
			assert.Equal(t, "weights", use.Tag)
			assert.Equal(t, 100, use.Bytes)
			assert.Equal(t, what, use.What)
			assert.Contains(t, use.Allocated[0], "allocateHere")
			assert.Contains(t, use.Released[0], "releaseHere")
			assert.Contains(t, use.Here[0], "pool.")
			assert.Contains(t, err.Error(), "allocated at\n\t")
			assert.Contains(t, err.Error(), "released at\n\t")
		}

		plain := allocateHere(t, New(Options{}), 100, "weights")
		plain.Release()
		err := panicOf(t, func() { misuse(plain) })
		assert.Contains(t, err.Error(), what)
		assert.Contains(t, err.Error(), EnvDebug)
	}
}

func TestDebugModePoisonsWhatMustNotBeRead(t *testing.T) {
	p := New(Options{Debug: true})
	b, err := p.AllocUninit(1000, "")
	require.NoError(t, err)
	assert.True(t, math.IsNaN(float64(b.Float32()[7])))
	stale := b.Bytes()
	fill(stale, 1)
	keep := mustAlloc(t, p, 1000) // keeps the slab mapped
	b.Release()
	assert.True(t, isFilledWith(stale, poison))
	assert.True(t, isFilledWith(keep.Bytes(), 0))
	keep.Release()
}

func TestFillSetsEveryByte(t *testing.T) {
	for n := range 130 {
		b := make([]byte, n)
		fill(b, 7)
		assert.True(t, isFilledWith(b, 7))
	}
}
