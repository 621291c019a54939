package model

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/onnx"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

const onnxDir = "../../tests_go/testdata/onnx"

func TestONNXFilesOfTheFirstVersionLoad(t *testing.T) {
	var sums []uint32
	for _, name := range []string{"own_int8.onnx", "own_int2.onnx"} {
		m, err := Load(context.Background(), filepath.Join(onnxDir, name), LoadOptions{})
		require.NoError(t, err)
		require.Equal(t, ArchBitNet, m.Config.Architecture)
		sums = append(sums, m.Checksum())
		require.NoError(t, m.Close())
	}
	m, err := NewRandom(&Config{VocabSize: 24, HiddenSize: 16, IntermediateSize: 16, NumHiddenLayers: 1, NumAttentionHeads: 2,
		NumKeyValueHeads: 1}, 7, LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	require.Equal(t, []uint32{m.Checksum(), m.Checksum()}, sums, "the weights that seed 7 makes")
}

// A deferred model reads its weights from the file when they are needed.
func TestADeferredONNXModelHasTheSameWeights(t *testing.T) {
	for _, name := range []string{"own_int2.onnx", "torchscript.onnx", "dynamo.onnx"} {
		path := filepath.Join(onnxDir, name)
		var files [2][]byte
		for i := range files {
			m, err := Load(context.Background(), path, LoadOptions{Quantize: true, Lenient: true, Deferred: i == 1})
			require.NoError(t, err)
			saved := filepath.Join(t.TempDir(), "weights")
			require.NoError(t, m.SaveONNXWeights(context.Background(), saved, ONNXInt2))
			require.NoError(t, m.Close())
			files[i], err = os.ReadFile(saved)
			require.NoError(t, err)
		}
		require.True(t, string(files[0]) == string(files[1]), name)
	}
}

// As when somebody writes over a model while it loads: an error that names the file, although loading closes it.
func TestAnONNXFileThatIsCutShortWhileItLoadsIsUnreadable(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("how mappings end differs between systems")
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	content, err := os.ReadFile(filepath.Join(onnxDir, "torchscript.onnx"))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "model.onnx")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	file, err := onnx.Open(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, 0))
	head, err := parseHeadFormat("")
	require.NoError(t, err)
	_, err = buildONNX(context.Background(), file, newLoader(LoadOptions{Quantize: true, Lenient: true}, head))
	require.ErrorIs(t, err, container.ErrUnreadable)
	require.ErrorContains(t, err, path)
}

// More rows and columns than are turned at a time, and no multiple of that.
func TestCodesAndTablesAreTheSameTurnedAround(t *testing.T) {
	const rows, cols = 2*turnedRows + 8, turnedRows + 6
	random := rand.New(rand.NewPCG(1, 2))
	codes, upright, around := make([]int8, rows*cols), make([]byte, 2*rows*cols), make([]byte, 2*rows*cols)
	for i := range codes {
		codes[i] = int8(random.IntN(3) - 1)
		upright[2*i] = byte(random.Uint32())
		copy(around[2*(i%cols*rows+i/cols):][:2], upright[2*i:])
	}
	ternary, err := quant.NewTernary(codes, 0.5, rows, cols)
	require.NoError(t, err)
	for _, two := range []bool{false, true} {
		w := onnxWriter{hfWriter: hfWriter{ctx: context.Background(), model: &Model{}}, int2: two, shapes: map[string]string{}}
		w.codes("m", ternary)
		var file bytes.Buffer
		require.NoError(t, w.tensors[0].Stream(&file))
		v := container.View{DType: map[bool]string{false: onnx.I8, true: onnx.I2}[two], Shape: []int{cols, rows}, Data: file.Bytes()}
		for _, part := range [][2]int{{0, rows}, {0, 5}, {turnedRows, turnedRows}, {2 * turnedRows, 8}, {3, 1}} {
			found, err := onnxCodes(v, true, rows, cols, part[0], part[1])
			require.NoError(t, err)
			require.Equal(t, codes[part[0]*cols:(part[0]+part[1])*cols], found)
		}
	}
	bad := slices.Repeat([]byte{0}, rows*cols)
	bad[5*rows+7] = 2
	_, err = onnxCodes(container.View{DType: onnx.I8, Data: bad}, true, rows, cols, 0, rows)
	var value *quant.ValueError
	require.ErrorAs(t, err, &value)
	require.Equal(t, []int{7, 5}, []int{value.Row, value.Col})

	memory := container.OpenBytes("tables", nil)
	a := container.View{DType: onnx.BF16, Shape: []int{rows, cols}, Data: upright, File: memory}
	b := container.View{DType: onnx.BF16, Shape: []int{cols, rows}, Data: around, File: memory}
	same := func(b container.View, turned bool) bool {
		found, err := sameTable(context.Background(), a, b, turned)
		require.NoError(t, err)
		return found
	}
	require.True(t, same(a, false))
	require.True(t, same(b, true))
	require.False(t, same(b, false))
	around[2*rows*cols-1]++
	require.False(t, same(b, true))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = sameTable(ctx, a, a, false)
	require.ErrorIs(t, err, context.Canceled)
}

