package train

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/core/optim"
)

// mostSkips is how many updates in a row may be skipped: a model that gives no finite gradient for so long has diverged, and data
// without a target for so long are not what they should be.
const mostSkips = 100

// gradients runs the update's forward and backward passes. Every target has the same weight, in whichever batch it is. Without any,
// as in windows of separators, the update is skipped.
func (t *Trainer) gradients(ctx context.Context, r *Record) error {
	batches, err := t.loader.Next(ctx, t.step, r.Step < t.config.Steps)
	if err != nil {
		return err
	}
	if err := t.opt.ZeroGrad(); err != nil {
		return err
	}
	for _, p := range t.frozen {
		clear(p.Grad)
	}
	scale := float32(1)
	if t.scaler != nil {
		scale = t.scaler.Scale()
		r.LossScale = float64(scale)
	}
	r.Tokens = t.tokens
	targets, correct, divergence := 0, 0, 0.0
	for i := range batches {
		targets += batches[i].CountTargets()
	}
	if targets == 0 {
		r.Skipped, r.Loss, r.Perplexity = true, math.NaN(), math.NaN()
		return nil
	}
	for i, b := range batches {
		n := b.CountTargets()
		if n == 0 {
			continue
		}
		share := float64(n) / float64(targets)
		t.batch = b
		t.engine.SetStep(t.config.Seed, t.step, i)
		score, err := t.engine.Accumulate(ctx, b, float32(share)*scale)
		if err != nil {
			return err
		}
		loss := score.Loss()
		if t.scaler == nil && !isFinite(loss) {
			return t.diverged(ctx, r.Step, &DivergenceError{Step: r.Step, Layer: -1, Kind: "loss", Value: loss})
		}
		r.Loss += float64(loss * share)
		r.Tokens += int64(len(b.IDs))
		divergence += score.Divergence
		correct += score.Correct
	}
	r.Perplexity, r.Accuracy = Perplexity(r.Loss), float64(correct)/float64(targets)
	if t.config.Teacher != nil {
		r.Divergence = finite(divergence / float64(targets))
	}
	return nil
}

// update changes the master weights by the gradients, derives from them the weights of the next forward pass, and moves the schedule.
func (t *Trainer) update(ctx context.Context, r *Record) error {
	t.noteRates(r)
	if r.Skipped {
		if t.skips++; t.skips >= mostSkips {
			return fmt.Errorf("%w: step %d: %d updates in a row had no target that counts", ErrBatch, r.Step, t.skips)
		}
	} else if err := t.change(ctx, r); err != nil {
		return err
	}
	t.schedule.Step()
	if err := t.engine.model.Refresh(); err != nil { // of weights that are not finite
		return t.diverged(ctx, r.Step, fmt.Errorf("step %d: %w", r.Step, err))
	}
	r.Logged = t.recordDue(r.Step)
	if t.watch != nil && r.Logged {
		r.WeightChanges = t.watch.changes()
	}
	return nil
}

// change changes the master weights, unless the scaler skips that.
func (t *Trainer) change(ctx context.Context, r *Record) error {
	factor, err := t.prepareGradients(r)
	if errors.Is(err, optim.ErrNonFinite) {
		return t.diverged(ctx, r.Step, err)
	}
	if err == nil {
		t.halfway = true
		if t.scaler == nil {
			t.skips = 0
			err = t.opt.StepScaled(factor)
		} else {
			err = t.scaledUpdate(ctx, r, factor)
		}
	}
	if err != nil { // before anything changed
		t.halfway = false
		return fmt.Errorf("step %d: %w", r.Step, err)
	}
	return nil
}

// prepareGradients clips and normalizes the gradients, after measuring their norm, and returns what they are still to be multiplied
// with. Gradients that are not finite are an error that matches optim.ErrNonFinite, or left to the scaler if there is one.
func (t *Trainer) prepareGradients(r *Record) (factor float32, err error) {
	g, c := t.opt.Grads(), &t.config
	if t.scaler != nil {
		if err := t.scaler.Unscale(g); err != nil {
			return 0, err
		}
		if t.scaler.Overflow() {
			r.GradientNorm = math.NaN()
			return 1, nil
		}
	}
	if c.GradientClipValue == 0 && c.GradientNormalization == "" && c.GradientClip > 0 { // one pass over the gradients
		factor, r.GradientNorm, err = g.ClipFactor(c.GradientClip)
		return factor, err
	}
	if r.GradientNorm, err = g.Norm(); err != nil {
		return 0, err
	}
	if !isFinite(r.GradientNorm) {
		return 0, g.FirstNonFinite()
	}
	if c.GradientClipValue > 0 {
		if err := g.ClipValue(float32(c.GradientClipValue)); err != nil {
			return 0, err
		}
	}
	switch c.GradientNormalization {
	case normalizeAll:
		_, err = g.Normalize()
	case normalizeEach:
		_, err = g.NormalizeEach()
	}
	if err != nil || c.GradientClip == 0 {
		return 1, err
	}
	factor, _, err = g.ClipFactor(c.GradientClip)
	return factor, err
}

// scaledUpdate is an update with a scaler, which skips it when a gradient is not finite.
func (t *Trainer) scaledUpdate(ctx context.Context, r *Record, factor float32) error {
	updated, err := t.scaler.StepScaled(t.opt, factor)
	if err != nil {
		return err
	}
	if updated {
		t.skips = 0
	} else {
		r.Skipped = true
		t.skips++
	}
	if err := t.scaler.Update(); err != nil || t.skips >= mostSkips {
		if err == nil {
			err = fmt.Errorf("%w: %d updates in a row had gradients that are not finite", ErrDiverged, mostSkips)
		}
		return t.diverged(ctx, r.Step, err)
	}
	return nil
}

// diverged finds out where the numbers of an update stopped being finite; otherwise is what to say when nothing is found.
func (t *Trainer) diverged(ctx context.Context, step int, otherwise error) error {
	if len(t.batch.IDs) == 0 { // nothing was computed since a run was resumed
		return otherwise
	}
	if err := t.engine.Diagnose(ctx, t.batch, step); err != nil {
		return err
	}
	return otherwise
}

// noteRates fills in the learning rates of the update.
func (t *Trainer) noteRates(r *Record) {
	rates := t.opt.LearningRates(nil)
	r.LearningRate, r.LearningRates = rates[0], make(map[string]float64, len(rates))
	for i, rate := range rates {
		r.LearningRates[t.opt.GroupName(i)] = rate
	}
}

// updatesPerEpoch is how many updates see as much as there is.
func (t *Trainer) updatesPerEpoch() int {
	return max(1, t.loader.sampling.UpdatesPerEpoch(t.data.Len()))
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
