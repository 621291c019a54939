package tests_go

import (
	"context"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

func trainable(t *testing.T, act string) *model.Model {
	t.Helper()
	cfg := &model.Config{
		Architecture: model.ArchBitNet, VocabSize: 61, HiddenSize: 48, IntermediateSize: 88, NumHiddenLayers: 2,
		NumAttentionHeads: 4, NumKeyValueHeads: 2, HeadDim: 12, HiddenAct: act, MaxPositionEmbeddings: 200,
		TieWordEmbeddings: true, InitializerRange: 0.05,
	}
	m, err := model.NewTrainable(cfg, 3, model.LoadOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// What the trainer measures is what the engine runs, to the last bit.
func TestTrainingLossEqualsInferenceLikelihood(t *testing.T) {
	onEveryISA(t, func(t *testing.T) {
		for _, act := range []string{"relu2", "silu", "relu", "gelu", "gelu_new"} {
			m := trainable(t, act)
			e, err := train.NewEngine(m, train.EngineOptions{})
			require.NoError(t, err)
			defer e.Close()
			ids := randomIDs(rand.New(rand.NewPCG(1, 1)), 151, m.Config.VocabSize)
			batch := train.Batch{IDs: ids[:150], Targets: ids[1:], Length: 150}
			recorded, err := e.Accumulate(context.Background(), batch, 1)
			require.NoError(t, err)
			var score train.Score
			require.NoError(t, e.Score(context.Background(), batch, &score))
			require.Equal(t, score, recorded, "recording changes nothing")

			engine := infer.NewEngine(m)
			defer engine.Close()
			sum, n, err := engine.LogLikelihood(context.Background(), ids, 200, 100)
			require.NoError(t, err)
			require.Equal(t, -sum/float64(n), score.Loss())
			require.Equal(t, n, score.Targets)
		}
	})
}

// A text gives the same bits in batches of any size, those of the inference engine's windows; accuracy counts arg maxima.
func TestTheScoreOfATextDoesNotDependOnItsBatches(t *testing.T) {
	m := trainable(t, "relu2")
	e, err := train.NewEngine(m, train.EngineOptions{})
	require.NoError(t, err)
	defer e.Close()
	const length, windows = 9, 13
	ids := randomIDs(rand.New(rand.NewPCG(1, 1)), length*windows+1, m.Config.VocabSize)
	engine := infer.NewEngine(m)
	defer engine.Close()
	sum, _, err := engine.LogLikelihood(context.Background(), ids, length+1, length)
	require.NoError(t, err)
	correct := 0
	for w := range windows {
		part := ids[w*length:]
		logits := make([]float32, length*m.Config.VocabSize)
		seq := engine.NewSequence()
		require.NoError(t, engine.Step(context.Background(), []infer.Chunk{{Seq: seq, IDs: part[:length], Logits: length}}, logits))
		seq.Close()
		for i := range length {
			row := logits[i*m.Config.VocabSize : (i+1)*m.Config.VocabSize]
			if slices.Index(row, slices.Max(row)) == int(part[i+1]) {
				correct++
			}
		}
	}
	require.Positive(t, correct)
	data, err := train.NewTokens(ids, length)
	require.NoError(t, err)
	for _, size := range []int{1, 2, 5, 13} {
		score, err := train.Evaluate(context.Background(), e, data, size)
		require.NoError(t, err)
		require.Equal(t, train.Score{Nats: -sum, Targets: length * windows, Correct: correct}, score)
	}
}

// Biases and norms of single layers are trained, run and saved like everything else.
func TestModelsWithBiasesAndOwnNormsAreTrained(t *testing.T) {
	cfg := *trainable(t, "silu").Config
	cfg.Architecture = model.ArchLlama
	cfg.AttentionBias, cfg.MLPBias, cfg.Quantization.UseRMSNorm = true, true, true
	m, err := model.NewTrainable(&cfg, 3, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	names := map[string]*autograd.Param{}
	for _, p := range m.Params() {
		names[p.Name] = p
	}
	bias, norm := names["model.layers.1.mlp.up_proj.bias"], names["model.layers.0.self_attn.o_proj.rms_norm.weight"]
	require.Equal(t, []int{88}, bias.Shape)
	require.Equal(t, []int{48}, norm.Shape)

	e, err := train.NewEngine(m, train.EngineOptions{})
	require.NoError(t, err)
	defer e.Close()
	opt, err := optim.New(nil, optim.DefaultConfig("adamw"), optim.DecayGroups(e.Params(), optim.DefaultConfig("adamw").Hyper)...)
	require.NoError(t, err)
	defer opt.Close()
	b := someBatch(60, 60)
	var first, last train.Score
	for range 10 {
		require.NoError(t, opt.ZeroGrad())
		last, err = e.Accumulate(context.Background(), b, 1)
		require.NoError(t, err)
		require.NoError(t, opt.SetLR(1e-2))
		require.NoError(t, opt.StepScaled(1))
		require.NoError(t, m.Refresh())
		if first.Targets == 0 {
			first = last
		}
	}
	require.Less(t, last.Loss(), first.Loss()-0.5)
	require.NotZero(t, maxAbs(bias.Data))

	ids := b.IDs[:60]
	likelihood := func(m *model.Model) float64 {
		engine := infer.NewEngine(m)
		defer engine.Close()
		sum, _, err := engine.LogLikelihood(context.Background(), ids, 200, 100)
		require.NoError(t, err)
		return sum
	}
	var s train.Score
	require.NoError(t, e.Score(context.Background(), train.Batch{IDs: ids[:59], Targets: ids[1:], Length: 59}, &s))
	require.Equal(t, likelihood(m), -s.Nats)
	path := filepath.Join(t.TempDir(), "model.bitnet")
	require.NoError(t, m.Save(path, nil))
	saved, err := model.Load(context.Background(), path, model.LoadOptions{HeadFormat: "float32"})
	require.NoError(t, err)
	defer func() { require.NoError(t, saved.Close()) }()
	require.Equal(t, likelihood(m), likelihood(saved))
}

func TestTrainingRefusesBadBatches(t *testing.T) {
	m := trainable(t, "relu2")
	e, err := train.NewEngine(m, train.EngineOptions{})
	require.NoError(t, err)
	defer e.Close()
	for name, b := range map[string]train.Batch{
		"expected 1 to max_position_embeddings": {IDs: []int32{1}, Targets: []int32{1}, Length: 201},
		"positive multiple":                     {IDs: []int32{1, 2, 3}, Targets: []int32{1, 2, 3}, Length: 2},
		"2 targets for 1 ids":                   {IDs: []int32{1}, Targets: []int32{1, 2}, Length: 1},
		"ids[0] = 61":                           {IDs: []int32{61}, Targets: []int32{1}, Length: 1},
		"targets[0] = -1":                       {IDs: []int32{1}, Targets: []int32{-1}, Length: 1},
		"every target is ignored":               {IDs: []int32{1}, Targets: []int32{-100}, Length: 1},
	} {
		err := e.Score(context.Background(), b, new(train.Score))
		require.ErrorIs(t, err, train.ErrBatch)
		require.ErrorContains(t, err, name)
	}
	many := make([]int32, 1<<17+1)
	_, err = e.Accumulate(context.Background(), train.Batch{IDs: many, Targets: many, Length: 1}, 1)
	require.ErrorIs(t, err, train.ErrBatch)
	require.ErrorContains(t, err, "131073 ids: expected at most 131072 in a batch that is differentiated")

	plain, err := model.NewRandom(m.Config, 1, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, plain.Close()) }()
	_, err = train.NewEngine(plain, train.EngineOptions{})
	require.ErrorIs(t, err, train.ErrNotTrainable)
}

// A text in which each token follows from the one before is learned; equal seeds give equal runs, whatever the threads.
func TestTrainingLearnsAndRepeats(t *testing.T) {
	threads := cpu.NumThreads()
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(threads)) })
	text := make([]int32, 3000)
	for i := range text {
		text[i] = int32(i * i % 61)
	}
	data, err := train.NewTokens(text[:2500], 32)
	require.NoError(t, err)
	eval, err := train.NewTokens(text[2500:], 32)
	require.NoError(t, err)
	config := train.Config{
		Steps: 60, BatchSize: 4, Accumulation: 2, GradientClip: 1, EvalEvery: 30, Seed: 5, Optimizer: optim.DefaultConfig("adamw"),
		Schedule: optim.ScheduleConfig{Name: "cosine", TotalSteps: 60, WarmupSteps: 5, MinRatio: 0.1},
	}
	config.Optimizer.LR, config.Optimizer.WeightDecay = 1e-2, 0.1
	run := func() (records []train.Record) {
		m := trainable(t, "relu2")
		tr, err := train.NewTrainer(m, config, data, eval)
		require.NoError(t, err)
		defer tr.Close()
		tr.Callbacks = []train.Callback{train.StepFunc(func(r train.Record) error {
			r.Resources = train.Resources{}
			records = append(records, r)
			return nil
		})}
		require.NoError(t, tr.Train(context.Background()))
		return records
	}
	require.NoError(t, cpu.SetNumThreads(2))
	records := run()
	require.Len(t, records, 60)
	require.InDelta(t, math.Log(61), records[0].Loss, 0.5)
	require.Less(t, records[59].EvalLoss, records[29].EvalLoss)
	require.Less(t, records[59].EvalLoss, 1.0)
	require.NoError(t, cpu.SetNumThreads(1))
	require.Equal(t, records, run())
}

