package train

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
)

// stopAt stops a run at a step.
type stopAt struct {
	NoCallback
	step int
}

func (s stopAt) Step(t *Trainer, r Record) error {
	if r.Step == s.step {
		t.Stop()
	}
	return nil
}

// All parts of a run at once, on several threads: what `make test-race` runs under the race detector. More is in tests_go.
func TestARunWithEverything(t *testing.T) {
	require.NoError(t, cpu.SetNumThreads(4))
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(1)) })
	cfg := &model.Config{
		Architecture: model.ArchBitNet, VocabSize: 31, HiddenSize: 32, IntermediateSize: 64, NumHiddenLayers: 2, NumAttentionHeads: 4,
		NumKeyValueHeads: 2, HeadDim: 8, HiddenAct: "relu2", MaxPositionEmbeddings: 32, TieWordEmbeddings: true, InitializerRange: 0.05,
	}
	ids := make([]int32, 400)
	for i := range ids {
		ids[i] = int32(i * i % 31)
	}
	data, err := NewTokens(ids, 16)
	require.NoError(t, err)
	c := Config{
		Steps: 8, BatchSize: 3, Accumulation: 2, Order: OrderShuffled, EvalEvery: 2, GradientClip: 1, GradientClipValue: 0.5, WeightChanges: true,
		Optimizer: optim.DefaultConfig("adamw"), Schedule: optim.ScheduleConfig{Name: "cosine"}, LossScale: &optim.ScalerConfig{},
		EarlyStopping: &EarlyStopping{Patience: 50, RestoreBest: true}, Checkpoint: CheckpointConfig{Dir: t.TempDir(), Every: 3, Keep: 1},
		EngineOptions: EngineOptions{Dropout: 0.1, AttentionDropout: 0.1, GradientCheckpointing: true},
	}
	steps := 0
	for _, resume := range []bool{false, true} {
		m, err := model.NewTrainable(cfg, 1, model.LoadOptions{})
		require.NoError(t, err)
		run, err := NewTrainer(m, c, data, data)
		require.NoError(t, err)
		run.Callbacks = []Callback{StepFunc(func(Record) error { steps++; return nil })}
		if resume {
			r, err := run.Resume(c.Checkpoint.Dir)
			require.NoError(t, err)
			require.Equal(t, 5, r.Step)
		} else {
			run.Callbacks = append(run.Callbacks, stopAt{step: 5})
		}
		require.NoError(t, run.Train(context.Background()))
		run.Close()
		require.NoError(t, m.Close())
	}
	require.Equal(t, 8, steps)
}
