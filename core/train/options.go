package train

import (
	"fmt"
)

// EngineOptions change what a training step computes. The zero value trains the model as it is run. Evaluation knows none of
// them: a loss that is reported for a text is that of the model which is saved.
//
// The JSON names are those of the Trainer's arguments in Python.
type EngineOptions struct {
	// Share of the elements of the embedding's output and of each residual branch that is dropped (Srivastava et al. 2014).
	Dropout float64 `json:"dropout,omitempty"`
	// Share of the attention probabilities that is dropped.
	AttentionDropout float64 `json:"attention_dropout,omitempty"`
	// Compute the activations of a transformer layer again in the backward pass instead of keeping them (Chen et al. 2016): the same
	// gradients to the bit, for a third more work and a fraction of the memory.
	GradientCheckpointing bool `json:"gradient_checkpointing,omitempty"`
}

// OptionError is an option with a value that cannot be. It matches ErrConfig.
type OptionError struct {
	Field    string // "dropout"
	Value    any
	Expected string // "a number in [0, 1)"
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("%v: %s = %v: expected %s", ErrConfig, e.Field, e.Value, e.Expected)
}

// Unwrap gives the sentinel.
func (e *OptionError) Unwrap() error { return ErrConfig }

// Validate returns an *OptionError for the first option that cannot be.
func (o EngineOptions) Validate() error {
	for _, f := range []struct {
		name  string
		value float64
	}{{"dropout", o.Dropout}, {"attention_dropout", o.AttentionDropout}} {
		if !(f.value >= 0 && f.value < 1) {
			return &OptionError{f.name, f.value, "a number in [0, 1)"}
		}
	}
	return nil
}
