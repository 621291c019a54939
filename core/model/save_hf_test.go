package model_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
)

func TestTheHuggingFaceFormGivesTheSameBits(t *testing.T) {
	for name, m := range variants(t) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "hf")
			require.NoError(t, m.SaveHF(dir))
			if m.Info.Path != "" {
				require.FileExists(t, filepath.Join(dir, "tokenizer.json"))
			}
			back := load(t, dir, model.LoadOptions{HeadFormat: m.Info.HeadFormat})
			assert.Equal(t, model.ModeOffline, back.Config.Quantization.Mode)
			file, err := safetensors.Open(filepath.Join(dir, "model.safetensors"))
			require.NoError(t, err)
			for _, tensor := range file.Tensors() {
				if tensor.Name == "model.embed_tokens.weight" { // transformers needs its type in the config
					assert.Equal(t, map[string]string{"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[tensor.DType], back.Config.DType)
				}
			}
			require.NoError(t, file.Close())
			for i := range m.Blocks {
				assert.Equal(t, m.Blocks[i].Attn.Q.Ternary, back.Blocks[i].Attn.Q.Ternary)
				assert.InDeltaSlice(t, m.Blocks[i].Attn.Q.Bias, back.Blocks[i].Attn.Q.Bias, 1e-6)
			}
			if m.Info.HeadFormat == "bfloat16" && m.Blocks[0].Attn.Q.Bias == nil {
				requireSame(t, m, back)
			}
		})
	}
}

func TestAModelThatIsSavedBesideATokenizerLeavesItThere(t *testing.T) {
	cfg := model.Config{VocabSize: 64, HiddenSize: 32, IntermediateSize: 44, NumHiddenLayers: 1, NumAttentionHeads: 2}
	m, err := model.NewRandom(&cfg, 1, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	for name, save := range map[string]func(dir string) error{
		"hf":     m.SaveHF,
		"native": func(dir string) error { return m.Save(dir, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			suffix := map[string]string{"hf": ".safetensors", "native": model.NativeExt}[name]
			stale := filepath.Join(dir, "model-00001-of-00002"+suffix)
			require.NoError(t, os.WriteFile(stale, []byte("old weights"), 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte("old config"), 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte("mine"), 0o644))
			require.NoError(t, os.Symlink("tokenizer.json", filepath.Join(dir, "vocab.json")))
			for range 2 {
				require.NoError(t, save(dir))
				for _, file := range []string{"tokenizer.json", "vocab.json"} {
					text, err := os.ReadFile(filepath.Join(dir, file))
					require.NoError(t, err)
					require.Equal(t, "mine", string(text))
				}
				require.NoFileExists(t, stale)
				requireSame(t, m, load(t, dir, model.LoadOptions{}))
			}
		})
	}
}

func TestTheOlderBitnetExportsAsTheNewer(t *testing.T) {
	cfg := model.Config{Architecture: model.ArchBitnet, VocabSize: 64, HiddenSize: 32, IntermediateSize: 44, NumHiddenLayers: 2, NumAttentionHeads: 2, TieWordEmbeddings: true}
	m, err := model.NewRandom(&cfg, 1, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	dir := t.TempDir()
	require.NoError(t, m.SaveHF(dir))
	back := load(t, dir, model.LoadOptions{})
	assert.Equal(t, []string{model.ArchBitNet, model.ActSiLU}, []string{back.Config.Architecture, back.Config.HiddenAct})
	requireSame(t, m, back)
}

func TestTheExportedHeadIsNamedAmongTheModulesNotToConvert(t *testing.T) {
	for _, tc := range []struct{ from, to []string }{
		{nil, nil},
		{[]string{"down_proj"}, []string{"down_proj", "lm_head"}},
		{[]string{"lm_head", "down_proj"}, []string{"lm_head", "down_proj"}},
		{[]string{"lm_h.*", "down_proj"}, []string{"lm_h.*", "down_proj"}},
	} {
		cfg := model.Config{VocabSize: 64, HiddenSize: 32, IntermediateSize: 44, NumHiddenLayers: 1, NumAttentionHeads: 2,
			Quantization: model.Quantization{ModulesToNotConvert: tc.from}}
		m, err := model.NewRandom(&cfg, 1, model.LoadOptions{})
		require.NoError(t, err)
		dir := t.TempDir()
		require.NoError(t, m.SaveHF(dir))
		back := load(t, dir, model.LoadOptions{})
		assert.Equal(t, tc.to, back.Config.Quantization.ModulesToNotConvert)
		assert.Equal(t, tc.from, m.Config.Quantization.ModulesToNotConvert)
		requireSame(t, m, back)
		require.NoError(t, m.Close())
	}
}

func TestWhatHasNoHuggingFaceFormIsRefused(t *testing.T) {
	cfg := model.Config{VocabSize: 64, HiddenSize: 32, IntermediateSize: 42, NumHiddenLayers: 1, NumAttentionHeads: 2}
	m, err := model.NewRandom(&cfg, 1, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	err = m.SaveHF(t.TempDir())
	require.ErrorIs(t, err, model.ErrExport)
	require.ErrorContains(t, err, "mlp.gate_proj has 42 rows")
	cfg.IntermediateSize, cfg.MLPBias = 44, true
	biased, err := model.NewRandom(&cfg, 1, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, biased.Close()) }()
	err = biased.SaveHF(t.TempDir())
	require.ErrorIs(t, err, model.ErrExport)
	require.ErrorContains(t, err, "mlp_bias = true")
	dir := t.TempDir()
	require.NoError(t, m.Save(dir, nil))
	require.ErrorIs(t, m.SaveHF(dir), model.ErrOption)
	blocked := filepath.Join(dir, "config.json", "below")
	require.Error(t, m.Save(blocked, nil))
}

func TestBFloat16ScalesStayShort(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hf")
	require.NoError(t, load(t, filepath.Join(golden, "llama_bitlinear_packed"), model.LoadOptions{}).SaveHF(dir))
	set, err := safetensors.OpenSet(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close()) }()
	source := open(t, "llama_bitlinear_packed")
	for _, info := range set.Tensors() {
		v, err := set.Tensor(info.Name)
		require.NoError(t, err)
		assert.Equal(t, source.tensors[info.Name], container.Tensor{Name: v.Name, DType: v.DType, Shape: v.Shape, Data: v.Data}, "the export of an import is the source")
	}
	assert.Len(t, set.Tensors(), len(source.tensors))
}
