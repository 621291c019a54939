package infer

import (
	"errors"
	"fmt"
	"math"
)

// Sentinels for errors.Is. Every error of this file but PanicError matches exactly one of them.
var (
	// ErrArgument marks a value that the caller chose and may correct.
	ErrArgument = errors.New("invalid argument")
	// ErrLogits marks logits from which no token can be chosen.
	ErrLogits = errors.New("invalid logits")
	// ErrQueueFull refuses a request because as many wait as may.
	ErrQueueFull = errors.New("the queue is full")
	// ErrCanceled ends a request that was canceled, or whose scheduler was closed.
	ErrCanceled = errors.New("the request was canceled")
	// ErrStopped ends a request whose reader had all that it wanted; it counts as finished.
	ErrStopped = errors.New("the request was stopped")
	// ErrDeadline ends a request whose deadline has passed.
	ErrDeadline = errors.New("the request's deadline has passed")
	// ErrShutdown refuses requests to a scheduler that closes.
	ErrShutdown = errors.New("the scheduler is closed")
)

// QueueFullError says how many requests are Waiting, and the Limit of them. errors.Is(err, ErrQueueFull) holds.
type QueueFullError struct{ Waiting, Limit int }

// Error has the number of requests that wait and the limit.
func (e *QueueFullError) Error() string {
	return fmt.Sprintf("%v: %d requests wait, max_queue = %d: try again later", ErrQueueFull, e.Waiting, e.Limit)
}

// Unwrap gives ErrQueueFull.
func (e *QueueFullError) Unwrap() error { return ErrQueueFull }

// PanicError is a defect that a scheduler met in a step.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // where
}

// Error has the value of the panic, without its stack.
func (e *PanicError) Error() string { return fmt.Sprintf("%v", e.Value) }

// Unwrap gives the panic's value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// ArgumentError says which argument was refused, what it was and what would have been accepted.
// errors.Is(err, ErrArgument) holds.
type ArgumentError struct {
	Field  string // name of the argument as the caller spelled it: "temperature", `logit_bias["7"]`
	Value  any    // what was given
	Reason string // what would be accepted: "expected a finite number >= 0"
}

// Error has the field, its value and what is accepted.
func (e *ArgumentError) Error() string {
	return fmt.Sprintf("%s = %v: %s", e.Field, e.Value, e.Reason)
}

// Unwrap gives ErrArgument.
func (e *ArgumentError) Unwrap() error { return ErrArgument }

// LogitsError says why logits cannot be sampled from. errors.Is(err, ErrLogits) holds.
type LogitsError struct {
	Index  int     // position of the first bad logit, -1 if the fault is not one logit's
	Value  float32 // the logit at Index, NaN if Index is -1
	Reason string  // what is wrong with it
}

// Error has the token and its logit, if it is one that is to blame, and the reason.
func (e *LogitsError) Error() string {
	if e.Index < 0 {
		return "logits: " + e.Reason
	}
	return fmt.Sprintf("logits[%d] = %v: %s", e.Index, e.Value, e.Reason)
}

// Unwrap gives ErrLogits.
func (e *LogitsError) Unwrap() error { return ErrLogits }

func badLogit(index int, value float32) error {
	return &LogitsError{Index: index, Value: value, Reason: "expected a finite number or -inf"}
}

func badLogits(format string, args ...any) error {
	return &LogitsError{Index: -1, Value: float32(math.NaN()), Reason: fmt.Sprintf(format, args...)}
}
