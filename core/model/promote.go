package model

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Where the weights of a native file are kept (LoadOptions.Memory).
const (
	MemoryAuto   = "auto"   // mapped, and moved into huge-page memory while the model already runs
	MemoryMapped = "mapped" // the file's mapping: shared with other processes, given up by the system under pressure
	MemoryCopied = "copied" // huge-page memory before Load returns
)

// promoteFrom is the size of mapped weights, in bytes, from which moving them pays: smaller ones stay in the caches, where the page
// size hardly matters.
const promoteFrom = 64 << 20

// promoter moves mapped matrices into huge-page memory, one by one, while steps go on. Files are mapped in 4 KiB pages, and looking
// those up costs a quarter of the speed at which weights stream from memory.
type promoter struct {
	model    *Model
	pool     *pool.HybridMemoryPool
	matrices []mapped
	cancel   context.CancelFunc
	done     chan struct{}
	err      error // why it stopped early; the model goes on from the mapping
}

// mapped is a matrix whose bytes are a file's.
type mapped struct {
	dst  *[]byte // used by steps
	view safetensors.View
}

// promote starts moving the matrices and makes closing the model wait for the end.
func (m *Model) promote(matrices []mapped, p *pool.HybridMemoryPool) {
	size := 0
	for _, x := range matrices {
		size += len(*x.dst)
	}
	if size < promoteFrom {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.promoter = &promoter{model: m, pool: p, matrices: matrices, cancel: cancel, done: make(chan struct{})}
	go m.promoter.run(ctx)
}

// Settled waits until the weights lie where they will stay and reports why some are not in huge-page memory, if so: a full pool, or
// a closed model. A benchmark calls it before it starts.
func (m *Model) Settled() error {
	if m.promoter == nil {
		return nil
	}
	<-m.promoter.done
	return m.promoter.err
}

func (p *promoter) run(ctx context.Context) {
	defer close(p.done)
	debug.SetPanicOnFault(true) // the file may be cut short: then the steps will say so
	defer func() {
		if r := recover(); r != nil {
			p.err = fmt.Errorf("model: moving weights: panic: %v\n%s", r, debug.Stack())
		}
	}()
	for _, x := range p.matrices {
		if p.err = ctx.Err(); p.err != nil {
			return
		}
		if p.err = p.move(x); p.err != nil {
			return
		}
	}
}

// move copies a matrix and lets steps use the copy from the next one on.
func (p *promoter) move(x mapped) error {
	b, err := p.pool.AllocUninit(len(*x.dst), "weights")
	if err != nil {
		return fmt.Errorf("model: moving weights: %w", err)
	}
	copy(b.Bytes(), *x.dst) // closing waits for this goroutine, so the mapping stays
	p.model.use.Lock()
	*x.dst = b.Bytes()
	p.model.close = append(p.model.close, func() error { b.Release(); return nil })
	p.model.use.Unlock()
	return x.view.ReleasePages()
}

// stop ends the moving. It must not be called with the model locked.
func (p *promoter) stop() {
	if p != nil {
		p.cancel()
		<-p.done
	}
}
