package train

import (
	"context"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Forward and backward passes in two calls, for callers who write the training loop themselves. The step stays open in
// between, with everything that its backward pass needs; an engine has one open step. The weights must not change until
// its end.

// open is what an open step waits for.
type open struct {
	batch   Batch
	targets int
	x       *tensor.Tensor // the residual stream after the last block, for a loss
	logits  *tensor.Tensor // otherwise
}

// OpenLoss returns the batch's score under the options, and leaves the step open for Backward.
func (e *Engine) OpenLoss(ctx context.Context, b Batch) (s Score, err error) {
	targets, err := e.count(b)
	if err != nil {
		return s, err
	}
	b = b.clone()
	err = e.openStep(ctx, b, func(x *tensor.Tensor) {
		e.ctx.Attach(nil) // the head's gradient needs the factor that Backward knows
		correct := e.model.Head.Loss(e.ctx, x, b.Targets, 0, e.nats)
		e.ctx.Attach(e.tape)
		e.add(&s, targets, correct)
		e.waiting = open{batch: b, targets: targets, x: x}
	})
	return s, err
}

// OpenLogits returns the logits [tokens, vocab_size] of every token under the options, which are there until the step's end,
// and leaves the step open for BackwardLogits.
func (e *Engine) OpenLogits(ctx context.Context, b Batch) (logits *tensor.Tensor, err error) {
	b = b.clone()
	err = e.openStep(ctx, b, func(x *tensor.Tensor) {
		logits = nn.Project(e.ctx, x, e.model.Head.Norm, e.model.Head.Proj)[0]
		e.ctx.Free(x)
		e.waiting = open{batch: b, logits: logits}
	})
	return logits, err
}

// clone keeps what the backward pass reads.
func (b Batch) clone() Batch {
	return Batch{IDs: slices.Clone(b.IDs), Targets: slices.Clone(b.Targets), Length: b.Length, Lengths: slices.Clone(b.Lengths)}
}

func (e *Engine) openStep(ctx context.Context, b Batch, head func(x *tensor.Tensor)) (err error) {
	defer pool.Recover(&err)
	e.end()
	if err := e.model.Acquire(); err != nil {
		return err
	}
	defer e.model.Release()
	defer func() {
		if err != nil {
			e.end()
		}
	}()
	x, err := e.begin(ctx, b, pass{training: true, backward: true})
	if err != nil {
		return err
	}
	head(x)
	err = e.ctx.Err()
	e.ctx.Watch(context.Background())
	return err
}

// Backward adds the gradient of scale times the open step's mean loss to the parameters' gradients and ends the step.
func (e *Engine) Backward(ctx context.Context, scale float32) error {
	return e.closeStep(ctx, func(o open) {
		e.model.Head.Loss(e.ctx, o.x, o.batch.Targets, scale/float32(o.targets), e.nats)
		e.ctx.Free(o.x)
	})
}

// BackwardLogits adds the gradients for the gradient of the open step's logits and ends the step.
func (e *Engine) BackwardLogits(ctx context.Context, grad []float32) error {
	return e.closeStep(ctx, func(o open) {
		dy := e.ctx.New(o.logits.Dim(0), o.logits.Dim(1))
		copy(dy.Float32s(), grad)
		e.tape.Add(o.logits, dy)
	})
}

func (e *Engine) closeStep(ctx context.Context, start func(o open)) (err error) {
	defer pool.Recover(&err)
	if err := e.model.Acquire(); err != nil {
		return err
	}
	defer e.model.Release()
	defer e.end()
	e.ctx.Watch(ctx)
	start(e.waiting)
	if err := e.tape.BackwardUntil(e.ctx.Err); err != nil {
		return err
	}
	return e.ctx.Err()
}

// Drop ends the open step without a backward pass.
func (e *Engine) Drop() { e.end() }
