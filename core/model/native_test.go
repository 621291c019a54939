package model_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// variants are models that between them use every kind of tensor the native format knows.
func variants(t *testing.T) map[string]*model.Model {
	out := map[string]*model.Model{}
	for _, folder := range goldenFolders {
		out[folder] = load(t, filepath.Join(golden, folder), model.LoadOptions{})
	}
	for _, head := range []string{"float32", "int8", "int4"} {
		out[head+" head"] = load(t, filepath.Join(golden, "llama_bitlinear_packed"), model.LoadOptions{HeadFormat: head})
	}
	out["ragged, with biases and norms"] = ragged(t)
	return out
}

// ragged is a random model whose sizes divide by nothing, with biases, norms in the linears and float linears.
func ragged(t *testing.T) *model.Model {
	t.Helper()
	m, err := model.NewRandom(&model.Config{
		Architecture: model.ArchLlama, VocabSize: 75, HiddenSize: 44, IntermediateSize: 52, NumHiddenLayers: 2, NumAttentionHeads: 6, NumKeyValueHeads: 2,
		HeadDim: 10, AttentionBias: true, MLPBias: true,
		Quantization: model.Quantization{LinearClass: model.AutoBitLinear, UseRMSNorm: true, ModulesToNotConvert: []string{"model.layers.1.mlp", "lm_head"}},
	}, 5, model.LoadOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	for i := range m.Blocks[0].Attn.Q.Bias {
		m.Blocks[0].Attn.Q.Bias[i] = float32(i) / 7
		m.Blocks[0].Attn.Q.Norm.Weight[i%44] = 1 + float32(i)/9
	}
	return m
}

func TestANativeFileGivesTheSameBitsHoweverItIsLoaded(t *testing.T) {
	for name, m := range variants(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m.bitnet")
			require.NoError(t, m.Save(path, nil))
			want := logits(t, m)
			for _, o := range []model.LoadOptions{{}, {Verify: model.VerifyNever}, {Resident: model.ResidentCopy}} {
				back := load(t, path, o)
				require.Equal(t, want, logits(t, back))
				assert.Equal(t, "native", back.Info.Format)
				assert.Equal(t, path, back.Info.Path)
				assert.Equal(t, m.Info.WeightBytes, back.Info.WeightBytes)
				assert.Equal(t, m.Info.HeadFormat, back.Info.HeadFormat)
				assert.Equal(t, m.Info.Parameters, back.Info.Parameters)
				assert.Equal(t, m.Config, back.Config)
			}
		})
	}
}

func TestAMappedModelTakesNoPoolMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.bitnet")
	require.NoError(t, load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{}).Save(path, nil))
	p := pool.New(pool.Options{})
	load(t, path, model.LoadOptions{Pool: p})
	assert.Zero(t, p.Stats().Allocs)
	m := load(t, path, model.LoadOptions{Pool: p, Resident: model.ResidentCopy})
	assert.InDelta(t, m.Info.WeightBytes, p.Stats().Requested, 30_000, "all but the small vectors")
}

func TestProgressCountsWhatIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.bitnet")
	require.NoError(t, load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{}).Save(path, nil))
	for _, o := range []model.LoadOptions{{}, {Verify: model.VerifyNever}, {Resident: model.ResidentCopy}, {HeadFormat: "int8"}} {
		last, total := int64(-1), int64(-2)
		o.Progress = func(d, n int64) { last, total = d, n }
		load(t, path, o)
		assert.Equal(t, total, last)
		assert.Equal(t, o.Verify == model.VerifyNever, total == 0)
	}
}

func TestProgressCountsAMatrixOfSeveralLayersOnce(t *testing.T) {
	set, err := safetensors.OpenSet(gpt2Folder)
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close()) }()
	want := int64(0)
	for _, info := range set.Tensors() {
		if len(info.Shape) == 2 {
			want += info.Size
		}
	}
	last, total := int64(0), int64(0)
	load(t, gpt2Folder, model.LoadOptions{Progress: func(d, n int64) { last, total = d, n }})
	assert.Equal(t, []int64{want, want}, []int64{last, total})
}

func TestANativeFileOfFloatLayersIsNotQuantized(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.bitnet")
	require.NoError(t, load(t, gpt2Folder, model.LoadOptions{}).Save(path, nil))
	for _, trainable := range []bool{false, true} {
		_, err := model.Load(context.Background(), path, model.LoadOptions{Quantize: true, Trainable: trainable})
		require.ErrorIs(t, err, model.ErrOption)
		require.ErrorContains(t, err, path)
	}
	ternary := load(t, gpt2Folder, model.LoadOptions{Quantize: true})
	require.NoError(t, ternary.Save(path, nil))
	requireSame(t, ternary, load(t, path, model.LoadOptions{}))
	_, err := model.Load(context.Background(), path, model.LoadOptions{Quantize: true})
	require.ErrorIs(t, err, model.ErrOption)
	lenient := load(t, path, model.LoadOptions{Quantize: true, Lenient: true})
	requireSame(t, ternary, lenient)
	require.Equal(t, []string{"quantize"}, lenient.Info.Unused)
}

func TestTheHeadOfANativeFileCanChangeItsFormat(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"bitnet_offline_packed", "llama_bitlinear_packed"} {
		path := filepath.Join(dir, folder+".bitnet")
		require.NoError(t, load(t, filepath.Join(golden, folder), model.LoadOptions{}).Save(path, nil))
		for _, head := range []string{"float32", "bfloat16", "float16", "int8", "int4"} {
			want := load(t, filepath.Join(golden, folder), model.LoadOptions{HeadFormat: head})
			got := load(t, path, model.LoadOptions{HeadFormat: head})
			assert.Equal(t, want.Info.HeadFormat, got.Info.HeadFormat)
			requireSame(t, want, got)
		}
	}
}

