package autograd

import (
	"sync"
	"sync/atomic"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Hook sees the gradient of a value once it is complete, and may return another one to be used instead, or nil.
type Hook func(g *tensor.Tensor) (*tensor.Tensor, error)

type hook struct {
	id   int64
	call Hook // nil: the walk stops for whoever runs it, see Walk.Next
}

type hooks struct {
	mu   sync.Mutex
	list []hook
}

var hookIDs atomic.Int64

func (h *hooks) add(call Hook) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := hookIDs.Add(1)
	h.list = append(h.list, hook{id, call})
	return id
}

func (h *hooks) remove(id int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.list {
		if h.list[i].id == id {
			h.list = append(h.list[:i:i], h.list[i+1:]...)
			return
		}
	}
}

// snapshot is the list as it is now: hooks may remove themselves.
func (h *hooks) snapshot() []hook {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.list[:len(h.list):len(h.list)]
}

func (h *hooks) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.list) == 0
}

// RegisterHook calls hook in every backward pass with the gradient of t: for a leaf, what the pass adds to it. Hooks run
// in the order of their registration. The result removes the hook again.
func (t *GradTensor) RegisterHook(call Hook) (remove func(), err error) {
	_, remove, err = t.register(call)
	return remove, err
}

// RegisterExternalHook registers a hook that the runner of a [Walk] carries out, by number.
func (t *GradTensor) RegisterExternalHook() (id int64, remove func(), err error) {
	return t.register(nil)
}

func (t *GradTensor) register(call Hook) (int64, func(), error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var h *hooks
	switch {
	case t.node != nil:
		h = &t.node.outputs[t.output].hooks
	case t.leaf != nil:
		h = &t.leaf.hooks
	default:
		return 0, nil, errorf(ErrNoGrad, "a hook was given to a tensor that does not require a gradient")
	}
	id := h.add(call)
	return id, func() { h.remove(id) }, nil
}
