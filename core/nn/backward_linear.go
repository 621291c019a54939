package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// projectOp is out[i] = layers[i](norm(x)). Straight-through estimation (Bengio et al. 2013): both quantizers pass the
// gradient unchanged, so with the quantized input X' and weights W'
//
//	dX = dY W'    dW = dY^T X'
//
// X' and W' are small integers with scales, so both products of a ternary layer are integer products too: dY becomes
// 16-bit integers with a scale of its own for every sum (see ternaryBackward), an error of 2^-16 of the sum's largest
// term. Of the forward pass the operation keeps x and the int8 activations.
type projectOp struct {
	c      *Ctx
	x      *tensor.Tensor
	norm   *Norm
	q      quantized // of norm(x); empty when no layer is ternary
	layers [maxGroup]*Linear
	out    [maxGroup]*tensor.Tensor
	n      int

	requantize bool // q is made again with x
}

// recordProject records a Project.
func (c *Ctx) recordProject(x *tensor.Tensor, norm *Norm, q quantized, layers []*Linear, out [maxGroup]*tensor.Tensor) {
	op := &projectOp{c: c, x: x, norm: norm, q: q, out: out, n: len(layers)}
	copy(op.layers[:], layers)
	for _, l := range layers {
		if l.Weight == nil {
			panic("nn: a differentiated layer needs master weights")
		}
	}
	if q.q != nil {
		for i, l := range layers {
			if l.Ternary != nil {
				c.made(out[i], op)
			}
		}
	}
	if op.requantize = q.q != nil && c.makers[x] != nil; op.requantize {
		q.free(c)
	}
	c.keep(x)
	c.tape.Record(op)
}

func (o *projectOp) remake(out *tensor.Tensor) {
	o.input()
	for i, l := range o.layers[:o.n] {
		if o.out[i] == out {
			o.c.matmul.reset(o.q)
			o.c.matmul.append(o.c, l, out)
			o.c.matmul.run(o.c)
		}
	}
}

// input makes what was given back of x and q again.
func (o *projectOp) input() {
	o.c.recall(o.x)
	if o.requantize {
		o.q, o.requantize = o.c.quantize(o.x, o.norm, nil), false
	}
}

func (o *projectOp) Backward(t *autograd.Tape) {
	c := o.c
	o.input()
	rows, dim := o.x.Dim(0), o.x.Dim(1)
	var input codes          // norm(x) as ternary layers multiplied it
	var float *tensor.Tensor // norm(x), which dense layers multiplied
	if o.q.q != nil {
		input = c.packCodes(o.q)
	}
	dx := c.New(rows, dim)
	empty := true
	for i, l := range o.layers[:o.n] {
		dy := t.Take(o.out[i])
		if dy == nil {
			continue
		}
		c.addBiasGrad(l, dy)
		if l.Ternary != nil {
			c.ternaryBackward(l, dy, input, dx.Float32s(), !empty)
		} else {
			if float == nil {
				float = c.normalized(o.x, o.norm)
			}
			c.denseBackward(l, dy, float, dx, !empty)
		}
		empty = false
		t.Done(o.out[i])
	}
	if empty {
		clear(dx.Float32s())
	}
	if o.q.q != nil {
		input.free(c)
		o.q.free(c)
	}
	if float != nil && float != o.x {
		c.Free(float)
	}
	if o.norm != nil {
		c.addNormBackward(t, o.norm, o.x, dx)
	} else {
		t.Add(o.x, dx)
	}
	c.drop(o.x)
}

// denseBackward writes dy W to dx, or adds it, and adds dy^T x to the gradient of the weights of l.
func (c *Ctx) denseBackward(l *Linear, dy, x, dx *tensor.Tensor, add bool) {
	to := dx
	if add {
		to = c.New(dx.Dim(0), dx.Dim(1))
	}
	table := c.pack(l.Weight.Data, l.Out, l.In)
	c.mulPacked(to, dy, table)
	table.free(c)
	if add {
		cpu.Add(dx.Float32s(), dx.Float32s(), to.Float32s())
		c.Free(to)
	}
	c.addOuter(l.Weight.Grad, dy, x)
}

// normalized returns norm(x), or x without a norm.
func (c *Ctx) normalized(x *tensor.Tensor, norm *Norm) *tensor.Tensor {
	if norm == nil {
		return x
	}
	return norm.normalize(c, x)
}

// packed is a matrix [rows, cols] as the right factor of a product: the panels of its transpose.
type packed struct {
	l     Linear
	dense quant.Dense
	mem   []byte // backs the panels
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
	p := c.pack(b.Float32s(), b.Dim(0), b.Dim(1))
	product := c.transposed(a, p)
	cpu.Add(sum, sum, product.Float32s())
	c.Free(product)
	p.free(c)
}

// transposed computes a^T b for a [n, rows] and packed b [n, cols].
func (c *Ctx) transposed(a *tensor.Tensor, b packed) *tensor.Tensor {
	n, rows := a.Dim(0), a.Dim(1)
	product, at := c.New(rows, b.dense.Rows), c.New(rows, n)
	c.reorder = reorderTask{dst: at.Float32s(), x: a.Float32s(), rows: n, cols: rows}
	c.reorder.run()
	c.mulPacked(product, at, b)
	c.Free(at)
	return product
}

// reorderTask writes the transpose of x [rows, cols], row-major or as float32 panels. A chunk is 16 columns of x.
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
	cpu.Transpose(t.dst[first*t.rows:], t.rows, t.x[first:], t.cols, t.rows, n)
}
