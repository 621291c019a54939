package model

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// deferred is the weights of a model that was loaded with LoadOptions.Deferred: each module's are brought into memory when somebody
// needs them, and given back afterwards. Its source stays open as long as the model.
type deferred struct {
	modules map[string]*deferredModule
	blocks  [][]string // names of the modules of each block
	tables  []string   // those of embedding and head, which a forward pass keeps
	pool    *pool.HybridMemoryPool

	mu   sync.Mutex
	warm bool // a forward pass has asked for the tables
}

// deferredModule is what one matrix takes, and the work that makes it.
type deferredModule struct {
	places []place
	size   int
	jobs   []job

	mu    sync.Mutex
	users int
	block *pool.Block
}

// deferWeights keeps what was planned for later, but learns the scales of ternary layers, which some sources tell only by their weights.
func (l *loader) deferWeights(ctx context.Context, m *Model) error {
	d := &deferred{modules: map[string]*deferredModule{}, blocks: make([][]string, len(m.Blocks)), pool: l.opts.Pool}
	module := func(name string) *deferredModule {
		if d.modules[name] == nil {
			d.modules[name] = &deferredModule{}
			if i := LayerOf(name); i >= 0 {
				d.blocks[i] = append(d.blocks[i], name)
			} else {
				d.tables = append(d.tables, name)
			}
		}
		return d.modules[name]
	}
	for _, p := range l.places {
		to := module(p.module)
		p.offset = to.size
		to.places = append(to.places, p)
		to.size += (p.len + 63) &^ 63
	}
	var total, done int64
	for _, j := range l.jobs {
		to := module(j.module)
		to.jobs = append(to.jobs, j)
		total += j.bytes
	}
	m.deferred = d
	return m.eachLinear(func(name string, w *nn.Linear) error {
		if w.Ternary != nil && w.Ternary.Scale == 0 {
			if err := m.with(ctx, name, func() error { return nil }); err != nil {
				return err
			}
		}
		if to := d.modules[name]; to != nil && l.opts.Progress != nil {
			for _, j := range to.jobs {
				done += j.bytes
			}
			l.opts.Progress(done, total)
		}
		return nil
	})
}

// with does work while the weights of a module are in memory.
func (m *Model) with(ctx context.Context, module string, work func() error) error {
	if m.deferred == nil {
		return work()
	}
	release, err := m.deferred.hold(ctx, module)
	if err != nil {
		return err
	}
	defer release()
	return work()
}

// keepTables brings embedding and head into memory, where they stay until the model is closed: a forward pass reads them at its
// beginning and after its end. For other models nothing has to be done.
func (d *deferred) keepTables(ctx context.Context) error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.warm {
		return nil
	}
	_, err := d.hold(ctx, d.tables...)
	d.warm = err == nil // else the next pass asks again: memory may be free by then
	return err
}

// enter brings block i into memory until leave is called.
func (d *deferred) enter(ctx context.Context, i int) (leave func(), err error) {
	if d == nil {
		return func() {}, nil
	}
	return d.hold(ctx, d.blocks[i]...)
}

// hold brings modules into memory; release gives them back when nobody else holds them.
func (d *deferred) hold(ctx context.Context, names ...string) (release func(), err error) {
	var held []*deferredModule
	free := func() {
		for _, m := range held {
			m.release()
		}
	}
	ok := false
	defer func() { // a job may panic, on a fault in a mapped file
		if !ok {
			free()
		}
	}()
	for _, name := range names {
		m := d.modules[name]
		if m == nil { // of a source that has it in memory or mapped
			continue
		}
		if err := m.hold(ctx, d.pool); err != nil {
			return nil, err
		}
		held = append(held, m)
	}
	ok = true
	return free, nil
}

func (m *deferredModule) hold(ctx context.Context, p *pool.HybridMemoryPool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users > 0 {
		m.users++
		return nil
	}
	if m.size > 0 {
		block, err := p.AllocUninit(m.size, "weights")
		if err != nil {
			return fmt.Errorf("model: %w", err)
		}
		m.block = block
		for _, at := range m.places {
			*at.dst = block.Bytes()[at.offset : at.offset+at.len : at.offset+at.len]
		}
	}
	ok := false
	defer func() {
		if !ok {
			m.drop()
		}
	}()
	slices.SortStableFunc(m.jobs, func(a, b job) int { return cmp.Compare(a.order, b.order) })
	for _, j := range m.jobs {
		if err := errors.Join(ctx.Err(), j.work(ctx)); err != nil {
			return err
		}
	}
	m.users, ok = 1, true
	return nil
}

func (m *deferredModule) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users--; m.users == 0 {
		m.drop()
	}
}

func (m *deferredModule) drop() {
	m.users = 0
	for _, at := range m.places {
		*at.dst = nil
	}
	if m.block != nil {
		m.block.Release()
		m.block = nil
	}
}

// close gives back what is still held.
func (d *deferred) close() error {
	for _, m := range d.modules {
		m.mu.Lock()
		m.drop()
		m.mu.Unlock()
	}
	return nil
}
