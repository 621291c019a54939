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
	t := denseTask{ctx: c, l: l, out: out, rows: x.Dim(0)}
	var input, meta, tail []byte
	if l.Dense.Format.Integer() {
		t.ints, input, meta = c.quantize16(x)
	} else {
		t.floats, t.stride, input = c.padded(x, cpu.DenseCols(l.Dense.Format, x.Dim(1)))
	}
	if l.Out%cpu.PanelRows != 0 {
		tail = c.scratch.Alloc(4 * t.rows * cpu.PanelRows)
		t.tail = pool.View[float32](tail)
	}
	t.panels = (l.Out + cpu.PanelRows - 1) / cpu.PanelRows
	t.size = max(4, (t.panels/(chunksPerThread*cpu.NumThreads())+3)&^3)
	c.dense = t
	cpu.Parallel((t.panels+t.size-1)/t.size, &c.dense)
	for _, b := range [...][]byte{input, meta, tail} {
		if b != nil {
			c.scratch.Free(b)
		}
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

// quantize16 makes the rows of x 16-bit integers; planes and meta back them and are to be freed after use.
func (c *Ctx) quantize16(x *tensor.Tensor) (q cpu.Int16Rows, planes, meta []byte) {
	rows, cols := x.Dim(0), x.Dim(1)
	stride := quant.Activation16Stride(cols)
	planes, meta = c.scratch.Alloc(2*rows*stride), c.scratch.Alloc(12*rows)
	all := pool.View[int8](planes)
	q = cpu.Int16Rows{Hi: all[:rows*stride], Lo: all[rows*stride:], Stride: stride,
		SumHi: pool.View[int32](meta[:4*rows]), SumLo: pool.View[int32](meta[4*rows : 8*rows]), Inv: pool.View[float32](meta[8*rows:])}
	c.quant16 = quantize16Task{x: x.Float32s(), dim: cols, q: q}
	c.eachRow(rows, &c.quant16)
	return q, planes, meta
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
	ctx    *Ctx
	l      *Linear
	floats []float32 // [rows, stride], for float weights
	stride int
	ints   cpu.Int16Rows // for integer weights
	out    []float32
	tail   []float32 // [rows, 16] results of a ragged last panel
	rows   int
	panels int
	size   int
	add    bool // to out, which has no ragged last panel
}

func (t *denseTask) Run(chunk int) {
	n := t.l.Out
	p0, p1 := chunk*t.size, min((chunk+1)*t.size, t.panels)
	full := min(p1, n/cpu.PanelRows)
	for r := 0; r < t.rows; r += tileRows {
		tokens := min(tileRows, t.rows-r)
		for from, to := p0, 0; from < full; from = to {
			if to = t.ctx.piece(from, full, tokens); to == from {
				return
			}
			t.multiply(t.out[r*n+from*cpu.PanelRows:], n, from, to, r, tokens)
		}
		if full < p1 {
			tail := t.tail[r*cpu.PanelRows:]
			t.multiply(tail, cpu.PanelRows, full, p1, r, tokens)
			for i := range tokens {
				y := t.out[(r+i)*n+full*cpu.PanelRows : (r+i+1)*n]
				copy(y, tail[i*cpu.PanelRows:])
			}
		}
		if t.l.Bias != nil {
			a, b := p0*cpu.PanelRows, min(p1*cpu.PanelRows, n)
			for i := range tokens {
				y := t.out[(r+i)*n+a : (r+i)*n+b]
				cpu.Add(y, y, t.l.Bias[a:b])
			}
		}
	}
}

// multiply writes the products of panels [p0, p1) with tokens rows from row r on, rows of dst lying ldd apart.
func (t *denseTask) multiply(dst []float32, ldd, p0, p1, r, tokens int) {
	w := t.l.Dense
	if w.Format.Integer() {
		cpu.DenseIntMatMul(dst, ldd, w.Format, w.Panels, w.RowScale, w.Cols, p0, p1, t.ints.From(r), tokens, t.add)
	} else {
		cpu.DenseMatMul(dst, ldd, w.Format, w.Panels, w.RowScale, w.Cols, p0, p1, t.floats[r*t.stride:], t.stride, tokens)
	}
}
