package autograd

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Function is a recorded operation of a graph.
type Function interface {
	// Name is how errors and users call it: "matmul".
	Name() string
	// Backward returns the gradients of the operation's inputs. Where an input wants none, nil will do; a gradient may have
	// the broadcast shape or another float dtype, and may share memory with those given.
	Backward(b *Backward) ([]*tensor.Tensor, error)
	// Release gives back what the operation kept. Backward is not called afterwards.
	Release()
}

// Backward is what a Function is asked for.
type Backward struct {
	Ctx    context.Context  // ends it early
	Grads  []*tensor.Tensor // of the outputs; nil where nothing depends on one. They are not to be written to.
	Want   []bool           // which inputs want a gradient
	Retain bool             // Backward will be called again
	Apart  bool             // return every gradient: no leaf may change
}

// sequence numbers nodes and leaves: a node is younger than all it depends on.
var sequence atomic.Uint64

// node is an operation of the graph.
type node struct {
	number  uint64
	outputs []output
	refs    atomic.Int64 // tensors and nodes that hold it
	unheld  atomic.Bool  // refs came to nothing

	mu     sync.Mutex
	fn     Function
	inputs []edge
	metas  []meta // shapes and dtypes of the inputs
	saved  []savedValue
	done   bool
}

// edge leads a gradient from the input of a node to what made the input.
type edge struct {
	node   *node
	output int
	leaf   *leaf
}

func (e edge) wanted() bool { return e.node != nil || e.leaf != nil }

type meta struct {
	shape []int
	dtype tensor.DType
}

func metaOf(t *tensor.Tensor) meta { return meta{t.Shape(), t.DType()} }

type output struct {
	meta
	hooks hooks
	keep  atomic.Pointer[leaf] // of RetainGrad
}

// savedValue is a value that the node needs as it was.
type savedValue struct {
	storage *storage
	version int64
	meta
}

// Record makes the results of fn nodes of the graph, whose inputs are operands. saved are values that fn keeps and that
// must not change until its Backward. Results that are no floats get no history.
func Record(fn Function, operands []*GradTensor, results []*GradTensor, saved ...*GradTensor) {
	n := &node{number: sequence.Add(1), fn: fn, inputs: make([]edge, len(operands)), metas: make([]meta, len(operands)), outputs: make([]output, len(results))}
	for i, t := range operands {
		n.inputs[i], n.metas[i] = t.edge(), metaOf(t.data)
		if from := n.inputs[i].node; from != nil {
			from.refs.Add(1)
		}
	}
	for _, t := range saved {
		n.saved = append(n.saved, savedValue{t.storage, t.Version(), metaOf(t.data)})
	}
	for i, t := range results {
		n.outputs[i].meta = metaOf(t.data)
		if t.data.DType().IsFloat() {
			t.mu.Lock()
			t.node, t.output = n, i
			n.refs.Add(1)
			t.mu.Unlock()
		}
	}
}

// unref ends one hold; the last gives back what the node kept.
func (n *node) unref() {
	for stack := []*node{n}; len(stack) > 0; {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if n.refs.Add(-1) == 0 {
			n.unheld.Store(true)
			stack = append(stack, n.freeUnheld()...)
		}
	}
}

// freeUnheld frees a node that nobody holds any more. It does not wait for a backward pass that runs the node, which frees it
// then: the pass may be the caller's own, when a signal handler drops a tensor.
func (n *node) freeUnheld() (held []*node) {
	if n.unheld.Load() && n.mu.TryLock() {
		defer n.mu.Unlock()
		return n.freeLocked()
	}
	return nil
}

// freeLocked drops what the node kept and returns the nodes that it held.
func (n *node) freeLocked() (held []*node) {
	if n.done {
		return nil
	}
	n.done = true
	n.fn.Release()
	for _, e := range n.inputs {
		if e.node != nil {
			held = append(held, e.node)
		}
	}
	n.inputs, n.saved = nil, nil
	return held
}

func (n *node) retain(i int, l *leaf) { n.outputs[i].keep.CompareAndSwap(nil, l) }

func (n *node) retained(i int) *leaf { return n.outputs[i].keep.Load() }

// run computes the gradients of the inputs and returns where they go. Unless the graph is retained it frees the node too and
// returns the nodes that it held.
func (n *node) run(b *Backward) (to []edge, gs []*tensor.Tensor, held []*node, err error) {
	n.mu.Lock()
	defer func() {
		n.mu.Unlock()
		held = append(held, n.freeUnheld()...)
	}()
	if n.done {
		return nil, nil, nil, errorf(ErrFreed, "backward through %s a second time: what it kept was freed, pass retain_graph=True the first time", n.fn.Name())
	}
	for _, s := range n.saved {
		if now := s.storage.version.Load(); now != s.version {
			return nil, nil, nil, errorf(ErrChanged, "%s needs a %s value of shape %s as it was, but it was changed in place since (version %d, expected %d)",
				n.fn.Name(), s.dtype, text(s.shape), now, s.version)
		}
	}
	to = n.inputs
	b.Want = make([]bool, len(to))
	for i, e := range to {
		b.Want[i] = e.wanted()
	}
	if gs, err = n.fn.Backward(b); err != nil {
		return nil, nil, nil, err
	}
	for i, g := range gs {
		if g == nil || !b.Want[i] {
			gs[i] = nil
		} else if gs[i], err = n.metas[i].fit(g); err != nil {
			return nil, nil, nil, err
		}
	}
	if !b.Retain {
		held = n.freeLocked()
	}
	return to, gs, held, nil
}

// fit sums a gradient over broadcast axes and casts it to the dtype of its value.
func (m meta) fit(g *tensor.Tensor) (*tensor.Tensor, error) {
	shape := g.Shape()
	lead := len(shape) - len(m.shape)
	var axes []int
	for i, n := range shape {
		if i < lead || m.shape[i-lead] == 1 && n != 1 {
			axes = append(axes, i)
		}
	}
	var err error
	if len(axes) > 0 {
		if g, err = tensor.Sum(g, axes, true); err == nil && lead > 0 {
			g, err = g.Reshape(m.shape...)
		}
	}
	if err == nil && g.DType() != m.dtype {
		g, err = g.Cast(m.dtype)
	}
	return g, err
}
