package functional

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// operation is an operation of core/nn with its operands.
type operation struct {
	name     string
	key      uint64           // of the memory plan: equal for equal shapes
	rows     []nn.Row         // of the step, for operations that know positions
	lengths  []int            // of the sequences whose keys and values the step stores; nil for none
	kvHeads  int              // of those
	headDim  int              //
	x        []*tensor.Tensor // the operands, contiguous float32
	out      []int            // shape of the result
	training nn.Training
	again    bool // the backward pass runs the operation again rather than that its step stays open: less memory for little work
	forward  func(s *step) *tensor.Tensor
}

// step is an operation under way.
type step struct {
	*worker
	op     *operation
	in     []*tensor.Tensor  // operands whose gradients the tape knows
	params []*autograd.Param // operands whose gradients are added up in Grad
	result *tensor.Tensor    // [rows, cols]
	y      *tensor.Tensor    // its copy, of the operation's shape
	caches []*nn.KVCache
}

// worker is what a step runs in. It is used again for steps of the same key, whose memory is planned then.
type worker struct {
	ctx  *nn.Ctx
	tape *autograd.Tape
}

// idle workers wait for a step of their key. There are as many as were ever at work at once, so that a training step finds those
// of the step before; beyond that the one that waits longest makes room.
var idle struct {
	sync.Mutex
	list       []idleWorker
	busy, most int // workers in steps
}

type idleWorker struct {
	key uint64
	*worker
}

const minIdle = 64

func takeWorker(key uint64) *worker {
	idle.Lock()
	defer idle.Unlock()
	idle.busy++
	idle.most = max(idle.most, idle.busy)
	for i := len(idle.list) - 1; i >= 0; i-- {
		if w := idle.list[i]; w.key == key {
			idle.list = slices.Delete(idle.list, i, i+1)
			return w.worker
		}
	}
	w := &worker{ctx: nn.NewCtx(pool.Default())}
	w.tape = autograd.NewTape(w.ctx)
	return w
}

func giveWorker(key uint64, w *worker) {
	idle.Lock()
	defer idle.Unlock()
	idle.busy--
	idle.list = append(idle.list, idleWorker{key, w})
	if len(idle.list) > max(minIdle, idle.most) {
		idle.list[0].ctx.Close()
		idle.list = slices.Delete(idle.list, 0, 1)
	}
}

// Trim gives the memory of workers that wait back to the pool.
func Trim() {
	idle.Lock()
	defer idle.Unlock()
	for _, w := range idle.list {
		w.ctx.Close()
	}
	idle.list, idle.most = nil, idle.busy
}

// begin runs the operation; the step is open then, unless there is an error. When the budget does not allow it, memory that
// waits and graphs that nobody holds make room.
func (op *operation) begin(ctx context.Context, record bool) (*step, error) {
	s, err := op.try(ctx, record)
	if errors.Is(err, pool.ErrOutOfMemory) {
		makeRoom()
		s, err = op.try(ctx, record)
	}
	return s, err
}

func makeRoom() {
	runtime.GC()
	Trim()
}

func (op *operation) try(ctx context.Context, record bool) (s *step, err error) {
	s = &step{worker: takeWorker(op.key), op: op, in: make([]*tensor.Tensor, len(op.x)), params: make([]*autograd.Param, len(op.x))}
	defer func() {
		if err != nil {
			s.end()
			s = nil
		}
	}()
	key := op.key << 1
	if record {
		key |= 1
	}
	s.ctx.Begin(ctx, key, op.rows, nil)
	defer pool.Recover(&err)
	for _, n := range op.lengths {
		c := nn.NewKVCache(pool.Default(), nn.KVFloat32, 1, op.kvHeads, op.headDim)
		s.caches = append(s.caches, c)
		if err := c.Grow(n); err != nil {
			return nil, err
		}
	}
	s.ctx.Store(s.caches)
	s.ctx.Train(op.training)
	if record {
		s.ctx.Attach(s.tape)
	}
	if s.result = op.forward(s); s.result != nil {
		if s.y, err = s.value(); err != nil {
			return s, err
		}
		s.ctx.Free(s.result) // from here on it names the value that the gradient belongs to
	}
	err = s.ctx.Err()
	s.ctx.Watch(context.Background())
	return s, err
}

// end gives everything back.
func (s *step) end() {
	s.tape.Reset()
	s.ctx.End()
	for _, c := range s.caches {
		c.Free()
	}
	giveWorker(s.op.key, s.worker)
}

