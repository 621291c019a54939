// Package autograd is reverse-mode differentiation (Wengert 1964; Griewank and Walther 2008). It has two records of a
// computation, for two kinds of callers, over one set of operations.
//
// # The tape
//
// While a [Tape] is attached to a computation, every operation of core/nn records how the gradient of its outputs becomes
// gradients of its inputs, and keeps what it needs for that. [Tape.Backward] walks the records from last to first.
// Without a tape the same operations record nothing and keep nothing: training and inference share one definition.
// Values are plain tensors in the memory of one planned step. A tape knows gradients by the tensor they belong to, for as
// long as it needs them: the gradient of an intermediate value is handed to the one operation that made the value and is
// gone afterwards. Weights are [Param]s and have gradients that stay. This is the fast path: the program is known, each
// value has few uses, and nobody outside sees it.
//
// # The graph
//
// A [GradTensor] is a tensor whose history is kept, for programs that are written by a user line by line. [Mode.Call] runs
// an operation of core/tensor by name and adds a node to a graph; [GradTensor.Backward] walks the nodes that lead to it.
// Values may be used any number of times, seen as views, kept beyond the step and changed in place; the graph checks what
// a tape may take for granted. Gradient rules (rules*.go) are themselves made of the operations of core/tensor.
//
// The two meet in [Function], the operation of a node. Most nodes are a rule; a node can just as well hold a whole tape: the
// layers of core/nn, and a whole model, run as one node that keeps their step open until the gradients of its outputs are
// there (core/functional). So there is one implementation of each operation, and no second model.
//
// # What a graph promises
//
//   - Gradients of leaves ([GradTensor.RequireGrad]) add up over backward passes until [GradTensor.SetGrad].
//   - The values of a backward pass depend neither on threads nor on the order in which a graph's tensors were released:
//     nodes run from the youngest to the oldest, and contributions to one value are added in that order.
//   - Broadcast operands get gradients summed to their shape, in their dtype.
//   - A backward pass drops what the nodes kept, unless it retains the graph; a second one is then [ErrFreed].
//   - A value that a node kept and that was changed since is [ErrChanged], however the change was made: views share a
//     count of changes.
//   - Graphs may be built and walked from several goroutines at once, also when they share leaves.
//   - Gradients have no history: there are no second derivatives.
package autograd
