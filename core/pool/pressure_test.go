package pool

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
)

const mib = 1 << 20

func TestPressureIsReportedOncePerRise(t *testing.T) {
	p := New(Options{Budget: 100 * mib})
	var seen []int64
	p.OnPressure(0.5, func(s Stats) { seen = append(seen, s.InUse) })
	hold := mustAlloc(t, p, 40*mib)
	assert.Empty(t, seen)
	a := mustAlloc(t, p, 10*mib)
	assert.Equal(t, []int64{50 * mib}, seen, "at the threshold itself")
	b := mustAlloc(t, p, 10*mib)
	b.Release()
	assert.Len(t, seen, 1, "above all the time")
	a.Release()
	a = mustAlloc(t, p, 20*mib)
	assert.Equal(t, []int64{50 * mib, 60 * mib}, seen, "below in between")
	a.Release()
	hold.Release()
}

func TestPressureThresholdsAreIndependentAndCancelable(t *testing.T) {
	p := New(Options{Budget: 100 * mib})
	calls := map[string]int{}
	note := func(name string) func(Stats) { return func(Stats) { calls[name]++ } }
	cancelLow := p.OnPressure(0.1, note("low"))
	cancelHigh := p.OnPressure(0.8, note("high"))
	p.OnPressure(1.5, note("never"))
	p.OnPressure(math.Inf(1), note("never"))
	first := p.OnPressure(-1, note("first"))

	mustAlloc(t, p, 20*mib).Release()
	assert.Equal(t, map[string]int{"low": 1, "first": 1}, calls)
	cancelLow()
	cancelLow()
	first()
	mustAlloc(t, p, 90*mib).Release()
	assert.Equal(t, map[string]int{"low": 1, "first": 1, "high": 1}, calls)
	cancelHigh()
	mustAlloc(t, p, 90*mib).Release()
	assert.Equal(t, map[string]int{"low": 1, "first": 1, "high": 1}, calls)
}

func TestALevelReachedBeforeOnPressureIsNotReported(t *testing.T) {
	p := New(Options{Budget: 100 * mib})
	a := mustAlloc(t, p, 60*mib)
	calls := 0
	cancel := p.OnPressure(0.5, func(Stats) { calls++ })
	mustAlloc(t, p, 1*mib).Release()
	assert.Zero(t, calls)
	a.Release()
	mustAlloc(t, p, 60*mib).Release()
	assert.Equal(t, 1, calls)
	cancel()
	assert.Nil(t, p.watchers.list.Load())
}

func TestAPressureCallbackMayEvictFromACache(t *testing.T) {
	p := New(Options{Budget: 64 * mib})
	var cache []*Block
	p.OnPressure(0.75, func(Stats) {
		for _, b := range cache {
			b.Release()
		}
		cache = nil
		p.Trim()
		mustAlloc(t, p, 1*mib).Release()
	})
	for range 20 { // 160 MiB in all
		cache = append(cache, mustAlloc(t, p, 8*mib))
	}
	assert.LessOrEqual(t, p.Stats().PeakInUse, int64(48*mib))
	for _, b := range cache {
		b.Release()
	}
}

func TestPressureIsNoticedFromManyGoroutines(t *testing.T) {
	p := New(Options{Budget: 64 * mib})
	var calls atomic.Int32
	p.OnPressure(0.5, func(Stats) { calls.Add(1) })
	cancel := p.OnPressure(0.25, func(Stats) {})
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 50 {
				if b, err := p.Alloc(12*mib, ""); err == nil {
					b.Release()
				}
			}
		}()
	}
	cancel()
	wg.Wait()
	before := calls.Load()
	mustAlloc(t, p, 40*mib).Release()
	assert.Equal(t, before+1, calls.Load(), "back below after the storm, so the next rise counts")
}
