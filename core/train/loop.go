package train

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/logs"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Trainer trains one model on one dataset. It serves one goroutine at a time.
type Trainer struct {
	config   Config
	engine   *Engine
	opt      *optim.Optimizer
	frozen   []*autograd.Param // that the optimizer does not have
	schedule *optim.Scheduler
	scaler   *optim.GradScaler // nil: losses are not scaled
	data     Dataset
	eval     Dataset // nil: no evaluation
	loader   *Loader
	watch    *weightWatch
	batch    Batch // the last one

	// What a checkpoint holds beside the above.
	step     int     // updates made
	tokens   int64   // read by them
	skips    int     // updates in a row that were skipped
	open     *Record // of the last update, while its evaluation and Step event are to come
	progress progress
	best     *weightCopy // of the best evaluation, when the run ends with it; nil before the first

	stopped  bool
	halfway  bool            // an update has changed the run and is not whole: it cannot go on, nor be saved
	restored bool            // the model and best have been exchanged
	run      []byte          // what describe made
	claimed  bool            // the directory of the checkpoints is this run's
	lock     *os.File        // on that directory, while the run goes; nil where there are no locks
	damaged  map[string]bool // paths of checkpoints there that cannot be read

	// Callbacks hear of the run, in their order.
	Callbacks []Callback
}

