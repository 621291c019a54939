package model_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"math"
	"os"
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
			info, err := model.Inspect(ctx, at.path, true, "x86", nil)
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
			plain, err := model.Inspect(ctx, at.path, false, "x86", nil)
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
	info, err := model.Inspect(context.Background(), path, true, "x86", nil)
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
	_, err = model.Inspect(ctx, path, true, "x86", nil)
	require.ErrorIs(t, err, context.Canceled)
	_, err = model.Inspect(context.Background(), filepath.Join(t.TempDir(), "nothing"), true, "x86", nil)
	require.Error(t, err)
}

// ONNX models have their weights under the exporter's names, or ours with the codes' scale beside them.
func TestInspectShowsAnONNXModel(t *testing.T) {
	path := filepath.Join("../../tests_go/testdata/onnx", "own_int2.onnx")
	m, err := model.Load(context.Background(), path, model.LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	info, err := model.Inspect(context.Background(), path, true, "x86", nil)
	require.NoError(t, err)
	require.Equal(t, "onnx", info.Format)
	require.NotEmpty(t, info.Metadata["operations"].(map[string]int)["MatMul"])
	require.Contains(t, info.Metadata["inputs"], "input_ids")
	gate := m.Blocks[0].FFN.Gate.Ternary
	counts := map[int8]int{}
	for _, c := range gate.Codes(nil) {
		counts[c]++
	}
	seen := 0
	for _, tensor := range info.Tensors {
		require.Empty(t, tensor.Error, tensor.Name)
		if tensor.Name == "model.layers.0.mlp.gate_proj.weight" {
			seen++
			require.Equal(t, []int{gate.Cols, gate.Rows}, tensor.Shape)
			require.Equal(t, &model.TernaryStats{Minus: counts[-1], Zero: counts[0], Plus: counts[1], Scale: gate.Scale}, tensor.Ternary)
		}
	}
	require.Equal(t, 1, seen)
	floats, err := model.Inspect(context.Background(), filepath.Join("../../tests_go/testdata/onnx", "torchscript.onnx"), true, "x86", nil)
	require.NoError(t, err)
	for _, tensor := range floats.Tensors {
		require.Nil(t, tensor.Ternary)
	}
}

// Metadata may hold numbers that JSON has no spelling for.
func TestInspectSpellsNumbersThatJSONDoesNotHave(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(-1)
	path := ggufParts(t, func(entries map[string]any, _ map[string]*container.Tensor) {
		entries["test.narrow"], entries["test.wide"], entries["test.half"] = float32(nan), inf, float32(0.5)
		entries["test.list"], entries["test.wides"], entries["test.words"] = []float32{1, float32(nan)}, []float64{inf, 2}, []string{"a"}
	})
	info, err := model.Inspect(context.Background(), path, false, "x86", nil)
	require.NoError(t, err)
	for key, want := range map[string]any{
		"test.narrow": "NaN", "test.wide": "-Inf", "test.half": float32(0.5), "test.list": []any{float32(1), "NaN"}, "test.wides": []any{"-Inf", 2.0},
		"test.words": []string{"a"},
	} {
		require.Equal(t, want, info.Metadata[key], key)
	}
	_, err = json.Marshal(info)
	require.NoError(t, err)
}

func TestRawTensorIsAPieceOfTheFile(t *testing.T) {
	path, name := filepath.Join(golden, "llama_bitlinear_packed"), "model.norm.weight"
	whole, err := model.RawTensor(path, name, 0, 1<<30)
	require.NoError(t, err)
	info, err := model.Inspect(context.Background(), path, false, "x86", nil)
	require.NoError(t, err)
	for _, tensor := range info.Tensors {
		if tensor.Name == name {
			require.Len(t, whole, int(tensor.Bytes))
		}
	}
	piece, err := model.RawTensor(path, name, 3, 5)
	require.NoError(t, err)
	require.Equal(t, whole[3:8], piece)
	end, err := model.RawTensor(path, name, len(whole), 5)
	require.NoError(t, err)
	require.Empty(t, end)
	for _, bad := range [][2]int{{-1, 5}, {len(whole) + 1, 1}, {0, -1}} {
		_, err := model.RawTensor(path, name, bad[0], bad[1])
		require.ErrorIs(t, err, model.ErrOption)
	}
	_, err = model.RawTensor(path, "nothing", 0, 1)
	require.ErrorIs(t, err, container.ErrTensorMissing)
	_, err = model.RawTensor(filepath.Join(t.TempDir(), "nothing"), name, 0, 1)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// What is no model, or a broken one, is an error in every format.
func TestInspectRefusesWhatIsNoModel(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"x.bitnet", "x.onnx", "x.gguf", "x.safetensors"} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte("not a model, and long enough to have a header"), 0o666))
		_, err := model.Inspect(context.Background(), path, true, "x86", nil)
		require.ErrorIs(t, err, container.ErrFormat, name)
		require.ErrorContains(t, err, path)
	}
}
