package functional

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// Model runs a trainable model as nodes of a graph. It may be used from several goroutines; backward passes take turns.
type Model struct {
	model  *model.Model
	turn   Turn       // taken while gradients of the parameters change
	walk   sync.Mutex // backward passes wait for each other
	params []*autograd.GradTensor
	names  []string

	mu     sync.Mutex
	idle   map[bool][]*train.Engine // by gradient checkpointing, which an engine is made for
	closed bool
}

// Turn is a lock of those who train a model, such as a sync.Mutex.
type Turn interface {
	// TryLock reports whether the caller has it now.
	TryLock() bool
	// Unlock is called by who has it.
	Unlock()
}

// NewModel wraps a model of model.NewTrainable; any other is train.ErrNotTrainable. turn, which may be nil, is what others hold
// who train the model.
func NewModel(m *model.Model, turn Turn) (*Model, error) {
	if turn == nil {
		turn = new(sync.Mutex)
	}
	if err := m.Acquire(); err != nil {
		return nil, err
	}
	defer m.Release()
	hold := m.Hold()
	f := &Model{model: m, turn: turn, idle: map[bool][]*train.Engine{}}
	for _, p := range m.Params() {
		t, err := autograd.NewLeaf(p, hold, m.MarkChanged)
		if err != nil {
			return nil, err
		}
		f.params, f.names = append(f.params, t), append(f.names, p.Name)
	}
	if len(f.params) == 0 {
		return nil, train.ErrNotTrainable
	}
	return f, nil
}

// Parameters are the model's master weights as leaves, with their names in a checkpoint. Their gradients are those that
// training adds to, and a change of their values reaches the model's next pass.
func (f *Model) Parameters() (names []string, leaves []*autograd.GradTensor) {
	return f.names, f.params
}

// Close drops memory that waits for the next pass. Graphs that are open end on their own.
func (f *Model) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, list := range f.idle {
		for _, e := range list {
			e.Close()
		}
	}
	f.idle = nil
}

// Pass says how a forward pass of training runs.
type Pass struct {
	train.EngineOptions
	Seed uint64 // of random numbers, with Step
	Step int    // number of the update
}

// Logits returns the logits [tokens, vocab_size] of a batch, whose targets do not matter.
func (f *Model) Logits(ctx context.Context, m autograd.Mode, b train.Batch, p Pass) (*autograd.GradTensor, error) {
	return f.run(ctx, m, &modelFunction{name: "model", model: f, batch: b, pass: p})
}

// Loss returns the mean cross-entropy of a batch in nats, a scalar.
func (f *Model) Loss(ctx context.Context, m autograd.Mode, b train.Batch, p Pass) (*autograd.GradTensor, error) {
	return f.run(ctx, m, &modelFunction{name: "loss", model: f, batch: b, pass: p})
}

func (f *Model) run(ctx context.Context, m autograd.Mode, fn *modelFunction) (*autograd.GradTensor, error) {
	e, err := f.engine(fn.pass)
	if err != nil {
		return nil, err
	}
	y, err := fn.forward(ctx, e)
	if err != nil || !m.Wanted(f.params...) {
		f.drop(fn.pass, e)
		if err != nil {
			return nil, err
		}
		return autograd.New(y), nil
	}
	fn.batch.IDs, fn.batch.Targets, fn.batch.Lengths = slices.Clone(fn.batch.IDs), slices.Clone(fn.batch.Targets), slices.Clone(fn.batch.Lengths)
	fn.open = e
	pass := fn.pass
	fn.cleanup = runtime.AddCleanup(fn, func(e *train.Engine) { quietly(func() { f.drop(pass, e) }) }, e)
	out := autograd.New(y)
	autograd.Record(fn, f.params, []*autograd.GradTensor{out}, f.params...)
	return out, nil
}

// maxEngines is how many engines of a kind wait for the next pass.
const maxEngines = 2

