package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// The two products of a ternary layer's backward pass, dX = dY W' and dW = dY^T X', multiply integers: W' and X' are small ones
// with scales, and dY becomes 16-bit ones, row by row for dX and column by column for dW.

// MaxGradRows is the most rows that a differentiated step may have: sums over them, in the gradients of ternary weights, are exact int32.
const MaxGradRows = cpu.MaxDenseIntCols

// codes are the int8 activations X' of a projection as the right factor of dY^T X'.
type codes struct {
	panels quant.Dense // [cols, rows] of the activations
	inv    []float32   // [rows] what a step of each row is worth
	mem    [2][]byte
}

func (c *Ctx) packCodes(q quantized) codes {
	p := codes{mem: [2][]byte{c.scratch.Alloc(cpu.DenseBytes(cpu.DenseInt8, q.cols, q.rows)), c.scratch.Alloc(4 * (q.cols + q.rows))}}
	all := pool.View[float32](p.mem[1])
	ones := all[:q.cols]
	for i := range ones {
		ones[i] = 1
	}
	p.inv = all[q.cols:]
	for r := range p.inv {
		p.inv[r] = 1 / q.scale[r]
	}
	p.panels = quant.Dense{Rows: q.cols, Cols: q.rows, Format: cpu.DenseInt8, Panels: p.mem[0], RowScale: ones}
	c.flip = flipTask{dst: p.mem[0], x: q.q, rows: q.rows, cols: q.cols, stride: q.stride}
	c.flip.run()
	return p
}

func (p *codes) free(c *Ctx) {
	c.scratch.Free(p.mem[0])
	c.scratch.Free(p.mem[1])
}

// ternaryBackward writes dy W' to dx, or adds it, and adds the gradient of the weights of l.
func (c *Ctx) ternaryBackward(l *Linear, dy *tensor.Tensor, x codes, dx []float32, add bool) {
	rows, cols := dy.Dim(0), dy.Dim(1)
	blocks := (rows + gradRows - 1) / gradRows
	mem := c.scratch.Alloc(4 * (blocks + 1) * cols)
	g := &c.gradInts
	*g = gradInts{dy: dy.Float32s(), rows: rows, cols: cols, inv: x.inv, top: pool.View[float32](mem)}

	planes, meta := c.allocInts(&g.byRow, rows, cols, false)
	cpu.Parallel(blocks, g)
	c.multiply(denseTask{ternary: l.flipped, out: dx, ints: g.byRow, add: add}, rows)
	c.freeInts(planes, meta)

	planes, meta = c.allocInts(&g.byColumn, cols, rows, false)
	g.scaleColumns(blocks)
	cpu.Parallel((cols+flipColumns-1)/flipColumns, (*gradColumns)(g))
	if c.training.STE == STEIdentity {
		c.multiplyInts(l.Weight.Grad, g.byColumn, cols, &x.panels, true)
	} else {
		dw := c.New(cols, l.In)
		c.multiplyInts(dw.Float32s(), g.byColumn, cols, &x.panels, false)
		c.addWeightGrad(l, dw.Float32s())
		c.Free(dw)
	}
	c.freeInts(planes, meta)
	c.scratch.Free(mem)
}

// gradRows is how many rows of a gradient one chunk makes integers of.
const gradRows = 64

// gradInts makes 16-bit integers of the rows of dy, and of its columns, whose rows are multiplied by inv.
type gradInts struct {
	dy              []float32
	rows, cols      int
	inv             []float32
	top             []float32 // [blocks+1, cols] largest magnitudes of the columns over blocks of rows; then the columns' scales
	byRow, byColumn cpu.Int16Rows
}

// Run does a block of rows.
func (g *gradInts) Run(block int) {
	top := g.top[block*g.cols : (block+1)*g.cols]
	clear(top)
	for r := block * gradRows; r < min((block+1)*gradRows, g.rows); r++ {
		row := g.dy[r*g.cols : (r+1)*g.cols]
		quant.QuantizeActivations16(g.byRow.From(r), row, 1, g.cols)
		cpu.AbsMaxColumns(top, row, g.inv[r])
	}
}

