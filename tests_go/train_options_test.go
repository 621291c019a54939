package tests_go

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// engineFor is an engine over a new small model.
func engineFor(t *testing.T, o train.EngineOptions) *train.Engine {
	t.Helper()
	e, err := train.NewEngine(trainable(t, "relu2"), o)
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

// someBatch has sequences of the given lengths.
func someBatch(lengths ...int) train.Batch {
	r := rand.New(rand.NewPCG(4, 4))
	b := train.Batch{Lengths: lengths}
	for _, n := range lengths {
		ids := randomIDs(r, n+1, 61)
		b.IDs, b.Targets = append(b.IDs, ids[:n]...), append(b.Targets, ids[1:]...)
	}
	return b
}

func zero(params []*autograd.Param) {
	for _, p := range params {
		clear(p.Grad)
	}
}

// gradients runs one pass and returns the loss and copies of the gradients.
func gradients(t *testing.T, e *train.Engine, b train.Batch) (float64, [][]float32) {
	t.Helper()
	zero(e.Params())
	score, err := e.Accumulate(context.Background(), b, 1)
	require.NoError(t, err)
	var all [][]float32
	for _, p := range e.Params() {
		all = append(all, append([]float32(nil), p.Grad...))
	}
	return score.Loss(), all
}

func TestEngineOptionsAreChecked(t *testing.T) {
	for field, o := range map[string]train.EngineOptions{
		"dropout = 1":             {Dropout: 1},
		"dropout = NaN":           {Dropout: math.NaN()},
		"attention_dropout = -1":  {AttentionDropout: -1},
		"attention_dropout = 1.5": {AttentionDropout: 1.5},
	} {
		_, err := train.NewEngine(trainable(t, "relu2"), o)
		require.ErrorIs(t, err, train.ErrConfig)
		var option *train.OptionError
		require.ErrorAs(t, err, &option)
		require.ErrorContains(t, err, field+": expected a number in [0, 1)")
	}
	text, err := json.Marshal(train.EngineOptions{})
	require.NoError(t, err)
	require.Equal(t, "{}", string(text), "an option that is not used does not identify a run")
}

func TestDropoutRepeatsForEqualStepsWhateverTheThreadsAndISA(t *testing.T) {
	o := train.EngineOptions{Dropout: 0.2, AttentionDropout: 0.1}
	b := someBatch(70, 33)
	threads := cpu.NumThreads()
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(threads)) })
	e := engineFor(t, o)
	e.SetStep(5, 7, 1)
	loss, grads := gradients(t, e, b)
	for _, n := range []int{1, 2, 3} {
		require.NoError(t, cpu.SetNumThreads(n))
		e.SetStep(5, 7, 1)
		l, g := gradients(t, e, b)
		require.Equal(t, loss, l)
		require.Equal(t, grads, g)
	}
	onEveryISA(t, func(t *testing.T) {
		e.SetStep(5, 7, 1)
		l, g := gradients(t, e, b)
		require.Equal(t, loss, l)
		require.Equal(t, grads, g)
	})
	for name, step := range map[string]func(){
		"seed": func() { e.SetStep(6, 7, 1) }, "step": func() { e.SetStep(5, 8, 1) }, "batch": func() { e.SetStep(5, 7, 2) },
	} {
		step()
		l, _ := gradients(t, e, b)
		require.NotEqual(t, loss, l, "another %s", name)
	}
}

func TestEvaluationKnowsNoDropout(t *testing.T) {
	b := someBatch(40, 12)
	var plain, score train.Score
	require.NoError(t, engineFor(t, train.EngineOptions{}).Score(context.Background(), b, &plain))
	e := engineFor(t, train.EngineOptions{Dropout: 0.5, AttentionDropout: 0.5})
	_, err := e.Accumulate(context.Background(), b, 1)
	require.NoError(t, err)
	require.NoError(t, e.Score(context.Background(), b, &score))
	require.Equal(t, plain, score)
}

