package nn

import (
	"context"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Row says where one row of a step's activations stands: which sequence of the step, and at which position of it.
type Row struct {
	Seq int32 // index into the step's caches
	Pos int32 // position in the sequence, from 0
}

// Ctx carries one forward step. It is reused from step to step and then allocates nothing; it serves one step at a
// time.
type Ctx struct {
	rows    []Row
	caches  []*KVCache
	done    context.Context
	scratch *pool.Scratch
	headers []*tensor.Tensor
	used    int

	positions []int32 // of the rows, once somebody has asked

	tape   *autograd.Tape               // nil unless the step is to be differentiated
	kept   map[*tensor.Tensor]*keepsake // values that recorded operations still need
	makers map[*tensor.Tensor]maker     // what can make a value again

	training Training
	// Inspect, when not nil, is shown what each module of the model put out, under the module's name.
	Inspect func(module string, x *tensor.Tensor)
	// Attended, when not nil, is shown the queries of each attention, [rows, heads*head_dim], when their keys and values are in the caches; see
	// AttentionWeights.
	Attended func(a *Attention, q *tensor.Tensor)
	site     uint64 // number of the last place with a dropout
	profile  recorder

	// One task of each kind: a step runs them one after another, so each is filled in anew and never allocated.
	each     eachTask
	prepare  prepareTask
	quant16  quantize16Task
	matmul   matmulTask
	dense    denseTask
	rope     ropeTask
	store    storeTask
	attend   attendTask
	groups   []rowGroup
	gate     gateTask
	skipUp   skipUpTask
	skipDown skipDownTask
	top      topTask
	spaces   spaces
	shares   shares
	add      addTask
	lookup   lookupTask
	drops    dropTask

	estimate estimateTask
	blend    blendTask
	byPanel  panelTask
	columns  columnTask

	distilled distillTask
	activate  activateTask

	entropy    entropyTask
	reorder    reorderTask
	flip       flipTask
	gradInts   gradInts
	normGrad   normGrad
	attendGrad attendGrad
}

// NewCtx returns a context whose scratch memory comes from p.
func NewCtx(p *pool.HybridMemoryPool) *Ctx { return &Ctx{scratch: p.NewScratch()} }

// Begin starts a step over rows. caches is indexed by Row.Seq. Steps with equal keys must have the same shapes: the
// key names the memory plan to use.
func (c *Ctx) Begin(ctx context.Context, key uint64, rows []Row, caches []*KVCache) {
	c.done, c.rows, c.caches, c.used = ctx, rows, caches, 0
	c.scratch.Begin(key)
	if c.profile.to != nil {
		c.profile.begin()
	}
}

// Positions are those of the rows in their sequences, as ids into a table of learned positions. They are valid until the step ends.
func (c *Ctx) Positions() []int32 {
	c.positions = c.positions[:0]
	for _, r := range c.rows {
		c.positions = append(c.positions, r.Pos)
	}
	return c.positions
}

// End gives the step's memory back. Tensors made during the step must not be used afterwards.
func (c *Ctx) End() {
	c.endProfile()
	c.scratch.End()
	c.done, c.rows, c.caches = nil, nil, nil
	c.tape, c.training = nil, Training{}
	clear(c.kept)
	clear(c.makers)
}

// Err reports whether the step was asked to stop; models check it between layers. Once it is not nil, results of the step
// may be incomplete.
func (c *Ctx) Err() error {
	if c.done == nil {
		return nil
	}
	return c.done.Err()
}

// piecePanels is how many panels are multiplied with a tile of rows before the context is asked again: as many as kernels work on
// together, some milliseconds of work. Fewer rows than pieceRows are multiplied with more panels.
const (
	piecePanels = 16
	pieceRows   = 128
)

// piece says up to which panel to multiply next, of those from from to end, with a tile of rows. When the step was asked
// to stop it returns from: the rest may be left undone, since whoever runs the step asks Err before it uses a result. A
// few rows are done sooner than anybody could ask.
func (c *Ctx) piece(from, end, rows int) int {
	switch {
	case rows < minParallelRows:
		return end
	case c.Err() != nil:
		return from
	}
	size := piecePanels * max(1, pieceRows/rows)
	return min((from+size)&^(piecePanels-1), end)
}

// Close releases the scratch memory.
func (c *Ctx) Close() { c.scratch.Close() }

// Scratch gives access to the step memory's figures.
func (c *Ctx) Scratch() *pool.Scratch { return c.scratch }

// Attach makes the operations that follow record themselves on t; nil ends that. The tape's gradients must live in c.
// Attached operations make new values where others work in place, and keep what their backward passes need; Free then
// takes effect when the last of those passes is done.
func (c *Ctx) Attach(t *autograd.Tape) {
	c.tape = t
	if c.kept == nil {
		c.kept, c.makers = map[*tensor.Tensor]*keepsake{}, map[*tensor.Tensor]maker{}
	}
}

// New returns an uninitialized float32 tensor [rows, cols] that lives until Free or the end of the step.
func (c *Ctx) New(rows, cols int) *tensor.Tensor {
	t := c.header()
	t.Rebind(pool.View[float32](c.scratch.Alloc(4*rows*cols)), rows, cols)
	return t
}

// view returns a header over memory that belongs to something else: it is not to be freed.
func (c *Ctx) view(data []float32, rows, cols int) *tensor.Tensor {
	t := c.header()
	t.Rebind(data, rows, cols)
	return t
}

func (c *Ctx) header() *tensor.Tensor {
	if c.used == len(c.headers) {
		c.headers = append(c.headers, new(tensor.Tensor))
	}
	c.used++
	return c.headers[c.used-1]
}

// Free gives a tensor's memory back before the end of the step.
func (c *Ctx) Free(t *tensor.Tensor) {
	if k := c.kept[t]; k != nil {
		k.freed = true
		if k.maker != nil {
			k.gone = true
			c.scratch.Free(t.Bytes())
		}
		return
	}
	c.scratch.Free(t.Bytes())
}

// rower is work that goes row by row; rows are independent.
type rower interface{ row(r int) }

// eachTask cuts rows into chunks for the worker pool.
type eachTask struct {
	w       rower
	n, size int
}

func (t *eachTask) Run(chunk int) {
	for r := chunk * t.size; r < min((chunk+1)*t.size, t.n); r++ {
		t.w.row(r)
	}
}

// minParallelRows is the number of rows under which waking a worker costs more than the rows do.
const minParallelRows = 4

// eachRow runs w on rows 0..n-1.
func (c *Ctx) eachRow(n int, w rower) {
	if n < minParallelRows {
		for r := range n {
			w.row(r)
		}
		return
	}
	c.each = eachTask{w: w, n: n, size: max(1, n/(4*cpu.NumThreads()))}
	cpu.Parallel((n+c.each.size-1)/c.each.size, &c.each)
}
