package autograd

import (
	"container/heap"
	"context"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Options of a backward pass.
type Options struct {
	// Retain keeps the graph for another pass.
	Retain bool
	// Inputs, when not nil, get the gradients: [Walk.Gradients] has them, and no leaf changes.
	Inputs []*GradTensor
}

// Backward adds the gradients of t to the leaves that it depends on. gradient is that of a last result for t, of t's shape;
// nil stands for one and needs a t of one element. The context may stop the pass between two nodes.
func (t *GradTensor) Backward(ctx context.Context, gradient *tensor.Tensor, o Options) error {
	w, err := NewWalk([]*GradTensor{t}, []*tensor.Tensor{gradient}, o)
	if err != nil {
		return err
	}
	return w.finish(ctx)
}

// Gradients returns the gradients of the sum of outputs, each weighted by its gradient as in Backward, for inputs; nil for an
// input that no output depends on. Leaves do not change.
func Gradients(ctx context.Context, outputs []*GradTensor, gradients []*tensor.Tensor, inputs []*GradTensor, retain bool) ([]*tensor.Tensor, error) {
	w, err := NewWalk(outputs, gradients, Options{Retain: retain, Inputs: inputs})
	if err != nil {
		return nil, err
	}
	return w.Gradients(), w.finish(ctx)
}

func (w *Walk) finish(ctx context.Context) error {
	defer w.Close()
	call, err := w.Next(ctx)
	if call != nil {
		return errorf(ErrGradient, "a hook that only a Walk can run is registered")
	}
	return err
}

// Walk is a backward pass that can stop for hooks of another language. It serves one goroutine, which closes it.
type Walk struct {
	options Options
	ready   visits
	pending map[edge]*tensor.Tensor // gradients of outputs and leaves that are not complete
	inputs  []edge                  // of Options.Inputs
	results []*tensor.Tensor
	held    []*node // that freed nodes held: most are still to be visited

	// The visit under way, while hooks run.
	now   visit
	edges []edge // whose hooks are still to run
	hooks []hook // of edges[0]
}

// HookCall asks for a hook to be run; Walk.Resume takes what it returned.
type HookCall struct {
	ID   int64          // which hook
	Grad *tensor.Tensor // not to be written to
}

// visit is a node or, after all nodes, a leaf.
type visit struct {
	number uint64
	node   *node
	leaf   *leaf
}

// NewWalk prepares a backward pass from several roots.
func NewWalk(roots []*GradTensor, gradients []*tensor.Tensor, o Options) (*Walk, error) {
	w := &Walk{options: o, pending: map[edge]*tensor.Tensor{}}
	for i, t := range roots {
		e := t.edge()
		if !e.wanted() {
			return nil, errorf(ErrNoGrad, "backward from a tensor of shape %s that does not depend on any tensor that requires a gradient", text(t.data.Shape()))
		}
		var g *tensor.Tensor
		if i < len(gradients) {
			g = gradients[i]
		}
		g, err := seed(t.data, g)
		if err != nil {
			return nil, err
		}
		if err := w.contribute(e, g); err != nil {
			return nil, err
		}
	}
	w.results = make([]*tensor.Tensor, len(o.Inputs))
	for i, t := range o.Inputs {
		e := t.edge()
		if !e.wanted() {
			return nil, errorf(ErrNoGrad, "input %d of shape %s does not require a gradient", i, text(t.data.Shape()))
		}
		w.inputs = append(w.inputs, e)
	}
	return w, nil
}

// seed checks the gradient that a pass starts from.
func seed(value, g *tensor.Tensor) (*tensor.Tensor, error) {
	if g == nil {
		if value.Len() != 1 {
			return nil, errorf(ErrGradient, "backward from shape %s needs a gradient of that shape: only a single element has one by itself", text(value.Shape()))
		}
		return tensor.Ones(value.DType(), value.Shape()...)
	}
	if !slices.Equal(g.Shape(), value.Shape()) {
		return nil, errorf(ErrGradient, "gradient of shape %s for a value of shape %s", text(g.Shape()), text(value.Shape()))
	}
	if !g.DType().IsFloat() {
		return nil, errorf(ErrGradient, "gradient of dtype %s, expected a float", g.DType())
	}
	return g.Cast(value.DType())
}

// Gradients are those of Options.Inputs, once Next has returned nil.
func (w *Walk) Gradients() []*tensor.Tensor { return w.results }

// Next goes on until a hook is to be run by the caller, or to the end, where it returns nil.
func (w *Walk) Next(ctx context.Context) (*HookCall, error) {
	for {
		for len(w.edges) > 0 {
			if call, err := w.runHooks(); call != nil || err != nil {
				return call, err
			}
			w.edges = w.edges[1:]
			if len(w.edges) > 0 {
				w.hooks = hooksOf(w.edges[0]).snapshot()
			}
		}
		if w.now.number != 0 {
			if err := w.leave(ctx); err != nil {
				return nil, err
			}
			w.now = visit{}
		}
		if len(w.ready) == 0 {
			return nil, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		w.enter(heap.Pop(&w.ready).(visit))
	}
}

// enter lists the gradients that hooks may see before the visit.
func (w *Walk) enter(v visit) {
	w.now, w.edges, w.hooks = v, w.edges[:0], nil
	if v.leaf != nil {
		w.edges = append(w.edges, edge{leaf: v.leaf})
	} else {
		for i := range v.node.outputs {
			if e := (edge{node: v.node, output: i}); w.pending[e] != nil {
				w.edges = append(w.edges, e)
			}
		}
	}
	if len(w.edges) > 0 {
		w.hooks = hooksOf(w.edges[0]).snapshot()
	}
}

func hooksOf(e edge) *hooks {
	if e.leaf != nil {
		return &e.leaf.hooks
	}
	return &e.node.outputs[e.output].hooks
}

func (w *Walk) runHooks() (*HookCall, error) {
	for len(w.hooks) > 0 {
		h := w.hooks[0]
		g := w.pending[w.edges[0]]
		if h.call == nil {
			return &HookCall{h.id, g}, nil
		}
		other, err := h.call(g)
		if err != nil {
			return nil, err
		}
		if err := w.Resume(other); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// Resume ends the hook that Next asked for; g is what it returned, nil for nothing.
func (w *Walk) Resume(g *tensor.Tensor) error {
	e := w.edges[0]
	w.hooks = w.hooks[1:]
	if g == nil {
		return nil
	}
	have := w.pending[e]
	if err := fits(g, have.Shape()); err != nil {
		return err
	}
	g, err := g.Cast(have.DType())
	w.pending[e] = g
	return err
}

// leave carries the visit out: its gradients are complete and hooks have seen them.
func (w *Walk) leave(ctx context.Context) error {
	if l := w.now.leaf; l != nil {
		e := edge{leaf: l}
		return w.arrive(e, l, w.take(e))
	}
	n := w.now.node
	grads := make([]*tensor.Tensor, len(n.outputs))
	for i := range grads {
		e := edge{node: n, output: i}
		if grads[i] = w.take(e); grads[i] == nil {
			continue
		}
		if err := w.arrive(e, n.retained(i), grads[i]); err != nil {
			return err
		}
	}
	to, gs, held, err := n.run(&Backward{Ctx: ctx, Grads: grads, Retain: w.options.Retain, Apart: w.options.Inputs != nil})
	w.held = append(w.held, held...)
	if err != nil {
		return err
	}
	for i, g := range gs {
		if g != nil {
			if err := w.contribute(to[i], g); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close ends the pass, finished or not.
func (w *Walk) Close() {
	for _, n := range w.held {
		n.unref()
	}
	w.held, w.ready, w.pending, w.edges, w.now = nil, nil, nil, nil, visit{}
}

func (w *Walk) take(e edge) *tensor.Tensor {
	g := w.pending[e]
	delete(w.pending, e)
	return g
}

// arrive gives a complete gradient to whoever keeps it.
func (w *Walk) arrive(e edge, l *leaf, g *tensor.Tensor) error {
	if w.options.Inputs != nil {
		for i, in := range w.inputs {
			if in == e {
				w.results[i] = g
			}
		}
		return nil
	}
	if l == nil {
		return nil
	}
	return l.add(g)
}

// contribute adds g to the gradient of an edge.
func (w *Walk) contribute(e edge, g *tensor.Tensor) error {
	have := w.pending[e]
	if have != nil {
		sum, err := tensor.Add(have, g)
		w.pending[e] = sum
		return err
	}
	w.pending[e] = g
	v := visit{node: e.node, leaf: e.leaf}
	if e.leaf != nil {
		v.number = e.leaf.number
	} else {
		v.number = e.node.number
		for i := range e.node.outputs { // is it waiting for another of its outputs?
			if i != e.output && w.pending[edge{node: e.node, output: i}] != nil {
				return nil
			}
		}
	}
	heap.Push(&w.ready, v)
	return nil
}

// visits is a heap: nodes from the youngest to the oldest, then leaves in the order in which they were made.
type visits []visit

func (v visits) Len() int { return len(v) }

func (v visits) Less(i, j int) bool {
	a, b := v[i], v[j]
	switch {
	case (a.leaf == nil) != (b.leaf == nil):
		return a.leaf == nil
	case a.leaf != nil:
		return a.number < b.number
	}
	return a.number > b.number
}

func (v visits) Swap(i, j int) { v[i], v[j] = v[j], v[i] }

// Push is for container/heap.
func (v *visits) Push(x any) { *v = append(*v, x.(visit)) }

// Pop is for container/heap.
func (v *visits) Pop() any {
	s := *v
	x := s[len(s)-1]
	*v = s[:len(s)-1]
	return x
}