func TestGradientCheckpointingGivesTheSameBitsInLessMemory(t *testing.T) {
	b := someBatch(70, 33, 5)
	for _, o := range []train.EngineOptions{{}, {Dropout: 0.2, AttentionDropout: 0.1}} {
		var engines [2]*train.Engine
		for i := range engines {
			cfg := *trainable(t, "relu2").Config
			cfg.NumHiddenLayers = 8
			m, err := model.NewTrainable(&cfg, 1, model.LoadOptions{})
			require.NoError(t, err)
			defer func() { require.NoError(t, m.Close()) }()
			engines[i], err = train.NewEngine(m, o)
			require.NoError(t, err)
			defer engines[i].Close()
			o.GradientCheckpointing = true
		}
		plain, again := engines[0], engines[1]
		var peak [2]int64
		for i, e := range engines {
			for range 3 { // the first step is recorded, later ones are planned
				e.SetStep(1, 2, 3)
				gradients(t, e, b)
			}
			s := e.Scratch()
			require.Zero(t, s.Fallbacks)
			require.Positive(t, s.Planned)
			peak[i] = s.PeakLive
		}
		plain.SetStep(1, 2, 3)
		again.SetStep(1, 2, 3)
		loss, grads := gradients(t, plain, b)
		l, g := gradients(t, again, b)
		require.Equal(t, loss, l)
		require.Equal(t, grads, g)
		t.Logf("peak of eight layers: %d bytes, with recomputation %d", peak[0], peak[1])
		require.Less(t, peak[1], peak[0]*2/3)

		var a, c train.Score
		require.NoError(t, plain.Score(context.Background(), b, &a))
		require.NoError(t, again.Score(context.Background(), b, &c))
		require.Equal(t, a, c)
	}
}

// The loss of a batch is the mean over its targets, and its gradient the sum of theirs, however long the sequences are.
func TestSequencesOfABatchMayDifferInLength(t *testing.T) {
	e := engineFor(t, train.EngineOptions{})
	lengths := []int{70, 3, 1, 64}
	all := someBatch(lengths...)
	loss, grads := gradients(t, e, all)
	sum, at := 0.0, 0
	want := make([][]float64, len(grads))
	for i := range want {
		want[i] = make([]float64, len(grads[i]))
	}
	for _, n := range lengths {
		one := train.Batch{IDs: all.IDs[at : at+n], Targets: all.Targets[at : at+n], Length: n}
		l, g := gradients(t, e, one)
		sum += l * float64(n)
		for i := range g {
			for j, v := range g[i] {
				want[i][j] += float64(v) * float64(n) / float64(len(all.IDs))
			}
		}
		at += n
	}
	require.InEpsilon(t, sum/float64(len(all.IDs)), loss, 1e-12)
	for i, p := range e.Params() {
		diff, norm := 0.0, 0.0
		for j, v := range want[i] {
			diff += (v - float64(grads[i][j])) * (v - float64(grads[i][j]))
			norm += v * v
		}
		require.LessOrEqual(t, math.Sqrt(diff), 1e-3*math.Sqrt(norm), p.Name)
	}
	for message, b := range map[string]train.Batch{
		"lengths[1] = 0":    {IDs: make([]int32, 3), Targets: make([]int32, 3), Lengths: []int{3, 0}},
		"lengths[0] = 201":  {IDs: make([]int32, 201), Targets: make([]int32, 201), Lengths: []int{201}},
		"lengths add up to": {IDs: make([]int32, 3), Targets: make([]int32, 3), Lengths: []int{2}},
	} {
		err := e.Score(context.Background(), b, &train.Score{})
		require.ErrorIs(t, err, train.ErrBatch)
		require.ErrorContains(t, err, message)
	}
}

