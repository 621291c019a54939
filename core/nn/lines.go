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
// from memory for the first row and from the cache for the others. More rows share what they read in products of whole panels, which are
// made of lines on the way.
const skipRows = 16

// skipShare is up to how many neurons, as a multiple of all there are, the rows of a step may have open together: then whole panels are faster.
const skipShare = 8

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
func (f *FeedForward) forwardSkipping(c *Ctx, x *tensor.Tensor, norm *RMSNorm) *tensor.Tensor {
	rows, neurons := x.Dim(0), f.Gate.Out
	q := c.quantize(x, norm, nil)
	h := c.New(rows, neurons)
	c.matmul.reset(q)
	c.matmul.append(c, f.Gate, h)
	c.matmul.run(c)
	c.did(OpGate, f.Gate)
	if rows > skipShare && !pays(h.Float32s(), neurons) {
		up := c.New(rows, neurons)
		c.matmul.reset(q)
		c.matmul.append(c, f.Up, up)
		c.matmul.run(c)
		c.did(OpUp, f.Up)
		q.free(c)
		return f.project(c, c.gated(f.Act, h, up))
	}
	up := &c.skipUp
	*up = skipUpTask{ctx: c, f: f, in: q, h: h.Float32s(), all: !cpu.SkipZeros()}
	stride := cpu.LineElements(x.Dim(1))
	ordered := c.scratch.Alloc(rows * stride)
	up.x = pool.View[int8](ordered)
	for r := range rows {
		cpu.LineOrder(up.x[r*stride:(r+1)*stride], q.q[r*q.stride:], x.Dim(1))
	}
	up.chunks = skipChunks(neurons)
	cpu.Parallel(up.chunks, up)
	c.didLines(OpUp, cpu.LineBytes(f.Up.In), rows*neurons)
	c.scratch.Free(ordered)
	q.free(c)

	y := c.New(rows, f.Down.Out)
	q = c.quantize(h, f.SubNorm, nil)
	c.Free(h)
	down := &c.skipDown
	*down = skipDownTask{ctx: c, l: f.Down, in: q, out: y.Float32s(), chunks: skipChunks(neurons), all: !cpu.SkipZeros()}
	c.spaces.open(c, 4*rows*cpu.LineElements(f.Down.Out))
	clear(c.spaces.mem)
	cpu.Parallel(down.chunks, down)
	c.eachRow(rows, down)
	c.didLines(OpDown, cpu.LineBytes(f.Down.Out), rows*neurons)
	c.spaces.close(c)
	q.free(c)
	return y
}

// pays says whether few enough gates are open.
func pays(gates []float32, neurons int) bool {
	open := 0
	for _, g := range gates {
		open += positive(g)
	}
	return open <= skipShare*neurons
}

// mostNeurons is how many neurons a chunk takes at most: so few that their lines stay in the second-level cache from row to row.
const mostNeurons = 256

func skipChunks(neurons int) int {
	return max((neurons+mostNeurons-1)/mostNeurons, min(chunksPerThread*cpu.NumThreads(), (neurons+31)/32))
}

// neuronRange is the neurons of a chunk.
func neuronRange(chunk, chunks, neurons int) (from, to int) {
	return chunk * neurons / chunks, (chunk + 1) * neurons / chunks
}

// skipUpTask replaces the gates in h by act(gate) * up.
type skipUpTask struct {
	ctx    *Ctx
	f      *FeedForward
	in     quantized
	x      []int8    // [rows, LineElements(hidden_size)] in line order
	h      []float32 // [rows, neurons]
	chunks int
	all    bool
}

func (t *skipUpTask) Run(chunk int) {
	var ids, sums [mostNeurons + 2*cpu.LineQuad]int32
	neurons, w := t.f.Up.Out, t.f.Up.Ternary
	from, to := neuronRange(chunk, t.chunks, neurons)
	stride := cpu.LineElements(w.Cols)
	t.ctx.countGates(t.h, t.in.rows, neurons, from, to, t.all)
	for r := range t.in.rows {
		h := t.h[r*neurons : (r+1)*neurons]
		n := 0
		for i := from; i < to; i++ {
			ids[n] = int32(i)
			if t.all {
				n++
			} else {
				n += positive(h[i])
			}
		}
		t.ctx.countRow(t.in.rows, n, t.all)
		pad(ids[:], n)
		cpu.TernaryDotLines(sums[:], w.Data, w.Cols, ids[:], n, t.x[r*stride:(r+1)*stride], t.in.sum[r])
		scale, next := w.Scale/t.in.scale[r], 0
		for i := from; i < to; i++ {
			g := max(h[i], 0)
			if next == n || ids[next] != int32(i) {
				h[i] = 0
				continue
			}
			u := float32(float32(sums[next]) * scale)
			if t.f.Up.Bias != nil {
				u += t.f.Up.Bias[i]
			}
			if t.f.Act == ReLU2 {
				g = float32(g * g)
			}
			h[i] = float32(g * u)
			next++
		}
	}
}

