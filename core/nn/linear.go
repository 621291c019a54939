package nn

import (
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Linear is y = x W^T + bias with W [Out, In]. Its weight is either ternary (a BitLinear: activations are quantized to
// int8 per row) or dense (a layer left unconverted, or the output head).
type Linear struct {
	In, Out int
	Ternary *quant.Ternary // nil when dense
	Dense   *quant.Dense   // nil when ternary
	Bias    []float32      // [Out], nil without; already multiplied by whatever scale the checkpoint applies to it
	Norm    *Norm          // the layer's own norm before quantization (use_rms_norm), or nil

	Weight    *autograd.Param // the float32 master weights [Out, In] that training changes, or nil
	BiasParam *autograd.Param // Bias as a trainable parameter, or nil
	Scale     *autograd.Param // the ternary weights' scale when that is trained too (STELearnedScale), or nil
	flipped   *quant.Ternary  // the ternary weights' transpose, for input gradients; made by Refresh
}

// maxGroup is how many linear layers may share one input: q, k and v.
const maxGroup = 3

// Project applies up to three linear layers to the same input x [rows, In], normalized first when norm is not nil.
// The activations are quantized once for all ternary layers that have no norm of their own, and those layers' weights
// are walked in one job. Returns one tensor [rows, Out] a layer, in order.
func Project(c *Ctx, x *tensor.Tensor, norm *Norm, layers ...*Linear) (out [maxGroup]*tensor.Tensor) {
	if (c.tape != nil || c.training.Float > 0) && haveNorms(layers) {
		return c.projectEach(x, norm, layers)
	}
	rows := x.Dim(0)
	for i, l := range layers {
		out[i] = c.New(rows, l.Out)
	}
	if c.training.Float > 0 {
		c.projectBlended(x, norm, layers, out)
		return out
	}
	var shared int // ternary layers that read the common input
	for _, l := range layers {
		if l.Ternary != nil && l.Norm == nil {
			shared++
		}
	}
	var q quantized
	h := x
	switch {
	case shared == len(layers):
		q = c.quantize(x, norm, nil)
	case shared > 0:
		if norm != nil {
			h = c.New(rows, x.Dim(1))
		}
		q = c.quantize(x, norm, h)
	case norm != nil:
		h = norm.normalize(c, x)
	}
	c.matmul.reset(q)
	for i, l := range layers {
		if l.Ternary != nil && l.Norm == nil {
			c.matmul.append(c, l, out[i])
		}
	}
	c.matmul.run(c)
	if c.tape != nil {
		c.recordProject(x, norm, q, layers, out)
	} else if shared > 0 {
		q.free(c)
	}
	for i, l := range layers {
		switch {
		case l.Ternary != nil && l.Norm != nil:
			c.multiplyTernary(c.quantize(h, l.Norm, nil), l, out[i])
		case l.Dense != nil && l.Norm != nil:
			n := l.Norm.normalize(c, h)
			c.denseMatMul(n, l, out[i])
			c.Free(n)
		case l.Dense != nil:
			c.denseMatMul(h, l, out[i])
		}
	}
	if h != x {
		c.Free(h)
	}
	return out
}

// multiplyTernary writes the product of q, which it frees, with a ternary layer to out.
func (c *Ctx) multiplyTernary(q quantized, l *Linear, out *tensor.Tensor) {
	c.matmul.reset(q)
	c.matmul.append(c, l, out)
	c.matmul.run(c)
	q.free(c)
}

func haveNorms(layers []*Linear) bool {
	for _, l := range layers {
		if l.Norm != nil {
			return true
		}
	}
	return false
}

// projectEach is Project in a differentiated step with layers that have norms of their own: each is recorded alone.
func (c *Ctx) projectEach(x *tensor.Tensor, norm *Norm, layers []*Linear) (out [maxGroup]*tensor.Tensor) {
	h := x
	if norm != nil {
		h = norm.Forward(c, x)
	}
	for i, l := range layers {
		bare := *l
		bare.Norm = nil
		out[i] = Project(c, h, l.Norm, &bare)[0]
	}
	if h != x {
		c.Free(h)
	}
	return out
}

// quantized is an int8 activation matrix: value = q/s row by row (BitNet b1.58: s = 127/max(absmax, 1e-5)).
type quantized struct {
	rows, cols, stride int
	bytes              []byte    // backs q
	meta               []byte    // backs inv and sum
	q                  []int8    // [rows, stride], columns beyond cols zero
	scale              []float32 // [rows] s
	sum                []int32   // [rows] sum of the row's int8 values
}

func (q *quantized) free(c *Ctx) {
	c.scratch.Free(q.bytes)
	c.scratch.Free(q.meta)
}

// quantize normalizes (when norm is not nil) and quantizes every row of x. It writes the normalized rows to y too, unless that is nil.
func (c *Ctx) quantize(x *tensor.Tensor, norm *Norm, y *tensor.Tensor) quantized {
	q := c.newQuantized(x.Dim(0), x.Dim(1))
	c.prepareRows(prepareTask{x: x.Float32s(), rows: q.rows, dim: q.cols, norm: norm, q: q}, y)
	c.did(OpQuantize)
	return q
}

// quantizeGated is quantize of act(gate) * up.
func (c *Ctx) quantizeGated(act Activation, gate, up *tensor.Tensor, norm *Norm) quantized {
	q := c.newQuantized(gate.Dim(0), gate.Dim(1))
	c.prepareRows(prepareTask{x: gate.Float32s(), act: act, up: up.Float32s(), rows: q.rows, dim: q.cols, norm: norm, q: q}, nil)
	c.did(OpActivation)
	return q
}

func (c *Ctx) newQuantized(rows, cols int) quantized {
	stride := quant.ActivationStride(cols)
	q := quantized{rows: rows, cols: cols, stride: stride, bytes: c.scratch.Alloc(rows * stride), meta: c.scratch.Alloc(8 * rows)}
	q.q = pool.View[int8](q.bytes)
	q.scale = pool.View[float32](q.meta[:4*rows])
	q.sum = pool.View[int32](q.meta[4*rows:])
	return q
}

// prepareTask makes rows ready for matrix multiplication: gate, norm, then int8 quantization; each may be absent.
type prepareTask struct {
	act       Activation
	up        []float32 // the rows are act(x) * up, or x where this is nil
	x, y      []float32 // y is [rows, dim], or a row for each chunk when each is false
	each      bool
	rows, dim int
	size      int // rows of a chunk
	norm      *Norm
	q         quantized
}

// prepareRows runs t, with y for the normalized rows unless that is nil.
func (c *Ctx) prepareRows(t prepareTask, y *tensor.Tensor) {
	t.size = t.rows
	if t.rows >= minParallelRows {
		t.size = max(1, t.rows/(4*cpu.NumThreads()))
	}
	chunks := (t.rows + t.size - 1) / t.size
	var mem []byte
	switch {
	case y != nil:
		t.y, t.each = y.Float32s(), true
	case t.norm != nil || t.up != nil:
		mem = c.scratch.Alloc(4 * chunks * t.dim)
		t.y = pool.View[float32](mem)
	}
	c.prepare = t
	cpu.Parallel(chunks, &c.prepare)
	if mem != nil {
		c.scratch.Free(mem)
	}
}

func (t *prepareTask) Run(chunk int) {
	for r := chunk * t.size; r < min((chunk+1)*t.size, t.rows); r++ {
		x := t.x[r*t.dim : (r+1)*t.dim]
		y := x
		if len(t.y) > 0 {
			to := chunk
			if t.each {
				to = r
			}
			y = t.y[to*t.dim : (to+1)*t.dim]
		}
		if t.up != nil {
			t.act.apply(y, x)
			cpu.Mul(y, y, t.up[r*t.dim:(r+1)*t.dim])
			x = y
		}
		if t.norm != nil {
			t.norm.apply(y, x)
		}
		if q := &t.q; q.q != nil {
			quant.QuantizeActivations(q.q[r*q.stride:(r+1)*q.stride], q.scale[r:r+1], q.sum[r:r+1], y, 1, t.dim)
		}
	}
}

// grid cuts a product of activation rows with the panels of a weight matrix into chunks, each a tile of rows times a run of panels.
type grid struct {
	rows, panels int
	tile, size   int // rows of a tile, panels of a run
	runs         int
	unit         int // of panels, for few rows: they have their chunks from shares
}

// A tile has few enough rows to stay in the second-level cache with what is read of them again and again, up to mostRows, and a multiple of
// the 32 rows that the kernels for AMX take at once.
const (
	tileBytes = 1 << 20
	mostRows  = 256
	leastRows = 32
)

// chunksPerThread leaves the worker pool enough pieces to even out threads that start late, or that are slow for a moment.
const chunksPerThread = 4

// sidePanels is how many panels the kernels for one row read side by side at most.
const sidePanels = 8

// pieceCols is how many columns of int8 rows kernels multiply with some panels before they go on.
const pieceCols = 1024

// newGrid is for rows of which rowBytes bytes are read again and again.
func newGrid(rows, panels, rowBytes int) grid {
	g := grid{rows: rows, panels: panels}
	g.tile = min(mostRows, max(leastRows, tileBytes/max(1, rowBytes)&^(leastRows-1)))
	tiles := (rows + g.tile - 1) / g.tile
	if tiles > 1 { // of about the same size: each decodes all panels
		g.tile = ((rows+tiles-1)/tiles + leastRows - 1) &^ (leastRows - 1)
		tiles = (rows + g.tile - 1) / g.tile
	}
	if rows <= skipRows {
		g.unit = sidePanels
		return g
	}
	want := (chunksPerThread*cpu.NumThreads() + tiles - 1) / max(1, tiles)
	g.cut(min(piecePanels, max(4, (panels/want+3)&^3))) // with more, threads end less evenly
	return g
}

// cut makes runs of size panels, and smaller tiles where there would be fewer chunks than threads: a layer of a few hundred outputs has one or two
// runs in a layout that is read 16 panels at a time.
func (g *grid) cut(size int) {
	g.size = size
	g.runs = (g.panels + size - 1) / size
	if tiles := cpu.NumThreads() / max(1, g.runs); tiles > 1 {
		g.tile = min(g.tile, max(leastRows, ((g.rows+tiles-1)/tiles+leastRows-1)&^(leastRows-1)))
	}
}

// align makes the runs of panels multiples of n.
func (g *grid) align(n int) {
	if g.unit > 0 {
		g.unit = n
		return
	}
	g.cut(max(n, g.size/n*n))
}

// open gives the number of chunks, with s to hand them out.
func (g *grid) open(s *shares) int {
	if g.unit > 0 {
		return s.open(g.panels, g.unit)
	}
	return (g.rows + g.tile - 1) / g.tile * g.runs
}

// chunk gives the rows [r, r+n) and the panels [p0, p1), and what is to be given back to s.
func (g *grid) chunk(i int, s *shares) (r, n, p0, p1, share int) {
	if g.unit > 0 {
		share, p0, p1 = s.take()
		return 0, g.rows, p0, p1, share
	}
	r, p0 = i/g.runs*g.tile, i%g.runs*g.size
	return r, min(g.tile, g.rows-r), p0, min(p0+g.size, g.panels), noShare
}

// part is one layer of a matmul job.
type part struct {
	l     *Linear
	out   []float32
	tail  []int32 // [rows, 16] sums of a ragged last panel
	bytes []byte  // backs tail
	first int     // index of the layer's first panel in the job
}

// matmulTask multiplies quantized rows with the ternary weights of up to three layers. The panels of all layers are
// one sequence that is cut into chunks.
type matmulTask struct {
	ctx    *Ctx
	in     quantized
	parts  [maxGroup]part
	n      int
	panels int
	grid   grid
}

func (t *matmulTask) reset(in quantized) { *t = matmulTask{in: in} }

func (t *matmulTask) append(c *Ctx, l *Linear, out *tensor.Tensor) {
	t.ctx = c
	p := part{l: l, out: out.Float32s(), first: t.panels}
	if l.Out%cpu.PanelRows != 0 {
		n := t.in.rows * cpu.PanelRows
		p.bytes = c.scratch.Alloc(4 * n)
		p.tail = pool.View[int32](p.bytes)
	}
	t.parts[t.n] = p
	t.n++
	t.panels += (l.Out + cpu.PanelRows - 1) / cpu.PanelRows
}

func (t *matmulTask) run(c *Ctx) {
	if t.n == 0 {
		return
	}
	t.grid = newGrid(t.in.rows, t.panels, min(t.in.stride, pieceCols))
	space := 0
	for i := range t.n {
		w := t.parts[i].l.Ternary
		space = max(space, w.Space(t.in.rows))
		if w.Layout != quant.Panel16 {
			t.grid.align(piecePanels)
		}
	}
	c.spaces.open(c, space)
	cpu.Parallel(t.grid.open(&c.shares), t)
	c.spaces.close(c)
	t.free(c)
}

// free gives back what append took.
func (t *matmulTask) free(c *Ctx) {
	for i := range t.n {
		if t.parts[i].bytes != nil {
			c.scratch.Free(t.parts[i].bytes)
		}
	}
}

// Run computes the panels of one chunk, layer by layer.
func (t *matmulTask) Run(chunk int) {
	r, n, lo, hi, share := t.grid.chunk(chunk, &t.ctx.shares)
	defer t.ctx.shares.give(share)
	for i := range t.n {
		p := &t.parts[i]
		end := t.panels
		if i+1 < t.n {
			end = t.parts[i+1].first
		}
		if a, b := max(lo, p.first), min(hi, end); a < b {
			t.compute(p, a-p.first, b-p.first, r, n)
		}
	}
}

// compute fills the outputs of tokens rows from r on, panels [p0, p1) of one layer. The int32 sums are written where the float32
// results belong and converted in place: y = acc * weight_scale / s.
func (t *matmulTask) compute(p *part, p0, p1, r, tokens int) {
	n := p.l.Out
	full := min(p1, n/cpu.PanelRows)
	x, sum := t.in.q[r*t.in.stride:], t.in.sum[r:]
	w := p.l.Ternary
	space := t.ctx.spaces.take()
	defer t.ctx.spaces.give(space)
	for from, to := p0, 0; from < full; from = to {
		if to = t.ctx.piece(from, full, tokens); to == from {
			return
		}
		y := p.out[r*n+from*cpu.PanelRows:]
		acc := int32s(y)
		w.MatMul(acc, n, from, to, x, t.in.stride, sum, tokens, space)
		for i := range tokens {
			a, b := i*n, i*n+(to-from)*cpu.PanelRows
			cpu.DequantRow(y[a:b], acc[a:b], w.Scale/t.in.scale[r+i])
		}
	}
	if full < p1 { // the ragged last panel has rows the output does not
		acc := p.tail[r*cpu.PanelRows:]
		w.MatMul(acc, cpu.PanelRows, full, p1, x, t.in.stride, sum, tokens, space)
		for i := range tokens {
			y := p.out[(r+i)*n+full*cpu.PanelRows : (r+i+1)*n]
			cpu.DequantRow(y, acc[i*cpu.PanelRows:][:len(y)], w.Scale/t.in.scale[r+i])
		}
	}
	if p.l.Bias != nil {
		a, b := p0*cpu.PanelRows, min(p1*cpu.PanelRows, n)
		for i := range tokens {
			y := p.out[(r+i)*n+a : (r+i)*n+b]
			cpu.Add(y, y, p.l.Bias[a:b])
		}
	}
}

// int32s views float32 memory as int32.
func int32s(x []float32) []int32 { return unsafe.Slice((*int32)(unsafe.Pointer(&x[0])), len(x)) }
