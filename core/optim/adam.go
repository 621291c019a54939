package optim

import (
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// adam is one parameter's state of Adam (Kingma and Ba 2015, L2 regularization) or AdamW (decoupled weight decay,
// Loshchilov and Hutter 2019), optionally with AMSGrad (Reddi et al. 2018).
type adam struct {
	decoupled bool
	step      float64
	m, v, max buffer // exp_avg, exp_avg_sq, max_exp_avg_sq

	now adamStep
}

// adamStep holds the constants of one update.
type adamStep struct {
	cpu.AdamStep
	rest     float32 // 1 - mix
	fromGrad bool    // 1 - beta1 >= 0.5: interpolate from the gradient's side, as torch.lerp does
	amsgrad  bool
}

func (a *adam) prepare(n int, h *Hyper, mem *pool.HybridMemoryPool) error {
	if err := a.m.make(n, mem); err != nil {
		return err
	}
	if err := a.v.make(n, mem); err != nil {
		return err
	}
	if h.AMSGrad {
		return a.max.make(n, mem)
	}
	return nil
}

func (a *adam) begin(h *Hyper, scale float32) {
	a.step++
	c := adamStep{
		AdamStep: cpu.AdamStep{
			Scale: scale, Keep: 1,
			Mix: float32(1 - h.Betas[0]), Beta2: float32(h.Betas[1]), Mix2: float32(1 - h.Betas[1]),
			Root: float32(math.Sqrt(1 - math.Pow(h.Betas[1], a.step))), Eps: float32(h.Eps),
			Rate: float32(-h.LR / (1 - math.Pow(h.Betas[0], a.step))),
		},
		amsgrad: h.AMSGrad,
	}
	c.rest, c.fromGrad = 1-c.Mix, c.Mix >= 0.5
	if h.Maximize {
		c.Scale = -scale
	}
	if a.decoupled {
		c.Keep = float32(1 - float64(h.LR*h.WeightDecay))
	} else {
		c.L2 = float32(h.WeightDecay)
	}
	a.now = c
}

func (a *adam) update(p, g []float32, lo, hi int) {
	m, v := a.m.values[lo:hi], a.v.values[lo:hi]
	if a.now.amsgrad || a.now.fromGrad {
		var largest []float32
		if a.now.amsgrad {
			largest = a.max.values[lo:hi]
		}
		adamGeneral(&a.now, p, g, m, v, largest)
		return
	}
	cpu.Adam(&a.now.AdamStep, p, g, m, v)
}

// adamGeneral is cpu.Adam for every setting; largest is nil without AMSGrad.
func adamGeneral(c *adamStep, p, g, m, v, largest []float32) {
	g, m, v = g[:len(p)], m[:len(p)], v[:len(p)]
	for i, w := range p {
		d := float32(c.Scale*g[i]) + float32(c.L2*w)
		if c.fromGrad {
			m[i] = d - float32((d-m[i])*c.rest)
		} else {
			m[i] += float32(c.Mix * (d - m[i]))
		}
		v[i] = float32(v[i]*c.Beta2) + float32(float32(c.Mix2*d)*d)
		second := v[i]
		if i < len(largest) {
			second = max(second, largest[i]) // NaN if either is, as torch.maximum
			largest[i] = second
		}
		denominator := float32(math.Sqrt(float64(second)))/c.Root + c.Eps
		p[i] = float32(w*c.Keep) + float32(c.Rate*m[i])/denominator
	}
}

func (a *adam) save(shape []int) (ParamState, bool) {
	if a.step == 0 {
		return ParamState{}, false
	}
	step := a.step
	s := ParamState{Step: &step, Tensors: map[string]Tensor{"exp_avg": {shape, a.m.values}, "exp_avg_sq": {shape, a.v.values}}}
	if a.max.block != nil {
		s.Tensors["max_exp_avg_sq"] = Tensor{shape, a.max.values}
	}
	return s, true
}

func (a *adam) check(at func(string) string, s ParamState, shape []int, n int) error {
	switch {
	case s.Step == nil:
		return &StateError{at("step"), "none", "the number of updates"}
	case !(*s.Step >= 1 && *s.Step == math.Trunc(*s.Step) && *s.Step < 1<<53):
		return &StateError{at("step"), *s.Step, "a whole number >= 1"}
	}
	for _, name := range []string{"exp_avg", "exp_avg_sq"} {
		if _, ok := s.Tensors[name]; !ok {
			return &StateError{at(name), "none", fmt.Sprintf("a tensor of shape %v", shape)}
		}
	}
	return checkTensors(at, s, shape, n, "exp_avg", "exp_avg_sq", "max_exp_avg_sq")
}

func (a *adam) load(s ParamState) {
	a.step = *s.Step
	copy(a.m.values, s.Tensors["exp_avg"].Data)
	copy(a.v.values, s.Tensors["exp_avg_sq"].Data)
	if largest, ok := s.Tensors["max_exp_avg_sq"]; ok && a.max.block != nil {
		copy(a.max.values, largest.Data)
	}
}

func (a *adam) release() {
	a.m.release()
	a.v.release()
	a.max.release()
	*a = adam{decoupled: a.decoupled}
}