// see is operand i as a matrix that the operation only reads.
func (s *step) see(i, cols int) *tensor.Tensor {
	data := s.op.x[i].Float32s()
	t, err := tensor.FromFloat32(data, len(data)/max(cols, 1), cols)
	if err != nil {
		panic(err) // shapes were checked before
	}
	s.in[i] = t
	return t
}

// own is operand i as a matrix of the step, which the operation may change and free.
func (s *step) own(i, cols int) *tensor.Tensor {
	data := s.op.x[i].Float32s()
	t := s.ctx.New(len(data)/max(cols, 1), cols)
	copy(t.Float32s(), data)
	s.in[i] = t
	return t
}

// param is operand i as a weight.
func (s *step) param(i int) *autograd.Param {
	p := &autograd.Param{Name: "weight", Shape: s.op.x[i].Shape(), Data: s.op.x[i].Float32s()}
	s.params[i] = p
	return p
}

// value copies the step's result out of its memory.
func (s *step) value() (*tensor.Tensor, error) {
	out, err := tensor.New(tensor.Float32, s.op.out...)
	if err == nil {
		copy(out.Float32s(), s.result.Float32s())
	}
	return out, err
}

// gradients walks the tape from the gradient of the result.
func (s *step) gradients(b *autograd.Backward) ([]*tensor.Tensor, error) {
	g, err := b.Grads[0].Contiguous()
	if err != nil {
		return nil, err
	}
	for _, p := range s.params {
		if p != nil {
			p.Grad = make([]float32, len(p.Data))
		}
	}
	s.ctx.Watch(b.Ctx)
	dy := s.ctx.New(s.result.Dim(0), s.result.Dim(1))
	copy(dy.Float32s(), g.Float32s())
	s.tape.Add(s.result, dy)
	if err := s.tape.BackwardUntil(s.ctx.Err); err != nil {
		return nil, err
	}
	if err := s.ctx.Err(); err != nil {
		return nil, err
	}
	out := make([]*tensor.Tensor, len(s.op.x))
	for i, x := range s.op.x {
		var grad []float32
		switch {
		case s.params[i] != nil:
			grad = s.params[i].Grad
		case s.in[i] == nil || !b.Want[i]:
			continue
		default:
			grad = make([]float32, x.Len())
			if t := s.tape.Take(s.in[i]); t != nil {
				copy(grad, t.Float32s())
			}
		}
		if out[i], err = tensor.FromFloat32(grad, x.Shape()...); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// run carries the operation out over operands, which it saves, and records it when that is wanted.
func (op *operation) run(ctx context.Context, m autograd.Mode, operands []*autograd.GradTensor) (*autograd.GradTensor, error) {
	record := m.Wanted(operands...)
	s, err := op.begin(ctx, record && !op.again)
	if err != nil {
		return nil, err
	}
	if !record || op.again {
		s.end()
	}
	out := autograd.New(s.y)
	s.y = nil
	if !record {
		return out, nil
	}
	f := &stepFunction{op: op}
	if !op.again {
		f.open, f.cleanup = s, runtime.AddCleanup(f, func(s *step) { quietly(s.end) }, s)
	}
	autograd.Record(f, operands, []*autograd.GradTensor{out}, operands...)
	return out, nil
}

// stepFunction is an operation in the graph. The node that owns it lets in one call at a time.
type stepFunction struct {
	op      *operation
	open    *step // nil after the first backward pass
	cleanup runtime.Cleanup
}

func (f *stepFunction) Name() string { return f.op.name }

func (f *stepFunction) Release() {
	if f.open != nil {
		f.cleanup.Stop()
		quietly(f.open.end)
		f.open = nil
	}
}

// quietly runs what ends a graph that is dropped, where nobody waits for an error: a defect there costs memory and not the
// process.
func quietly(end func()) {
	defer func() { _ = recover() }()
	end()
}

func (f *stepFunction) Backward(b *autograd.Backward) ([]*tensor.Tensor, error) {
	gs, err := f.walk(b)
	if errors.Is(err, pool.ErrOutOfMemory) {
		makeRoom()
		gs, err = f.walk(b)
	}
	return gs, err
}

// walk takes the open step, or runs the operation again, and walks its tape.
func (f *stepFunction) walk(b *autograd.Backward) (gs []*tensor.Tensor, err error) {
	s := f.open
	if s == nil {
		if s, err = f.op.begin(b.Ctx, true); err != nil {
			return nil, err
		}
	} else {
		f.cleanup.Stop()
		f.open = nil
	}
	defer s.end()
	defer pool.Recover(&err)
	return s.gradients(b)
}
