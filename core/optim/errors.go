package optim

import (
	"errors"
	"fmt"
)

// Sentinels for errors.Is. Every error of this package matches exactly one of them, or comes from the memory pool.
var (
	// ErrArgument marks a value that the caller chose and may correct.
	ErrArgument = errors.New("optim: invalid argument")
	// ErrState marks saved state that does not fit the object that loads it.
	ErrState = errors.New("optim: state does not fit")
	// ErrNonFinite marks gradients with an infinity or a NaN.
	ErrNonFinite = errors.New("optim: gradient is not finite")
	// ErrOrder is returned when a GradScaler's methods are called in an order that would scale twice or not at all.
	ErrOrder = errors.New("optim: grad scaler used out of order")
	// ErrClosed is returned by methods of a closed optimizer.
	ErrClosed = errors.New("optim: optimizer is closed")
)

// ArgumentError says which argument was refused, what it was and what would have been accepted.
// errors.Is(err, ErrArgument) holds.
type ArgumentError struct {
	Field  string // "lr", "groups[1].betas[0]", "total_steps"
	Value  any    // what was given
	Reason string // what would be accepted: "expected a finite number >= 0"
}

// Error has the field, its value and the reason.
func (e *ArgumentError) Error() string {
	return fmt.Sprintf("optim: %s = %v: %s", e.Field, e.Value, e.Reason)
}

// Unwrap gives ErrArgument.
func (e *ArgumentError) Unwrap() error { return ErrArgument }

// StateError says which part of a saved state does not fit. errors.Is(err, ErrState) holds.
type StateError struct {
	Field    string // `state[3].exp_avg`, `param_groups[0].lr`, "step"
	Value    any    // what was found
	Expected string // what should have been
}

// Error has the field, what it holds and what was expected.
func (e *StateError) Error() string {
	return fmt.Sprintf("optim: saved state: %s: found %v, expected %s", e.Field, e.Value, e.Expected)
}

// Unwrap gives ErrState.
func (e *StateError) Unwrap() error { return ErrState }

// NonFiniteError names the first gradient that is infinite or NaN. errors.Is(err, ErrNonFinite) holds.
type NonFiniteError struct {
	Param string  // the parameter's name, "params[i]" if it has none
	Index int     // element of the flattened gradient
	Value float32 // infinite or NaN
}

// Error has the parameter, the element and its value.
func (e *NonFiniteError) Error() string {
	return fmt.Sprintf("optim: gradient of %s is %v at element %d, expected a finite number", e.Param, e.Value, e.Index)
}

// Unwrap gives ErrNonFinite.
func (e *NonFiniteError) Unwrap() error { return ErrNonFinite }
