package pool

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStatsCountWhatReallyHappened(t *testing.T) {
	p := New(Options{Budget: 1 << 30})
	a, b, c := mustAlloc(t, p, 100), mustAlloc(t, p, 5000), mustAlloc(t, p, 2<<20+1)
	s := p.Stats()
	page := int64(pageSize)
	assert.EqualValues(t, 1<<30, s.Budget)
	assert.EqualValues(t, 100+5000+2<<20+1, s.Requested)
	assert.EqualValues(t, 128+5120+2<<20+page, s.InUse)
	assert.EqualValues(t, chunkBytes+largeChunkBytes, s.Reserved)
	assert.InDelta(t, 1-float64(s.Requested)/float64(s.InUse), s.InternalFragmentation, 1e-12)
	assert.Equal(t, ClassStats{Size: 128, Slabs: 1, Slots: slabBytes / 128, Live: 1, Allocs: 1}, s.Classes[classOf(100)])
	assert.Equal(t, ClassStats{Size: 5120, Slabs: 1, Slots: slabBytes / 5120, Live: 1, Allocs: 1}, s.Classes[classOf(5000)])
	assert.Equal(t, []Bucket{{128, 1, 1}, {8192, 1, 1}, {4 << 20, 1, 1}}, s.Histogram)
	assert.Equal(t, RunStats{Chunks: 1, Reserved: chunkBytes, Live: 2, FreeRuns: 1, Free: chunkBytes - 2*slabBytes,
		LargestFree: chunkBytes - 2*slabBytes}, s.Runs)

	a.Release()
	b.Release()
	c.Release()
	d := mustAlloc(t, p, 100)
	after := p.Stats()
	assert.EqualValues(t, 100, after.Requested)
	assert.EqualValues(t, 1, after.LiveBlocks)
	assert.EqualValues(t, 4, after.Allocs)
	assert.Equal(t, []int64{s.Requested, s.InUse, s.Reserved}, []int64{after.PeakRequested, after.PeakInUse, after.PeakReserved})
	assert.Equal(t, Bucket{128, 1, 2}, after.Histogram[0])
	assert.EqualValues(t, largeChunkBytes, after.LargeRuns.Idle)
	d.Release()
}

func TestExternalFragmentationIsTheFreeShareOutsideTheLargestRun(t *testing.T) {
	p := New(Options{})
	var blocks []*Block
	for range largeChunkBytes / mib { // one chunk full of 1 MiB blocks
		blocks = append(blocks, mustAlloc(t, p, mib))
	}
	assert.Zero(t, p.Stats().ExternalFragmentation)
	for i := 0; i < len(blocks); i += 2 { // every other one
		blocks[i].Release()
	}
	s := p.Stats()
	assert.Equal(t, len(blocks)/2, s.LargeRuns.FreeRuns)
	assert.InDelta(t, 1-1/float64(len(blocks)/2), s.ExternalFragmentation, 1e-12)
	for i := 1; i < len(blocks); i += 2 {
		blocks[i].Release()
	}
	assert.Zero(t, p.Stats().ExternalFragmentation, "one free run again")
}

func TestStatsAreReadableAsJSON(t *testing.T) {
	p := New(Options{Budget: mib})
	_, err := p.Alloc(2*mib, "")
	require.Error(t, err)
	text, err := json.Marshal(p.Stats())
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(text, &fields))
	assert.EqualValues(t, mib, fields["budget"])
	assert.EqualValues(t, 1, fields["failures"].(map[string]any)["budget"])
}