// scaleColumns makes the columns' scales, as quant.QuantizeActivations16 does for rows.
func (g *gradInts) scaleColumns(blocks int) {
	top, scale := g.top[:g.cols], g.top[blocks*g.cols:]
	for b := 1; b < blocks; b++ {
		cpu.AbsMaxColumns(top, g.top[b*g.cols:(b+1)*g.cols], 1)
	}
	for i, t := range top {
		scale[i] = cpu.Int16Max / max(t, quant.Activation16Floor)
		g.byColumn.Inv[i] = 1 / scale[i]
	}
}

// gradColumns does some columns.
type gradColumns gradInts

func (g *gradColumns) Run(chunk int) {
	first := chunk * flipColumns
	scale := g.top[len(g.top)-g.cols:]
	n := min(flipColumns, g.cols-first)
	cpu.QuantizeColumns16(g.byColumn.From(first), g.dy[first:], g.cols, g.rows, n, g.inv, scale[first:])
}

// allocInts gives q room for rows of 16-bit integers. Their stride is no multiple of a page: sixteen of them would share few places
// in the first-level cache. int4: for products with such weights.
func (c *Ctx) allocInts(q *cpu.Int16Rows, rows, cols int, int4 bool) (planes, meta []byte) {
	stride := quant.Activation16Stride(cols)
	if stride%1024 == 0 {
		stride += cpu.BlockBytes
	}
	*q = cpu.Int16Rows{Stride: stride}
	groups := 0
	if int4 {
		groups = q.Groups()
	}
	planes, meta = c.scratch.Alloc(2*rows*stride), c.scratch.Alloc(4*rows*(3+groups))
	all := pool.View[int8](planes)
	q.Hi, q.Lo = all[:rows*stride], all[rows*stride:]
	q.SumHi, q.SumLo, q.Inv = pool.View[int32](meta[:4*rows]), pool.View[int32](meta[4*rows:8*rows]), pool.View[float32](meta[8*rows:12*rows])
	if int4 {
		q.Eights = pool.View[int32](meta[12*rows:])
	}
	return planes, meta
}

func (c *Ctx) freeInts(planes, meta []byte) {
	c.scratch.Free(planes)
	c.scratch.Free(meta)
}

// flipColumns is how many columns a chunk of a transposing task takes: a cache line of int8, four of float32.
const flipColumns = cpu.BlockBytes

// flipTask writes the int8 panels of the transpose of x [rows, cols], whose rows lie stride apart.
type flipTask struct {
	dst                []byte
	x                  []int8
	rows, cols, stride int
}

func (t *flipTask) run() { cpu.Parallel((t.cols+flipColumns-1)/flipColumns, t) }

func (t *flipTask) Run(chunk int) {
	first := chunk * flipColumns
	n := min(flipColumns, t.cols-first)
	panels := t.dst[cpu.DenseBytes(cpu.DenseInt8, first, t.rows):]
	cpu.PackInt8Columns(panels, t.x[first:], t.stride, t.rows, n)
}

// flipWeights writes the panels of the transpose of master weights w [rows, cols], ternarized with the given scale.
type flipWeights struct {
	dst        []byte
	w          []float32
	rows, cols int
	scale      float32
}

func (t *flipWeights) run() { cpu.Parallel((t.cols+flipColumns-1)/flipColumns, t) }

func (t *flipWeights) Run(chunk int) {
	first := chunk * flipColumns
	n := min(flipColumns, t.cols-first)
	panels := t.dst[cpu.TernaryBytes(first, t.rows):]
	cpu.PackTernaryColumns(panels, t.w[first:], t.cols, t.rows, n, t.scale/2)
}
