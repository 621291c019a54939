package optim

import "github.com/bitnet-rust/bitnet_rust/core/pool"

// sgd is one parameter's state of stochastic gradient descent with momentum in PyTorch's form: the learning rate
// multiplies the momentum when it is applied, not when it is gathered (Sutskever et al. 2013 do the latter).
type sgd struct {
	momentum buffer
	started  bool // the buffer holds a momentum; before, the first gradient becomes it

	now sgdStep
}

// sgdStep holds the constants of one update.
type sgdStep struct {
	scale    float32 // of the gradient, negative to maximize
	l2       float32
	momentum float32
	mix      float32 // 1 - dampening
	rate     float32 // -lr
	plain    bool    // no momentum
	first    bool    // the gradient becomes the momentum
	nesterov bool
}

func (s *sgd) prepare(n int, h *Hyper, mem *pool.HybridMemoryPool) error {
	if h.Momentum == 0 {
		return nil
	}
	return s.momentum.make(n, mem)
}

func (s *sgd) begin(h *Hyper, scale float32) {
	s.now = sgdStep{
		scale: scale, l2: float32(h.WeightDecay), momentum: float32(h.Momentum), mix: float32(1 - h.Dampening), rate: float32(-h.LR),
		plain: h.Momentum == 0, first: !s.started, nesterov: h.Nesterov,
	}
	if h.Maximize {
		s.now.scale = -scale
	}
	s.started = s.started || !s.now.plain
}

func (s *sgd) update(p, g []float32, lo, hi int) {
	if s.now.plain {
		sgdPlain(&s.now, p, g)
		return
	}
	sgdMomentum(&s.now, p, g, s.momentum.values[lo:hi])
}

// sgdPlain is the update without momentum:
//
//	p = p + rate*(scale*g + l2*p)
func sgdPlain(c *sgdStep, p, g []float32) {
	scale, l2, rate := c.scale, c.l2, c.rate
	g = g[:len(p)]
	for i, w := range p {
		d := float32(scale*g[i]) + float32(l2*w)
		p[i] = w + float32(rate*d)
	}
}

// sgdMomentum is the update with momentum:
//
//	d = scale*g + l2*p
//	b = b*momentum + mix*d      (first update: b = d)
//	p = p + rate*b              (nesterov: p + rate*(d + momentum*b))
func sgdMomentum(c *sgdStep, p, g, b []float32) {
	scale, l2, momentum, mix, rate := c.scale, c.l2, c.momentum, c.mix, c.rate
	g, b = g[:len(p)], b[:len(p)]
	for i, w := range p {
		d := float32(scale*g[i]) + float32(l2*w)
		move := d
		if !c.first {
			move = float32(b[i]*momentum) + float32(mix*d)
		}
		b[i] = move
		if c.nesterov {
			move = d + float32(momentum*move)
		}
		p[i] = w + float32(rate*move)
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
