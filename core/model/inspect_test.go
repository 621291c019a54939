package model_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/model"
)

// The same model in every form of files shows the same numbers.
func TestInspectShowsTheSameNumbersInEveryFormat(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	for _, folder := range []string{"bitnet_offline_packed", "llama_bitlinear_packed"} {
		path := filepath.Join(golden, folder)
		m, err := model.Load(ctx, path, model.LoadOptions{})
		require.NoError(t, err)
		native, single := filepath.Join(dir, folder+".bitnet"), filepath.Join(dir, folder+".gguf")
		require.NoError(t, m.Save(native, nil))
		require.NoError(t, m.SaveGGUF(ctx, single, model.GGUFOptions{Type: "i2_s"}))
		gate := m.Blocks[1].FFN.Gate.Ternary
		counts := map[int8]int{}
		for _, c := range gate.Codes(nil) {
			counts[c]++
		}
		for format, at := range map[string]struct{ path, tensor, norm string }{
			"safetensors": {path, "model.layers.1.mlp.gate_proj.weight", "model.norm.weight"},
			"native":      {native, "model.layers.1.mlp.gate_proj.weight", "model.norm.weight"},
			"gguf":        {single, "blk.1.ffn_gate.weight", "output_norm.weight"},
		} {
			info, err := model.Inspect(ctx, at.path, true, "x86")
			require.NoError(t, err)
			require.Equal(t, format, info.Format)
			require.NotEmpty(t, info.Tensors)
			seen := 0
			for _, tensor := range info.Tensors {
				require.Empty(t, tensor.Error, tensor.Name)
				switch tensor.Name {
				case at.tensor:
					seen++
					require.Equal(t, []int{gate.Rows, gate.Cols}, tensor.Shape)
					require.Equal(t, &model.TernaryStats{Minus: counts[-1], Zero: counts[0], Plus: counts[1], Scale: gate.Scale}, tensor.Ternary)
					require.Nil(t, tensor.Float)
				case at.norm:
					seen++
					require.Equal(t, []int{m.Config.HiddenSize}, tensor.Shape)
					var sum float64
					for _, x := range m.Head.Norm.Weight {
						sum += float64(x)
					}
					require.InDelta(t, sum/float64(m.Config.HiddenSize), tensor.Float.Mean, 1e-9)
					require.LessOrEqual(t, tensor.Float.Min, tensor.Float.Mean)
					require.Zero(t, tensor.Float.NotFinite)
				}
			}
			require.Equal(t, 2, seen, format)
			plain, err := model.Inspect(ctx, at.path, false, "x86")
			require.NoError(t, err)
			require.Nil(t, plain.Tensors[0].Ternary)
			require.Len(t, plain.Tensors, len(info.Tensors))
		}
		require.NoError(t, m.Close())
	}
}

func TestInspectSaysWhatIsWrongWithATensorAndGoesOn(t *testing.T) {
	path := ggufParts(t, func(_ map[string]any, w map[string]*container.Tensor) {
		w["blk.0.ffn_up.weight"].Data[64], w["blk.0.ffn_up.weight"].Data[65] = 0, 0x40
		down := w["blk.0.ffn_down.weight"].Data
		for end := 66; end <= len(down); end += 66 {
			down[end-2], down[end-1] = 0, 0x7c // infinity
		}
	})
	info, err := model.Inspect(context.Background(), path, true, "x86")
	require.NoError(t, err)
	wrong := 0
	for _, tensor := range info.Tensors {
		if tensor.Error != "" {
			wrong++
			require.Contains(t, tensor.Error, map[string]string{"blk.0.ffn_up.weight": "one scale", "blk.0.ffn_down.weight": "a scale of +Inf"}[tensor.Name])
			require.Contains(t, []string{"blk.0.ffn_up.weight", "blk.0.ffn_down.weight"}, tensor.Name)
		}
	}
	require.Equal(t, 2, wrong)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = model.Inspect(ctx, path, true, "x86")
	require.ErrorIs(t, err, context.Canceled)
	_, err = model.Inspect(context.Background(), filepath.Join(t.TempDir(), "nothing"), true, "x86")
	require.Error(t, err)
}
