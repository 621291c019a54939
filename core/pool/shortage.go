package pool

// keeper is a function that gives kept memory back. Its address is its name.
type keeper struct{ release func() bool }

// OnShortage has release called when an allocation finds no memory, before it fails: for memory that is kept because it may be of use
// again. release gives back what it can and reports whether that was anything; then the allocation is tried once more.
//
// It runs in the goroutine that allocates, without a lock, and may run in several at once: it must not wait for what that goroutine may
// hold, and must not allocate. cancel ends the calls, one of which may still be under way when it returns; it may be called more than once.
func (p *HybridMemoryPool) OnShortage(release func() bool) (cancel func()) {
	return p.keepers.add(&keeper{release})
}

// AllocSpare is AllocUninit that leaves alone what is kept: it fails rather than have OnShortage's functions called.
func (p *HybridMemoryPool) AllocSpare(n int, tag string) (*Block, error) {
	return p.alloc(n, tag, false, true)
}

// releaseKept has all that is kept given back and reports whether there was any.
func (p *HybridMemoryPool) releaseKept() bool {
	some := false
	for _, k := range p.keepers.all() {
		some = k.release() || some
	}
	return some
}
