package autograd

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// leaf holds the gradient of one value.
type leaf struct {
	number uint64 // order of leaves in a walk
	wanted atomic.Bool
	shape  []int
	dtype  tensor.DType

	mu    sync.Mutex
	grad  *tensor.Tensor  // nil: none
	param Param           // what optimizers see; Grad follows grad
	home  *Param          // whose Grad is the memory of the gradient, or nil
	owner tensor.Releaser // of that memory
	hooks hooks
}

func newLeaf(t *GradTensor) *leaf {
	l := &leaf{number: sequence.Add(1), shape: t.data.Shape(), dtype: t.data.DType()}
	l.param.Shape = l.shape
	l.wanted.Store(true)
	return l
}

// add adds g, which is the caller's, to the gradient.
func (l *leaf) add(g *tensor.Tensor) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.grad == nil {
		return l.put(g)
	}
	if l.dtype == tensor.Float32 {
		c, err := g.Contiguous()
		if err != nil {
			return err
		}
		cpu.Add(l.grad.Float32s(), l.grad.Float32s(), c.Float32s())
		return nil
	}
	sum, err := tensor.Add(l.grad, g)
	if err != nil {
		return err
	}
	return tensor.Copy(l.grad, sum)
}

func (l *leaf) set(g *tensor.Tensor) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g == nil {
		l.grad, l.param.Grad = nil, nil
		if l.home != nil {
			clear(l.home.Grad)
		}
		return nil
	}
	return l.put(g)
}

// put makes the gradient a copy of g. The memory is new, since others may still look at that of an earlier gradient,
// unless there is a home.
func (l *leaf) put(g *tensor.Tensor) error {
	own, err := tensor.New(l.dtype, l.shape...)
	if l.home != nil {
		own, err = l.atHome()
	}
	if err != nil {
		return err
	}
	if err := tensor.Copy(own, g); err != nil {
		return err
	}
	l.hold(own)
	return nil
}

// atHome is the gradient in the memory of its owner.
func (l *leaf) atHome() (*tensor.Tensor, error) {
	return tensor.FromOwned(l.dtype, pool.BytesOf(l.home.Grad), l.owner, l.shape...)
}

func (l *leaf) hold(own *tensor.Tensor) {
	l.grad = own
	if l.dtype == tensor.Float32 {
		l.param.Grad = own.Float32s()
	}
}

// ParamSink is how a Function that adds to the gradients of parameters by itself, as a model does, works together with the
// leaves that NewLeaf made for them. It calls Begin before and End after; hooks of the leaf see what was added in between.
type ParamSink struct {
	leaf  *leaf
	saved []float32
}

// Sink returns the sink of a leaf of NewLeaf.
func (t *GradTensor) Sink() *ParamSink { return &ParamSink{leaf: t.leaf} }

// Begin prepares the parameter's Grad: as it is when contributions may be added there, zeros aside when a hook wants to see
// them or the leaf must not change.
func (s *ParamSink) Begin(apart bool) {
	l := s.leaf
	l.mu.Lock()
	defer l.mu.Unlock()
	if apart || !l.hooks.empty() || !l.wanted.Load() {
		s.saved = l.home.Grad
		l.home.Grad = make([]float32, len(s.saved))
		return
	}
	if l.grad == nil {
		clear(l.home.Grad)
	}
}

// End takes over what was added since Begin, or forgets it when the Function failed. It returns the gradient to hand on to
// the leaf the usual way when it was put aside, otherwise nil.
func (s *ParamSink) End(ok bool) (*tensor.Tensor, error) {
	l := s.leaf
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.saved != nil {
		apart := l.home.Grad
		l.home.Grad, s.saved = s.saved, nil
		if !ok || !l.wanted.Load() {
			return nil, nil
		}
		return tensor.FromFloat32(apart, l.shape...)
	}
	if l.grad == nil && ok {
		own, err := l.atHome()
		if err != nil {
			return nil, err
		}
		l.hold(own)
	}
	return nil, nil
}

// fits refuses a gradient that a hook returned when it is not that of the value.
func fits(g *tensor.Tensor, shape []int) error {
	if !slices.Equal(g.Shape(), shape) {
		return errorf(ErrGradient, "a hook returned a gradient of shape %s for a value of shape %s", text(g.Shape()), text(shape))
	}
	if !g.DType().IsFloat() {
		return errorf(ErrGradient, "a hook returned a gradient of dtype %s, expected a float", g.DType())
	}
	return nil
}