// positive is 1 for x > 0 and NaN, and else mostly 0: without a branch, which would be hard to foresee.
func positive(x float32) int {
	return int(uint32(-int32(math.Float32bits(x))) >> 31)
}

// pad repeats the last of n ids, or line 0, where kernels read on.
func pad(ids []int32, n int) {
	last := int32(0)
	if n > 0 {
		last = ids[n-1]
	}
	for i := n; i < n+2*cpu.LineQuad-1; i++ {
		ids[i] = last
	}
}

// skipDownTask adds up the columns of the down projection whose inputs are not zero. Whoever runs a chunk adds to sums of his own.
type skipDownTask struct {
	ctx    *Ctx
	l      *Linear
	in     quantized
	out    []float32 // [rows, Out]
	chunks int
	all    bool
}

func (t *skipDownTask) Run(chunk int) {
	var ids [mostNeurons + 2*cpu.LineQuad]int32
	var q [mostNeurons + 2*cpu.LineQuad]int8
	w := t.l.Ternary
	from, to := neuronRange(chunk, t.chunks, t.in.cols)
	space := t.ctx.spaces.take()
	sums := pool.View[int32](space)
	size := cpu.LineElements(w.Rows)
	t.ctx.countInputs(t.in, from, to, t.all)
	for r := range t.in.rows {
		n := 0
		for i, v := range t.in.q[r*t.in.stride+from : r*t.in.stride+to] {
			ids[n], q[n] = int32(from+i), v
			if v != 0 || t.all {
				n++
			}
		}
		t.ctx.countRow(t.in.rows, n, t.all)
		pad(ids[:], n)
		clear(q[n : n+cpu.LineQuad])
		cpu.TernaryAddLines(sums[r*size:(r+1)*size], w.Data, w.Rows, ids[:], q[:], n)
	}
	t.ctx.spaces.give(space)
}

// row makes the outputs of a row of all sums.
func (t *skipDownTask) row(r int) {
	w, s := t.l.Ternary, &t.ctx.spaces
	size := cpu.LineElements(w.Rows)
	all := pool.View[int32](s.mem)[r*size : (r+1)*size]
	for i := 1; i < s.count; i++ {
		cpu.AddInts(all, pool.View[int32](s.mem)[i*s.size/4+r*size:][:size])
	}
	y := t.out[r*w.Rows : (r+1)*w.Rows]
	acc := int32s(y)
	cpu.LineSums(acc, all, w.Rows, t.in.sum[r])
	cpu.DequantRow(y, acc, w.Scale/t.in.scale[r])
	if t.l.Bias != nil {
		cpu.Add(y, y, t.l.Bias)
	}
}

// linePanels is how many panels are made of lines at a time.
const linePanels = 16

// panelWindow makes a few panels of a matrix that lies in lines.
type panelWindow struct {
	w     *quant.Ternary
	space []byte
	first int
	end   int
}

// at gives memory with the panels from on, and which one it begins with. It lowers to when it has fewer.
func (p *panelWindow) at(from int, to *int) (data []byte, first int) {
	if p.w.Layout == quant.Panel16 {
		return p.w.Data, 0
	}
	if from >= p.end || p.end == 0 {
		p.first = from &^ (linePanels - 1)
		p.end = min(p.first+linePanels, (p.w.Rows+cpu.PanelRows-1)/cpu.PanelRows)
		p.w.PanelRange(p.space, p.first, p.end)
	}
	*to = min(*to, p.end)
	return p.space, p.first
}

// spaces is memory for whoever runs a chunk at the moment, as much for each.
type spaces struct {
	mu    sync.Mutex
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
	s.free = s.free[:0]
	for i := range s.count {
		s.free = append(s.free, i)
	}
}

func (s *spaces) close(c *Ctx) {
	if s.size > 0 {
		c.scratch.Free(s.mem)
		s.mem = nil
	}
}

func (s *spaces) take() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return s.mem[i*s.size : (i+1)*s.size]
}

func (s *spaces) give(space []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.count {
		if &s.mem[i*s.size] == &space[0] {
			s.free = append(s.free, i)
		}
	}
}
