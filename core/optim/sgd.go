package optim

import (
	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// sgd is one parameter's state of stochastic gradient descent with momentum in PyTorch's form: the learning rate
// multiplies the momentum when it is applied, not when it is gathered (Sutskever et al. 2013 do the latter).
type sgd struct {
	momentum buffer
	started  bool // the buffer holds a momentum; before, the first gradient becomes it

	now sgdStep
}

// sgdStep holds the constants of one update.
type sgdStep struct {
	cpu.SGDStep
	plain bool // no momentum
	first bool // the gradient becomes the momentum
}

func (s *sgd) prepare(n int, h *Hyper, mem *pool.HybridMemoryPool) error {
	if h.Momentum == 0 {
		return nil
	}
	return s.momentum.make(n, mem)
}

func (s *sgd) begin(h *Hyper, scale float32) {
	s.now = sgdStep{
		SGDStep: cpu.SGDStep{
			Scale: scale, L2: float32(h.WeightDecay), Momentum: float32(h.Momentum), Mix: float32(1 - h.Dampening), Rate: float32(-h.LR),
			Nesterov: h.Nesterov,
		},
		plain: h.Momentum == 0, first: !s.started,
	}
	if h.Maximize {
		s.now.Scale = -scale
	}
	s.started = s.started || !s.now.plain
}

func (s *sgd) update(p, g []float32, lo, hi int) {
	if s.now.plain {
		sgdPlain(&s.now, p, g)
		return
	}
	b := s.momentum.values[lo:hi]
	if s.now.first {
		sgdFirst(&s.now, p, g, b)
		return
	}
	cpu.SGD(&s.now.SGDStep, p, g, b)
}

// sgdPlain is the update without momentum:
//
//	p = p + rate*(scale*g + l2*p)
func sgdPlain(c *sgdStep, p, g []float32) {
	scale, l2, rate := c.Scale, c.L2, c.Rate
	g = g[:len(p)]
	for i, w := range p {
		d := float32(scale*g[i]) + float32(l2*w)
		p[i] = w + float32(rate*d)
	}
}

// sgdFirst is the first update with momentum: cpu.SGD with b = d.
func sgdFirst(c *sgdStep, p, g, b []float32) {
	for i, w := range p {
		d := float32(c.Scale*g[i]) + float32(c.L2*w)
		b[i] = d
		move := d
		if c.Nesterov {
			move = d + float32(c.Momentum*d)
		}
		p[i] = w + float32(c.Rate*move)
	}
}

// save follows PyTorch: a parameter without momentum has no entry.
func (s *sgd) save(shape []int) (ParamState, bool) {
	if !s.started {
		return ParamState{}, false
	}
	return ParamState{Tensors: map[string]Tensor{"momentum_buffer": {shape, s.momentum.values}}}, true
}

func (s *sgd) check(at func(string) string, state ParamState, shape []int, n int) error {
	if state.Step != nil {
		return &StateError{at("step"), *state.Step, "none: sgd counts no steps"}
	}
	return checkTensors(at, state, shape, n, "momentum_buffer")
}

func (s *sgd) load(state ParamState) {
	saved, ok := state.Tensors["momentum_buffer"]
	if ok && s.momentum.block != nil {
		s.started = true
		copy(s.momentum.values, saved.Data)
	}
}

func (s *sgd) release() {
	s.momentum.release()
	*s = sgd{}
}
