package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// denseMatMul computes out = x W^T + bias for a dense layer.
func (c *Ctx) denseMatMul(x *tensor.Tensor, l *Linear, out *tensor.Tensor) {
	c.denseInto(x, l, out.Float32s())
}

// denseInto is denseMatMul into caller memory [rows, Out].
func (c *Ctx) denseInto(x *tensor.Tensor, l *Linear, out []float32) {
	t := denseTask{w: l.Dense, bias: l.Bias, out: out}
	rows, cols := x.Dim(0), x.Dim(1)
	if l.Dense.Format.Integer() {
		planes, meta := c.allocInts(&t.ints, rows, cols, l.Dense.Format == cpu.DenseInt4)
		c.quant16 = quantize16Task{x: x.Float32s(), dim: cols, q: t.ints}
		c.eachRow(rows, &c.quant16)
		c.multiply(t, rows)
		c.freeInts(planes, meta)
		return
	}
	var backing []byte
	t.floats, t.stride, backing = c.padded(x, cpu.DenseCols(l.Dense.Format, cols))
	c.multiply(t, rows)
	if backing != nil {
		c.scratch.Free(backing)
	}
}

// multiplyInts computes out = x W^T for n rows of integers, or adds that to out [n, w.Rows].
func (c *Ctx) multiplyInts(out []float32, x cpu.Int16Rows, n int, w *quant.Dense, add bool) {
	c.multiply(denseTask{w: w, out: out, ints: x, add: add}, n)
}

func (c *Ctx) multiply(t denseTask, rows int) {
	t.ctx = c
	if t.ternary != nil {
		t.cols = t.ternary.Rows
	} else {
		t.cols = t.w.Rows
	}
	var tail []byte
	if t.cols%cpu.PanelRows != 0 {
		tail = c.scratch.Alloc(4 * rows * cpu.PanelRows)
		t.tail = pool.View[float32](tail)
	}
	rowBytes := 2 * t.ints.Stride
	if t.floats != nil {
		rowBytes = 4 * t.stride
	}
	t.grid = newGrid(rows, (t.cols+cpu.PanelRows-1)/cpu.PanelRows, rowBytes)
	c.dense = t
	cpu.Parallel(t.grid.open(&c.shares), &c.dense)
	if tail != nil {
		c.scratch.Free(tail)
	}
}

// padded gives the rows of x with zeros up to width columns: x itself when it has as many. backing, when not nil, is to be
// freed after use.
func (c *Ctx) padded(x *tensor.Tensor, width int) (rows []float32, stride int, backing []byte) {
	cols := x.Dim(1)
	if cols == width {
		return x.Float32s(), cols, nil
	}
	backing = c.scratch.Alloc(4 * x.Dim(0) * width)
	rows = pool.View[float32](backing)
	for r := range x.Dim(0) {
		row := rows[r*width : (r+1)*width]
		copy(row, x.Float32s()[r*cols:(r+1)*cols])
		clear(row[cols:])
	}
	return rows, width, backing
}

// quantize16Task makes a row ready for an integer kernel.
type quantize16Task struct {
	x   []float32
	dim int
	q   cpu.Int16Rows
}

func (t *quantize16Task) row(r int) {
	quant.QuantizeActivations16(t.q.From(r), t.x[r*t.dim:(r+1)*t.dim], 1, t.dim)
}

// denseTask multiplies rows with the panels of a dense layer.
type denseTask struct {
	ctx     *Ctx
	w       *quant.Dense
	ternary *quant.Ternary // in place of w, for integers
	bias    []float32
	floats  []float32 // [rows, stride], for float weights
	stride  int
	ints    cpu.Int16Rows // for integer weights
	out     []float32     // [rows, cols]
	cols    int
	add     bool      // to out; integer weights only
	tail    []float32 // [rows, 16] results of a ragged last panel
	grid    grid
}

func (t *denseTask) Run(chunk int) {
	n := t.cols
	r, tokens, p0, p1, share := t.grid.chunk(chunk, &t.ctx.shares)
	defer t.ctx.shares.give(share)
	full := min(p1, n/cpu.PanelRows)
	for from, to := p0, 0; from < full; from = to {
		if to = t.ctx.piece(from, full, tokens); to == from {
			return
		}
		t.multiply(t.out[r*n+from*cpu.PanelRows:], n, from, to, r, tokens, t.add)
	}
	if full < p1 {
		tail := t.tail[r*cpu.PanelRows:]
		t.multiply(tail, cpu.PanelRows, full, p1, r, tokens, false)
		for i := range tokens {
			y := t.out[(r+i)*n+full*cpu.PanelRows : (r+i+1)*n]
			if t.add {
				cpu.Add(y, y, tail[i*cpu.PanelRows:][:len(y)])
			} else {
				copy(y, tail[i*cpu.PanelRows:])
			}
		}
	}
	if t.bias != nil {
		a, b := p0*cpu.PanelRows, min(p1*cpu.PanelRows, n)
		for i := range tokens {
			y := t.out[(r+i)*n+a : (r+i)*n+b]
			cpu.Add(y, y, t.bias[a:b])
		}
	}
}

// multiply writes the products of panels [p0, p1) with tokens rows from row r on, rows of dst lying ldd apart.
func (t *denseTask) multiply(dst []float32, ldd, p0, p1, r, tokens int, add bool) {
	if w := t.ternary; w != nil {
		cpu.TernaryIntMatMul(dst, ldd, w.Data, w.Scale, w.Cols, p0, p1, t.ints.From(r), tokens, add)
		return
	}
	w := t.w
	if w.Format.Integer() {
		cpu.DenseIntMatMul(dst, ldd, w.Format, w.Panels, w.RowScale, w.Cols, p0, p1, t.ints.From(r), tokens, add)
		return
	}
	cpu.DenseMatMul(dst, ldd, w.Format, w.Panels, w.RowScale, w.Cols, p0, p1, t.floats[r*t.stride:], t.stride, tokens)
}
