package nn

import (
	"math"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Squared ReLU is zero for most neurons of a trained model, whatever the up projection says of them, and a zero adds nothing to the down
// projection. With few rows, whose speed is that of reading the weights, neither those rows of the up projection nor those columns of the down
// projection are read: both matrices lie by lines, one for each neuron. The results are the same bits.

// skipRows is up to how many rows of a step are worked on neuron by neuron. Each row has its own neurons; the weights of a chunk's neurons come
// from memory for the first row and from the cache for the others. With more open gates than cpu.LineShare says the rows share what they read
// in products of whole matrices.
const skipRows = 32

// skips says whether the network is laid out for skipping.
func (f *FeedForward) skips() bool {
	return f.Gate.Ternary != nil && f.Up.Ternary != nil && f.Up.Ternary.Layout == quant.RowLines && f.Down.Ternary != nil && f.Down.Ternary.Layout == quant.ColumnLines &&
		f.Gate.Norm == nil && f.Up.Norm == nil && f.Down.Norm == nil
}

// ByLines gives the layouts of the up and down projections of a network with the activation a, when all three of its projections are
// ternary and have no norms of their own.
func (a Activation) ByLines() (up, down quant.Layout) {
	if a == ReLU2 || a == ReLU {
		return quant.RowLines, quant.ColumnLines
	}
	return quant.Panel16, quant.Panel16
}

// forwardSkipping is Forward for few rows.
func (f *FeedForward) forwardSkipping(c *Ctx, x *tensor.Tensor, norm *Norm) *tensor.Tensor {
	rows, neurons := x.Dim(0), f.Gate.Out
	q := c.quantize(x, norm, nil)
	h := c.New(rows, neurons)
	gate := &c.matmul
	gate.reset(q)
	gate.append(c, f.Gate, h)
	op, others := OpGateUp, []*Linear{f.Gate}
	if share := cpu.LineShare(rows); rows > share || f.Gate.Ternary.Space(rows) > 0 { // many rows: it takes all gates to say whether skipping pays
		gate.run(c)
		c.did(OpGate, f.Gate)
		gate, op, others = nil, OpUp, nil
		if !pays(h.Float32s(), share*neurons) {
			up := c.New(rows, neurons)
			c.matmul.reset(q)
			c.matmul.append(c, f.Up, up)
			c.matmul.run(c)
			c.did(OpUp, f.Up)
			q.free(c)
			h = c.gated(f.Act, h, up)
			if !cpu.ReadsLines() {
				return f.project(c, h)
			}
			return f.addDown(c, h, true)
		}
	}
	up := &c.skipUp
	*up = skipUpTask{ctx: c, f: f, in: q, h: h.Float32s(), gate: gate, all: !cpu.SkipZeros()}
	stride := cpu.LineElements(x.Dim(1))
	ordered := c.scratch.Alloc(rows * stride)
	c.spaces.open(c, 5*chosenBytes(rows))
	up.x = pool.View[int8](ordered)
	for r := range rows {
		cpu.LineOrder(up.x[r*stride:(r+1)*stride], q.q[r*q.stride:], x.Dim(1))
	}
	cpu.Parallel(c.shares.open(neurons, cutNeurons), up)
	c.spaces.close(c)
	c.didLines(op, f.Up.In, rows*neurons, others...)
	if gate != nil {
		gate.free(c)
	}
	c.scratch.Free(ordered)
	q.free(c)

	return f.addDown(c, h, false)
}

// addDown takes h [rows, neurons], which it frees, down to hidden_size, adding up what its neurons give: each row's where they are not zero, or
// all of them for all rows together.
func (f *FeedForward) addDown(c *Ctx, h *tensor.Tensor, together bool) *tensor.Tensor {
	rows, neurons, n := h.Dim(0), h.Dim(1), f.Down.Out
	y := c.New(rows, n)
	q := c.quantize(h, f.SubNorm, nil)
	c.Free(h)
	down := &c.skipDown
	*down = skipDownTask{ctx: c, l: f.Down, in: q, out: y.Float32s(), size: cpu.LineElements(n), all: !cpu.SkipZeros(), together: together}
	space := 3 * chosenBytes(rows)
	if together {
		down.size, space = cpu.ColumnSpace(n), 0
	}
	c.spaces.open(c, 4*rows*down.size+space)
	clear(c.spaces.mem)
	cpu.Parallel(c.shares.open(neurons, downUnit(neurons, together)), down)
	c.eachRow(rows, down)
	if together {
		c.did(OpDown, f.Down)
	} else {
		c.didLines(OpDown, n, rows*neurons)
	}
	c.spaces.close(c)
	q.free(c)
	return y
}

// pays says whether at most so many gates are open, by looking at some thousands of them. Their distance is odd: a row's neurons are not the next one's.
func pays(gates []float32, most int) bool {
	step := len(gates)/sampledGates | 1
	open := 0
	for i := 0; i < len(gates); i += step {
		open += positive(gates[i])
	}
	return step*open <= most
}

// sampledGates are enough to know the share of open ones to one or two hundredths.
const sampledGates = 4096

// cutNeurons is the unit of a chunk's neurons: those of the gate's panels that are read side by side.
const cutNeurons = sidePanels * cpu.PanelRows

// downUnit is cutNeurons for the down projection, which may have few lines of many neurons: nothing was read ahead of the first ones of a chunk.
func downUnit(neurons int, together bool) int {
	const large = 3 * cutNeurons
	if together || neurons < chunksPerThread*large*cpu.NumThreads() {
		return cutNeurons
	}
	return large
}

// How many neurons are worked on at a time: for several rows so few that their lines stay in the second-level cache from row to row. A single row
// is read from the more places at once the more there are.
const (
	mostNeurons = 256
	mostAlone   = 1152
)

// window is how many neurons are worked on at a time for so many rows.
func window(rows int) int {
	if rows == 1 {
		return mostAlone
	}
	return mostNeurons
}

// skipUpTask replaces the gates in h by act(gate) * up. It computes the gates first, unless they are there.
type skipUpTask struct {
	ctx  *Ctx
	f    *FeedForward
	in   quantized
	gate *matmulTask // what makes the gates, or nil
	x    []int8      // [rows, LineElements(hidden_size)] in line order
	h    []float32   // [rows, neurons]
	all  bool
}

func (t *skipUpTask) Run(int) {
	share, from, to := t.ctx.shares.take()
	defer t.ctx.shares.give(share)
	if t.gate != nil {
		t.gate.compute(&t.gate.parts[0], from/cpu.PanelRows, (to+cpu.PanelRows-1)/cpu.PanelRows, 0, t.in.rows)
	}
	space, most := t.ctx.spaces.take(), window(t.in.rows)
	defer t.ctx.spaces.give(space)
	for ; from < to; from += most {
		t.multiply(from, min(from+most, to), space)
	}
}

// multiply is for the neurons [from, to), at most as many as a window has.
func (t *skipUpTask) multiply(from, to int, space []byte) {
	var ints [3][]int32
	for i := range ints {
		ints[i], space = chosen[int32](space, t.in.rows)
	}
	gates, space := chosen[float32](space, t.in.rows)
	products, _ := chosen[float32](space, t.in.rows)
	open, ids, sums := ints[0], ints[1], ints[2]
	neurons, w := t.f.Up.Out, t.f.Up.Ternary
	stride := cpu.LineElements(w.Cols)
	t.ctx.countGates(t.h, t.in.rows, neurons, from, to, t.all)
	for r := range t.in.rows {
		h := t.h[r*neurons+from : r*neurons+to]
		n := len(h)
		if t.all {
			allOf(open, from, n)
		} else {
			n = cpu.Positive(open, h, from)
		}
		t.ctx.countRow(t.in.rows, n, t.all)
		cpu.LineWalk(ids, open[:n])
		pad(ids, n)
		cpu.TernaryDotLines(sums, w.Data, w.Cols, ids, n, t.x[r*stride:(r+1)*stride], t.in.sum[r])
		g, u := gates[:n], products[:n]
		cpu.DequantRow(u, sums[:n], w.Scale/t.in.scale[r])
		for i, id := range ids[:n] {
			g[i] = h[int(id)-from]
			if t.f.Up.Bias != nil {
				u[i] += t.f.Up.Bias[id]
			}
		}
		t.f.Act.apply(g, g)
		cpu.Mul(g, g, u)
		clear(h)
		for i, id := range ids[:n] {
			h[int(id)-from] = g[i]
		}
	}
}

// chosen cuts memory for one value of each neuron of a window from space, with room for what kernels read and write beyond.
func chosen[T int32 | float32 | int8](space []byte, rows int) (values []T, rest []byte) {
	n := chosenBytes(rows)
	return pool.View[T](space[:n]), space[n:]
}

func chosenBytes(rows int) int { return 4 * (window(rows) + 2*cpu.LineRun) }

// allOf lists n neurons, first to last.
func allOf(ids []int32, first, n int) {
	for i := range n {
		ids[i] = int32(first + i)
	}
}

// positive is 1 for what cpu.Positive counts, without a branch, which would be hard to foresee.
func positive(x float32) int {
	return int(uint64(-int64(int32(math.Float32bits(x)))) >> 63)
}

// pad repeats the last of n ids, or line 0, where kernels read on.
func pad(ids []int32, n int) {
	last := int32(0)
	if n > 0 {
		last = ids[n-1]
	}
	for i := n; i < n+2*cpu.LineRun-1; i++ {
		ids[i] = last
	}
}

// skipDownTask adds up the columns of the down projection whose inputs are not zero. Whoever runs a chunk adds to sums of his own.
type skipDownTask struct {
	ctx  *Ctx
	l    *Linear
	in   quantized
	out  []float32 // [rows, Out]
	size int       // of a row's sums
	all  bool

	together bool // all rows and neurons
}

func (t *skipDownTask) Run(int) {
	share, from, to := t.ctx.shares.take()
	defer t.ctx.shares.give(share)
	space := t.ctx.spaces.take()
	defer t.ctx.spaces.give(space)
	if t.together {
		w := t.l.Ternary
		cpu.TernaryAddColumns(pool.View[int32](space), t.size, w.Data, w.Cols, w.Rows, from, to, t.in.q, t.in.stride, t.in.rows)
		return
	}
	most := window(t.in.rows)
	for ; from < to; from += most {
		t.add(space, from, min(from+most, to))
	}
}

// add is for the neurons [from, to), at most as many as a window has.
func (t *skipDownTask) add(space []byte, from, to int) {
	w, size := t.l.Ternary, t.size
	sums, space := pool.View[int32](space[:4*t.in.rows*size]), space[4*t.in.rows*size:]
	nonzero, space := chosen[int32](space, t.in.rows)
	ids, space := chosen[int32](space, t.in.rows)
	factors, _ := chosen[int8](space, t.in.rows)
	t.ctx.countInputs(t.in, from, to, t.all)
	for r := range t.in.rows {
		q := t.in.q[r*t.in.stride+from : r*t.in.stride+to]
		n := len(q)
		if t.all {
			allOf(nonzero, from, n)
		} else {
			n = cpu.Nonzero(nonzero, q, from)
		}
		t.ctx.countRow(t.in.rows, n, t.all)
		cpu.LineWalk(ids, nonzero[:n])
		pad(ids, n)
		for i, id := range ids[:n] {
			factors[i] = q[int(id)-from]
		}
		clear(factors[n : n+cpu.LineRun])
		cpu.TernaryAddLines(sums[r*size:(r+1)*size], w.Data, w.Rows, ids, factors, n)
	}
}

// row makes the outputs of a row of all sums.
func (t *skipDownTask) row(r int) {
	w, s, size := t.l.Ternary, &t.ctx.spaces, t.size
	all := pool.View[int32](s.mem)[r*size : (r+1)*size]
	for i := 1; i < s.count; i++ {
		cpu.AddInts(all, pool.View[int32](s.mem)[i*s.size/4+r*size:][:size])
	}
	y := t.out[r*w.Rows : (r+1)*w.Rows]
	acc := int32s(y)
	if t.together {
		cpu.SubInt(acc, all, t.in.sum[r])
	} else {
		cpu.LineSums(acc, all, w.Rows, t.in.sum[r])
	}
	cpu.DequantRow(y, acc, w.Scale/t.in.scale[r])
	if t.l.Bias != nil {
		cpu.Add(y, y, t.l.Bias)
	}
}

// spaces is memory for whoever runs a chunk at the moment, as much for each.
type spaces struct {
	mu    sync.Mutex
	given sync.Cond // one was given back
	mem   []byte
	size  int
	count int
	free  []int
}

// open makes spaces of size bytes, none when that is 0.
func (s *spaces) open(c *Ctx, size int) {
	s.size, s.count = (size+63)&^63, cpu.NumThreads()
	if size == 0 {
		return
	}
	s.mem = c.scratch.Alloc(s.size * s.count)
	s.given.L = &s.mu
	s.free = s.free[:0]
	for i := range s.count {
		s.free = append(s.free, i)
	}
}

func (s *spaces) close(c *Ctx) {
	if s.size > 0 {
		c.scratch.Free(s.mem)
		s.mem, s.size = nil, 0
	}
}

// take gives one of the spaces, nil when they have no bytes. It waits for one where there are more threads than when they were opened.
func (s *spaces) take() []byte {
	if s.size == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.free) == 0 {
		s.given.Wait()
	}
	i := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return s.mem[i*s.size : (i+1)*s.size]
}

func (s *spaces) give(space []byte) {
	if space == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.count {
		if &s.mem[i*s.size] == &space[0] {
			s.free = append(s.free, i)
		}
	}
	s.given.Signal()
}
