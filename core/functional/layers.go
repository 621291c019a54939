package functional

import (
	"context"
	"maps"
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// rmsNorm is nn.Norm of x [..., dim] with weight [dim].
func rmsNorm(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, p *Params) (*autograd.GradTensor, error) {
	data, dim, err := normOperands(x, p, "weight")
	if err != nil {
		return nil, err
	}
	op := &operation{name: "rms_norm", again: true, key: planKey("rms_norm", data), x: data, out: data[0].Shape()}
	op.forward = func(s *step) *tensor.Tensor {
		w := s.param(1)
		norm := nn.Norm{Weight: w.Data, Eps: float32(p.Eps), Param: w}
		return norm.Forward(s.ctx, s.see(0, dim))
	}
	return op.run(ctx, m, x)
}

// layerNorm is nn.Norm with Center of x [..., dim] with weight and bias [dim].
func layerNorm(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, p *Params) (*autograd.GradTensor, error) {
	data, dim, err := normOperands(x, p, "weight", "bias")
	if err != nil {
		return nil, err
	}
	op := &operation{name: "layer_norm", again: true, key: planKey("layer_norm", data), x: data, out: data[0].Shape()}
	op.forward = func(s *step) *tensor.Tensor {
		w, b := s.param(1), s.param(2)
		norm := nn.Norm{Center: true, Weight: w.Data, Bias: b.Data, Eps: float32(p.Eps), Param: w, BiasParam: b}
		return norm.Forward(s.ctx, s.see(0, dim))
	}
	return op.run(ctx, m, x)
}

// normOperands checks the operands of a norm: x [..., dim], and vectors [dim] of the given names.
func normOperands(x []*autograd.GradTensor, p *Params, vectors ...string) (data []*tensor.Tensor, dim int, err error) {
	if data, err = floats(x); err != nil {
		return nil, 0, err
	}
	if dim, err = lastAxis(data[0]); err != nil {
		return nil, 0, err
	}
	for i, name := range vectors {
		if shape := data[i+1].Shape(); !slices.Equal(shape, []int{dim}) {
			return nil, 0, shapeError("%s has shape %v, expected (%d,) for x %v", name, shape, dim, data[0].Shape())
		}
	}
	return data, dim, checked("eps", p.Eps, p.Eps >= 0, "a finite number >= 0")
}

// linear is a layer whose weight [out, in] stays float32, applied to x [..., in], with the products of models' layers that are not
// ternary and of their heads.
func linear(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, _ *Params) (*autograd.GradTensor, error) {
	return project(ctx, m, "linear", false, x, nn.Training{})
}

// bitLinear is the ternary layer of BitNet b1.58: x [..., in] quantized to int8 by row, weight [out, in] to ternary, gradients by a
// straight-through estimator.
func bitLinear(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, p *Params) (*autograd.GradTensor, error) {
	ste, ok := nn.Estimators[p.STE]
	if !ok || ste == nn.STELearnedScale {
		return nil, argumentError("ste = %q: expected \"identity\", \"clipped\" or \"soft\"", p.STE)
	}
	if err := checked("clip", p.Clip, p.Clip > 0, "a finite number > 0"); err != nil {
		return nil, err
	}
	if err := checked("temperature", p.Temperature, p.Temperature > 0, "a finite number > 0"); err != nil {
		return nil, err
	}
	return project(ctx, m, "bit_linear", true, x, nn.Training{STE: ste, Clip: float32(p.Clip), Temperature: float32(p.Temperature)})
}

// project applies a weight [out, in] to x [..., in].
func project(ctx context.Context, m autograd.Mode, name string, ternary bool, x []*autograd.GradTensor, t nn.Training) (*autograd.GradTensor, error) {
	data, err := floats(x)
	if err != nil {
		return nil, err
	}
	in, err := lastAxis(data[0])
	if err != nil {
		return nil, err
	}
	if w := data[1].Shape(); len(w) != 2 || w[1] != in || w[0] == 0 {
		return nil, shapeError("weight has shape %v, expected (out, %d) for x %v", w, in, data[0].Shape())
	}
	if rows := data[0].Len() / in; ternary && rows > nn.MaxGradRows && m.Wanted(x...) {
		return nil, shapeError("x %v has %d rows, expected at most %d where gradients are recorded", data[0].Shape(), rows, nn.MaxGradRows)
	}
	prepared, err := prepare(x[1], data[1], ternary)
	if err != nil {
		return nil, err
	}
	op := &operation{name: name, key: planKey(name, data), x: data, out: append(slices.Clone(data[0].Shape()[:data[0].NDim()-1]), data[1].Dim(0)), training: t}
	op.forward = func(s *step) *tensor.Tensor {
		l := *prepared // shared by steps, whose gradients are apart
		l.Weight = s.param(1)
		return nn.Project(s.ctx, s.see(0, in), nil, &l)[0]
	}
	return op.run(ctx, m, x)
}

// prepare makes of a weight w [out, in], the values of t, what kernels multiply with: ternary codes or float panels. They are kept with the
// tensor until that changes.
func prepare(t *autograd.GradTensor, w *tensor.Tensor, ternary bool) (*nn.Linear, error) {
	kind := "linear"
	if ternary {
		kind = "bit_linear"
	}
	l, err := t.Derived(kind, func() (any, error) {
		l := nn.NewTrainable(ternary, w.Dim(0), w.Dim(1))
		l.Weight = &autograd.Param{Name: "weight", Shape: w.Shape(), Data: w.Float32s()}
		return l, l.Refresh()
	})
	if err != nil {
		return nil, err
	}
	return l.(*nn.Linear), nil
}

// rope turns the heads of x [batch, length, heads, head_dim] by their positions.
func rope(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, p *Params) (*autograd.GradTensor, error) {
	data, err := floats(x)
	if err != nil {
		return nil, err
	}
	shape := data[0].Shape()
	switch {
	case len(shape) != 4:
		return nil, shapeError("x has shape %v, expected (batch, length, heads, head_dim)", shape)
	case shape[3]%2 != 0:
		return nil, shapeError("head_dim of x %v is odd: halves of a head turn together", shape)
	case data[0].Len() == 0:
		return nil, shapeError("x %v is empty", shape)
	case p.Offset < 0 || p.Offset > math.MaxInt32-shape[1]:
		return nil, argumentError("offset = %d: expected 0 or more, and positions below 2^31", p.Offset)
	}
	if err := checked("theta", p.Theta, p.Theta > 0, "a finite number > 0"); err != nil {
		return nil, err
	}
	turns, err := nn.NewRoPE(shape[3], p.Theta, p.Scaling)
	if err != nil {
		return nil, argumentError("%v", err)
	}
	op := &operation{name: "rope", again: true, key: planKey("rope", data), x: data, out: shape}
	for b := range shape[0] {
		for i := range shape[1] {
			op.rows = append(op.rows, nn.Row{Seq: int32(b), Pos: int32(p.Offset + i)})
		}
	}
	op.forward = func(s *step) *tensor.Tensor {
		y := s.own(0, shape[2]*shape[3])
		nn.Rotate(s.ctx, y, turns.Angles(s.ctx), shape[3])
		return y
	}
	return op.run(ctx, m, x)
}

// gated is act(gate) * up, of equal shapes.
func gated(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, p *Params) (*autograd.GradTensor, error) {
	data, dim, act, err := activationOperands(x, p)
	if err != nil {
		return nil, err
	}
	op := &operation{name: "gated", again: true, key: planKey("gated", data, int(act)), x: data, out: data[0].Shape()}
	op.forward = func(s *step) *tensor.Tensor {
		return nn.Gate(s.ctx, act, s.own(0, dim), s.own(1, dim))
	}
	return op.run(ctx, m, x)
}

// activate is act(x).
func activate(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, p *Params) (*autograd.GradTensor, error) {
	data, dim, act, err := activationOperands(x, p)
	if err != nil {
		return nil, err
	}
	op := &operation{name: "activate", again: true, key: planKey("activate", data, int(act)), x: data, out: data[0].Shape()}
	op.forward = func(s *step) *tensor.Tensor { return nn.Activate(s.ctx, act, s.own(0, dim)) }
	return op.run(ctx, m, x)
}

// activationOperands are x, or gate and up, which have one shape, and the activation that the parameters name.
func activationOperands(x []*autograd.GradTensor, p *Params) (data []*tensor.Tensor, dim int, act nn.Activation, err error) {
	if data, err = floats(x); err != nil {
		return nil, 0, 0, err
	}
	if dim, err = lastAxis(data[0]); err != nil {
		return nil, 0, 0, err
	}
	if len(data) > 1 && !slices.Equal(data[0].Shape(), data[1].Shape()) {
		return nil, 0, 0, shapeError("gate %v and up %v differ", data[0].Shape(), data[1].Shape())
	}
	act, ok := nn.Activations[p.Act]
	if !ok {
		return nil, 0, 0, argumentError("activation = %q: expected one of %q", p.Act, slices.Sorted(maps.Keys(nn.Activations)))
	}
	return data, dim, act, nil
}

// dropout sets elements to zero with probability p and divides the others by 1-p. A row is the last axis; which elements are
// dropped depends on the seed and their place alone.
func dropout(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, p *Params) (*autograd.GradTensor, error) {
	data, err := floats(x)
	if err != nil {
		return nil, err
	}
	if err := share("p", p.P); err != nil {
		return nil, err
	}
	dim, err := lastAxis(data[0])
	if err != nil {
		return nil, err
	}
	if p.P == 0 {
		y, err := m.Run("clone", x, &tensor.Params{})
		if err != nil {
			return nil, err
		}
		return y[0], nil
	}
	op := &operation{name: "dropout", again: true, key: planKey("dropout", data), x: data, out: data[0].Shape(), training: nn.Training{Seed: nn.StepSeed(p.Seed, 0, 0)}}
	op.forward = func(s *step) *tensor.Tensor { return s.ctx.Drop(s.own(0, dim), float32(p.P)) }
	return op.run(ctx, m, x)
}

// lastAxis is the length of a row; there must be rows.
func lastAxis(x *tensor.Tensor) (int, error) {
	if x.NDim() == 0 || x.Len() == 0 {
		return 0, shapeError("x %v has no rows", x.Shape())
	}
	return x.Dim(-1), nil
}
