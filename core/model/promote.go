package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/logs"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Where the weights of a native file are kept (LoadOptions.Resident).
const (
	ResidentAuto = "auto" // mapped, and moved into huge-page memory while the model already runs
	ResidentMap  = "map"  // the file's mapping: shared with other processes, given up by the system under pressure
	ResidentCopy = "copy" // huge-page memory before Load returns
)

// When the checksums of a native file are compared (LoadOptions.Verify).
const (
	// VerifyBackground compares those of large files while the model already runs, and of small ones before Load returns. A model whose file
	// turns out to be damaged refuses every further step, and is not saved.
	VerifyBackground = "background"
	VerifyNow        = "now" // before Load returns
	// VerifyNever touches no weight while loading. Of a damaged file results are then wrong, and ternary codes that are no weights make
	// them differ between processors too, as sums of 16 bits wrap on some; memory stays safe.
	VerifyNever = "never"
)

// promoteFrom is the size of mapped weights, in bytes, from which moving them pays: smaller ones stay in the caches, where the page
// size hardly matters, and are compared with their checksums in no time.
const promoteFrom = 64 << 20

// promoter compares mapped matrices with their checksums and moves them into huge-page memory, one by one, while steps go on. Files are mapped in 4 KiB pages, and looking
// those up costs a quarter of the speed at which weights stream from memory.
type promoter struct {
	model    *Model
	pool     *pool.HybridMemoryPool
	matrices []mapped
	moves    bool
	cancel   context.CancelFunc
	done     chan struct{}
	err      error // why it stopped early; the model goes on from the mapping
}

// mapped is a matrix whose bytes are a file's.
type mapped struct {
	dst  *[]byte // used by steps
	view container.View

	// check compares the bytes with their checksum and shows each piece to visit, unless that is nil. Without a check there is nothing to
	// compare, or it has been done.
	check func(ctx context.Context, visit func(at int, piece []byte) error) error
}

