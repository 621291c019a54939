package tests_go

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/model"
)

// asLayout writes a GGUF file again with its I2_S tensors in another layout.
func asLayout(t *testing.T, path, layout string) string {
	t.Helper()
	f, err := gguf.Open(path)
	require.NoError(t, err)
	defer f.Close()
	var entries []gguf.Entry
	for _, key := range f.Metadata().Keys() {
		entries = append(entries, gguf.Entry{Key: key, Value: f.Metadata().Any(key)})
	}
	var tensors []container.Tensor
	for _, info := range f.Tensors() {
		v, err := f.Tensor(info.Name)
		require.NoError(t, err)
		data := v.Data
		if v.DType == gguf.I2_S {
			rows, cols := v.Shape[0], v.Shape[1]
			codes := make([]int8, rows*cols)
			scale, err := gguf.I2S(codes, gguf.I2SX86, v.Data, rows, cols)
			require.NoError(t, err)
			block := map[string]int{gguf.I2SX86: 128, gguf.I2SArm64: 64, gguf.I2SRow4: 4 * cols}[layout]
			data = make([]byte, rows*cols/4)
			for i, c := range codes {
				at := i % block
				data[i/block*block/4+at%(block/4)] |= byte(c+1) << (6 - at/(block/4)*2)
			}
			data = append(data, gguf.I2STail(scale)...)
		}
		tensors = append(tensors, container.Tensor{Name: v.Name, DType: v.DType, Shape: v.Shape, Data: data})
	}
	out := filepath.Join(t.TempDir(), layout+".gguf")
	require.NoError(t, gguf.Write(out, entries, tensors))
	return out
}

// layoutWarnings loads a file in every layout and gives the warnings by the layout that was given.
func layoutWarnings(t *testing.T, path string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, given := range gguf.I2SLayouts() {
		m, err := model.Load(context.Background(), path, model.LoadOptions{I2SLayout: given})
		require.NoError(t, err)
		out[given] = m.Info.Warnings
		require.NoError(t, m.Close())
	}
	return out
}

func TestATrainedModelReadInTheWrongI2SLayoutNamesTheRightOne(t *testing.T) {
	m, err := model.Load(context.Background(), "../python/bitnet_rust/models/bitnet-shakespeare", model.LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	saved := filepath.Join(t.TempDir(), "model.gguf")
	require.NoError(t, m.SaveGGUF(context.Background(), saved, model.GGUFOptions{Type: "i2_s"}))
	for _, layout := range gguf.I2SLayouts() {
		path := asLayout(t, saved, layout)
		for given, warnings := range layoutWarnings(t, path) {
			verified, err := model.Verify(context.Background(), path, model.LoadOptions{I2SLayout: given}, nil)
			require.NoError(t, err)
			var said []string
			for _, warning := range verified.Warnings {
				said = append(said, warning.Message)
			}
			require.Equal(t, warnings, said)
			if given == layout {
				require.Empty(t, warnings, layout)
				continue
			}
			require.Len(t, warnings, 1, "%s read as %s", layout, given)
			require.Contains(t, warnings[0], fmt.Sprintf("%s was read with i2s_layout=%q and looks as if it had %q", path, given, layout))
		}
	}
}

// The weights of the golden models are as good as random: there is nothing to tell a layout by, and nothing is said.
func TestRandomWeightsRaiseNoAlarmAboutTheirLayout(t *testing.T) {
	for _, folder := range []string{"bitnet_offline_packed", "llama_bitlinear_packed"} {
		m, err := model.Load(context.Background(), "testdata/golden/"+folder, model.LoadOptions{})
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "model.gguf")
		require.NoError(t, m.SaveGGUF(context.Background(), path, model.GGUFOptions{Type: "i2_s"}))
		require.NoError(t, m.Close())
		for given, warnings := range layoutWarnings(t, path) {
			require.Empty(t, warnings, "%s as %s", folder, given)
		}
	}
	for seed := range uint64(10) {
		m, err := model.NewRandom(&model.Config{VocabSize: 64, HiddenSize: 256, IntermediateSize: 512, NumHiddenLayers: 2, NumAttentionHeads: 4,
			HeadDim: 64}, seed, model.LoadOptions{})
		require.NoError(t, err)
		path := filepath.Join(t.TempDir(), "model.gguf")
		require.NoError(t, m.SaveGGUF(context.Background(), path, model.GGUFOptions{Type: "i2_s"}))
		require.NoError(t, m.Close())
		for given, warnings := range layoutWarnings(t, path) {
			require.Empty(t, warnings, "seed %d as %s", seed, given)
		}
	}
}
