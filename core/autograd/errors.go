package autograd

import (
	"errors"
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Sentinels for errors.Is. Errors of shapes, dtypes and memory are those of core/tensor.
var (
	// ErrNoGrad marks a backward pass from a value that depends on nothing that requires a gradient, and similar.
	ErrNoGrad = errors.New("autograd: no gradient is required")
	// ErrFreed marks a second backward pass over a graph that was not retained.
	ErrFreed = errors.New("autograd: the graph was freed")
	// ErrChanged marks a value that a backward pass needs and that was changed in place since.
	ErrChanged = errors.New("autograd: a value was changed in place")
	// ErrInPlace marks an in-place change that cannot be recorded.
	ErrInPlace = errors.New("autograd: in-place change")
	// ErrGradient marks a gradient, given by a caller or a hook, that does not fit its value.
	ErrGradient = errors.New("autograd: gradient does not fit")
	// ErrNotLeaf marks what is possible for leaves only.
	ErrNotLeaf = errors.New("autograd: not a leaf")
	// ErrCheck marks a gradient that disagrees with central differences. See [CheckError].
	ErrCheck = errors.New("autograd: gradient check failed")
)

// graphError is a message of a kind; the kind is found by errors.Is and not repeated in the text.
type graphError struct {
	text string
	kind error
}

func (e *graphError) Error() string { return "autograd: " + e.text }
func (e *graphError) Unwrap() error { return e.kind }

func errorf(kind error, format string, args ...any) error {
	return &graphError{fmt.Sprintf(format, args...), kind}
}

// text is a shape in a message.
func text(shape []int) string { return tensor.ShapeText(shape) }

// CheckError says where a gradient disagrees with central differences. errors.Is(err, ErrCheck) holds.
type CheckError struct {
	Input    int     // which input
	Index    []int   // of the element with the largest excess over the tolerance
	Analytic float64 // what the backward pass says
	Numeric  float64 // what differences say
	Wrong    int     // how many of the input's elements exceed the tolerance
	Elements int     // how many the input has
	Atol     float64 // the tolerance is Atol + Rtol * |Numeric|
	Rtol     float64 // see Atol
}

// Error has the worst element, both of its gradients and the tolerances.
func (e *CheckError) Error() string {
	return fmt.Sprintf("autograd: gradient check: input %d: %d of %d elements are wrong, the worst at %s: backward says %.6g, central differences %.6g (atol %g, rtol %g)",
		e.Input, e.Wrong, e.Elements, text(e.Index), e.Analytic, e.Numeric, e.Atol, e.Rtol)
}

// Unwrap gives ErrCheck.
func (e *CheckError) Unwrap() error { return ErrCheck }
