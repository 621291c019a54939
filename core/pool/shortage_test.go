package pool

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestKeptMemoryIsGivenBackBeforeAnAllocationFails(t *testing.T) {
	p := New(Options{Budget: 64 * mib})
	kept := mustAlloc(t, p, 40*mib)
	calls := 0
	cancel := p.OnShortage(func() bool {
		calls++
		if kept == nil {
			return false
		}
		kept.Release()
		kept = nil
		return true
	})
	small := mustAlloc(t, p, 4*mib)
	assert.Zero(t, calls, "there was room")

	_, err := p.AllocSpare(40*mib, "spare")
	require.ErrorIs(t, err, ErrBudget)
	assert.Zero(t, calls, "what is kept is left alone")

	large := mustAlloc(t, p, 40*mib)
	assert.Equal(t, 1, calls)
	_, err = p.Alloc(40*mib, "more")
	require.ErrorIs(t, err, ErrBudget)
	assert.Equal(t, 2, calls, "nothing was kept any more")

	cancel()
	cancel()
	_, err = p.Alloc(40*mib, "more")
	require.ErrorIs(t, err, ErrBudget)
	assert.Equal(t, 2, calls)
	large.Release()
	small.Release()
	require.NoError(t, p.Close())
}

func TestManyAllocationsMayBeShortAtOnce(t *testing.T) {
	p := New(Options{Budget: 64 * mib})
	var mu sync.Mutex
	var kept []*Block
	p.OnShortage(func() bool {
		mu.Lock()
		defer mu.Unlock()
		some := len(kept) > 0
		for _, b := range kept {
			b.Release()
		}
		kept = nil
		return some
	})
	var group sync.WaitGroup
	for range 4 {
		group.Add(1)
		go func() {
			defer group.Done()
			for range 50 {
				b, err := p.Alloc(15*mib, "kept soon")
				if err != nil { // the others have theirs in hand
					continue
				}
				mu.Lock()
				kept = append(kept, b)
				mu.Unlock()
			}
		}()
	}
	group.Wait()
	whole := mustAlloc(t, p, 60*mib)
	whole.Release()
	require.NoError(t, p.Close())
}
