package nn

import (
	"encoding/binary"

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
// 16-bit integers with a scale of its own for every sum (see cpu.QuantizeInt16), an error of 2^-16 of the sum's largest
// term. Of the forward pass the operation keeps x and the int8 activations.
type projectOp struct {
	c      *Ctx
	x      *tensor.Tensor
	norm   *RMSNorm
	q      quantized // of norm(x); empty when no layer is ternary
	layers [maxGroup]*Linear
	out    [maxGroup]*tensor.Tensor
	n      int
}

// recordProject records a Project.
func (c *Ctx) recordProject(x *tensor.Tensor, norm *RMSNorm, q quantized, layers []*Linear, out [maxGroup]*tensor.Tensor) {
	op := &projectOp{c: c, x: x, norm: norm, q: q, out: out, n: len(layers)}
	copy(op.layers[:], layers)
	for _, l := range layers {
		if l.Weight == nil {
			panic("nn: a differentiated layer needs master weights")
		}
	}
	c.keep(x)
	c.tape.Record(op)
}

func (o *projectOp) Backward(t *autograd.Tape) {
	c := o.c
	rows, dim := o.x.Dim(0), o.x.Dim(1)
	var codes packed         // the int8 activations, as the right factor of dY^T X'
	var float *tensor.Tensor // norm(x), which dense layers multiplied
	if o.q.q != nil {
		codes = c.packCodes(o.q)
	}
	dx, part := c.New(rows, dim), c.New(rows, dim)
	clear(dx.Float32s())
	for i, l := range o.layers[:o.n] {
		dy := t.Take(o.out[i])
		if dy == nil {
			continue
		}
		c.addBiasGrad(l, dy)
		if l.Ternary != nil {
			c.mulPacked(part, dy, packed{dense: *l.flipped, l: Linear{In: l.Out, Out: l.In}})
			product := c.transposed(dy, o.q.scale, codes)
			c.addWeightGrad(l, product.Float32s())
			c.Free(product)
		} else {
			if float == nil {
				float = c.normalized(o.x, o.norm)
			}
			table := c.pack(l.Weight.Data, l.Out, l.In)
			c.mulPacked(part, dy, table)
			table.free(c)
			c.addOuter(l.Weight.Grad, dy, float)
		}
		cpu.Add(dx.Float32s(), dx.Float32s(), part.Float32s())
		t.Done(o.out[i])
	}
	c.Free(part)
	if o.q.q != nil {
		codes.free(c)
		o.q.free(c)
	}
	if float != nil && float != o.x {
		c.Free(float)
	}
	if o.norm != nil {
		c.normBackward(o.norm, o.x, dx)
	}
	t.Add(o.x, dx)
	c.drop(o.x)
}

// packCodes prepares the codes of q as the right factor of a product with 16-bit rows.
func (c *Ctx) packCodes(q quantized) packed {
	mem := c.scratch.Alloc(cpu.DenseBytes(cpu.DenseInt8, q.cols, q.rows))
	ones := c.scratch.Alloc(4 * q.cols)
	p := packed{mem: mem, scale: ones, l: Linear{In: q.rows, Out: q.cols}}
	p.dense = quant.Dense{Rows: q.cols, Cols: q.rows, Format: cpu.DenseInt8, Panels: mem, RowScale: pool.View[float32](ones)}
	for i := range p.dense.RowScale {
		p.dense.RowScale[i] = 1
	}
	c.flip = flipTask{dst: mem, x: q.q, rows: q.rows, cols: q.cols, stride: q.stride}
	c.flip.run()
	return p
}

// normalized returns norm(x), or x without a norm.
func (c *Ctx) normalized(x *tensor.Tensor, norm *RMSNorm) *tensor.Tensor {
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
	scale []byte // backs the row scales, nil without
}

func (p *packed) free(c *Ctx) {
	c.scratch.Free(p.mem)
	if p.scale != nil {
		c.scratch.Free(p.scale)
	}
}

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
	product := c.transposed(a, nil, p)
	cpu.Add(sum, sum, product.Float32s())
	c.Free(product)
	p.free(c)
}

// transposed computes (a/divide)^T b for a [n, rows], whose rows are divided by divide unless that is nil, and
// packed b [n, cols]. The scales of int8 activations go to a this way, whose columns then become 16-bit integers.
func (c *Ctx) transposed(a *tensor.Tensor, divide []float32, b packed) *tensor.Tensor {
	n, rows := a.Dim(0), a.Dim(1)
	product, at := c.New(rows, b.dense.Rows), c.New(rows, n)
	c.reorder = reorderTask{dst: at.Float32s(), x: a.Float32s(), rows: n, cols: rows, divide: divide}
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
	divide     []float32 // divides the rows of x, or nil; not when packing
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
		f := float32(1)
		if t.divide != nil {
			f = 1 / t.divide[r]
		}
		for i, v := range t.x[r*t.cols+first:][:n] {
			t.dst[(first+i)*t.rows+r] = v * f
		}
	}
}

// flipTask writes the int8 panels of the transpose of x [rows, cols], whose rows lie stride apart. A chunk is 16 columns.
type flipTask struct {
	dst                []byte
	x                  []int8
	rows, cols, stride int
}

func (t *flipTask) run() { cpu.Parallel((t.cols+cpu.PanelRows-1)/cpu.PanelRows, t) }

// Run writes a panel: byte 4r+j of block b is x[4b+j, r] + 128.
func (t *flipTask) Run(chunk int) {
	const width = cpu.PanelRows
	first := chunk * width
	n := min(width, t.cols-first)
	size := cpu.DenseBytes(cpu.DenseInt8, width, t.rows)
	panel := t.dst[chunk*size : (chunk+1)*size]
	for b := 0; 4*b < t.rows; b++ {
		block := panel[64*b : 64*(b+1)]
		var lanes [width]uint32
		for j := range min(4, t.rows-4*b) {
			for r, v := range t.x[(4*b+j)*t.stride+first:][:n] {
				lanes[r] |= uint32(uint8(v)) << (8 * j)
			}
		}
		for r, v := range lanes {
			binary.LittleEndian.PutUint32(block[4*r:], v^0x80808080)
		}
	}
}
