package tests_go

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// journal notes every event of a run and lets a test act in it.
type journal struct {
	events []string
	on     func(event string, r *train.Record) error
}

func (j *journal) note(event string, r *train.Record) error {
	j.events = append(j.events, event)
	if j.on == nil {
		return nil
	}
	return j.on(event, r)
}

func (j *journal) RunStart(t *train.Trainer) error {
	return j.note(fmt.Sprintf("start %d/%d", t.Step(), t.Steps()), nil)
}

func (j *journal) Evaluation(_ *train.Trainer, r *train.Record) error {
	return j.note(fmt.Sprintf("evaluation %d", r.Step), r)
}

func (j *journal) Step(_ *train.Trainer, r train.Record) error {
	return j.note(fmt.Sprintf("step %d", r.Step), &r)
}

func (j *journal) Checkpoint(_ *train.Trainer, path string) error {
	return j.note("saved "+filepath.Base(path), nil)
}

func (j *journal) RunEnd(_ *train.Trainer, cause error) error {
	return j.note(fmt.Sprintf("end %v", cause), nil)
}

func (r *run) listen(j *journal) *journal {
	r.Callbacks = append(r.Callbacks, j)
	return j
}

func TestEventsComeInTheOrderOfTheRun(t *testing.T) {
	c := runConfig("sgd", "constant")
	c.Steps, c.EvalEvery, c.Optimizer.LR = 4, 2, 0
	c.Checkpoint = train.CheckpointConfig{Dir: t.TempDir(), Every: 3}
	r := newRun(t, c)
	j := r.listen(&journal{})
	require.NoError(t, r.Train(context.Background()))
	require.Equal(t, []string{
		"start 0/4", "step 1", "evaluation 2", "step 2", "saved step-00000002.ckpt", // the first evaluation is the best
		"step 3", "saved step-00000003.ckpt", "evaluation 4", "step 4", "saved step-00000004.ckpt", "end <nil>",
	}, j.events)
}

func TestACallbackMayStopOrFailTheRun(t *testing.T) {
	failure := errors.New("the callback's own")
	c := runConfig("sgd", "constant")
	c.Checkpoint = train.CheckpointConfig{Dir: t.TempDir()}
	r := newRun(t, c)
	j := r.listen(&journal{})
	j.on = func(event string, _ *train.Record) error {
		if event == "step 3" {
			r.Stop()
		}
		return nil
	}
	require.NoError(t, r.Train(context.Background()))
	require.Equal(t, []string{"start 0/60", "step 1", "step 2", "step 3", "saved step-00000003.ckpt", "end <nil>"}, j.events, "and it is saved")
	j.on, j.events = func(event string, _ *train.Record) error {
		if event == "step 5" {
			return failure
		}
		return nil
	}, nil
	require.ErrorIs(t, r.Train(context.Background()), failure)
	require.Equal(t, []string{"start 3/60", "step 4", "step 5", "end the callback's own"}, j.events, "a stopped run goes on")
}

// Whatever the event in which a run ends, and however it ends there, a checkpoint of that moment continues to the same bits.
func TestARunThatIsInterruptedInAnyEventContinuesToTheSameBits(t *testing.T) {
	config := func() train.Config {
		c := runConfig("adamw", "plateau")
		zero := 0
		c.Schedule.Patience = &zero
		c.Steps, c.EvalEvery, c.Dropout = 9, 3, 0.1
		c.Monitor, c.MonitorMode = "twice", "max"
		c.EarlyStopping = &train.EarlyStopping{Patience: 100, RestoreBest: true}
		return c
	}
	metrics := func(event string, r *train.Record) {
		if r != nil && event == fmt.Sprintf("evaluation %d", r.Step) {
			r.Metrics = train.Metrics{"twice": 2 * r.EvalLoss} // the worst is the best
		}
	}
	whole := newRun(t, config())
	whole.listen(&journal{on: func(event string, r *train.Record) error {
		metrics(event, r)
		return nil
	}})
	require.NoError(t, whole.Train(context.Background()))
	require.NotNil(t, whole.Best())
	for _, at := range []string{"start 0/9", "step 1", "evaluation 3", "step 3", "step 5", "evaluation 6", "step 9", "evaluation 9"} {
		t.Run(at, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "any name")
			first := newRun(t, config())
			first.listen(&journal{on: func(event string, r *train.Record) error {
				metrics(event, r)
				if event == at {
					return errInterrupted
				}
				return nil
			}})
			require.ErrorIs(t, first.Train(context.Background()), errInterrupted)
			require.NoError(t, first.WriteCheckpoint(path))

			second := newRun(t, config())
			j := second.listen(&journal{})
			j.on = func(event string, r *train.Record) error {
				metrics(event, r)
				return nil
			}
			_, err := second.Resume(path)
			require.NoError(t, err)
			next := second.NextRecord()
			require.NoError(t, second.Train(context.Background()))
			require.Equal(t, whole.records, append(first.records[:next-1:next-1], second.records...))
			require.Equal(t, whole.weights(), second.weights())
			require.Equal(t, whole.Best(), second.Best())
		})
	}
}

