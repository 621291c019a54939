package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// projectOp is out[i] = layers[i](norm(x)). Straight-through estimation (Bengio et al. 2013; SPEC of BitNet b1.58): both
// quantizers pass the gradient unchanged, so with the quantized input X' and weights W'
//
//	dX = dY W'    dW = dY^T X'
//
// Of the forward pass it keeps x and the int8 activations.
type projectOp struct {
	c      *Ctx
	x      *tensor.Tensor
	norm   *RMSNorm
	q      quantized // of norm(x); empty when no layer is ternary
	layers [maxGroup]*Linear
	out    [maxGroup]*tensor.Tensor
	n      int
}

func (c *Ctx) recordProject(x *tensor.Tensor, norm *RMSNorm, q quantized, layers []*Linear, out [maxGroup]*tensor.Tensor) {
	op := &projectOp{c: c, x: x, norm: norm, q: q, out: out, n: len(layers)}
	copy(op.layers[:], layers)
	c.keep(x)
	c.tape.Record(op)
}

func (o *projectOp) Backward(t *autograd.Tape) {
	c := o.c
	rows, dim := o.x.Dim(0), o.x.Dim(1)
	var ternaryIn, denseIn *tensor.Tensor // what the layers multiplied, as float32
	if o.q.q != nil {
		ternaryIn = c.dequantized(o.q)
		o.q.free(c)
	}
	dx, part := c.New(rows, dim), c.New(rows, dim)
	clear(dx.Float32s())
	for i, l := range o.layers[:o.n] {
		dy := t.Take(o.out[i])
		if dy == nil {
			continue
		}
		in := ternaryIn
		weights := l.Weight.Data
		var mem []byte
		if l.Ternary != nil {
			mem = c.scratch.Alloc(4 * len(weights))
			weights = l.Ternary.Dequantize(pool.View[float32](mem))
		} else {
			if denseIn == nil {
				denseIn = c.normalized(o.x, o.norm)
			}
			in = denseIn
		}
		table := c.pack(weights, l.Out, l.In)
		c.mulPacked(part, dy, table)
		table.free(c)
		if mem != nil {
			c.scratch.Free(mem)
		}
		cpu.Add(dx.Float32s(), dx.Float32s(), part.Float32s())
		c.addOuter(l.Weight.Grad, dy, in)
		t.Done(o.out[i])
	}
	c.Free(part)
	if ternaryIn != nil {
		c.Free(ternaryIn)
	}
	if denseIn != nil && denseIn != o.x {
		c.Free(denseIn)
	}
	if o.norm != nil {
		c.normBackward(o.norm, o.x, dx)
	}
	t.Add(o.x, dx)
	c.drop(o.x)
}

// dequantized returns q/s.
func (c *Ctx) dequantized(q quantized) *tensor.Tensor {
	x := c.New(q.rows, q.cols)
	for r := range q.rows {
		row, inv := x.Float32s()[r*q.cols:(r+1)*q.cols], 1/q.scale[r]
		for k, v := range q.q[r*q.stride : r*q.stride+q.cols] {
			row[k] = float32(v) * inv
		}
	}
	return x
}

// normalized returns norm(x), or x without a norm.
func (c *Ctx) normalized(x *tensor.Tensor, norm *RMSNorm) *tensor.Tensor {
	if norm == nil {
		return x
	}
	return norm.Forward(c, x)
}

// packed is a row-major float32 matrix [rows, cols] as the right factor of a product.
type packed struct {
	l     Linear
	dense quant.Dense
	mem   []byte
}

func (p *packed) free(c *Ctx) { c.scratch.Free(p.mem) }

// pack prepares b [rows, cols] for mulPacked.
func (c *Ctx) pack(b []float32, rows, cols int) packed {
	mem := c.scratch.Alloc(cpu.DenseBytes(cpu.DenseF32, cols, rows))
	p := packed{mem: mem}
	p.dense = quant.Dense{Rows: cols, Cols: rows, Format: cpu.DenseF32, Panels: mem}
	p.l = Linear{In: rows, Out: cols}
	c.reorder = reorderTask{dst: pool.View[float32](mem), x: b, rows: rows, cols: cols, pack: true}
	c.reorder.run()
	return p
}

// mulPacked computes out = a b for a [n, rows] and packed b [rows, cols].
func (c *Ctx) mulPacked(out, a *tensor.Tensor, b packed) {
	b.l.Dense = &b.dense
	c.denseInto(a, &b.l, out.Float32s())
}

// addOuter computes sum += a^T b for a [n, rows], b [n, cols] and sum [rows, cols].
func (c *Ctx) addOuter(sum []float32, a, b *tensor.Tensor) {
	n, rows, cols := a.Dim(0), a.Dim(1), b.Dim(1)
	at, product := c.New(rows, n), c.New(rows, cols)
	c.transpose(at.Float32s(), a.Float32s(), n, rows)
	p := c.pack(b.Float32s(), n, cols)
	c.mulPacked(product, at, p)
	cpu.Add(sum, sum, product.Float32s())
	p.free(c)
	c.Free(product)
	c.Free(at)
}

// transpose writes the transpose of x [rows, cols].
func (c *Ctx) transpose(dst, x []float32, rows, cols int) {
	c.reorder = reorderTask{dst: dst, x: x, rows: rows, cols: cols}
	c.reorder.run()
}

// reorderTask writes the transpose of x [rows, cols], row-major or as dense16 panels. A chunk is 16 columns of x.
type reorderTask struct {
	dst, x     []float32
	rows, cols int
	pack       bool
}

func (t *reorderTask) run() { cpu.Parallel((t.cols+cpu.PanelRows-1)/cpu.PanelRows, t) }

func (t *reorderTask) Run(chunk int) {
	const width = cpu.PanelRows
	first := chunk * width
	n := min(width, t.cols-first)
	if t.pack {
		padded := (t.rows + 3) &^ 3
		panel := t.dst[first*padded : (first+width)*padded]
		for r := range t.rows {
			put(panel[r*width:(r+1)*width], t.x[r*t.cols+first:][:n])
		}
		clear(panel[t.rows*width:])
		return
	}
	for r := range t.rows {
		for i, v := range t.x[r*t.cols+first:][:n] {
			t.dst[(first+i)*t.rows+r] = v
		}
	}
}
