package autograd

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// GradTensor is a tensor that knows how it came about. Its methods may be called from several goroutines; what is written
// to its elements is the caller's care, as with any tensor.
type GradTensor struct {
	data    *tensor.Tensor
	storage *storage
	view    bool // lies over memory of another tensor

	mu       sync.Mutex // guards what follows
	node     *node      // the operation that made it; nil for a leaf
	output   int        // which of the node's outputs
	leaf     *leaf      // its gradient; nil unless it requires one and is a leaf
	released bool
}

// storage is what a tensor and its views have in common beside memory.
type storage struct {
	version atomic.Int64 // changes in place
	viewed  atomic.Bool  // a recorded view of it was made
	changed func()       // tells the owner of the memory, or nil

	mu      sync.Mutex
	derived any    // made from the values by Derived
	kind    string // what it is
	made    int64  // version that it belongs to
}

// New makes a leaf of t that does not require a gradient.
func New(t *tensor.Tensor) *GradTensor { return &GradTensor{data: t, storage: &storage{}} }

// NewLeaf makes a leaf over the memory of a parameter that somebody else owns, such as a model's: it requires a gradient,
// which lives in p.Grad. Values and gradient keep owner reachable, which keeps the memory. changed, unless nil, is called
// after every change of the values made through the tensor or reported by Changed.
func NewLeaf(p *Param, owner tensor.Releaser, changed func()) (*GradTensor, error) {
	data, err := tensor.FromOwned(tensor.Float32, pool.BytesOf(p.Data), owner, p.Shape...)
	if err != nil {
		return nil, err
	}
	t := New(data)
	t.storage.changed = changed
	t.leaf = newLeaf(t)
	t.leaf.param.Name = p.Name
	t.leaf.home, t.leaf.owner = p, owner
	return t, nil
}

// Data returns the values.
func (t *GradTensor) Data() *tensor.Tensor { return t.data }

// RequiresGrad says whether backward passes reach it.
func (t *GradTensor) RequiresGrad() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.node != nil || t.leaf != nil && t.leaf.wanted.Load()
}

// RequireGrad says whether a leaf gets a gradient. Only leaves can be told, and only floats have gradients.
func (t *GradTensor) RequireGrad(want bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.node != nil && want:
		return nil
	case t.node != nil:
		return errorf(ErrNotLeaf, "requires_grad of a result of %s cannot be turned off: detach it", t.node.fn.Name())
	case want && !t.data.DType().IsFloat():
		return errorf(tensor.ErrDType, "a %s tensor cannot require a gradient: expected float32, float16 or bfloat16", t.data.DType())
	case want && t.leaf == nil:
		t.leaf = newLeaf(t)
	}
	if t.leaf != nil {
		t.leaf.wanted.Store(want)
	}
	return nil
}

// IsLeaf says whether no recorded operation made it.
func (t *GradTensor) IsLeaf() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.node == nil
}

// Operation is the name of the operation that made it, "" for a leaf.
func (t *GradTensor) Operation() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.node == nil {
		return ""
	}
	return t.node.fn.Name()
}

// Grad returns the gradient, of the values' shape and dtype, or nil when there is none. It is the leaf's own memory: later
// backward passes add to it. A value that is not a leaf has one after RetainGrad.
func (t *GradTensor) Grad() *tensor.Tensor {
	if l := t.holder(); l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.grad
	}
	return nil
}

// SetGrad replaces the gradient by a copy of g, or removes it when g is nil.
func (t *GradTensor) SetGrad(g *tensor.Tensor) error {
	l := t.holder()
	switch {
	case l == nil && g == nil:
		return nil
	case l == nil:
		return errorf(ErrNoGrad, "a gradient was given to a tensor that does not require one: call requires_grad_() first")
	case g != nil && !slices.Equal(g.Shape(), t.data.Shape()):
		return errorf(ErrGradient, "gradient of shape %s for a value of shape %s", text(g.Shape()), text(t.data.Shape()))
	case g != nil && !g.DType().IsFloat():
		return errorf(ErrGradient, "gradient of dtype %s, expected a float", g.DType())
	}
	return l.set(g)
}

// holder is where the gradient is kept, nil if there is no place.
func (t *GradTensor) holder() *leaf {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.node != nil {
		return t.node.retained(t.output)
	}
	return t.leaf
}

// RetainGrad makes backward passes keep the gradient of a value that is not a leaf.
func (t *GradTensor) RetainGrad() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.node == nil {
		if t.leaf == nil {
			return errorf(ErrNoGrad, "retain_grad of a tensor that does not require a gradient")
		}
		return nil
	}
	t.node.retain(t.output, newLeaf(t))
	return nil
}

// Param gives an optimizer access to a leaf: Data is its memory and Grad, nil while there is no gradient, that of its
// gradient. The leaf must be contiguous float32. Whoever changes Data calls Changed.
func (t *GradTensor) Param() (*Param, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.node != nil || t.leaf == nil:
		return nil, errorf(ErrNotLeaf, "only leaves that require a gradient can be optimized")
	case t.data.DType() != tensor.Float32 || !t.data.IsContiguous():
		return nil, errorf(tensor.ErrDType, "an optimized tensor must be contiguous float32, found %s of shape %s with strides %s",
			t.data.DType(), text(t.data.Shape()), text(t.data.Strides()))
	}
	t.leaf.param.Data = t.data.Float32s()
	return &t.leaf.param, nil
}

// Detach returns the same memory without history: it requires no gradient, and a change through it is seen by the check of
// changes.
func (t *GradTensor) Detach() *GradTensor {
	return &GradTensor{data: t.data, storage: t.storage, view: true}
}

// Changed notes that the values were changed in place by other means than this package.
func (t *GradTensor) Changed() {
	t.storage.version.Add(1)
	if t.storage.changed != nil {
		t.storage.changed()
	}
}

// Version counts changes in place of the memory, which views share.
func (t *GradTensor) Version() int64 { return t.storage.version.Load() }

// Derived returns what build makes of the values, and the same again until they change or another kind of thing is made of
// them. It serves layers that prepare weights.
func (t *GradTensor) Derived(kind string, build func() (any, error)) (any, error) {
	s := t.storage
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.version.Load()
	if s.derived != nil && s.made == now && s.kind == kind {
		return s.derived, nil
	}
	d, err := build()
	if err == nil {
		s.derived, s.kind, s.made = d, kind, now
	}
	return d, err
}

// Release tells that the tensor is not used any more, so that a graph that only it held gives memory back at once and not
// when the collector finds it. It is optional. Releasing twice does nothing.
func (t *GradTensor) Release() {
	t.mu.Lock()
	n := t.node
	if t.released {
		n = nil
	}
	t.released = true
	t.mu.Unlock()
	if n != nil {
		n.unref()
	}
}

// edge is where the gradient of the tensor goes: nowhere when it is not wanted.
func (t *GradTensor) edge() edge {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.node != nil:
		return edge{node: t.node, output: t.output}
	case t.leaf != nil && t.leaf.wanted.Load():
		return edge{leaf: t.leaf}
	}
	return edge{}
}