func TestACanceledEvaluationIsMadeAgain(t *testing.T) {
	c := runConfig("adamw", "cosine")
	c.Steps, c.Schedule.TotalSteps, c.EvalEvery = 6, 6, 3
	whole := newRun(t, c)
	require.NoError(t, whole.Train(context.Background()))

	path := filepath.Join(t.TempDir(), "x")
	first := newRun(t, c)
	ctx := &canceledAfter{Context: context.Background(), step: func() int { return first.Step() }, at: 3}
	require.ErrorIs(t, first.Train(ctx), context.Canceled)
	require.Equal(t, 3, first.Step(), "the update was made")
	require.Len(t, first.records, 2, "and not told")
	require.NoError(t, first.WriteCheckpoint(path))
	second := newRun(t, c)
	_, err := second.Resume(path)
	require.NoError(t, err)
	require.NoError(t, second.Train(context.Background()))
	require.Equal(t, whole.records, append(first.records, second.records...))
	require.Equal(t, whole.weights(), second.weights())
}

// canceledAfter is a context that is canceled as soon as an update has been made.
type canceledAfter struct {
	context.Context
	step func() int
	at   int
}

func (c *canceledAfter) Err() error {
	if c.step() >= c.at {
		return context.Canceled
	}
	return nil
}

func TestEarlyStoppingWaitsForImprovementsThatCount(t *testing.T) {
	// What the evaluations say is the callback's metric.
	values := []float64{5, 4, 4.5, 3.9, 3.5, 3.45, 3.46, 3.44, 1}
	for _, c := range []struct {
		mode     string
		patience int
		minDelta float64
		steps    int // made
		best     int
	}{
		{"min", 1, 0, 3, 2}, {"min", 2, 0, 9, 9}, {"min", 3, 0.2, 8, 8}, {"min", 2, 0.2, 4, 4}, {"max", 2, 0, 3, 1}, {"max", 9, 0, 9, 1},
		{"min", 1, 1, 2, 2}, // a change of min_delta is no improvement
	} {
		config := runConfig("sgd", "constant")
		config.Steps, config.EvalEvery = len(values), 1
		config.Monitor, config.MonitorMode = "value", c.mode
		config.EarlyStopping = &train.EarlyStopping{Patience: c.patience, MinDelta: c.minDelta}
		r := newRun(t, config)
		r.listen(&journal{on: func(event string, rec *train.Record) error {
			if rec != nil {
				rec.Metrics = train.Metrics{"value": values[rec.Step-1]}
			}
			return nil
		}})
		require.NoError(t, r.Train(context.Background()))
		require.Equal(t, c.steps, r.Step(), "%+v", c)
		require.Equal(t, c.best, r.Best().Step, "%+v", c)
		require.Equal(t, c.steps < len(values), r.StoppedEarly(), "%+v", c)
	}
}

