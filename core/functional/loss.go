package functional

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// crossEntropy is -log softmax(logits)[target] over logits [..., classes] and targets [...], in nats. The mean is over targets
// that count. A target is a class, or the index to ignore.
func crossEntropy(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, p *Params) (*autograd.GradTensor, error) {
	of := x[:1]
	data, err := floats(of)
	if err != nil {
		return nil, err
	}
	classes, err := lastAxis(data[0])
	if err != nil {
		return nil, err
	}
	shape := data[0].Shape()
	targets, count, err := readTargets(x[1].Data(), shape[:len(shape)-1], classes, p)
	if err != nil {
		return nil, err
	}
	l := &lossFunction{name: "cross_entropy", count: count, reduction: p.Reduction, shape: shape[:len(shape)-1]}
	l.compute = func(ctx context.Context, nats []float64, scale float32, differentiate bool) (gs []*tensor.Tensor, err error) {
		defer pool.Recover(&err)
		w := takeWorker(planKey("cross_entropy", data))
		defer giveWorker(planKey("cross_entropy", data), w)
		w.ctx.Begin(ctx, 0, nil, nil)
		defer w.ctx.End()
		own := w.ctx.New(len(targets), classes)
		copy(own.Float32s(), data[0].Float32s())
		w.ctx.CrossEntropy(own, targets, nats, scale, differentiate)
		if !differentiate {
			return nil, nil
		}
		d, err := tensor.New(tensor.Float32, shape...)
		if err == nil {
			copy(d.Float32s(), own.Float32s())
		}
		return []*tensor.Tensor{d}, err
	}
	return l.run(ctx, m, of, of[:1], len(targets))
}

// headLoss is the cross-entropy of rms_norm(x, norm) weight^T for x [..., dim], norm [dim], weight [classes, dim] and targets
// [...]: logits exist a few rows at a time, in the forward pass and in the backward pass.
func headLoss(ctx context.Context, m autograd.Mode, x []*autograd.GradTensor, p *Params) (*autograd.GradTensor, error) {
	of := x[:3]
	data, err := floats(of)
	if err != nil {
		return nil, err
	}
	dim, err := lastAxis(data[0])
	if err != nil {
		return nil, err
	}
	shape := data[0].Shape()
	if !slices.Equal(data[1].Shape(), []int{dim}) {
		return nil, shapeError("norm has shape %v, expected (%d,) for x %v", data[1].Shape(), dim, shape)
	}
	if w := data[2].Shape(); len(w) != 2 || w[1] != dim || w[0] == 0 {
		return nil, shapeError("weight has shape %v, expected (classes, %d) for x %v", w, dim, shape)
	}
	classes := data[2].Dim(0)
	targets, count, err := readTargets(x[3].Data(), shape[:len(shape)-1], classes, p)
	if err != nil {
		return nil, err
	}
	if p.Reduction == "none" {
		return nil, argumentError("reduction = \"none\": expected \"mean\" or \"sum\"")
	}
	prepared, err := prepare(of[2], data[2], false)
	if err != nil {
		return nil, err
	}
	l := &lossFunction{name: "head_loss", count: count, reduction: p.Reduction, shape: shape[:len(shape)-1]}
	op := &operation{name: "head_loss", key: planKey("head_loss", data), x: data}
	l.compute = func(ctx context.Context, nats []float64, scale float32, differentiate bool) (gs []*tensor.Tensor, err error) {
		op := *op
		op.forward = func(s *step) *tensor.Tensor {
			norm, proj := s.param(1), *prepared
			proj.Weight = s.param(2)
			for _, p := range []*autograd.Param{norm, proj.Weight} {
				p.Grad = make([]float32, len(p.Data))
			}
			h := nn.Head{Norm: &nn.Norm{Weight: norm.Data, Eps: float32(p.Eps), Param: norm}, Proj: &proj}
			h.Loss(s.ctx, s.see(0, dim), targets, scale, nats)
			return nil
		}
		s, err := op.begin(ctx, differentiate)
		if err != nil {
			return nil, err
		}
		defer s.end()
		if !differentiate {
			return nil, nil
		}
		dx := slices.Clone(s.tape.Take(s.in[0]).Float32s())
		for i, grad := range [][]float32{dx, s.params[1].Grad, s.params[2].Grad} {
			g, err := tensor.FromFloat32(grad, data[i].Shape()...)
			if err != nil {
				return nil, err
			}
			gs = append(gs, g)
		}
		return gs, nil
	}
	return l.run(ctx, m, of, of, len(targets))
}