func TestNamesOfModulesAreFoundBehindWhatWrapsTheModel(t *testing.T) {
	for name, want := range map[string]string{
		"model.layers.0.self_attn.q_proj.weight":   "model.layers.0.self_attn.q_proj.weight",
		"m.model.layers.12.mlp.up_proj":            "model.layers.12.mlp.up_proj",
		"layers.3.input_layernorm":                 "model.layers.3.input_layernorm",
		"_orig_mod.model.norm.weight":              "model.norm.weight",
		"norm":                                     "model.norm",
		"model.layers.0.self_attn.q_norm.weight":   "model.layers.0.self_attn.q_norm.weight",
		"wrapper.lm_head.weight":                   "lm_head.weight",
		"embed_tokens":                             "model.embed_tokens",
		"transformer.h.0.attn.c_attn.weight":       "transformer.h.0.attn.c_attn.weight",
		"model.layers.0":                           "model.layers.0",
		"model.layers.123456.self_attn.q_proj":     "model.layers.123456.self_attn.q_proj",
		"model.rotary_emb.inv_freq":                "model.rotary_emb.inv_freq",
		"encoder.final_layer_norm.weight":          "encoder.final_layer_norm.weight",
		"pre.model.layers.1.mlp.ffn_sub_norm.bias": "model.layers.1.mlp.ffn_sub_norm.bias",
	} {
		require.Equal(t, want, onnxName(name))
	}
	require.Equal(t, "model.layers.0.mlp", onnxModule(&onnx.Node{Name: "/model/layers.0/mlp/Mul"}))
	require.Equal(t, "", onnxModule(&onnx.Node{Name: "MatMul_7"}))
	require.Equal(t, "lm_head", onnxModule(&onnx.Node{Name: "node_linear_14", Scopes: "['', 'lm_head', 'linear_14']"}))
	require.Equal(t, "model.norm", onnxModule(&onnx.Node{Name: "x", Scopes: "['', 'm', 'm.model', 'm.model.norm', 'mul_1']"}))
}

// FuzzLoadONNX: whatever the bytes, loading ends with a model, or with an error about the file or the config in it.
func FuzzLoadONNX(f *testing.F) {
	for _, name := range []string{"own_int8.onnx", "own_int2.onnx", "torchscript.onnx", "dynamo.onnx"} {
		data, err := os.ReadFile(filepath.Join(onnxDir, name))
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := onnx.OpenBytes("fuzz", data)
		if err != nil {
			require.ErrorIs(t, err, container.ErrFormat)
			return
		}
		head, err := parseHeadFormat("")
		require.NoError(t, err)
		m, err := buildONNX(context.Background(), file, newLoader(LoadOptions{Quantize: true, Lenient: true}, head))
		if err != nil {
			require.True(t, errors.Is(err, container.ErrFormat) || errors.Is(err, ErrConfig), err)
			return
		}
		require.NoError(t, m.Config.Validate())
		require.NoError(t, m.Close())
	})
}