func TestARunEndsWithItsBestWeightsAndContinuesFromItsLast(t *testing.T) {
	c := runConfig("adamw", "constant")
	c.Steps, c.EvalEvery, c.MonitorMode = 40, 2, "max" // the highest loss, which is the first
	c.EarlyStopping = &train.EarlyStopping{Patience: 3, RestoreBest: true}
	c.Checkpoint = train.CheckpointConfig{Dir: t.TempDir()}
	r := newRun(t, c)
	weights := map[int]map[string][]uint32{}
	r.listen(&journal{on: func(_ string, rec *train.Record) error {
		if rec != nil {
			weights[r.Step()] = r.weights()
		}
		return nil
	}})
	require.NoError(t, r.Train(context.Background()))
	require.True(t, r.StoppedEarly())
	require.Less(t, r.Best().Step, r.Step())
	require.Equal(t, weights[r.Best().Step], r.weights())
	score, err := r.Evaluate(context.Background())
	require.NoError(t, err)
	require.Equal(t, r.Best().Value, score.Loss())

	path := filepath.Join(t.TempDir(), "after the end")
	require.NoError(t, r.WriteCheckpoint(path))
	for _, from := range []string{c.Checkpoint.Dir, path} {
		longer := c
		longer.Checkpoint = train.CheckpointConfig{}
		longer.EarlyStopping = &train.EarlyStopping{Patience: 100, RestoreBest: true}
		again := newRun(t, longer)
		_, err = again.Resume(from)
		require.NoError(t, err)
		require.Equal(t, weights[r.Step()], again.weights(), "a checkpoint has the last weights")
		require.NoError(t, again.Train(context.Background()))
		uninterrupted := newRun(t, longer)
		require.NoError(t, uninterrupted.Train(context.Background()))
		require.Equal(t, uninterrupted.weights(), again.weights())
	}

	other := c
	other.EarlyStopping = &train.EarlyStopping{Patience: 3}
	_, err = newRun(t, other).Resume(c.Checkpoint.Dir)
	require.ErrorContains(t, err, "config.early_stopping.restore_best: found true, expected false")
}

func TestAMonitorThatNobodyMeasuresIsNamed(t *testing.T) {
	c := runConfig("sgd", "constant")
	c.Monitor, c.EvalEvery = "bleu", 2
	require.ErrorContains(t, newRun(t, c).Train(context.Background()), `monitor = "bleu": the evaluation of step 2 has no metric of this name`)
}

func TestAScalerSkipsWhatOverflowsAndRemembersItsScale(t *testing.T) {
	c := runConfig("adamw", "constant")
	c.Steps, c.Optimizer.LR = 12, 1e-3
	c.LossScale = &optim.ScalerConfig{InitScale: math.Ldexp(1, 127), BackoffFactor: math.Ldexp(1, -20), GrowthInterval: 3}
	steep := func(c train.Config) *run {
		r := newRun(t, c)
		for _, p := range r.model.Params() {
			if p.Name == "model.norm.weight" {
				for i := range p.Data {
					p.Data[i] = 64
				}
			}
		}
		require.NoError(t, r.model.Refresh())
		return r
	}
	whole := steep(c)
	require.NoError(t, whole.Train(context.Background()))
	skipped := 0
	for _, r := range whole.records {
		if r.Skipped {
			skipped++
			require.True(t, math.IsNaN(r.GradientNorm))
		}
		require.False(t, math.IsNaN(r.Loss))
	}
	require.Positive(t, skipped, "the first scale is beyond every gradient")
	require.Less(t, skipped, 6)
	last := whole.records[11]
	require.Less(t, last.LossScale, math.Ldexp(1, 120))
	require.Greater(t, last.LossScale, whole.records[skipped].LossScale, "it has grown since")

	// A scale that is a power of two does not show in the weights.
	plain := c
	plain.LossScale = &optim.ScalerConfig{Mode: "static", InitScale: 1024}
	scaled := newRun(t, plain)
	require.NoError(t, scaled.Train(context.Background()))
	plain.LossScale = nil
	unscaled := newRun(t, plain)
	require.NoError(t, unscaled.Train(context.Background()))
	require.Equal(t, unscaled.weights(), scaled.weights())

	path := filepath.Join(t.TempDir(), "x")
	first := steep(c)
	first.until(t, 7)
	require.NoError(t, first.WriteCheckpoint(path))
	second := newRun(t, c)
	_, err := second.Resume(path)
	require.NoError(t, err)
	require.NoError(t, second.Train(context.Background()))
	require.Equal(t, whole.weights(), second.weights())
	require.Equal(t, whole.records[7:], second.records)
}

// A model that is broken ends the run whether or not there is a scaler; the error says where.
func TestBrokenWeightsEndTheRunWithTheirName(t *testing.T) {
	for _, scale := range []*optim.ScalerConfig{nil, {Mode: "static", InitScale: 2}, {}} {
		c := runConfig("adamw", "constant")
		c.Steps, c.EvalEvery, c.LossScale = 1000, 0, scale
		r := newRun(t, c)
		var broken string
		for _, p := range r.model.Params() {
			if p.Name == "model.layers.1.post_attention_layernorm.weight" {
				p.Data[5] = float32(math.NaN())
				broken = p.Name
			}
		}
		require.NotEmpty(t, broken)
		err := r.Train(context.Background())
		var diverged *train.DivergenceError
		require.ErrorAs(t, err, &diverged)
		require.ErrorIs(t, err, train.ErrDiverged)
		require.Equal(t, "weight", diverged.Kind)
		require.Equal(t, broken, diverged.Tensor)
		require.Equal(t, 1, diverged.Layer)
		require.Equal(t, 5, diverged.Index)
		require.Equal(t, r.Step()+1, diverged.Step)
		if scale != nil {
			require.Positive(t, r.Step(), "the scaler has skipped some")
		}
	}
}

