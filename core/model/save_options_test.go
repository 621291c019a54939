package model_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/model"
)

func TestOptionsOfEveryFormIsCheckedByName(t *testing.T) {
	ctx, m := context.Background(), load(t, filepath.Join(golden, "llama_bitlinear_packed"), model.LoadOptions{})
	for says, o := range map[string]model.HFOptions{
		`masters = "float64": expected "float32" or "bfloat16"`:     {Masters: "float64"},
		`linear_class = "Linear": expected "autobitlinear" or`:      {LinearClass: "Linear"},
		`linear_class = "bitlinear": expected "autobitlinear" with`: {LinearClass: model.BitLinear, Masters: "float32"},
		"max_shard_size = -1: expected at least 1 byte":             {MaxShard: -1},
	} {
		err := m.SaveHFContext(ctx, filepath.Join(t.TempDir(), "hf"), o)
		require.ErrorIs(t, err, model.ErrOption)
		require.ErrorContains(t, err, says)
	}
	err := m.SaveHFContext(ctx, filepath.Join(t.TempDir(), "hf"), model.HFOptions{Masters: "float32"})
	require.ErrorIs(t, err, model.ErrExport)
	require.ErrorContains(t, err, "it has no master weights")

	err = m.SaveGGUF(ctx, filepath.Join(t.TempDir(), "x.gguf"), model.GGUFOptions{Type: "q4_k"})
	require.ErrorIs(t, err, model.ErrOption)
	require.ErrorContains(t, err, `type "q4_k": must be one of bf16, f16, f32, i2_s, tq1_0, tq2_0`)
	err = m.SaveONNXWeights(ctx, filepath.Join(t.TempDir(), "x"), "int4")
	require.ErrorIs(t, err, model.ErrOption)
	require.ErrorContains(t, err, `onnx_type "int4": must be one of int8, int2`)
}

// What the layers have beside ternary weights comes back from a file: biases, and frequencies for a longer context of both kinds.
func TestBiasesAndLongContextsComeBackFromEveryForm(t *testing.T) {
	ctx := context.Background()
	for name, scaling := range map[string]*model.RopeScaling{
		"none": nil, "linear": {Type: model.RopeLinear, Factor: 4},
		"llama3": {Type: model.RopeLlama3, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 64},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := model.Config{Architecture: model.ArchLlama, VocabSize: 40, HiddenSize: 256, IntermediateSize: 256, NumHiddenLayers: 1,
				NumAttentionHeads: 4, MaxPositionEmbeddings: 512, RopeScaling: scaling, HiddenAct: "silu", AttentionBias: true}
			m, err := model.NewRandom(&cfg, 1, model.LoadOptions{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, m.Close()) })
			for i := range m.Blocks[0].Attn.Q.Bias {
				m.Blocks[0].Attn.Q.Bias[i] = float32(i) / 64
			}
			dir := t.TempDir()
			for _, form := range []struct {
				path string
				save func(path string) error
			}{
				{filepath.Join(dir, "hf"), m.SaveHF},
				{filepath.Join(dir, "x.bitnet"), func(path string) error { return m.Save(path, nil) }},
				{filepath.Join(dir, "x.gguf"), func(path string) error { return m.SaveGGUF(ctx, path, model.GGUFOptions{Type: "i2_s"}) }},
			} {
				require.NoError(t, form.save(form.path), form.path)
				requireSame(t, m, load(t, form.path, model.LoadOptions{}))
			}
		})
	}
}
