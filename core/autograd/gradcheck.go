package autograd

import (
	"context"
	"math"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// CheckOptions are the tolerances of GradCheck. Zero fields take the defaults.
type CheckOptions struct {
	Eps  float64 // step of the differences, 1/64
	Atol float64 // absolute tolerance, 1e-3
	Rtol float64 // relative tolerance, 1e-2
}

func (o CheckOptions) withDefaults() CheckOptions {
	for _, f := range []struct {
		field *float64
		value float64
	}{{&o.Eps, 1.0 / 64}, {&o.Atol, 1e-3}, {&o.Rtol, 1e-2}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return o
}

// GradCheck compares the gradients that Backward computes for f at inputs with central differences of fourth order,
//
//	(8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12h
//
// Outputs are weighted by fixed numbers and summed in float64, so that one pass checks all of them; values are float32, as
// tensors have no float64, which is why the step is large and the order high. f is called several times with the same inputs,
// of which one element at a time has been moved, and must not depend on anything else; within 2 eps of a kink, as that of
// relu at 0, differences say nothing. Inputs that require a gradient are checked; they must be float32 leaves.
//
// What disagrees is a *CheckError that names the worst element.
func GradCheck(f func(inputs []*GradTensor) ([]*GradTensor, error), inputs []*GradTensor, o CheckOptions) error {
	o = o.withDefaults()
	var checked []*GradTensor
	for i, t := range inputs {
		if !t.RequiresGrad() {
			continue
		}
		if _, err := t.Param(); err != nil {
			return errorf(err, "gradient check: input %d: %v", i, err)
		}
		checked = append(checked, t)
	}
	if len(checked) == 0 {
		return errorf(ErrNoGrad, "gradient check: no input requires a gradient")
	}
	outputs, weights, err := weigh(f, inputs)
	if err != nil {
		return err
	}
	analytic, err := Gradients(context.Background(), outputs, weights, checked, false)
	if err != nil {
		return err
	}
	at := 0
	for i, t := range inputs {
		if !t.RequiresGrad() {
			continue
		}
		if err := o.check(f, inputs, weights, i, analytic[at]); err != nil {
			return err
		}
		at++
	}
	return nil
}

// weigh runs f and chooses the weights of its float outputs that have a history: numbers in [0.5, 1.5) without a pattern
// that a gradient could have too.
func weigh(f func([]*GradTensor) ([]*GradTensor, error), inputs []*GradTensor) (outputs []*GradTensor, weights []*tensor.Tensor, err error) {
	all, err := f(inputs)
	if err != nil {
		return nil, nil, err
	}
	n := 0
	for _, t := range all {
		if !t.RequiresGrad() {
			continue
		}
		w := make([]float32, t.data.Len())
		for i := range w {
			_, fraction := math.Modf(float64(float64(n) * 0.6180339887498949))
			w[i] = float32(0.5 + fraction)
			n++
		}
		wt, err := tensor.FromFloat32(w, t.data.Shape()...)
		if err != nil {
			return nil, nil, err
		}
		outputs, weights = append(outputs, t), append(weights, wt)
	}
	if len(outputs) == 0 {
		return nil, nil, errorf(ErrNoGrad, "gradient check: no output depends on an input that requires a gradient")
	}
	return outputs, weights, nil
}

func (o CheckOptions) check(f func([]*GradTensor) ([]*GradTensor, error), inputs []*GradTensor, weights []*tensor.Tensor, i int, analytic *tensor.Tensor) error {
	x := inputs[i].data.Float32s()
	var grad []float32
	if analytic != nil {
		c, err := analytic.Contiguous()
		if err != nil {
			return err
		}
		grad = c.Float32s()
	}
	bad := &CheckError{Input: i, Elements: len(x), Atol: o.Atol, Rtol: o.Rtol}
	worst := 0.0
	for j, v := range x {
		value := func(step float64) (float64, error) {
			x[j] = float32(float64(v) + step)
			inputs[i].Changed()
			defer func() { x[j] = v; inputs[i].Changed() }()
			return weighted(f, inputs, weights)
		}
		var d [4]float64
		for k, step := range [4]float64{o.Eps, -o.Eps, 2 * o.Eps, -2 * o.Eps} {
			var err error
			if d[k], err = value(step); err != nil {
				return err
			}
		}
		// The steps that were made, as float32 has them.
		h := (float64(float32(float64(v)+o.Eps)) - float64(float32(float64(v)-o.Eps))) / 2
		numeric := (float64(8*(d[0]-d[1])) - (d[2] - d[3])) / (12 * h)
		var a float64
		if grad != nil {
			a = float64(grad[j])
		}
		excess := math.Abs(a-numeric) - (o.Atol + float64(o.Rtol*math.Abs(numeric)))
		if excess > 0 || excess != excess {
			bad.Wrong++
			if excess != excess {
				excess = math.Inf(1)
			}
			if excess > worst {
				worst, bad.Analytic, bad.Numeric, bad.Index = excess, a, numeric, position(j, inputs[i].data.Shape())
			}
		}
	}
	if bad.Wrong > 0 {
		return bad
	}
	return nil
}

// weighted is the weighted sum of the outputs.
func weighted(f func([]*GradTensor) ([]*GradTensor, error), inputs []*GradTensor, weights []*tensor.Tensor) (float64, error) {
	all, err := f(inputs)
	if err != nil {
		return 0, err
	}
	sum, k := 0.0, 0
	for _, t := range all {
		if !t.RequiresGrad() {
			continue
		}
		y, err := t.data.Cast(tensor.Float32)
		if err == nil {
			y, err = y.Contiguous()
		}
		if err != nil {
			return 0, err
		}
		w := weights[k].Float32s()
		for j, v := range y.Float32s() {
			sum += float64(float64(w[j]) * float64(v))
		}
		k++
		t.Release()
	}
	return sum, nil
}

// position is the index of element i of a shape.
func position(i int, shape []int) []int {
	at := make([]int, len(shape))
	for a := len(shape) - 1; a >= 0; a-- {
		at[a] = i % shape[a]
		i /= shape[a]
	}
	return at
}
