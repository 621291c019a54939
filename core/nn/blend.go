package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Progressive quantization: on the way from a float model to a ternary one, layers compute with weights and activations that
// lie between (Training.Float is f):
//
//	W_f = f W + (1-f) W'    X_f = f X + (1-f) X'
//
// W' and X' are what the integer kernels compute with. These layers are float products; at f = 0 there are none of them, and
// the forward pass is that of inference.

// projectBlended is Project for layers without norms of their own.
func (c *Ctx) projectBlended(x *tensor.Tensor, norm *Norm, layers []*Linear, out [maxGroup]*tensor.Tensor) {
	h := c.normalized(x, norm)
	var xf *tensor.Tensor
	for i, l := range layers {
		if l.Ternary == nil {
			c.denseMatMul(h, l, out[i])
			continue
		}
		if xf == nil {
			xf = c.blendedInput(h)
		}
		wf := c.blendedWeights(l)
		panels := c.scratch.Alloc(cpu.DenseBytes(cpu.DenseF32, l.Out, l.In))
		float := &Linear{In: l.In, Out: l.Out, Bias: l.Bias, Dense: &quant.Dense{Rows: l.Out, Cols: l.In, Format: cpu.DenseF32, Panels: panels}}
		c.byPanel = panelTask{dst: pool.View[float32](panels), w: wf.Float32s(), rows: l.Out, cols: l.In}
		c.byPanel.run()
		c.Free(wf)
		c.denseMatMul(xf, float, out[i])
		c.scratch.Free(panels)
	}
	if xf != nil {
		c.Free(xf)
	}
	if h != x {
		c.Free(h)
	}
	if c.tape != nil {
		op := &blendedOp{c: c, x: x, norm: norm, out: out, n: len(layers)}
		copy(op.layers[:], layers)
		c.keep(x)
		c.tape.Record(op)
	}
}

// blendedOp is out[i] = layers[i](norm(x)), blended. Of the forward pass it keeps x. The gradient of X_f is that of X, and the
// gradient of W_f passes the quantizer with the share that does (see addWeightGrad).
type blendedOp struct {
	c      *Ctx
	x      *tensor.Tensor
	norm   *Norm
	layers [maxGroup]*Linear
	out    [maxGroup]*tensor.Tensor
	n      int
}

func (o *blendedOp) Backward(t *autograd.Tape) {
	c := o.c
	c.recall(o.x)
	rows, dim := o.x.Dim(0), o.x.Dim(1)
	h := c.normalized(o.x, o.norm)
	var xf *tensor.Tensor
	dx, part := c.New(rows, dim), c.New(rows, dim)
	clear(dx.Float32s())
	for i, l := range o.layers[:o.n] {
		dy := t.Take(o.out[i])
		if dy == nil {
			continue
		}
		c.addBiasGrad(l, dy)
		if l.Ternary != nil {
			wf := c.blendedWeights(l)
			table := c.pack(wf.Float32s(), l.Out, l.In)
			c.Free(wf)
			c.mulPacked(part, dy, table)
			table.free(c)
			if xf == nil {
				xf = c.blendedInput(h)
			}
			input := c.pack(xf.Float32s(), rows, dim)
			product := c.transposed(dy, input)
			input.free(c)
			c.addWeightGrad(l, product.Float32s())
			c.Free(product)
		} else {
			c.denseBackward(l, dy, h, part, false)
		}
		cpu.Add(dx.Float32s(), dx.Float32s(), part.Float32s())
		t.Done(o.out[i])
	}
	c.Free(part)
	if xf != nil {
		c.Free(xf)
	}
	if h != o.x {
		c.Free(h)
	}
	if o.norm != nil {
		c.addNormBackward(t, o.norm, o.x, dx)
	} else {
		t.Add(o.x, dx)
	}
	c.drop(o.x)
}

// blendedInput is X_f for the rows x.
func (c *Ctx) blendedInput(x *tensor.Tensor) *tensor.Tensor {
	q := c.quantize(x, nil, nil)
	y := c.New(x.Dim(0), x.Dim(1))
	c.blend = blendTask{float: c.training.Float, x: x.Float32s(), y: y.Float32s(), dim: x.Dim(1), q: q}
	c.eachRow(x.Dim(0), &c.blend)
	q.free(c)
	return y
}

// blendedWeights is W_f of a ternary layer, [Out, In].
func (c *Ctx) blendedWeights(l *Linear) *tensor.Tensor {
	y := c.New(l.Out, l.In)
	c.blend = blendTask{float: c.training.Float, x: l.Weight.Data, y: y.Float32s(), dim: l.In, scale: l.Ternary.Scale}
	c.eachRow(l.Out, &c.blend)
	return y
}

// blendTask does a row of activations, or of weights when they have a scale.
type blendTask struct {
	float float32
	x, y  []float32
	dim   int
	scale float32
	q     quantized
}

func (t *blendTask) row(r int) {
	x, y := t.x[r*t.dim:(r+1)*t.dim], t.y[r*t.dim:(r+1)*t.dim]
	ternary := 1 - t.float
	if t.scale > 0 {
		half, to := t.scale/2, ternary*t.scale
		for i, v := range x {
			q := float32(0)
			if v > half {
				q = to
			} else if v < -half {
				q = -to
			}
			y[i] = float32(t.float*v) + q
		}
		return
	}
	to := ternary / t.q.scale[r]
	for i, v := range t.q.q[r*t.q.stride:][:t.dim] {
		y[i] = float32(t.float*x[i]) + float32(float32(v)*to)
	}
}

// panelTask writes the float32 panels of w [rows, cols]. A chunk is a panel.
type panelTask struct {
	dst, w     []float32
	rows, cols int
}

func (t *panelTask) run() { cpu.Parallel((t.rows+cpu.PanelRows-1)/cpu.PanelRows, t) }

func (t *panelTask) Run(p int) {
	const width = cpu.PanelRows
	first, padded := p*width, (t.cols+3)&^3
	panel := t.dst[first*padded : (first+width)*padded]
	rows := min(width, t.rows-first)
	if rows < width {
		clear(panel)
	}
	cpu.Transpose(panel, width, t.w[first*t.cols:], t.cols, rows, t.cols)
	clear(panel[t.cols*width:])
}