func TestSavingADirectoryWritesWhatPeopleLookFor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "model")
	m := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	require.NoError(t, m.Save(dir, nil))
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json", "generation_config.json"} {
		want, err := os.ReadFile(filepath.Join(golden, "bitnet_offline_packed", name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, want, got)
		inside, err := model.Assets(filepath.Join(dir, model.NativeName))
		require.NoError(t, err)
		assert.Equal(t, string(want), inside[name])
	}
	c, err := model.LoadConfig(dir)
	require.NoError(t, err)
	assert.Equal(t, m.Config, c)
	require.NoError(t, os.Remove(filepath.Join(dir, "config.json")))
	for _, path := range []string{dir, filepath.Join(dir, model.NativeName)} {
		c, err := model.LoadConfig(path)
		require.NoError(t, err, "the native file has it too")
		assert.Equal(t, m.Config, c)
	}
	requireSame(t, m, load(t, dir, model.LoadOptions{}))
	// Again over itself, while the first one is mapped.
	mapped := load(t, dir, model.LoadOptions{})
	require.NoError(t, mapped.Save(dir, nil))
	requireSame(t, mapped, load(t, dir, model.LoadOptions{}))
}

func TestASingleFileCarriesItsFiles(t *testing.T) {
	dir := t.TempDir()
	m := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	path := filepath.Join(dir, "one.BITNET")
	require.NoError(t, m.Save(path, map[string]string{"tokenizer.json": "{}", "notes.txt": ""}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte("another model's"), 0o600))
	files, err := model.Assets(path)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"tokenizer.json": "{}", "notes.txt": ""}, files)
	second := filepath.Join(dir, "two.bitnet")
	require.NoError(t, load(t, path, model.LoadOptions{}).Save(second, nil))
	files, err = model.Assets(second)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"tokenizer.json": "{}", "notes.txt": ""}, files, "they go along")
	require.ErrorIs(t, m.Save(path, map[string]string{"../evil": ""}), model.ErrOption)
	_, err = model.Assets(filepath.Join(dir, "absent"))
	require.Error(t, err)
	files, err = model.Assets(t.TempDir())
	require.NoError(t, err)
	assert.Empty(t, files)
}

func TestFilesBesideAModelWinOverThoseInside(t *testing.T) {
	dir := t.TempDir()
	m := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	require.NoError(t, m.Save(dir, map[string]string{"tokenizer.json": "old", "chat_template.jinja": "x"}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte("new"), 0o600))
	require.NoError(t, os.Remove(filepath.Join(dir, "chat_template.jinja")))
	for _, path := range []string{dir, filepath.Join(dir, model.NativeName)} {
		files, err := model.Assets(path)
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"tokenizer.json": "new", "chat_template.jinja": "x"}, files)
	}
}

func TestSavingBesideACheckpointLeavesItsTextsAlone(t *testing.T) {
	dir := open(t, "bitnet_offline_packed").write()
	before, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	m := load(t, dir, model.LoadOptions{})
	require.NoError(t, m.Save(dir, nil))
	after, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after))
	assert.Equal(t, "native", load(t, dir, model.LoadOptions{}).Info.Format)
}

func TestMetadataSurvives(t *testing.T) {
	m := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	m.Info.Metadata = map[string]string{"trained_on": "Shakespeare", "format": "not this"}
	path := filepath.Join(t.TempDir(), "m.bitnet")
	require.NoError(t, m.Save(path, nil))
	meta := load(t, path, model.LoadOptions{}).Info.Metadata
	_, err := time.Parse(time.RFC3339, meta["created"])
	require.NoError(t, err)
	delete(meta, "created")
	assert.Equal(t, map[string]string{"trained_on": "Shakespeare", "format": "bitnet", "format_version": "1", "producer": "bitnet_rust"}, meta)
}

// sum makes the checksum that of the tensor's bytes.
func TestPanelsLieOnCacheLinesBeforeEverythingElse(t *testing.T) {
	n := openNative(t, "llama_bitlinear_packed")
	f, err := safetensors.Open(n.path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	other := false
	for _, info := range f.Tensors() {
		panels := strings.Contains(fmt.Sprint(n.index[info.Name]["layout"]), "16")
		assert.False(t, panels && other, info.Name)
		other = other || !panels
		if panels {
			assert.Zero(t, info.Offset%64, info.Name)
		}
	}
}

func TestSavedScalesAreExact(t *testing.T) {
	m := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	m.Blocks[0].Attn.Q.Ternary.Scale = math.Nextafter32(0.1, 1)
	path := filepath.Join(t.TempDir(), "m.bitnet")
	require.NoError(t, m.Save(path, nil))
	assert.Equal(t, math.Nextafter32(0.1, 1), load(t, path, model.LoadOptions{}).Blocks[0].Attn.Q.Ternary.Scale)
}

// keep copies the bits of one weight.

func TestAssetsThatAreSetAreSavedInsteadOfThoseOfThePlace(t *testing.T) {
	m := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	require.ErrorIs(t, m.SetAssets(map[string]string{"../tokenizer.json": "{}"}), model.ErrOption)
	files := map[string]string{"tokenizer.json": `{"own": true}`}
	require.NoError(t, m.SetAssets(files))
	native, packed := filepath.Join(t.TempDir(), "one.bitnet"), filepath.Join(t.TempDir(), "hf")
	require.NoError(t, m.Save(native, nil))
	require.NoError(t, m.SaveHF(packed))
	for _, path := range []string{native, packed} {
		found, err := model.Assets(path)
		require.NoError(t, err)
		delete(found, "generation_config.json") // which an exported checkpoint always has
		assert.Equal(t, files, found)
	}
}