// An update that leaves the weights beyond float32 is noticed right after it, in the evaluation or the next update.
func TestAnUpdateThatGoesTooFarIsNamed(t *testing.T) {
	for _, every := range []int{0, 1} {
		c := runConfig("sgd", "constant")
		c.Optimizer.LR, c.GradientClip, c.EvalEvery, c.Optimizer.WeightDecay = 1e38, 0, every, 0
		err := newRun(t, c).Train(context.Background())
		var diverged *train.DivergenceError
		require.ErrorAs(t, err, &diverged)
		require.LessOrEqual(t, diverged.Step, 2)
		require.NotEmpty(t, diverged.Tensor)
	}
}

// Weights that are not finite can end a run in the middle of an update. The checkpoint before it stays what it was.
func TestAnUpdateThatEndedHalfwayIsNotSaved(t *testing.T) {
	c := runConfig("sgd", "multi_step")
	c.Schedule = optim.ScheduleConfig{Name: "multi_step", WarmupSteps: 2, Milestones: []int{2}} // the first update changes nothing
	c.Steps, c.EvalEvery, c.Optimizer.LR, c.Optimizer.WeightDecay, c.GradientClip = 10, 0, 1e30, 1e10, 0
	c.Checkpoint = train.CheckpointConfig{Dir: t.TempDir(), Every: 1}
	r := newRun(t, c)
	good := r.weights()
	var diverged *train.DivergenceError
	require.ErrorAs(t, r.Train(context.Background()), &diverged)
	require.Equal(t, "weight", diverged.Kind)
	require.Equal(t, 1, r.Step())
	_, err := r.SaveCheckpoint()
	require.ErrorContains(t, err, "update 2 ended halfway: resume from a checkpoint")
	require.ErrorIs(t, r.WriteCheckpoint(filepath.Join(t.TempDir(), "x")), train.ErrDiverged)
	require.ErrorIs(t, r.Train(context.Background()), train.ErrDiverged)

	resumed, err := r.Resume(c.Checkpoint.Dir)
	require.NoError(t, err)
	require.Equal(t, 1, resumed.Step)
	require.Empty(t, resumed.Skipped)
	require.Equal(t, good, r.weights())
	require.NoError(t, r.WriteCheckpoint(filepath.Join(t.TempDir(), "x")))
}

func TestGradientsAreClippedAndNormalized(t *testing.T) {
	// With SGD and rate 1 an update is the gradient that was used.
	used := func(change func(*train.Config)) (norms []float64, update map[string][]float32) {
		c := runConfig("sgd", "constant")
		c.Steps, c.GradientClip, c.Optimizer.LR, c.Optimizer.WeightDecay = 1, 0, 1, 0
		change(&c)
		r := newRun(t, c)
		update = map[string][]float32{}
		for _, p := range r.model.Params() {
			update[p.Name] = append([]float32(nil), p.Data...)
		}
		require.NoError(t, r.Train(context.Background()))
		for _, p := range r.model.Params() {
			sum := 0.0
			for i := range p.Data {
				update[p.Name][i] -= p.Data[i]
				sum += float64(update[p.Name][i]) * float64(update[p.Name][i])
			}
			norms = append(norms, math.Sqrt(sum))
		}
		return norms, update
	}
	norm := func(norms []float64) (total float64) {
		for _, n := range norms {
			total += n * n
		}
		return math.Sqrt(total)
	}
	plain, _ := used(func(*train.Config) {})
	require.Greater(t, norm(plain), 0.3)
	clipped, _ := used(func(c *train.Config) { c.GradientClip = 0.1 })
	require.InDelta(t, 0.1, norm(clipped), 1e-4)
	all, _ := used(func(c *train.Config) { c.GradientNormalization = "all" })
	require.InDelta(t, 1, norm(all), 1e-4)
	each, _ := used(func(c *train.Config) { c.GradientNormalization = "each" })
	for i, n := range each {
		require.InDelta(t, 1, n, 1e-3, i)
	}
	both, _ := used(func(c *train.Config) { c.GradientNormalization, c.GradientClip = "all", 0.5 })
	require.InDelta(t, 0.5, norm(both), 1e-4)
	const limit = 1e-3
	_, values := used(func(c *train.Config) { c.GradientClipValue = limit })
	most := 0.0
	for _, v := range values {
		for _, x := range v {
			most = max(most, math.Abs(float64(x)))
		}
	}
	require.InDelta(t, limit, most, 1e-6)
}

