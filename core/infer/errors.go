package infer

import (
	"errors"
	"fmt"
	"math"
)

// Sentinels for errors.Is. Every error of this file matches exactly one of them.
var (
	// ErrArgument marks a value that the caller chose and may correct.
	ErrArgument = errors.New("invalid argument")
	// ErrLogits marks logits from which no token can be chosen.
	ErrLogits = errors.New("invalid logits")
)

// ArgumentError says which argument was refused, what it was and what would have been accepted.
// errors.Is(err, ErrArgument) holds.
type ArgumentError struct {
	Field  string // name of the argument as the caller spelled it: "temperature", `logit_bias["7"]`
	Value  any    // what was given
	Reason string // what would be accepted: "expected a finite number >= 0"
}

func (e *ArgumentError) Error() string {
	return fmt.Sprintf("%s = %v: %s", e.Field, e.Value, e.Reason)
}

func (e *ArgumentError) Unwrap() error { return ErrArgument }

// LogitsError says why logits cannot be sampled from. errors.Is(err, ErrLogits) holds.
type LogitsError struct {
	Index  int     // position of the first bad logit, -1 if the fault is not one logit's
	Value  float32 // the logit at Index, NaN if Index is -1
	Reason string
}

func (e *LogitsError) Error() string {
	if e.Index < 0 {
		return "logits: " + e.Reason
	}
	return fmt.Sprintf("logits[%d] = %v: %s", e.Index, e.Value, e.Reason)
}

func (e *LogitsError) Unwrap() error { return ErrLogits }

func badLogit(index int, value float32) error {
	return &LogitsError{Index: index, Value: value, Reason: "expected a finite number or -inf"}
}

func badLogits(format string, args ...any) error {
	return &LogitsError{Index: -1, Value: float32(math.NaN()), Reason: fmt.Sprintf(format, args...)}
}