// readTargets checks the targets and turns those to ignore into nn.IgnoreTarget.
func readTargets(t *tensor.Tensor, shape []int, classes int, p *Params) (targets []int32, count int, err error) {
	if !slices.Contains([]string{"mean", "sum", "none"}, p.Reduction) {
		return nil, 0, argumentError("reduction = %q: expected \"mean\", \"sum\" or \"none\"", p.Reduction)
	}
	switch {
	case !t.DType().IsInteger():
		return nil, 0, &callError{fmt.Sprintf("targets: found %s, expected integers", t.DType()), tensor.ErrDType}
	case !slices.Equal(t.Shape(), shape):
		return nil, 0, shapeError("targets %v, expected %v", t.Shape(), shape)
	}
	wide, err := t.Cast(tensor.Int64)
	if err == nil {
		wide, err = wide.Contiguous()
	}
	if err != nil {
		return nil, 0, err
	}
	targets = make([]int32, wide.Len())
	for i, v := range wide.Int64s() {
		switch {
		case v == p.Ignore:
			targets[i] = nn.IgnoreTarget
		case v < 0 || v >= int64(classes):
			return nil, 0, argumentError("target %d at %d: expected 0 <= target < %d or ignore_index = %d", v, i, classes, p.Ignore)
		default:
			targets[i] = int32(v)
			count++
		}
	}
	if count == 0 && p.Reduction == "mean" {
		return nil, 0, argumentError("every target is ignored: there is no mean")
	}
	return targets, count, nil
}

// lossFunction is a loss in the graph. Its backward pass computes everything again rather than keep a gradient that nobody
// may ask for.
type lossFunction struct {
	name      string
	reduction string
	count     int   // targets that count
	shape     []int // of the targets
	// compute writes the losses of the rows to nats and, when asked, returns the gradients of scale times their sum.
	compute func(ctx context.Context, nats []float64, scale float32, differentiate bool) ([]*tensor.Tensor, error)
	rows    int
}

func (l *lossFunction) run(ctx context.Context, m autograd.Mode, operands, saved []*autograd.GradTensor, rows int) (*autograd.GradTensor, error) {
	nats := make([]float64, rows)
	l.rows = rows
	if _, err := l.computeInRoom(ctx, nats, 0, false); err != nil {
		return nil, err
	}
	var values []float32
	var shape []int
	if l.reduction == "none" {
		shape = l.shape
		for _, n := range nats {
			values = append(values, float32(n))
		}
	} else {
		sum := 0.0
		for _, n := range nats {
			sum += n
		}
		if l.reduction == "mean" {
			sum /= float64(l.count)
		}
		values = []float32{float32(sum)}
	}
	y, err := tensor.FromFloat32(values, shape...)
	if err != nil {
		return nil, err
	}
	out := autograd.New(y)
	if m.Wanted(operands...) {
		autograd.Record(l, operands, []*autograd.GradTensor{out}, saved...)
	}
	return out, nil
}

// computeInRoom is compute, again when memory that waits has made room.
func (l *lossFunction) computeInRoom(ctx context.Context, nats []float64, scale float32, differentiate bool) ([]*tensor.Tensor, error) {
	gs, err := l.compute(ctx, nats, scale, differentiate)
	if errors.Is(err, pool.ErrOutOfMemory) {
		makeRoom()
		gs, err = l.compute(ctx, nats, scale, differentiate)
	}
	return gs, err
}

func (l *lossFunction) Name() string { return l.name }

func (l *lossFunction) Release() {}

func (l *lossFunction) Backward(b *autograd.Backward) ([]*tensor.Tensor, error) {
	g, err := b.Grads[0].Contiguous()
	if err != nil {
		return nil, err
	}
	scale := float32(1)
	switch l.reduction {
	case "mean":
		scale = g.Float32s()[0] / float32(l.count)
	case "sum":
		scale = g.Float32s()[0]
	}
	gs, err := l.computeInRoom(b.Ctx, make([]float64, l.rows), scale, true)
	if err != nil || l.reduction != "none" {
		return gs, err
	}
	rows, err := g.Unsqueeze(-1) // a factor for each row
	if err == nil {
		gs[0], err = tensor.Mul(gs[0], rows)
	}
	return gs, err
}
