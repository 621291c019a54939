package tests_go

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// testdata/train/ste.npz: tests_py/record/ste.py.
func TestStraightThroughEstimatorsAreThoseOfPyTorch(t *testing.T) {
	record, err := npz.Load("testdata/train/ste.npz")
	require.NoError(t, err)
	load := func(name string) ([]float32, []int) {
		a, ok := record[name]
		require.True(t, ok, name)
		v, err := a.Float32s()
		require.NoError(t, err)
		return v, a.Shape
	}
	clip, _ := load("clip")
	temperature, _ := load("temperature")
	float, _ := load("float")
	estimators := map[string]nn.STE{
		"identity": nn.STEIdentity, "clipped": nn.STEClipped, "soft": nn.STESoft, "learned_scale": nn.STELearnedScale,
	}
	run := func(t *testing.T, c, name string, training nn.Training) {
		w, shape := load(c + "/W")
		x, in := load(c + "/X")
		g, _ := load(c + "/G")
		layer := nn.NewTrainable(true, shape[0], shape[1])
		layer.Weight = autograd.NewParam(c, w, shape...)
		require.NoError(t, layer.Refresh())
		if training.STE == nn.STELearnedScale {
			layer.LearnScale("step")
			require.Equal(t, layer.Ternary.Scale, layer.Scale.Data[0], "it begins as the mean")
			step, _ := load(c + "/step")
			copy(layer.Scale.Data, step)
			require.NoError(t, layer.Refresh())
		}
		ctx := nn.NewCtx(pool.Default())
		defer ctx.Close()
		tape := autograd.NewTape(ctx)
		ctx.Begin(context.Background(), 1, make([]nn.Row, in[0]), nil)
		defer ctx.End()
		ctx.Train(training)
		ctx.Attach(tape)
		input, err := tensor.FromFloat32(x, in...)
		require.NoError(t, err)
		y := nn.Project(ctx, input, nil, layer)[0]
		want, _ := load(c + name + "/Y")
		requireNear(t, want, y.Float32s(), 1e-5, name+" Y")
		dy := ctx.New(in[0], shape[0])
		copy(dy.Float32s(), g)
		tape.Add(y, dy)
		tape.Backward()
		want, _ = load(c + name + "/dX")
		requireNear(t, want, tape.Take(input).Float32s(), 1e-4, name+" dX")
		want, _ = load(c + name + "/dW")
		requireNear(t, want, layer.Weight.Grad, 1e-4, name+" dW")
		if layer.Scale != nil {
			want, _ = load(c + name + "/dstep")
			require.InEpsilon(t, want[0], layer.Scale.Grad[0], 1e-3)
		}
	}
	onEveryISA(t, func(t *testing.T) {
		for _, c := range []string{"a", "b"} {
			for name, ste := range estimators {
				training := nn.Training{STE: ste, Clip: clip[0], Temperature: temperature[0]}
				if ste != nn.STEIdentity { // TestBitLinearGradientsAreThoseOfPyTorch
					run(t, c, "/"+name, training)
				}
				training.Float = float[0]
				run(t, c, "/blended/"+name, training)
			}
		}
	})
}

func TestOptionsOfEstimatorsAreChecked(t *testing.T) {
	for message, o := range map[string]train.EngineOptions{
		`ste = "round": expected "identity", "clipped"`:             {STE: "round"},
		"ste_clip = -1: expected a number > 0":                      {STE: "clipped", STEClip: -1},
		`ste_clip = 1: expected none with ste = ""`:                 {STEClip: 1},
		`ste_temperature = 1: expected none with ste = "clipped"`:   {STE: "clipped", STETemperature: 1},
		"ste_temperature_end = 0.1: expected a temperature and ste": {STE: "soft", STETemperatureEnd: 0.1},
		"ste_temperature_end = 0: expected a temperature":           {STE: "soft", STETemperatureSteps: 10},
	} {
		_, err := train.NewEngine(trainable(t, "relu2"), o)
		require.ErrorIs(t, err, train.ErrConfig)
		require.ErrorContains(t, err, message)
	}
}

