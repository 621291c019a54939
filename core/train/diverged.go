package train

import (
	"context"
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// DivergenceError says where the numbers of a step stopped being finite. It matches ErrDiverged.
type DivergenceError struct {
	Step   int     // the update that was being computed, from 1; 0 when unknown
	Layer  int     // index of the transformer layer; -1 outside of all
	Kind   string  // "weight", "activation", "loss" or "gradient"
	Tensor string  // "model.layers.0.mlp.up_proj.weight"; of an activation the module whose output it is; "" for the loss
	Index  int     // of the first such element of the flattened tensor
	Value  float64 // infinite or NaN
}

// Error has the update, the layer, the tensor and its first value that is not finite, as far as they are known.
func (e *DivergenceError) Error() string {
	s := ErrDiverged.Error() + ": "
	if e.Step > 0 {
		s += fmt.Sprintf("step %d: ", e.Step)
	}
	if e.Layer >= 0 {
		s += fmt.Sprintf("layer %d: ", e.Layer)
	}
	s += e.Kind
	if e.Tensor != "" {
		s += fmt.Sprintf(" %s[%d]", e.Tensor, e.Index)
	}
	return s + fmt.Sprintf(" is %v", e.Value)
}

// Unwrap gives the sentinel.
func (e *DivergenceError) Unwrap() error { return ErrDiverged }

// CheckGradients returns a *DivergenceError for the last parameter, in the order of a forward pass, whose gradient is not
// finite: the one that a backward pass reached first. It is nil when all are.
func (e *Engine) CheckGradients(step int) error {
	for i := len(e.params) - 1; i >= 0; i-- {
		if err := notFinite(step, "gradient", e.params[i], e.params[i].Grad); err != nil {
			return err
		}
	}
	return nil
}

// Diagnose says why the loss or the gradients of b are not finite: it returns a *DivergenceError for the first weight, or
// else the first output of a module in a repeated forward pass, or the loss, or the gradient, that is not. The step's dropout
// is that of SetStep. It is nil when all are finite. Gradients are looked at as they are, not computed again.
func (e *Engine) Diagnose(ctx context.Context, b Batch, step int) error {
	for _, p := range e.params {
		if err := notFinite(step, "weight", p, p.Data); err != nil {
			return err
		}
	}
	var found error
	e.ctx.Inspect = func(module string, x *tensor.Tensor) {
		if i, ok := firstNotFinite(x.Float32s()); ok && found == nil {
			found = &DivergenceError{step, model.LayerOf(module), "activation", module, i, float64(x.Float32s()[i])}
		}
	}
	defer func() { e.ctx.Inspect = nil }()
	var score Score
	err := e.run(ctx, b, pass{training: true}, &score)
	loss := score.Loss()
	switch {
	case found != nil:
		return found
	case err != nil:
		return err
	case math.IsNaN(loss) || math.IsInf(loss, 0):
		return &DivergenceError{Step: step, Layer: -1, Kind: "loss", Value: loss}
	}
	return e.CheckGradients(step)
}

func notFinite(step int, kind string, p *autograd.Param, values []float32) error {
	i, ok := firstNotFinite(values)
	if !ok {
		return nil
	}
	return &DivergenceError{step, model.LayerOf(p.Name), kind, p.Name, i, float64(values[i])}
}

// firstNotFinite finds an infinity or NaN: an exponent of ones.
func firstNotFinite(x []float32) (int, bool) {
	for i, v := range x {
		if math.Float32bits(v)&0x7f800000 == 0x7f800000 {
			return i, true
		}
	}
	return 0, false
}
