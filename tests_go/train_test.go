package tests_go

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
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
		for _, act := range []string{"relu2", "silu"} {
			m := trainable(t, act)
			e, err := train.NewEngine(m)
			require.NoError(t, err)
			defer e.Close()
			ids := randomIDs(rand.New(rand.NewPCG(1, 1)), 151, m.Config.VocabSize)
			batch := train.Batch{IDs: ids[:150], Targets: ids[1:], Length: 150}
			recorded, err := e.Accumulate(context.Background(), batch, 1)
			require.NoError(t, err)
			loss, err := e.Loss(context.Background(), batch)
			require.NoError(t, err)
			require.Equal(t, loss, recorded, "recording changes nothing")

			engine := infer.NewEngine(m)
			defer engine.Close()
			sum, n, err := engine.LogLikelihood(context.Background(), ids, 200, 100)
			require.NoError(t, err)
			require.Equal(t, -sum/float64(n), loss)
		}
	})
}

func TestTrainingRefusesBadBatches(t *testing.T) {
	m := trainable(t, "relu2")
	e, err := train.NewEngine(m)
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
		_, err := e.Loss(context.Background(), b)
		require.ErrorIs(t, err, train.ErrBatch)
		require.ErrorContains(t, err, name)
	}
	plain, err := model.NewRandom(m.Config, 1, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, plain.Close()) }()
	_, err = train.NewEngine(plain)
	require.ErrorIs(t, err, train.ErrNotTrainable)
}