func TestTheTemperatureFollowsItsSchedule(t *testing.T) {
	b := someBatch(40)
	annealed := engineFor(t, train.EngineOptions{STE: "soft", STETemperature: 0.8, STETemperatureEnd: 0.2, STETemperatureSteps: 10})
	for step, temperature := range map[int]float64{0: 0.8, 5: 0.4, 10: 0.2, 1000: 0.2} {
		annealed.SetStep(1, step, 0)
		_, want := gradients(t, engineFor(t, train.EngineOptions{STE: "soft", STETemperature: temperature}), b)
		_, got := gradients(t, annealed, b)
		require.Equal(t, want, got, "step %d", step)
	}
}

// The scales move, a resumed run has them to the bit, and what is saved computes with them.
func TestLearnedScalesAreTrainedSavedAndExported(t *testing.T) {
	text := make([]int32, 2000)
	for i := range text {
		text[i] = int32(i * i % 61)
	}
	data, err := train.NewTokens(text, 32)
	require.NoError(t, err)
	config := train.Config{
		Steps: 8, BatchSize: 4, Seed: 5, Optimizer: optim.DefaultConfig("adamw"), Schedule: optim.ScheduleConfig{Name: "constant"},
		Checkpoint:    train.CheckpointConfig{Dir: t.TempDir(), Every: 4},
		EngineOptions: train.EngineOptions{STE: "learned_scale"},
	}
	config.Optimizer.LR = 1e-2
	run := func(resume string) *model.Model {
		m := trainable(t, "relu2")
		tr, err := train.NewTrainer(m, config, data, nil)
		require.NoError(t, err)
		defer tr.Close()
		if resume != "" {
			_, err := tr.Resume(resume)
			require.NoError(t, err)
		}
		require.NoError(t, tr.Train(context.Background()))
		return m
	}
	fresh := trainable(t, "relu2")
	config.Steps = 4
	run("")
	dir := config.Checkpoint.Dir
	config.Steps = 8
	config.Checkpoint.Dir = t.TempDir()
	resumed := run(dir)
	config.Checkpoint.Dir = t.TempDir()
	m := run("")
	require.True(t, m.LearnsScales())
	require.Equal(t, len(fresh.Params())+2*7, len(m.Params()), "one scale for each ternary layer")
	for i, p := range m.Params() {
		require.Equal(t, p.Data, resumed.Params()[i].Data, p.Name)
	}
	up := m.Blocks[1].FFN.Up
	require.Equal(t, up.Scale.Data[0], up.Ternary.Scale)
	require.NotEqual(t, fresh.Blocks[1].FFN.Up.Ternary.Scale, up.Ternary.Scale)
	require.Equal(t, "model.layers.1.mlp.up_proj.weight_scale", up.Scale.Name)

	ids := text[:100]
	likelihood := func(m *model.Model) float64 {
		e := infer.NewEngine(m)
		defer e.Close()
		sum, _, err := e.LogLikelihood(context.Background(), ids, 200, 100)
		require.NoError(t, err)
		return sum
	}
	for format, save := range map[string]func(path string) error{
		"bitnet": func(path string) error { return m.Save(path, nil) }, "hf": m.SaveHF,
	} {
		path := filepath.Join(t.TempDir(), "model."+format)
		require.NoError(t, save(path))
		saved, err := model.Load(context.Background(), path, model.LoadOptions{HeadFormat: "float32"})
		require.NoError(t, err)
		require.Equal(t, likelihood(m), likelihood(saved), format)
		require.NoError(t, saved.Close())
	}

	_, err = train.NewEngine(m, train.EngineOptions{STE: "clipped"})
	require.ErrorContains(t, err, "this model has learned scales")
}
