package model_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/model"
)

func TestTensorsAreWhatTheModelComputesWith(t *testing.T) {
	cfg := &model.Config{
		Architecture: model.ArchBitNet, VocabSize: 50, HiddenSize: 32, IntermediateSize: 48, NumHiddenLayers: 2, NumAttentionHeads: 2, NumKeyValueHeads: 1,
		HiddenAct: "relu2", MaxPositionEmbeddings: 64, TieWordEmbeddings: true, InitializerRange: 0.02,
	}
	m, err := model.NewTrainable(cfg, 1, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	require.NoError(t, m.Acquire())
	defer m.Release()

	masters := map[string][]float32{}
	for _, p := range m.Params() {
		masters[p.Name] = p.Data
	}
	bytes, ternary := int64(0), 0
	for _, info := range m.Tensors() {
		bytes += int64(info.Bytes)
		codes, values, err := m.ReadTensor(info.Name)
		require.NoError(t, err)
		want, got := masters[info.Name], values
		require.NotNil(t, want, info.Name)
		n := 1
		for _, d := range info.Shape {
			n *= d
		}
		require.Len(t, want, n)
		if info.DType != "ternary" {
			require.Nil(t, info.Scale)
			require.Equal(t, want, got, info.Name)
			_, err := m.QuantizationError(info.Name)
			require.ErrorIs(t, err, model.ErrWeight)
			continue
		}
		ternary++
		var signal, noise float64
		for i, c := range codes {
			d := float64(want[i]) - float64(c)*float64(*info.Scale)
			signal, noise = signal+float64(want[i])*float64(want[i]), noise+d*d
		}
		e, err := m.QuantizationError(info.Name)
		require.NoError(t, err)
		assert.InEpsilon(t, noise/float64(n), e.MSE, 1e-5)
		assert.Greater(t, e.SQNR, 3.0) // of normal weights: about 7 dB
		assert.InEpsilon(t, signal/noise, math.Pow(10, e.SQNR/10), 1e-5)
	}
	assert.Equal(t, 2*7, ternary)
	assert.Equal(t, m.Info.WeightBytes, bytes)
	_, _, err = m.ReadTensor("model.layers.2.mlp.up_proj.weight")
	require.ErrorIs(t, err, model.ErrWeight)
}

func TestOnlyAModelWithMasterWeightsHasAQuantizationError(t *testing.T) {
	m, err := model.NewRandom(&model.Config{Architecture: model.ArchBitNet, VocabSize: 50, HiddenSize: 32, IntermediateSize: 48, NumHiddenLayers: 1,
		NumAttentionHeads: 2, NumKeyValueHeads: 1, HiddenAct: "relu2", MaxPositionEmbeddings: 64}, 1, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	require.NoError(t, m.Acquire())
	defer m.Release()
	_, err = m.QuantizationError("model.layers.0.mlp.up_proj.weight")
	require.ErrorContains(t, err, "expected a ternary one of a trainable model")
}
