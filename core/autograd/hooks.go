package autograd

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Hook sees the gradient of a value once it is complete, and may return another one to be used instead, or nil.
type Hook func(g *tensor.Tensor) (*tensor.Tensor, error)

type hook struct {
	id    int64
	call  Hook // nil: the walk stops for whoever runs it, see Walk.Next
	token *hookToken
}

// hookToken lives as long as a hook of others is registered somewhere.
type hookToken struct{ id int64 }

var dropped struct {
	sync.Mutex
	ids []int64
}

// DroppedHooks returns the numbers of hooks of others that were removed, or whose values are gone, since the last call.
func DroppedHooks() []int64 {
	dropped.Lock()
	defer dropped.Unlock()
	ids := dropped.ids
	dropped.ids = nil
	return ids
}

type hooks struct {
	mu   sync.Mutex
	list []hook
}

var hookIDs atomic.Int64

func (h *hooks) add(call Hook) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := hook{id: hookIDs.Add(1), call: call}
	if call == nil {
		next.token = &hookToken{next.id}
		runtime.AddCleanup(next.token, func(id int64) {
			dropped.Lock()
			defer dropped.Unlock()
			dropped.ids = append(dropped.ids, id)
		}, next.id)
	}
	h.list = append(h.list, next)
	return next.id
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
// in the order of their registration.
func (t *GradTensor) RegisterHook(call Hook) (id int64, err error) { return t.register(call) }

// RegisterExternalHook registers a hook that the runner of a [Walk] carries out, by number.
func (t *GradTensor) RegisterExternalHook() (id int64, err error) { return t.register(nil) }

func (t *GradTensor) register(call Hook) (int64, error) {
	h := t.hooks()
	if h == nil {
		return 0, errorf(ErrNoGrad, "a hook was given to a tensor that does not require a gradient")
	}
	return h.add(call), nil
}

// RemoveHook removes a hook; one that is not there is no error.
func (t *GradTensor) RemoveHook(id int64) {
	if h := t.hooks(); h != nil {
		h.remove(id)
	}
}

func (t *GradTensor) hooks() *hooks {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.node != nil:
		return &t.node.outputs[t.output].hooks
	case t.leaf != nil:
		return &t.leaf.hooks
	}
	return nil
}
