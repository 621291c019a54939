package optim

import (
	"errors"
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Optimizer updates the parameters of its groups. It is made by [New] and holds memory until Close.
type Optimizer struct {
	algorithm *algorithm
	pool      *pool.HybridMemoryPool
	groups    []*group
	slots     []slot // all parameters, in the order of the groups
	grads     *Gradients
	closed    bool
}

// group is a Group at work; its parameters are slots[first:last].
type group struct {
	name         string
	hyper        Hyper
	factor       float64 // LRFactor
	initialLR    float64 // what a schedule multiplies; includes factor
	initialDecay float64
	first, last  int
}

// slot is a parameter and what the algorithm remembers of it.
type slot struct {
	param *Param
	state updater
}

// updater is one parameter's state and the loop that uses it.
type updater interface {
	// prepare makes the buffers that the next update needs; only this may fail and only this allocates.
	prepare(n int, h *Hyper, mem *pool.HybridMemoryPool) error
	// begin counts an update and computes its constants; gradients count times scale.
	begin(h *Hyper, scale float32)
	// update works on elements lo to hi. Calls for different elements may run at the same time.
	update(p, g []float32, lo, hi int)

	save(shape []int) (ParamState, bool) // false: no update was made yet
	check(at func(string) string, s ParamState, shape []int, n int) error
	load(s ParamState) // after check and prepare
	release()
}

// New makes an optimizer for groups of parameters. No parameter may be in it twice. mem holds its state, nil is the
// process's pool; state is allocated for a parameter at its first update. Errors are *ArgumentError.
func New(mem *pool.HybridMemoryPool, c Config, groups ...Group) (*Optimizer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if mem == nil {
		mem = pool.Default()
	}
	o := &Optimizer{algorithm: algorithms[c.Name], pool: mem}
	var params []*Param
	for i, g := range groups {
		h := c.Hyper
		if g.Hyper != nil {
			h = *g.Hyper
		}
		if err := o.algorithm.check(&h); err != nil {
			return nil, inGroup("groups", i, err)
		}
		factor := g.LRFactor
		if factor == 0 {
			factor = 1
		}
		if !finiteFrom(factor, 0) {
			return nil, &ArgumentError{fmt.Sprintf("groups[%d].lr_factor", i), factor, "expected a finite number > 0"}
		}
		h.LR *= factor
		params = append(params, g.Params...)
		o.groups = append(o.groups, &group{g.Name, h, factor, h.LR, h.WeightDecay, len(params) - len(g.Params), len(params)})
	}
	var err error
	if o.grads, err = NewGradients(params); err != nil {
		return nil, err
	}
	for _, p := range params {
		o.slots = append(o.slots, slot{p, o.algorithm.fresh()})
	}
	return o, nil
}

// Name is the algorithm: "sgd", "adam" or "adamw".
func (o *Optimizer) Name() string { return o.algorithm.name }

// Grads gives access to the gradients of all parameters.
func (o *Optimizer) Grads() *Gradients { return o.grads }

// NumGroups is the number of groups.
func (o *Optimizer) NumGroups() int { return len(o.groups) }

// Group returns the hyperparameters of group i, which may be changed between steps; the next step validates them.
func (o *Optimizer) Group(i int) *Hyper { return &o.groups[i].hyper }

// GroupName is the name of group i.
func (o *Optimizer) GroupName(i int) string { return o.groups[i].name }

// SetLR sets the learning rate that schedules start from, times each group's LRFactor, and makes it the current one.
func (o *Optimizer) SetLR(lr float64) error {
	if !finiteFrom(lr, 0) {
		return &ArgumentError{"lr", lr, "expected a finite number >= 0"}
	}
	for _, g := range o.groups {
		g.initialLR = lr * g.factor
		g.hyper.LR = g.initialLR
	}
	return nil
}

// SetRates sets each group's learning rate and weight decay to its initial one times r's factors, and its momentum
// (Adam: the first beta) where r has one.
func (o *Optimizer) SetRates(r Rates) {
	for _, g := range o.groups {
		g.hyper.LR = g.initialLR * r.LR
		g.hyper.WeightDecay = g.initialDecay * r.WeightDecay
		switch {
		case r.Momentum == 0:
		case o.algorithm.adam:
			g.hyper.Betas[0] = r.Momentum
		default:
			g.hyper.Momentum = r.Momentum
		}
	}
}

// LearningRates appends each group's current learning rate to dst.
func (o *Optimizer) LearningRates(dst []float64) []float64 {
	for _, g := range o.groups {
		dst = append(dst, g.hyper.LR)
	}
	return dst
}

// Step updates all parameters that have a gradient. On an error nothing was updated.
func (o *Optimizer) Step() error { return o.StepScaled(1) }

// StepScaled is Step with all gradients multiplied by factor on the way; the gradients in memory stay as they are. It has the
// bits of Grads().Scale(factor) followed by Step, and saves a pass over memory.
//
// Gradients that are not finite go into the weights; [Gradients.ClipFactor] and [GradScaler] find them before.
func (o *Optimizer) StepScaled(factor float32) error {
	if o.closed {
		return ErrClosed
	}
	if f := float64(factor); math.IsNaN(f) || math.IsInf(f, 0) {
		return &ArgumentError{"factor", factor, "expected a finite number"}
	}
	if err := o.grads.check(); err != nil {
		return err
	}
	for i, g := range o.groups {
		if err := o.algorithm.check(&g.hyper); err != nil {
			return inGroup("groups", i, err)
		}
	}
	// All that can fail comes before anything changes.
	for _, g := range o.groups {
		for i := g.first; i < g.last; i++ {
			s := &o.slots[i]
			if len(s.param.Grad) == 0 {
				continue
			}
			if err := s.state.prepare(len(s.param.Data), &g.hyper, o.pool); err != nil {
				return fmt.Errorf("optim: state of %s: %w", label(s.param, i), err)
			}
		}
	}
	for _, g := range o.groups {
		for _, s := range o.slots[g.first:g.last] {
			if len(s.param.Grad) != 0 {
				s.state.begin(&g.hyper, factor)
			}
		}
	}
	cpu.Parallel(len(o.grads.spans), (*stepTask)(o))
	return nil
}

// stepTask is the parallel part of a step.
type stepTask Optimizer

func (o *stepTask) Run(chunk int) {
	at := o.grads.spans[chunk]
	s := &o.slots[at.param]
	if len(s.param.Grad) != 0 {
		s.state.update(s.param.Data[at.lo:at.hi], s.param.Grad[at.lo:at.hi], at.lo, at.hi)
	}
}

// ZeroGrad sets all gradients to zero.
func (o *Optimizer) ZeroGrad() error { return o.grads.Zero() }

// Close gives the state's memory back. Tensors of a StateDict that was taken from this optimizer must not be used any more.
func (o *Optimizer) Close() {
	if o.closed {
		return
	}
	o.closed = true
	for _, s := range o.slots {
		s.state.release()
	}
}

// inGroup puts a group in front of the field that an error names.
func inGroup(list string, i int, err error) error {
	var bad *ArgumentError
	if errors.As(err, &bad) {
		return &ArgumentError{fmt.Sprintf("%s[%d].%s", list, i, bad.Field), bad.Value, bad.Reason}
	}
	return err
}

// buffer is one state tensor of a parameter.
type buffer struct {
	block  *pool.Block
	values []float32
}

// make allocates n zeros unless the buffer is there.
func (b *buffer) make(n int, mem *pool.HybridMemoryPool) error {
	if b.block != nil {
		return nil
	}
	block, err := mem.Alloc(4*n, "optimizer")
	if err != nil {
		return err
	}
	b.block, b.values = block, block.Float32()[:n]
	return nil
}

func (b *buffer) release() {
	if b.block != nil {
		b.block.Release()
	}
	*b = buffer{}
}
