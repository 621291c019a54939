package train

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Config says how a model is trained.
type Config struct {
	Steps        int   // updates of the weights
	BatchSize    int   // examples a forward pass
	Accumulation int   // forward passes an update; 0 means 1
	Order        Order // of the examples; "": the dataset's own
	DropLast     bool  // see Sampling
	Optimizer    optim.Config
	Schedule     optim.ScheduleConfig
	GradientClip float64 // largest norm of the gradient; 0: not clipped
	EvalEvery    int     // updates between evaluations; 0: at the end only
	Seed         uint64  // of the order of the data and of dropout
	Checkpoint   CheckpointConfig
	EngineOptions
}

// Record is what is known after an update.
type Record struct {
	Step            int     // updates made
	Loss            float64 // mean cross-entropy of the update's targets, in nats
	GradientNorm    float64 // before clipping
	LearningRate    float64
	TokensPerSecond float64
	EvalLoss        float64 // NaN when this step was not evaluated
}

// Trainer trains one model on one dataset.
type Trainer struct {
	config   Config
	engine   *Engine
	opt      *optim.Optimizer
	schedule *optim.Scheduler
	data     Dataset
	eval     Dataset // nil: no evaluation
	loader   *Loader
	step     int
	best     *Best // nil: not evaluated yet

	run     []byte          // what describe made
	claimed bool            // the directory of the checkpoints is this run's
	damaged map[string]bool // paths of checkpoints there that cannot be read

	// OnStep, when not nil, is called after every update. An error ends the run and is returned.
	OnStep func(Record) error
}

// NewTrainer prepares a run. Weight decay is for matrices only. eval may be nil.
func NewTrainer(m *model.Model, c Config, data, eval Dataset) (*Trainer, error) {
	for _, f := range []struct {
		name        string
		value, from int
	}{{"steps", c.Steps, 1}, {"batch_size", c.BatchSize, 1}, {"accumulation", c.Accumulation, 0}, {"eval_every", c.EvalEvery, 0},
		{"checkpoint.every", c.Checkpoint.Every, 0}, {"checkpoint.keep", c.Checkpoint.Keep, 0}} {
		if f.value < f.from {
			return nil, fmt.Errorf("%w: %s = %d: expected at least %d", ErrConfig, f.name, f.value, f.from)
		}
	}
	if c.GradientClip < 0 || math.IsNaN(c.GradientClip) {
		return nil, fmt.Errorf("%w: gradient_clip = %v: expected a number >= 0", ErrConfig, c.GradientClip)
	}
	c.Accumulation = max(c.Accumulation, 1)
	loader, err := NewLoader(data, Sampling{
		BatchSize: c.BatchSize, Accumulation: c.Accumulation, Order: c.Order, DropLast: c.DropLast, Seed: c.Seed,
	})
	if err != nil {
		return nil, err
	}
	c.Order = loader.sampling.Order
	engine, err := NewEngine(m, c.EngineOptions)
	if err != nil {
		return nil, err
	}
	opt, err := optim.New(pool.Default(), c.Optimizer, optim.DecayGroups(engine.Params(), c.Optimizer.Hyper)...)
	if err != nil {
		engine.Close()
		return nil, err
	}
	schedule, err := optim.NewScheduler(opt, c.Schedule)
	if err != nil {
		engine.Close()
		opt.Close()
		return nil, err
	}
	return &Trainer{config: c, engine: engine, opt: opt, schedule: schedule, data: data, eval: eval, loader: loader}, nil
}

// Close gives the run's memory back; the model stays.
func (t *Trainer) Close() {
	t.loader.Close()
	t.opt.Close()
	t.engine.Close()
}

// Train makes the remaining updates. A loss or gradient that is not finite, a canceled ctx, and an error of OnStep end
// it; the weights are those of the last update then. Checkpoints are written before OnStep sees the update.
func (t *Trainer) Train(ctx context.Context) error {
	if err := t.claim(); err != nil {
		return err
	}
	for t.step < t.config.Steps {
		start := time.Now()
		r := Record{EvalLoss: math.NaN(), LearningRate: t.opt.LearningRates(nil)[0]}

		var err error
		tokens := 0
		if r.Loss, tokens, err = t.gradients(ctx); err != nil {
			return err
		}
		factor := float32(1)
		if clip := t.config.GradientClip; clip > 0 {
			factor, r.GradientNorm, err = t.opt.Grads().ClipFactor(clip)
		} else {
			r.GradientNorm, err = t.opt.Grads().Norm()
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", t.step+1, err)
		}
		if err := t.opt.StepScaled(factor); err != nil {
			return fmt.Errorf("step %d: %w", t.step+1, err)
		}
		t.schedule.Step()
		if err := t.engine.model.Refresh(); err != nil {
			return fmt.Errorf("step %d: %w", t.step+1, err)
		}
		t.step++
		r.Step = t.step
		r.TokensPerSecond = float64(tokens) / time.Since(start).Seconds()

		if every := t.config.EvalEvery; t.eval != nil && (t.step == t.config.Steps || every > 0 && t.step%every == 0) {
			score, err := t.Evaluate(ctx)
			if err != nil {
				return err
			}
			r.EvalLoss = score.Loss()
			t.schedule.Observe(r.EvalLoss)
			t.noteBest(r.EvalLoss)
		}
		if t.checkpointDue() {
			if _, err := t.SaveCheckpoint(); err != nil {
				return err
			}
		}
		if t.OnStep != nil {
			if err := t.OnStep(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Trainer) checkpointDue() bool {
	c := t.config.Checkpoint
	return c.Dir != "" && (t.step == t.config.Steps || c.Every > 0 && t.step%c.Every == 0 || t.best != nil && t.best.Step == t.step)
}

// gradients runs the update's forward and backward passes and returns the mean loss of its targets, and how many tokens were read.
// Every target has the same weight, in whichever batch it is.
func (t *Trainer) gradients(ctx context.Context) (loss float64, tokens int, err error) {
	batches, err := t.loader.Next(ctx, t.step, t.step+1 < t.config.Steps)
	if err != nil {
		return 0, 0, err
	}
	if err := t.opt.ZeroGrad(); err != nil {
		return 0, 0, err
	}
	targets := 0
	for i := range batches {
		targets += batches[i].CountTargets()
	}
	for i, b := range batches {
		n := b.CountTargets()
		if n == 0 && targets > 0 {
			continue
		}
		share := float64(n) / float64(targets)
		t.engine.SetStep(t.config.Seed, t.step, i)
		score, err := t.engine.Accumulate(ctx, b, float32(share))
		if err != nil {
			return 0, 0, err
		}
		l := score.Loss()
		if math.IsNaN(l) || math.IsInf(l, 0) {
			if err := t.engine.Diagnose(ctx, b, t.step+1); err != nil {
				return 0, 0, err
			}
			return 0, 0, &DivergenceError{Step: t.step + 1, Layer: -1, Kind: "loss", Value: l}
		}
		loss += l * share
		tokens += len(b.IDs)
	}
	return loss, tokens, nil
}

// Evaluate scores all examples of the evaluation dataset.
func (t *Trainer) Evaluate(ctx context.Context) (Score, error) {
	if t.eval == nil {
		return Score{}, fmt.Errorf("%w: there is no evaluation dataset", ErrConfig)
	}
	return Evaluate(ctx, t.engine, t.eval, t.config.BatchSize)
}
