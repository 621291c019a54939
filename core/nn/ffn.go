package nn

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Activation is the function of the feed-forward gate.
type Activation uint8

// The activations of BitNet checkpoints: squared ReLU (BitNet b1.58 2B4T), SiLU (Llama, the 2024 reproductions).
const (
	ReLU2 Activation = iota
	SiLU
)

// FeedForward is the gated network down(subnorm(act(gate(x)) * up(x))).
type FeedForward struct {
	Act            Activation
	Gate, Up, Down *Linear
	SubNorm        *RMSNorm // ffn_sub_norm, or nil
}

// Forward reads x [rows, hidden_size], normalized by norm, and returns [rows, hidden_size].
func (f *FeedForward) Forward(c *Ctx, x *tensor.Tensor, norm *RMSNorm) *tensor.Tensor {
	gu := Project(c, x, norm, f.Gate, f.Up) // [rows, intermediate_size] twice
	gate, up := gu[0], gu[1]
	c.gate = gateTask{act: f.Act, gate: gate.Float32s(), up: up.Float32s(), dim: gate.Dim(1)}
	c.eachRow(gate.Dim(0), &c.gate)
	c.Free(up)
	y := Project(c, gate, f.SubNorm, f.Down)[0]
	c.Free(gate)
	return y
}

// gateTask computes gate = act(gate) * up.
type gateTask struct {
	act      Activation
	gate, up []float32
	dim      int
}

func (t *gateTask) row(r int) {
	g, u := t.gate[r*t.dim:(r+1)*t.dim], t.up[r*t.dim:(r+1)*t.dim]
	if t.act == SiLU {
		cpu.Silu(g, g)
	} else {
		cpu.ReLU2(g, g)
	}
	cpu.Mul(g, g, u)
}

// Add computes x += y for the residual stream.
func Add(c *Ctx, x, y *tensor.Tensor) {
	c.add = addTask{x: x.Float32s(), y: y.Float32s(), dim: x.Dim(1)}
	c.eachRow(x.Dim(0), &c.add)
}

type addTask struct {
	x, y []float32
	dim  int
}

func (t *addTask) row(r int) {
	a, b := r*t.dim, (r+1)*t.dim
	cpu.Add(t.x[a:b], t.x[a:b], t.y[a:b])
}