// NewTrainer prepares a run. eval may be nil.
func NewTrainer(m *model.Model, c Config, data, eval Dataset) (_ *Trainer, err error) {
	if c, err = c.normalize(); err != nil {
		return nil, err
	}
	t := &Trainer{data: data, eval: eval}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if c.Order == "" && c.Epochs > 0 {
		c.Order = OrderShuffled // every example as often
	}
	t.loader, err = NewLoader(data, Sampling{BatchSize: c.BatchSize, Accumulation: c.Accumulation, Order: c.Order, DropLast: c.DropLast, Seed: c.Seed})
	if err != nil {
		return nil, err
	}
	c.Order = t.loader.sampling.Order
	if c.Steps == 0 {
		steps := math.Ceil(c.Epochs * float64(t.updatesPerEpoch()))
		if steps > math.MaxInt32 {
			return nil, fmt.Errorf("%w: epochs = %v: expected at most %d updates, found %g", ErrConfig, c.Epochs, math.MaxInt32, steps)
		}
		c.Steps = max(1, int(steps))
	}
	ofRun := c.Schedule.TotalSteps == 0
	if ofRun {
		c.Schedule.TotalSteps = c.Steps
	}
	if c.EarlyStopping != nil && eval == nil {
		return nil, fmt.Errorf("%w: early_stopping: expected an evaluation dataset with it", ErrConfig)
	}
	t.config = c
	if t.engine, err = NewEngine(m, c.EngineOptions); err != nil {
		return nil, err
	}
	var groups []optim.Group
	if groups, t.frozen, err = c.groups(t.engine.Params()); err != nil {
		return nil, err
	}
	if t.opt, err = optim.New(pool.Default(), c.Optimizer, groups...); err != nil {
		return nil, err
	}
	if t.schedule, err = optim.NewScheduler(t.opt, c.Schedule); err != nil {
		if ofRun {
			err = c.ofLength(err)
		}
		return nil, err
	}
	if c.LossScale != nil {
		if t.scaler, err = optim.NewGradScaler(*c.LossScale); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Close gives the run's memory back; the model stays.
func (t *Trainer) Close() {
	if t.loader != nil {
		t.loader.Close()
	}
	if t.opt != nil {
		t.opt.Close()
	}
	if t.engine != nil {
		t.engine.Close()
	}
	t.best.free()
	t.best = nil
}

// Train makes the remaining updates. It ends before the last one when patience is at its end, after Stop, with the error of a callback,
// with ctx's error soon after that is canceled, and with a *DivergenceError when a loss or gradient is not finite. The weights are those
// of the last update then, and a checkpoint that is saved continues the run as if nothing had been.
func (t *Trainer) Train(ctx context.Context) error {
	release, err := t.claim()
	if err != nil {
		return err
	}
	defer release()
	if err := t.begin(); err != nil {
		return err
	}
	start, from := time.Now(), t.step
	logs.Get().Info("training started", "step", t.step, "steps", t.config.Steps)
	err = t.end(t.loop(ctx))
	logs.Get().Info("training ended", "step", t.step, "updates", t.step-from, "seconds", time.Since(start).Seconds(), "error", err)
	return err
}

// loop is a run from its first event to its last update.
func (t *Trainer) loop(ctx context.Context) error {
	if err := t.tell(func(c Callback) error { return c.RunStart(t) }); err != nil {
		return err
	}
	for t.open != nil || !t.over() {
		if t.open == nil {
			start := time.Now()
			r := &Record{Step: t.step + 1}
			if err := t.gradients(ctx, r); err != nil { // forward and backward
				return err
			}
			if err := t.update(ctx, r); err != nil { // clip, change the weights, move the schedule
				return err
			}
			t.measure(r, start)
			t.step, t.tokens, t.open, t.halfway = r.Step, r.Tokens, r, false
		}

		// From here on an interrupted run has made the update: it goes on with what is left to be done after it.
		r := *t.open
		if r.EvalRecord == nil && t.evaluationDue(r.Step) {
			score, err := t.Evaluate(ctx)
			if err != nil {
				return err
			}
			if r.EvalRecord = NewEvalRecord(score); !isFinite(r.EvalLoss) {
				return t.diverged(ctx, r.Step, &DivergenceError{Step: r.Step, Layer: -1, Kind: "evaluation's loss", Value: r.EvalLoss})
			}
			if err := t.tell(func(c Callback) error { return c.Evaluation(t, &r) }); err != nil {
				return err
			}
			if err := t.observe(&r); err != nil { // the schedule, the best, early stopping
				return err
			}
			t.open = &r
		}
		if err := t.tell(func(c Callback) error { return c.Step(t, r) }); err != nil {
			return err
		}
		t.open = nil
		if t.checkpointDue() {
			if _, err := t.SaveCheckpoint(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Stop ends the run after the update under way. It may go on later.
func (t *Trainer) Stop() { t.stopped = true }

// Step is how many updates have been made, Steps how many there are to be.
func (t *Trainer) Step() int { return t.step }

// Steps is how many updates the run has when nothing ends it before.
func (t *Trainer) Steps() int { return t.config.Steps }

// NextRecord is the number of the update whose record comes next: that of the last update when an interruption came before it.
func (t *Trainer) NextRecord() int {
	if t.open != nil {
		return t.step
	}
	return t.step + 1
}

// OptimizerState is the optimizer's state; its tensors are views, good until the next update.
func (t *Trainer) OptimizerState() *optim.StateDict { return t.opt.StateDict() }

// LoadOptimizerState continues with moments and hyperparameters from elsewhere, to which the schedule then applies.
func (t *Trainer) LoadOptimizerState(d *optim.StateDict) error {
	if err := t.opt.LoadStateDict(d); err != nil {
		return err
	}
	return t.schedule.LoadStateDict(t.schedule.StateDict())
}

// over says whether there is no further update to make.
func (t *Trainer) over() bool { return t.step >= t.config.Steps || t.stopped || t.StoppedEarly() }

func (t *Trainer) evaluationDue(step int) bool {
	every := t.config.EvalEvery
	return t.eval != nil && (step == t.config.Steps || every > 0 && step%every == 0)
}

// recordDue says whether an update is one that is recorded.
func (t *Trainer) recordDue(step int) bool {
	return step%t.config.LogEvery == 0 || step == t.config.Steps || t.evaluationDue(step)
}

func (t *Trainer) checkpointDue() bool {
	c := t.config.Checkpoint
	best := t.progress.Best
	return c.Dir != "" && (t.over() || c.Every > 0 && t.step%c.Every == 0 || best != nil && best.Step == t.step)
}

// begin makes ready for the first update.
func (t *Trainer) begin() error {
	if err := t.whole(); err != nil {
		return err
	}
	if t.restored {
		if err := t.swapBest(); err != nil {
			return err
		}
	}
	if t.config.WeightChanges && t.watch == nil {
		t.watch = newWeightWatch(t.engine.model)
	}
	t.stopped = false
	return nil
}

// whole says why the run is not as an update has left it, or nil.
func (t *Trainer) whole() error {
	if t.halfway {
		return fmt.Errorf("%w: update %d ended halfway: resume from a checkpoint", ErrDiverged, t.step+1)
	}
	return nil
}

// end leaves the model as the configuration wants it after a run that ended by itself.
func (t *Trainer) end(cause error) error {
	if cause == nil && t.best != nil {
		cause = t.swapBest()
	}
	for _, c := range t.Callbacks { // all of them, whatever they say
		cause = cmp.Or(cause, c.RunEnd(t, cause))
	}
	return cause
}

// Evaluate scores all examples of the evaluation dataset.
func (t *Trainer) Evaluate(ctx context.Context) (Score, error) {
	if t.eval == nil {
		return Score{}, fmt.Errorf("%w: there is no evaluation dataset", ErrConfig)
	}
	return Evaluate(ctx, t.engine, t.eval, t.config.BatchSize)
}
