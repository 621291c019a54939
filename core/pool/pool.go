package pool

import (
	"errors"
	"math"
	"os"
	"sync"
	"sync/atomic"

	"github.com/bitnet-rust/bitnet_rust/core/logs"
)

// Options configure a pool; the zero value is ready to use.
type Options struct {
	Budget    int64 // the most bytes the pool may map; 0 or less: DetectBudget
	Debug     bool  // record where blocks are allocated and released, poison memory that must not be read
	HugePages bool  // ask for huge pages under blocks from 1 MiB (Linux); worth 25 % of the bandwidth of streamed weights
}

// HybridMemoryPool is an allocator of off-heap memory: slabs for small blocks, page runs for large ones. See the package comment.
// All methods may be called from any goroutine.
type HybridMemoryPool struct {
	opts   Options
	budget atomic.Int64
	err    error // of the configuration; every Alloc returns it
	closed atomic.Bool

	classes []sizeClass
	runs    runAllocator // slabs and blocks below largeBlock
	large   runAllocator

	count    counters
	watchers callbacks[watcher]
	keepers  callbacks[keeper]
	registry *registry // debug mode only
	refused  sync.Once // for the one record of refused huge pages
}

// maxBlock is the largest size that can be rounded up to pages and mapped with room for alignment.
const maxBlock = math.MaxInt - 2*hugePage

// errNoBudget is the inner form of BudgetError, before free memory was given back for another try.
var errNoBudget = errors.New("no budget")

// New makes a pool. It maps nothing before the first block.
func New(o Options) *HybridMemoryPool {
	p := &HybridMemoryPool{opts: o}
	p.SetBudget(o.Budget)
	p.runs = runAllocator{pool: p, chunks: map[*chunk]struct{}{}}
	p.large = runAllocator{pool: p, chunks: map[*chunk]struct{}{}, large: true}
	p.classes = make([]sizeClass, len(classSizes))
	for i, size := range classSizes {
		p.classes[i].size, p.classes[i].runs = size, &p.runs
	}
	if o.Debug {
		p.registry = &registry{live: map[*Block]struct{}{}}
	}
	return p
}

var defaultPool = sync.OnceValue(func() *HybridMemoryPool { return newFromEnv(os.Getenv) })

// Default is the pool of the process: huge pages, a budget from BITNET_MEMORY_BUDGET or DetectBudget, debug mode by BITNET_POOL_DEBUG.
// If a variable has no usable value, each Alloc returns an *EnvError that says so.
func Default() *HybridMemoryPool { return defaultPool() }

func newFromEnv(getenv func(string) string) *HybridMemoryPool {
	o, err := optionsFromEnv(getenv)
	p := New(o)
	p.err = err
	return p
}

// SetBudget changes the most bytes that the pool may map; 0 or less is DetectBudget. Memory beyond a smaller budget stays where it is, and
// nothing is added to it until enough is free. Callbacks of OnPressure keep the limits that they had.
func (p *HybridMemoryPool) SetBudget(bytes int64) {
	if bytes <= 0 {
		bytes = DetectBudget()
	}
	p.budget.Store(bytes)
}

// Debug says whether the pool is in debug mode.
func (p *HybridMemoryPool) Debug() bool { return p.registry != nil }

// Alloc returns a block of n zeroed bytes that starts on a multiple of Align. n may be 0. The tag names the block in errors and reports.
//
// If the budget has no room, free memory is given back to the operating system, then what is kept (OnShortage), and the allocation tried
// again. The error is a *BudgetError, *SystemError or *SizeError, ErrClosed, or for the default pool an *EnvError.
func (p *HybridMemoryPool) Alloc(n int, tag string) (*Block, error) {
	return p.alloc(n, tag, true, false)
}

// AllocUninit is Alloc without the zeros: the bytes are whatever their last user left. It is for memory that is written before it is
// read; in debug mode it is filled with NaNs to find readers that come first.
func (p *HybridMemoryPool) AllocUninit(n int, tag string) (*Block, error) {
	return p.alloc(n, tag, false, false)
}

// Check fails as Alloc would if n bytes are more than the whole budget. It is for a plan that costs something itself.
func (p *HybridMemoryPool) Check(n int64, tag string) error {
	switch {
	case p.err != nil:
		return p.err
	case n > p.budget.Load():
		p.count.failed.budget.Add(1)
		return p.budgetError(n, tag)
	}
	return nil
}

