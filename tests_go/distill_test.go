package tests_go

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// testdata/train/distill.npz: tests_py/record/distill.py.
func TestDistillationIsThatOfPyTorch(t *testing.T) {
	record, err := npz.Load("testdata/train/distill.npz")
	require.NoError(t, err)
	load := func(name string) []float32 {
		v, err := record[name].Float32s()
		require.NoError(t, err, name)
		return v
	}
	ids, err := record["targets"].Int64s()
	require.NoError(t, err)
	targets := make([]int32, len(ids))
	for i, id := range ids {
		targets[i] = int32(id)
	}
	head := func(weight, table string, dim int) *nn.Head {
		l := nn.NewTrainable(false, len(load(table))/dim, dim)
		l.Weight = autograd.NewParam(table, load(table), l.Out, dim)
		require.NoError(t, l.Refresh())
		p := autograd.NewParam(weight, load(weight), dim)
		return &nn.Head{Norm: &nn.Norm{Weight: p.Data, Eps: 1e-5, Param: p}, Proj: l}
	}
	matrix := func(name string) *tensor.Tensor {
		m, err := tensor.FromFloat32(load(name), record[name].Shape...)
		require.NoError(t, err)
		return m
	}
	onEveryISA(t, func(t *testing.T) {
		x, hidden := matrix("x"), matrix("t")
		student, teacher := head("weight", "head", x.Dim(1)), head("t_weight", "t_head", hidden.Dim(1))
		c, other := nn.NewCtx(pool.Default()), nn.NewCtx(pool.Default())
		defer c.Close()
		defer other.Close()
		other.Begin(context.Background(), 1, nil, nil)
		defer other.End()
		c.Begin(context.Background(), 1, nil, nil)
		defer c.End()
		tape := autograd.NewTape(c)
		c.Attach(tape)
		d := &nn.Distillation{Alpha: load("alpha")[0], Temperature: load("temperature")[0], Teacher: teacher, Ctx: other, Hidden: hidden,
			KL: make([]float64, len(targets))}
		c.Learn(d)
		nats := make([]float64, len(targets))
		student.Loss(c, x, targets, load("scale")[0], nats)
		requireNear(t, load("nats"), float32s(nats), 1e-5, "cross-entropy")
		requireNear(t, load("kl"), float32s(d.KL), 1e-5, "divergence")
		requireNear(t, load("d_x"), tape.Take(x).Float32s(), 1e-4, "dx")
		requireNear(t, load("d_weight"), student.Norm.Param.Grad, 1e-4, "dweight")
		requireNear(t, load("d_head"), student.Proj.Weight.Grad, 1e-4, "dhead")
	})
}

func float32s(x []float64) (y []float32) {
	for _, v := range x {
		y = append(y, float32(v))
	}
	return y
}

// teacherModel is a wider model with the vocabulary of trainable.
func teacherModel(t *testing.T, seed uint64) *model.Model {
	t.Helper()
	cfg := *trainable(t, "silu").Config
	cfg.HiddenSize, cfg.NumHiddenLayers, cfg.NumKeyValueHeads = 64, 3, 4
	cfg.HeadDim = 16
	m, err := model.NewRandom(&cfg, seed, model.LoadOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func TestAModelLearnsFromATeacher(t *testing.T) {
	threads := cpu.NumThreads()
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(threads)) })
	run := func(o train.EngineOptions) (first, last train.Score) {
		m := trainable(t, "relu2")
		e, err := train.NewEngine(m, o)
		require.NoError(t, err)
		defer e.Close()
		config := optim.DefaultConfig("adamw")
		config.LR = 1e-2
		opt, err := optim.New(nil, config, optim.DecayGroups(e.Params(), config.Hyper)...)
		require.NoError(t, err)
		defer opt.Close()
		b := someBatch(60, 33, 60)
		for i := range 30 {
			require.NoError(t, opt.ZeroGrad())
			e.SetStep(1, i, 0)
			last, err = e.Accumulate(context.Background(), b, 1)
			require.NoError(t, err)
			require.NoError(t, opt.StepScaled(1))
			require.NoError(t, m.Refresh())
			if i == 0 {
				first = last
			}
		}
		return first, last
	}
	require.NoError(t, cpu.SetNumThreads(2))
	o := train.EngineOptions{Teacher: teacherModel(t, 1), DistillationAlpha: 1, Dropout: 0.05, GradientCheckpointing: true}
	first, last := run(o)
	require.Positive(t, first.Divergence)
	require.Less(t, last.Divergence, 0.5*first.Divergence)
	require.NoError(t, cpu.SetNumThreads(1))
	_, again := run(o)
	require.Equal(t, last, again)
	_, other := run(train.EngineOptions{Teacher: teacherModel(t, 2), DistillationAlpha: 1})
	require.NotEqual(t, last, other)
	_, plain := run(train.EngineOptions{})
	require.Zero(t, plain.Divergence)
}

// A distribution's divergence from itself is zero, and so is its gradient.
func TestAModelIsItsOwnBestTeacher(t *testing.T) {
	e, err := train.NewEngine(trainable(t, "relu2"), train.EngineOptions{Teacher: trainable(t, "relu2"), DistillationAlpha: 1})
	require.NoError(t, err)
	defer e.Close()
	b := someBatch(40)
	score, err := e.Accumulate(context.Background(), b, 1)
	require.NoError(t, err)
	require.InDelta(t, 0, score.Divergence, 1e-5)
	for _, p := range e.Params() {
		require.LessOrEqual(t, maxAbs(p.Grad), float32(1e-6), p.Name)
	}
	var s train.Score
	require.NoError(t, e.Score(context.Background(), b, &s))
	require.Zero(t, s.Divergence, "evaluation asks no teacher")
}

func TestTeachersAreChecked(t *testing.T) {
	student := trainable(t, "relu2")
	cfg := *student.Config
	cfg.VocabSize = 62
	other, err := model.NewRandom(&cfg, 1, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	for message, o := range map[string]train.EngineOptions{
		"distillation_alpha = 0.5: expected none without a teacher":     {DistillationAlpha: 0.5},
		"distillation_temperature = 2: expected none without a teacher": {DistillationTemperature: 2},
		"distillation_alpha = 1.5: expected a number in (0, 1]":         {DistillationAlpha: 1.5, Teacher: other},
		"distillation_temperature = -1: expected a number > 0":          {DistillationTemperature: -1, Teacher: other},
		"teacher.vocab_size = 62: expected that of the trained":         {Teacher: other},
		"teacher = the trained model: expected another model":           {Teacher: student},
	} {
		_, err := train.NewEngine(student, o)
		require.ErrorIs(t, err, train.ErrConfig)
		require.ErrorContains(t, err, message)
	}
	_, err = train.NewEngine(student, train.EngineOptions{STE: "learned_scale", Teacher: other})
	require.ErrorIs(t, err, train.ErrConfig)
	require.False(t, student.LearnsScales(), "a refused engine leaves the model as it was")
	short := teacherModel(t, 1)
	short.Config.MaxPositionEmbeddings = 30
	e, err := train.NewEngine(student, train.EngineOptions{Teacher: short})
	require.NoError(t, err)
	defer e.Close()
	_, err = e.Accumulate(context.Background(), someBatch(31), 1)
	require.ErrorContains(t, err, "expected at most the teacher's max_position_embeddings = 30")
	_, err = e.Accumulate(context.Background(), someBatch(30), 1)
	require.NoError(t, err)
}
