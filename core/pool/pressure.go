package pool

import (
	"math"
	"sync"
	"sync/atomic"
)

// watcher is a pressure callback and the side of its limit that the pool was last seen on.
type watcher struct {
	limit  int64 // bytes in use
	notify func(Stats)
	mu     sync.Mutex
	above  atomic.Bool // written under mu
}

// OnPressure has notify called whenever the bytes in use rise to threshold times the budget from below, say 0.9 for nine tenths. It is
// called once a rise: again only after the use was below in between, and not for a rise before OnPressure was called. A threshold above
// 1 never fires, one of 0 or less fires with the first block.
//
// notify runs in the goroutine that noticed the rise, as a rule the one whose allocation crossed the limit, after the allocation and
// without a lock: it may use the pool, for example release cached blocks and call Trim. It may run once more while cancel returns.
// cancel ends the calls; it may be called more than once.
func (p *HybridMemoryPool) OnPressure(threshold float64, notify func(Stats)) (cancel func()) {
	limit := int64(math.MaxInt64)
	if v := math.Ceil(threshold * float64(p.budget.Load())); v < math.MaxInt64 {
		limit = max(1, int64(v))
	}
	w := &watcher{limit: limit, notify: notify}
	w.above.Store(p.count.inUse.now.Load() >= limit)
	return p.watchers.add(w)
}

// checkPressure looks for limits between the use that watchers last saw and the present one.
func (p *HybridMemoryPool) checkPressure(inUse int64) {
	for _, w := range p.watchers.all() {
		if (inUse >= w.limit) != w.above.Load() && w.crossed(p) {
			w.notify(p.Stats())
		}
	}
}

// crossed brings the watcher up to date and reports whether that was a rise. It reads the use again under the lock, so that of two
// goroutines that cross in opposite directions the later one decides.
func (w *watcher) crossed(p *HybridMemoryPool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	above := p.count.inUse.now.Load() >= w.limit
	before := w.above.Swap(above)
	return above && !before
}
