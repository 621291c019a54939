package nn

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Activation is an element-wise function, such as that of the feed-forward gate.
type Activation uint8

// The activations. BitNet checkpoints have squared ReLU (BitNet b1.58 2B4T) or SiLU (Llama, the 2024 reproductions). Gate with
// SiLU is SwiGLU, with GELU GEGLU, with ReLU ReGLU and with Sigmoid GLU (Shazeer 2020).
const (
	ReLU2    Activation = iota // max(x, 0)^2
	SiLU                       // x sigmoid(x)
	ReLU                       // max(x, 0)
	GELU                       // x P(N <= x), N standard normal (Hendrycks & Gimpel 2016)
	GELUTanh                   // x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, GPT-2's
	Tanh
	Sigmoid // 1 / (1 + exp(-x))
)

// Activations are the activations by name.
var Activations = map[string]Activation{
	"relu2": ReLU2, "silu": SiLU, "relu": ReLU, "gelu": GELU, "gelu_tanh": GELUTanh, "tanh": Tanh, "sigmoid": Sigmoid,
}

// Activate returns act(x) for x [rows, dim] and frees x. It works in place unless a tape is attached.
func Activate(c *Ctx, act Activation, x *tensor.Tensor) *tensor.Tensor {
	y := x
	if c.tape != nil {
		y = c.New(x.Dim(0), x.Dim(1))
		c.keep(x)
		op := &activateOp{c: c, act: act, x: x, y: y}
		c.made(y, op)
		c.tape.Record(op)
	}
	c.activate = activateTask{act: act, x: x.Float32s(), y: y.Float32s(), dim: x.Dim(1)}
	c.eachRow(x.Dim(0), &c.activate)
	if y != x {
		c.Free(x)
	}
	return y
}

// activateOp is y = act(x).
type activateOp struct {
	c    *Ctx
	act  Activation
	x, y *tensor.Tensor
}

func (o *activateOp) Backward(t *autograd.Tape) {
	o.c.recall(o.x)
	dx, y := o.c.New(o.x.Dim(0), o.x.Dim(1)), o.c.New(o.x.Dim(0), o.x.Dim(1))
	o.c.activate = activateTask{act: o.act, x: o.x.Float32s(), y: y.Float32s(), slope: dx.Float32s(), dy: t.Take(o.y).Float32s(), dim: dx.Dim(1)}
	o.c.eachRow(dx.Dim(0), &o.c.activate)
	o.c.Free(y)
	t.Done(o.y)
	t.Add(o.x, dx)
	o.c.drop(o.x)
}

func (o *activateOp) remake(y *tensor.Tensor) {
	o.c.recall(o.x)
	o.c.activate = activateTask{act: o.act, x: o.x.Float32s(), y: y.Float32s(), dim: o.x.Dim(1)}
	o.c.eachRow(o.x.Dim(0), &o.c.activate)
}

// activateTask computes y = act(x) and, where there is a dy, slope = act'(x) * dy.
type activateTask struct {
	act             Activation
	x, y, slope, dy []float32
	dim             int
}

func (t *activateTask) row(r int) {
	a, b := r*t.dim, (r+1)*t.dim
	if t.dy == nil {
		t.act.apply(t.y[a:b], t.x[a:b])
		return
	}
	t.act.slopes(t.y[a:b], t.slope[a:b], t.x[a:b])
	cpu.Mul(t.slope[a:b], t.slope[a:b], t.dy[a:b])
}

// apply writes act(x) to y, which may be x.
func (a Activation) apply(y, x []float32) {
	switch a {
	case ReLU2:
		cpu.ReLU2(y, x)
	case SiLU:
		cpu.Silu(y, x)
	case Tanh:
		cpu.Tanh(y, x)
	case Sigmoid:
		cpu.Sigmoid(y, x)
	case ReLU:
		for i, v := range x {
			if v < 0 {
				v = 0
			}
			y[i] = v
		}
	default:
		const piece = 256
		var buf [piece]float32
		for from := 0; from < len(x); from += piece {
			to := min(from+piece, len(x))
			in, f := x[from:to], buf[:to-from]
			if a == GELU {
				cpu.NormalCDF(f, in)
				cpu.Mul(y[from:to], in, f)
				continue
			}
			geluInner(f, in)
			cpu.Tanh(f, f)
			for i, v := range in {
				y[from+i] = float32(0.5*v) * (1 + f[i])
			}
		}
	}
}

// Constants of the GELUs.
var (
	invSqrt2Pi = float32(1 / math.Sqrt(2*math.Pi))
	sqrt2ByPi  = float32(math.Sqrt(2 / math.Pi))
)

const geluCubic = 0.044715

func geluInner(dst, x []float32) {
	for i, v := range x {
		dst[i] = sqrt2ByPi * (v + float32(geluCubic*float32(v*float32(v*v))))
	}
}

// slopes writes act(x) to y and its derivative to slope, neither of which may be x.
func (a Activation) slopes(y, slope, x []float32) {
	switch a {
	case ReLU2:
		cpu.ReLU2(y, x)
		for i, v := range x {
			slope[i] = 2 * max(v, 0)
		}
	case SiLU:
		cpu.Silu(y, x)
		cpu.Sigmoid(slope, x)
		for i, s := range slope {
			slope[i] = s + float32(y[i]*(1-s))
		}
	case ReLU:
		a.apply(y, x)
		for i, v := range x {
			slope[i] = 0
			if v > 0 {
				slope[i] = 1
			}
		}
	case Tanh:
		cpu.Tanh(y, x)
		for i, v := range y {
			slope[i] = 1 - float32(v*v)
		}
	case Sigmoid:
		cpu.Sigmoid(y, x)
		for i, v := range y {
			slope[i] = v * (1 - v)
		}
	case GELU: // P + x exp(-x^2/2)/sqrt(2 pi)
		cpu.NormalCDF(y, x)
		for i, v := range x {
			slope[i] = -float32(float32(v*v) * 0.5)
		}
		cpu.ExpSum(slope, 0)
		for i, v := range x {
			slope[i] = y[i] + float32(v*float32(slope[i]*invSqrt2Pi))
			y[i] *= v
		}
	case GELUTanh: // (1 + t)/2 + x/2 (1 - t^2) sqrt(2/pi) (1 + 3*0.044715 x^2)
		geluInner(y, x)
		cpu.Tanh(y, y)
		for i, v := range x {
			t := y[i]
			inner := sqrt2ByPi * (1 + float32(3*geluCubic*float32(v*v)))
			half := float32(0.5 * (1 + t))
			slope[i] = half + float32(float32(0.5*v)*float32((1-float32(t*t))*inner))
			y[i] = v * half
		}
	}
}
