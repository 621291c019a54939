package autograd

import (
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Memory supplies the tensors that gradients live in and takes them back.
type Memory interface {
	// New returns an uninitialized float32 tensor [rows, cols].
	New(rows, cols int) *tensor.Tensor
	// Free takes back what New returned; nothing uses it any more.
	Free(t *tensor.Tensor)
}

// Op is a recorded operation.
type Op interface {
	// Backward reads the gradients of the operation's outputs with Tape.Take and gives those of its inputs to Tape.Add.
	// It also frees what the operation kept.
	Backward(t *Tape)
}

// Tape is the record of one forward pass. It serves one goroutine.
type Tape struct {
	mem   Memory
	ops   []Op
	grads map[*tensor.Tensor]grad
	busy  bool // walking
}

type grad struct {
	t      *tensor.Tensor
	shared bool // belongs to another value's entry too, which frees it
}

// NewTape returns an empty tape whose gradients live in mem.
func NewTape(mem Memory) *Tape { return &Tape{mem: mem, grads: map[*tensor.Tensor]grad{}} }

// Record appends an operation.
func (t *Tape) Record(op Op) { t.ops = append(t.ops, op) }

// Len is the number of recorded operations.
func (t *Tape) Len() int { return len(t.ops) }

// Memory is where gradients live.
func (t *Tape) Memory() Memory { return t.mem }

// Add adds g to the gradient of x. The tape owns g from here on.
func (t *Tape) Add(x, g *tensor.Tensor) {
	have, ok := t.grads[x]
	if !ok {
		t.grads[x] = grad{t: g}
		return
	}
	if have.shared {
		panic("autograd: a value with a shared gradient is used twice")
	}
	a, b := have.t.Float32s(), g.Float32s()
	if len(a) != len(b) {
		panic(fmt.Sprintf("autograd: gradient of %d elements for a value of %d", len(b), len(a)))
	}
	for i, v := range b {
		a[i] += v
	}
	t.mem.Free(g)
}

// Sum returns the gradient of x so far, for operations that add to it in place, or nil when there is none.
func (t *Tape) Sum(x *tensor.Tensor) *tensor.Tensor {
	if have := t.grads[x]; !have.shared {
		return have.t
	}
	return nil
}

// Share makes the gradient of x the gradient of y too, as for the two terms of a sum: y is a value nothing else uses,
// and the operation that made it takes the gradient before anything adds to that of x.
func (t *Tape) Share(x, y *tensor.Tensor) {
	t.grads[y] = grad{t: t.grads[x].t, shared: true}
}

// Move makes the gradient of x that of y.
func (t *Tape) Move(x, y *tensor.Tensor) {
	g, ok := t.grads[x]
	if !ok {
		return
	}
	delete(t.grads, x)
	if g.shared {
		panic("autograd: a shared gradient cannot move")
	}
	t.Add(y, g.t)
}

// Take returns the gradient of an output, or nil when nothing depends on it. The caller gives it back with Done.
func (t *Tape) Take(x *tensor.Tensor) *tensor.Tensor { return t.grads[x].t }

// Done forgets the gradient of an output after its last use.
func (t *Tape) Done(x *tensor.Tensor) {
	g, ok := t.grads[x]
	if !ok {
		return
	}
	delete(t.grads, x)
	if !g.shared {
		t.mem.Free(g.t)
	}
}

// Backward walks the record from last to first and empties it. The gradients of the values it starts from have been
// given with Add. What is left of gradients belongs to values that no recorded operation made: inputs.
func (t *Tape) Backward() { _ = t.BackwardUntil(func() error { return nil }) }

// BackwardUntil is Backward as long as stop returns nil, which is asked before every operation. Its error ends the walk;
// gradients are incomplete then and the record wants a Reset.
func (t *Tape) BackwardUntil(stop func() error) error {
	if t.busy {
		panic("autograd: Backward within Backward")
	}
	t.busy = true
	defer func() { t.busy = false }()
	for n := len(t.ops); n > 0; n = len(t.ops) {
		if err := stop(); err != nil {
			return err
		}
		op := t.ops[n-1]
		t.ops[n-1] = nil
		t.ops = t.ops[:n-1]
		op.Backward(t)
	}
	return nil
}

// Reset empties the tape without walking it, as after a failed step.
func (t *Tape) Reset() {
	clear(t.ops)
	t.ops = t.ops[:0]
	clear(t.grads)
}
