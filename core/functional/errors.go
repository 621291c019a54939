package functional

import (
	"errors"
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Sentinels for errors.Is; errors of shapes and dtypes are those of core/tensor.
var (
	// ErrArgument marks a parameter of an operation that is out of its range.
	ErrArgument = errors.New("functional: bad argument")
	// ErrBusy is the error of a backward pass while the model is trained otherwise.
	ErrBusy = errors.New("functional: the model is being trained by another call")
)

// callError is a message of a kind; the kind is found by errors.Is and not repeated in the text.
type callError struct {
	text string
	kind error
}

func (e *callError) Error() string { return e.text }
func (e *callError) Unwrap() error { return e.kind }

func argumentError(format string, args ...any) error {
	return &callError{fmt.Sprintf(format, args...), ErrArgument}
}

// shapeError writes shapes among its arguments as Python does.
func shapeError(format string, args ...any) error {
	for i, a := range args {
		if shape, ok := a.([]int); ok {
			args[i] = tensor.ShapeText(shape)
		}
	}
	return &callError{fmt.Sprintf(format, args...), tensor.ErrShape}
}

// checked refuses a number that is not finite or not ok.
func checked(name string, v float64, ok bool, expected string) error {
	if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
		return argumentError("%s = %v: expected %s", name, v, expected)
	}
	return nil
}

// share checks a probability, which float32 must be able to tell from 1.
func share(name string, p float64) error {
	return checked(name, p, p >= 0 && float32(p) < 1, "0 <= "+name+" < 1")
}