// promote starts checking the matrices, and moving them too if it moves, and makes closing the model wait for the end.
func (m *Model) promote(matrices []mapped, p *pool.HybridMemoryPool, moves bool) {
	size, checks := 0, false
	for _, x := range matrices {
		size += len(*x.dst)
		checks = checks || x.check != nil
	}
	moves = moves && size >= promoteFrom
	if !moves && !checks {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.promoter = &promoter{model: m, pool: p, matrices: matrices, moves: moves, cancel: cancel, done: make(chan struct{})}
	go m.promoter.run(ctx)
}

// Settled waits until the weights have been checked and lie where they will stay. It reports a damaged file, and why some are not in
// huge-page memory, if so: a full pool, or a closed model. A benchmark calls it before it starts.
func (m *Model) Settled() error {
	if m.promoter == nil {
		return nil
	}
	<-m.promoter.done
	return m.promoter.err
}

// sound waits until the weights of a mapped file have been compared with their checksums, and reports a damaged one.
func (m *Model) sound(ctx context.Context) error {
	if m.promoter != nil {
		select {
		case <-m.promoter.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return m.Damage()
}

// acquireSound is Acquire of weights that have been compared with their checksums, to be saved: in the new file those of what is damaged would be
// right ever after.
func (m *Model) acquireSound(ctx context.Context) error {
	if err := m.sound(ctx); err != nil {
		return err
	}
	return m.Acquire()
}

// Damage reports, without waiting, how the file turned out to be damaged after it was loaded: every step is refused then. It is nil while
// nothing was found.
func (m *Model) Damage() error {
	if err := m.damage.Load(); err != nil {
		return *err
	}
	return nil
}

func (p *promoter) run(ctx context.Context) {
	defer close(p.done)
	start := time.Now()
	defer func() { p.log(ctx, start) }()
	debug.SetPanicOnFault(true) // the file may be cut short: then the steps will say so
	defer func() {
		if r := recover(); r != nil {
			p.err = fmt.Errorf("model: moving weights: panic: %v\n%s", r, debug.Stack())
		}
	}()
	for _, x := range p.matrices {
		if err := ctx.Err(); err != nil {
			p.err = err
			return
		}
		err := p.settle(ctx, x)
		var full error
		if errors.Is(err, pool.ErrOutOfMemory) { // the rest stays where it is, and is checked there
			p.moves, full = false, err
			err = p.settle(ctx, x)
		}
		if err != nil {
			if ctx.Err() == nil {
				p.model.damage.Store(&err)
			}
			p.err = err
			return
		}
		p.err = cmp.Or(p.err, full)
	}
}

// log says how it went.
func (p *promoter) log(ctx context.Context, start time.Time) {
	damage, seconds := p.model.damage.Load(), time.Since(start).Seconds()
	switch {
	case damage != nil:
		logs.Get().Error("weights are damaged: every step will be refused", "error", *damage)
	case ctx.Err() != nil: // closed meanwhile
	case p.err != nil:
		logs.Get().Warn("weights stay in the file's mapping, which is about a quarter slower", "error", p.err)
	default:
		logs.Get().Debug("weights checked", "moved", p.moves, "seconds", seconds)
	}
}

// settle checks a matrix. When it moves, it lets steps use the copy from the next one on.
func (p *promoter) settle(ctx context.Context, x mapped) error {
	n := len(*x.dst)
	small := n <= mostTwice // else steps that read the file meanwhile would keep it resident beside the whole copy
	var b *pool.Block
	if p.moves {
		var err error
		if b, err = p.pool.AllocUninit(n, "weights"); err != nil {
			return fmt.Errorf("model: moving weights: %w", err)
		}
	}
	var visit func(at int, piece []byte) error
	if p.moves && small {
		visit = func(at int, piece []byte) error {
			if at < n { // beyond it is padding
				copy(b.Bytes()[at:], piece)
			}
			return nil
		}
	}
	if x.check != nil {
		if err := x.check(ctx, visit); err != nil {
			if b != nil {
				b.Release()
			}
			return err
		}
	} else if visit != nil {
		copy(b.Bytes(), *x.dst) // closing waits for this goroutine, so the mapping stays
	}
	if !p.moves {
		return nil
	}
	return p.replace(x, b, small)
}

// replace makes block the memory of a matrix while no step runs. A matrix that was not copied before is copied now, by all threads and
// with its pages in the file given back piece by piece.
func (p *promoter) replace(x mapped, block *pool.Block, copied bool) error {
	p.model.use.Lock()
	defer p.model.use.Unlock()
	p.model.close = append(p.model.close, func() error { block.Release(); return nil })
	if !copied {
		m := mover{dst: block.Bytes(), view: x.view}
		cpu.Parallel((len(m.dst)+movePiece-1)/movePiece, &m)
		if m.err != nil {
			return m.err
		}
	}
	*x.dst = block.Bytes()
	return x.view.ReleasePages()
}

// mostTwice is the size in bytes of the largest matrix that is in memory twice while it is moved.
const mostTwice = 8 << 20

// movePiece is how many bytes of a larger one a thread moves at a time: a huge page.
const movePiece = 2 << 20

// mover copies a matrix out of its file; piece i is chunk i of a cpu.Task.
type mover struct {
	dst  []byte
	view container.View

	mu  sync.Mutex
	err error
}

func (m *mover) Run(i int) {
	at := i * movePiece
	end := min(at+movePiece, len(m.dst))
	copy(m.dst[at:end], m.view.Data[at:end])
	if err := release(m.view, m.view.Data[at:end]); err != nil {
		m.mu.Lock()
		m.err = err
		m.mu.Unlock()
	}
}

// stop ends the moving. It must not be called with the model locked.
func (p *promoter) stop() {
	if p != nil {
		p.cancel()
		<-p.done
	}
}