func TestTrainerRefusesBadConfigurations(t *testing.T) {
	data, err := train.NewTokens(make([]int32, 100), 10)
	require.NoError(t, err)
	good := train.Config{Steps: 1, BatchSize: 1, Optimizer: optim.DefaultConfig("sgd"), Schedule: optim.ScheduleConfig{Name: "constant"}}
	for name, spoil := range map[string]func(*train.Config){
		"max_steps = 0":   func(c *train.Config) { c.Steps = 0 },
		"batch_size = -1": func(c *train.Config) { c.BatchSize = -1 },
		"accumulation = 4294967296: expected at most 2147483647 examples": func(c *train.Config) { c.BatchSize, c.Accumulation = 1<<32, 1<<32 }, // a product of 0
		"gradient_clip = NaN": func(c *train.Config) { c.GradientClip = math.NaN() },
		"name":                func(c *train.Config) { c.Optimizer.Name = "lion" },
		"warp":                func(c *train.Config) { c.Schedule.Name = "warp" },
	} {
		c := good
		spoil(&c)
		_, err := train.NewTrainer(trainable(t, "relu2"), c, data, nil)
		require.ErrorContains(t, err, name)
	}
	_, err = train.NewTokens(make([]int32, 10), 10)
	require.ErrorIs(t, err, train.ErrBatch)
}

func TestTrainingEndsWithTheContext(t *testing.T) {
	data, err := train.NewTokens(make([]int32, 100), 10)
	require.NoError(t, err)
	tr, err := train.NewTrainer(trainable(t, "relu2"),
		train.Config{Steps: 100, BatchSize: 1, Optimizer: optim.DefaultConfig("sgd"), Schedule: optim.ScheduleConfig{Name: "constant"}}, data, nil)
	require.NoError(t, err)
	defer tr.Close()
	ctx, cancel := context.WithCancel(context.Background())
	steps := 0
	tr.Callbacks = []train.Callback{train.StepFunc(func(train.Record) error {
		if steps++; steps == 3 {
			cancel()
		}
		return nil
	})}
	require.ErrorIs(t, tr.Train(ctx), context.Canceled)
	require.Equal(t, 3, steps)
}
