package nn

import (
	"cmp"
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// RoPE is rotary position embedding (Su et al. 2021) in the half-split form of Hugging Face: dimension i of a head
// turns together with i + head_dim/2 by the angle position * InvFreq[i].
type RoPE struct {
	InvFreq []float32 // [head_dim/2]
}

// RopeScaling changes the frequencies for longer contexts. Type "linear" divides all by Factor; "llama3" divides the
// low ones by Factor, keeps the high ones and blends between (Llama 3.1).
type RopeScaling struct {
	Type                          string  `json:"rope_type"`
	Factor                        float64 `json:"factor"`
	LowFreqFactor                 float64 `json:"low_freq_factor"`                  // wavelengths above Original/Low are divided by Factor
	HighFreqFactor                float64 `json:"high_freq_factor"`                 // those below Original/High are kept
	OriginalMaxPositionEmbeddings int     `json:"original_max_position_embeddings"` // Original: the context before
}

// NewRoPE computes inv_freq[i] = theta^(-2i/headDim) in float32, changed by scaling when it is not nil.
func NewRoPE(headDim int, theta float64, scaling *RopeScaling) (*RoPE, error) {
	f := make([]float32, headDim/2)
	for i := range f {
		e := float32(2*i) / float32(headDim)
		f[i] = 1 / float32(math.Pow(theta, float64(e)))
	}
	if scaling == nil {
		return &RoPE{f}, nil
	}
	if err := scaling.check(); err != nil {
		return nil, err
	}
	switch s := *scaling; s.Type {
	case "linear":
		for i := range f {
			f[i] /= float32(s.Factor)
		}
	case "llama3":
		for i, v := range f {
			wavelen := 2 * math.Pi / float64(v)
			low := float64(s.OriginalMaxPositionEmbeddings) / s.LowFreqFactor
			high := float64(s.OriginalMaxPositionEmbeddings) / s.HighFreqFactor
			switch {
			case wavelen > low:
				f[i] = float32(float64(v) / s.Factor)
			case wavelen >= high:
				smooth := (float64(s.OriginalMaxPositionEmbeddings)/wavelen - s.LowFreqFactor) / (s.HighFreqFactor - s.LowFreqFactor)
				f[i] = float32((1-smooth)*float64(v)/s.Factor + float64(smooth*float64(v)))
			}
		}
	}
	return &RoPE{f}, nil
}

// check refuses what would make frequencies that are no numbers.
func (s *RopeScaling) check() error {
	positive := func(field string, value float64) error {
		if !(value > 0) || math.IsInf(value, 0) {
			return fmt.Errorf("rope_scaling.%s = %v: expected a finite number > 0 with rope_type %q", field, value, s.Type)
		}
		return nil
	}
	switch s.Type {
	case "", "default":
		return nil
	case "linear":
		return positive("factor", s.Factor)
	case "llama3":
		if s.HighFreqFactor <= s.LowFreqFactor {
			return fmt.Errorf("rope_scaling.high_freq_factor = %v: expected more than low_freq_factor = %v", s.HighFreqFactor, s.LowFreqFactor)
		}
		return cmp.Or(positive("factor", s.Factor), positive("low_freq_factor", s.LowFreqFactor), positive("high_freq_factor", s.HighFreqFactor),
			positive("original_max_position_embeddings", float64(s.OriginalMaxPositionEmbeddings)))
	}
	return fmt.Errorf("rope_scaling: unknown rope_type %q (known: default, linear, llama3)", s.Type)
}

// Angles are the cosines and sines of a step's positions, computed once a step and shared by its layers. The zero value is for
// models without rotary positions: it turns nothing.
type Angles struct {
	cos, sin []float32 // [rows, head_dim/2]
	bytes    []byte
}

// Angles computes cosine and sine for every row of the step.
func (p *RoPE) Angles(c *Ctx) Angles {
	n := len(c.rows) * len(p.InvFreq)
	b := c.scratch.Alloc(8 * n)
	a := Angles{bytes: b, cos: pool.View[float32](b[:4*n]), sin: pool.View[float32](b[4*n:])}
	c.rope = ropeTask{ctx: c, freq: p.InvFreq, a: a}
	c.eachRow(len(c.rows), &c.rope)
	c.did(OpRoPE)
	return a
}

// Free gives the memory back, unless a tape is attached: backward passes turn gradients back, and the step's end frees.
func (a Angles) Free(c *Ctx) {
	if c.tape == nil && a.bytes != nil {
		c.scratch.Free(a.bytes)
	}
}

// rotate turns the heads of x [rows, heads*head_dim] in place.
func (c *Ctx) rotate(a Angles, headDim int, x *tensor.Tensor) {
	if a.bytes == nil {
		return
	}
	if c.tape != nil {
		c.changed(x)
		c.tape.Record(&rotateOp{c: c, angles: a, headDim: headDim, x: x})
	}
	c.turn(a, headDim, x, 1)
}

// turn rotates forward (1) or back (-1).
func (c *Ctx) turn(a Angles, headDim int, x *tensor.Tensor, direction float32) {
	c.rope = ropeTask{ctx: c, a: a, x: x.Float32s(), dim: x.Dim(1), headDim: headDim, direction: direction}
	c.eachRow(x.Dim(0), &c.rope)
}

// ropeTask fills the angles of a row (x nil) or applies them.
type ropeTask struct {
	ctx     *Ctx
	freq    []float32
	a       Angles
	x       []float32
	dim     int
	headDim int

	direction float32 // 1 or -1
}

func (t *ropeTask) row(r int) {
	if t.x == nil {
		n := len(t.freq)
		cos, sin := t.a.cos[r*n:(r+1)*n], t.a.sin[r*n:(r+1)*n]
		pos := float32(t.ctx.rows[r].Pos)
		for i, f := range t.freq {
			s, c := math.Sincos(float64(pos * f))
			cos[i], sin[i] = float32(c), float32(s)
		}
		return
	}
	n := t.headDim / 2
	cos, sin := t.a.cos[r*n:(r+1)*n], t.a.sin[r*n:(r+1)*n]
	for x := t.x[r*t.dim : (r+1)*t.dim]; len(x) > 0; x = x[t.headDim:] {
		lo, hi := x[:n], x[n:2*n]
		cpu.Rotate(lo, hi, cos, sin, t.direction)
	}
}