func (p *HybridMemoryPool) alloc(n int, tag string, zero, spare bool) (*Block, error) {
	if p.err != nil {
		return nil, p.err
	}
	if n < 0 || n > maxBlock {
		p.count.failed.size.Add(1)
		return nil, &SizeError{tag, int64(n)}
	}
	// Counted as live before closed is read, and Close the other way round: one of the two sees the other.
	p.count.live.add(1)
	if p.closed.Load() {
		p.count.live.add(-1)
		return nil, ErrClosed
	}
	b := &Block{pool: p, tag: tag}
	err := p.place(b, n, zero)
	if err == errNoBudget {
		p.giveBack(false)
		err = p.place(b, n, zero)
	}
	if err != nil && !spare && p.releaseKept() {
		logs.Get().Info("memory ran short: what was kept for later was given back", "for", tag, "bytes", n, "budget", p.budget.Load())
		p.giveBack(false)
		err = p.place(b, n, zero)
	}
	if err != nil {
		p.count.live.add(-1)
		return nil, p.failure(err, n, tag)
	}
	b.refs.Store(1)
	if p.registry != nil {
		p.registry.add(b)
		if !zero {
			fill(b.data, poison)
		}
	}
	p.checkPressure(p.count.allocated(n, b.capacity))
	return b, nil
}

// place finds memory for n bytes and writes it into b.
func (p *HybridMemoryPool) place(b *Block, n int, zero bool) error {
	var mem []byte
	if n <= smallBlock {
		s, slot, err := p.classes[classOf(n)].alloc()
		if err != nil {
			return err
		}
		b.slab, b.slot = s, slot
		mem = s.memory(slot)
		if zero {
			clear(mem[:n])
		}
	} else {
		r, err := p.runsFor(n).alloc(n)
		if err != nil {
			return err
		}
		b.run = r
		r.take(zero)
		mem = r.bytes()
	}
	b.data, b.capacity = mem[:n:n], len(mem)
	return nil
}

func (p *HybridMemoryPool) runsFor(n int) *runAllocator {
	if n >= largeBlock {
		return &p.large
	}
	return &p.runs
}

// failure counts a failed allocation and makes its error.
func (p *HybridMemoryPool) failure(err error, n int, tag string) error {
	if err == errNoBudget {
		p.count.failed.budget.Add(1)
		return p.budgetError(int64(n), tag)
	}
	p.count.failed.system.Add(1)
	return &SystemError{tag, int64(n), err}
}

func (p *HybridMemoryPool) budgetError(n int64, tag string) error {
	return &BudgetError{tag, n, p.count.inUse.now.Load(), p.count.reserved.now.Load(), p.budget.Load()}
}

// free takes back the memory of a block whose last reference was dropped.
func (p *HybridMemoryPool) free(b *Block) {
	if p.registry != nil {
		p.registry.remove(b)
		fill(b.data, poison)
	}
	// Counted before the memory can go to another block, so that the pool never seems to use more than it has.
	inUse := p.count.freed(len(b.data), b.capacity)
	if b.slab != nil {
		b.slab.class.release(b.slab, b.slot)
	} else {
		p.runsFor(len(b.data)).release(b.run)
	}
	p.checkPressure(inUse)
	p.count.live.add(-1)
}

// reserve takes n bytes of the budget for a mapping and reports whether they were there.
func (p *HybridMemoryPool) reserve(n int) bool {
	for {
		now := p.count.reserved.now.Load()
		if int64(n) > p.budget.Load()-now {
			return false
		}
		if p.count.reserved.now.CompareAndSwap(now, now+int64(n)) {
			p.count.reserved.raise(now + int64(n))
			return true
		}
	}
}

func (p *HybridMemoryPool) unreserve(n int) { p.count.reserved.add(-int64(n)) }

// Trim gives all free memory back to the operating system: empty slabs and chunks are unmapped, free pages between live blocks are
// handed back under their addresses. It returns the bytes given back, of those that blocks had ever used.
func (p *HybridMemoryPool) Trim() int64 {
	n := p.giveBack(true)
	p.count.trimmed.Add(n)
	logs.Get().Debug("memory given back to the system", "bytes", n)
	return n
}

// giveBack unmaps what is wholly free, and with pages set hands back free pages too; only the first makes room in the budget.
func (p *HybridMemoryPool) giveBack(pages bool) int64 {
	for i := range p.classes {
		p.classes[i].trim()
	}
	return int64(p.runs.trim(pages) + p.large.trim(pages))
}

// Close unmaps everything; later Allocs return ErrClosed. While blocks are live it does nothing and returns an *InUseError.
// Closing a closed pool is fine.
func (p *HybridMemoryPool) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	if n := p.count.live.now.Load(); n > 0 {
		p.closed.Store(false)
		return &InUseError{n, p.count.requested.now.Load(), p.Leaks()}
	}
	p.giveBack(false)
	return nil
}