func (f *Model) engine(p Pass) (e *train.Engine, err error) {
	if p.STE == "learned_scale" { // its scales are parameters that Parameters does not list
		return nil, &train.OptionError{Field: "ste", Value: fmt.Sprintf("%q", p.STE), Expected: `"identity", "clipped" or "soft" outside of a Trainer`}
	}
	if p.Teacher != nil {
		return nil, &train.OptionError{Field: "teacher", Value: "a model", Expected: "none outside of a Trainer"}
	}
	f.mu.Lock()
	if list := f.idle[p.GradientCheckpointing]; len(list) > 0 {
		e = list[len(list)-1]
		f.idle[p.GradientCheckpointing] = list[:len(list)-1]
	}
	f.mu.Unlock()
	if e == nil {
		e, err = train.NewEngine(f.model, p.EngineOptions)
	} else if err = e.SetOptions(p.EngineOptions); err != nil {
		f.give(p, e)
	}
	if err != nil {
		return nil, err
	}
	e.SetStep(p.Seed, p.Step, 0)
	return e, nil
}

func (f *Model) give(p Pass, e *train.Engine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if list := f.idle[p.GradientCheckpointing]; !f.closed && len(list) < maxEngines {
		f.idle[p.GradientCheckpointing] = append(list, e)
		return
	}
	e.Close()
}

// drop ends an open step without a backward pass.
func (f *Model) drop(p Pass, e *train.Engine) {
	e.Drop()
	f.give(p, e)
}

// modelFunction is a pass of a model in the graph; its operands are all parameters.
type modelFunction struct {
	name    string
	model   *Model
	batch   train.Batch
	pass    Pass
	open    *train.Engine // nil after the first backward pass
	cleanup runtime.Cleanup
}

func (f *modelFunction) Name() string { return f.name }

// forward opens the engine's step.
func (f *modelFunction) forward(ctx context.Context, e *train.Engine) (*tensor.Tensor, error) {
	if f.name == "loss" {
		s, err := e.OpenLoss(ctx, f.batch)
		if err != nil {
			return nil, err
		}
		return tensor.FromFloat32([]float32{float32(s.Loss())})
	}
	logits, err := e.OpenLogits(ctx, f.batch)
	if err != nil {
		return nil, err
	}
	return logits.Clone()
}

func (f *modelFunction) Release() {
	if f.open != nil {
		f.cleanup.Stop()
		quietly(func() { f.model.drop(f.pass, f.open) })
		f.open = nil
	}
}

func (f *modelFunction) Backward(b *autograd.Backward) (gs []*tensor.Tensor, err error) {
	g, err := b.Grads[0].Contiguous()
	if err != nil {
		return nil, err
	}
	e := f.open
	if e == nil {
		if e, err = f.model.engine(f.pass); err != nil {
			return nil, err
		}
		if _, err := f.forward(b.Ctx, e); err != nil {
			return nil, err
		}
	} else {
		f.cleanup.Stop()
		f.open = nil
	}
	defer f.model.give(f.pass, e)
	f.model.walk.Lock()
	defer f.model.walk.Unlock()
	if !f.model.turn.TryLock() {
		e.Drop()
		return nil, ErrBusy
	}
	defer f.model.turn.Unlock()
	sinks := make([]*autograd.ParamSink, len(f.model.params))
	for i, p := range f.model.params {
		sinks[i] = p.Sink()
		sinks[i].Begin(b.Apart)
	}
	defer func() {
		gs = make([]*tensor.Tensor, len(sinks))
		for i, s := range sinks {
			d, wrong := s.End(err == nil)
			if gs[i] = d; wrong != nil && err == nil {
				err = wrong
			}
		}
	}()
	if f.name == "loss" {
		return nil, e.Backward(b.Ctx, g.Float32s()[0])
	}
	return nil, e.BackwardLogits(b.Ctx, g.Float32s())
}