func TestDivergenceIsTracedToItsTensor(t *testing.T) {
	nan := float32(math.NaN())
	b := someBatch(20)
	weight := func(e *train.Engine, name string) *autograd.Param {
		for _, p := range e.Params() {
			if p.Name == name {
				return p
			}
		}
		t.Fatalf("no parameter %s", name)
		return nil
	}
	for name, c := range map[string]struct {
		spoil func(e *train.Engine, m *model.Model)
		want  train.DivergenceError
	}{
		"a weight": {
			func(e *train.Engine, _ *model.Model) { weight(e, "model.layers.1.mlp.up_proj.weight").Data[5] = nan },
			train.DivergenceError{Step: 3, Layer: 1, Kind: "weight", Tensor: "model.layers.1.mlp.up_proj.weight", Index: 5},
		},
		"an activation": {
			func(_ *train.Engine, m *model.Model) { m.Blocks[1].FFN.Down.Ternary.Scale = nan },
			train.DivergenceError{Step: 3, Layer: 1, Kind: "activation", Tensor: "model.layers.1.mlp"},
		},
		"a gradient": {
			func(e *train.Engine, _ *model.Model) {
				weight(e, "model.layers.0.self_attn.o_proj.weight").Grad[7] = nan
				weight(e, "model.embed_tokens.weight").Grad[0] = nan
			},
			train.DivergenceError{Step: 3, Layer: 0, Kind: "gradient", Tensor: "model.layers.0.self_attn.o_proj.weight", Index: 7},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := trainable(t, "relu2")
			e, err := train.NewEngine(m, train.EngineOptions{})
			require.NoError(t, err)
			defer e.Close()
			require.NoError(t, e.Diagnose(context.Background(), b, 3), "nothing is wrong")
			c.spoil(e, m)
			err = e.Diagnose(context.Background(), b, 3)
			require.ErrorIs(t, err, train.ErrDiverged)
			var found *train.DivergenceError
			require.ErrorAs(t, err, &found)
			require.True(t, math.IsNaN(found.Value))
			found.Value = 0
			require.Equal(t, &c.want, found)
		})
	}
	e := train.DivergenceError{Step: 3, Layer: 1, Kind: "gradient", Tensor: "model.layers.1.mlp.up_proj.weight", Index: 5, Value: math.Inf(1)}
	require.EqualError(t, &e, "train: diverged: step 3: layer 1: gradient model.layers.1.mlp.up_proj.weight[5] is +Inf")
	require.EqualError(t, &train.DivergenceError{Layer: -1, Kind: "loss", Value: math.Inf(1)}, "train: diverged: loss is +Inf")
	require.Equal(t, -1, model.LayerOf("model.norm.weight"))
	require.Equal(t, 12, model.LayerOf("model.layers.12.mlp"))
}

// A run that goes on must compute what it computed; memory is its own affair.
func TestOptionsIdentifyARun(t *testing.T) {
	data, err := train.NewTokens(make([]int32, 200), 10)
	require.NoError(t, err)
	dir := t.TempDir()
	config := train.Config{Steps: 2, BatchSize: 1, Optimizer: optim.DefaultConfig("sgd"), Schedule: optim.ScheduleConfig{Name: "constant"},
		Checkpoint:    train.CheckpointConfig{Dir: dir},
		EngineOptions: train.EngineOptions{Dropout: 0.1, Teacher: teacherModel(t, 1)},
	}
	resume := func(change func(*train.EngineOptions)) error {
		c := config
		change(&c.EngineOptions)
		tr, err := train.NewTrainer(trainable(t, "relu2"), c, data, nil)
		require.NoError(t, err)
		defer tr.Close()
		_, err = tr.Resume(dir)
		return err
	}
	tr, err := train.NewTrainer(trainable(t, "relu2"), config, data, nil)
	require.NoError(t, err)
	require.NoError(t, tr.Train(context.Background()))
	tr.Close()
	for field, change := range map[string]func(*train.EngineOptions){
		"config.dropout":               func(o *train.EngineOptions) { o.Dropout = 0.2 },
		"config.ste":                   func(o *train.EngineOptions) { o.STE = "clipped" },
		"config.quantization_schedule": func(o *train.EngineOptions) { o.QuantizationSchedule = "step" },
		"config.distillation_alpha":    func(o *train.EngineOptions) { o.DistillationAlpha = 0.7 },
		"teacher.crc32c":               func(o *train.EngineOptions) { o.Teacher = teacherModel(t, 2) },
	} {
		var mismatch *train.MismatchError
		require.ErrorAs(t, resume(change), &mismatch)
		require.Equal(t, field, mismatch.Field)
	}
	require.NoError(t, resume(func(o *train.EngineOptions) { o.GradientCheckpointing = true }))
	require.NoError(t, resume(func(o *train.EngineOptions) { o.Teacher = teacherModel(t, 1) }), "the same one, loaded again")
}

// Every option of a step is a field of Python's TrainingConfig, under the same name.
func TestPythonOffersEveryEngineOption(t *testing.T) {
	source, err := os.ReadFile("../python/bitnet_rust/training_config.py")
	require.NoError(t, err)
	options := reflect.TypeFor[train.EngineOptions]()
	for i := range options.NumField() {
		name, _, _ := strings.Cut(options.Field(i).Tag.Get("json"), ",")
		if name != "-" { // the teacher is the Trainer's own argument
			require.Contains(t, string(source), "\n    "+name+": ", options.Field(i).Name)
			require.Contains(t, string(source), `    "`+name+`": `, options.Field(i).Name)
		}
	}
}