func TestRecordsMeasureTheRun(t *testing.T) {
	c := runConfig("adamw", "cosine")
	c.Steps, c.Schedule.TotalSteps, c.WeightChanges, c.EvalEvery = 10, 10, true, 10
	c.NoDecay, c.PeakFLOPS = []string{"embed_tokens"}, 1e9
	r := newRun(t, c)
	codes := func() (all []int8) {
		r.model.EachTernary(func(_ string, l *nn.Linear) { all = append(all, l.Ternary.Codes(nil)...) })
		return all
	}
	before := codes()
	moved := 0.0
	r.onStep = func(rec train.Record) error {
		after := codes()
		var flipped, zeroed, zero float64
		for i, a := range after {
			if a == 0 {
				zero++
			}
			if a == 0 && before[i] != 0 {
				zeroed++
			}
			if a != 0 && a == -before[i] {
				flipped++
			}
		}
		n := float64(len(after))
		require.Equal(t, &train.WeightChanges{Flipped: flipped / n, Zeroed: zeroed / n, Zero: zero / n}, rec.WeightChanges)
		moved += zeroed
		before = after

		require.Equal(t, rec.LearningRates, map[string]float64{"decay": rec.LearningRate, "no_decay": rec.LearningRate})
		require.Equal(t, math.Exp(rec.Loss), rec.Perplexity)
		require.Equal(t, int64(rec.Step*2*2*16), rec.Tokens)
		require.InDelta(t, float64(rec.Step)*4/31, rec.Epoch, 0.15) // 31 windows, 4 an update
		require.Positive(t, rec.TokensPerSecond)
		require.InEpsilon(t, rec.MFU, rec.TokensPerSecond*6*float64(2*r.model.Config.LayerWeights()+61*48+2*48*16)/1e9, 1e-9)
		require.Positive(t, rec.PoolBytes)
		require.Equal(t, rec.Step == 10, rec.EvalRecord != nil)
		return nil
	}
	require.NoError(t, r.Train(context.Background()))
	require.Positive(t, moved)
}

func TestEpochsAreCountedInUpdates(t *testing.T) {
	c := runConfig("sgd", "constant")
	c.Steps, c.Epochs = 0, 1.5 // 31 windows, 4 an update: 8 updates an epoch
	r := newRun(t, c)
	require.Equal(t, 12, r.Steps())
	require.NoError(t, r.Train(context.Background()))
	require.Equal(t, 1.5, r.records[11].Epoch)
	for name, spoil := range map[string]func(*train.Config){
		"max_steps = 3 and epochs = 1.5: expected one of them": func(c *train.Config) { c.Steps = 3 },
		"max_steps = 0 and epochs = 0: expected one of them":   func(c *train.Config) { c.Epochs = 0 },
		"epochs = -1":                       func(c *train.Config) { c.Epochs = -1 },
		"gradient_clip_value = +Inf":        func(c *train.Config) { c.GradientClipValue = math.Inf(1) },
		`gradient_normalization = "some"`:   func(c *train.Config) { c.GradientNormalization = "some" },
		`monitor_mode = "least"`:            func(c *train.Config) { c.MonitorMode = "least" },
		"early_stopping.patience = 0":       func(c *train.Config) { c.EarlyStopping = &train.EarlyStopping{} },
		"early_stopping.min_delta = NaN":    func(c *train.Config) { c.EarlyStopping = &train.EarlyStopping{Patience: 1, MinDelta: math.NaN()} },
		"peak_flops = -1":                   func(c *train.Config) { c.PeakFLOPS = -1 },
		`mode = "half": expected "dynamic"`: func(c *train.Config) { c.LossScale = &optim.ScalerConfig{Mode: "half"} },
	} {
		bad := c
		spoil(&bad)
		data, eval := runTexts(t)
		_, err := train.NewTrainer(trainable(t, "relu2"), bad, data, eval)
		require.ErrorContains(t, err, name)
	}
}
