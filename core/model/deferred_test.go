package model_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

func TestADeferredModelSavesTheSameBytesAndComputesTheSameBits(t *testing.T) {
	for _, name := range []string{"bitnet_offline_packed", "bitnet_online_bf16", "llama_bitlinear_packed"} {
		t.Run(name, func(t *testing.T) {
			source := filepath.Join(golden, name)
			whole := load(t, source, model.LoadOptions{})
			gguf := filepath.Join(t.TempDir(), "source.gguf")
			require.NoError(t, whole.SaveGGUF(context.Background(), gguf, model.GGUFOptions{Type: "tq2_0"}))
			native := filepath.Join(t.TempDir(), "source.bitnet")
			require.NoError(t, whole.Save(native, nil))
			for _, path := range []string{source, gguf, native} {
				whole, later := load(t, path, model.LoadOptions{}), load(t, path, model.LoadOptions{Deferred: true})
				assert.Equal(t, saved(t, whole), saved(t, later), path)
				assert.Equal(t, logits(t, whole), logits(t, later), path)
				assert.Equal(t, saved(t, whole), saved(t, later), "after a forward pass")
			}
		})
	}
}

// saved is what a model's files hold, by name.
func saved(t *testing.T, m *model.Model) map[string]string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, m.SaveHF(filepath.Join(dir, "hf")))
	require.NoError(t, m.SaveGGUF(context.Background(), filepath.Join(dir, "m.gguf"), model.GGUFOptions{Type: "i2_s"}))
	require.NoError(t, m.Save(filepath.Join(dir, "m.bitnet"), nil))
	require.NoError(t, m.SaveContext(context.Background(), filepath.Join(dir, "z.bitnet"), compressed))
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var data []byte
			data, err = os.ReadFile(path)
			files[filepath.Base(path)] = string(created.ReplaceAll(data, nil))
		}
		return err
	}))
	return files
}

func TestWeightsThatCannotBeDeferredAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.bitnet")
	require.NoError(t, load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{}).Save(path, nil))
	file, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	info, err := file.Stat()
	require.NoError(t, err)
	_, err = model.LoadReader(context.Background(), file, info.Size(), "a stream", model.LoadOptions{Deferred: true})
	require.ErrorIs(t, err, model.ErrOption)
	require.ErrorContains(t, err, "a stream")
	for _, o := range []model.LoadOptions{{Deferred: true}, {Trainable: true}} {
		o.HeadFormat = model.HeadExact
		_, err = model.Load(context.Background(), path, o)
		require.ErrorIs(t, err, model.ErrOption)
		require.ErrorContains(t, err, `"exact"`)
	}
}

func TestAnExactHeadOfARoundedOneIsRefusedWithWhatIsAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.bitnet")
	require.NoError(t, load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{HeadFormat: "int8"}).Save(path, nil))
	_, err := model.Load(context.Background(), path, model.LoadOptions{HeadFormat: model.HeadExact})
	require.ErrorIs(t, err, model.ErrOption)
	require.ErrorContains(t, err, `head_dtype "exact": must be one of auto, float32, bfloat16, float16, int8, int4 for a head that is int8 in the file`)
}

func TestADeferredModelHoldsOneLayerAtATime(t *testing.T) {
	p := pool.New(pool.Options{})
	path := filepath.Join(golden, "bitnet_offline_packed")
	later := load(t, path, model.LoadOptions{Deferred: true, Pool: p})
	before := p.Stats().Requested
	require.NoError(t, later.SaveGGUF(context.Background(), filepath.Join(t.TempDir(), "m.gguf"), model.GGUFOptions{Type: "i2_s"}))
	largest := int64(2 * later.Config.VocabSize * later.Config.HiddenSize)
	assert.Zero(t, before)
	assert.Zero(t, p.Stats().Requested)
	assert.LessOrEqual(t, p.Stats().PeakRequested, largest+64)
}
