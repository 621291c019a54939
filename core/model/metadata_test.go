package model_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/model"
)

// copyModel copies the files of a golden model, for a test to add some.
func copyModel(t *testing.T, folder, dir string) string {
	t.Helper()
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(golden, folder))))
	return dir
}

func savedMetadata(t *testing.T, m *model.Model, o model.SaveOptions) map[string]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.bitnet")
	require.NoError(t, m.SaveContext(context.Background(), path, o))
	return load(t, path, model.LoadOptions{}).Info.Metadata
}

func TestANativeFileSaysOfWhichFilesItWasMade(t *testing.T) {
	dir := copyModel(t, "bitnet_offline_packed", filepath.Join(t.TempDir(), "hub", "models--someone--a-model", "snapshots", "0123abcd"))
	card := "---\r\nlicense: mit\r\ntags: [a, b]\r\n---\r\n# A model\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "README.md"), []byte(card), 0o600))
	meta := savedMetadata(t, load(t, dir, model.LoadOptions{}), model.SaveOptions{})
	assert.Equal(t, card, meta[model.KeyCard])
	assert.Equal(t, "mit", meta[model.KeyLicense])
	var p model.Provenance
	require.NoError(t, json.Unmarshal([]byte(meta[model.KeyProvenance]), &p))
	assert.Equal(t, "someone/a-model", p.Source)
	assert.Equal(t, "0123abcd", p.Revision)
	assert.Equal(t, "hf", p.Format)
	require.Len(t, p.Files, 2)
	for i, name := range []string{"config.json", "model.safetensors"} {
		content, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		sum := sha256.Sum256(content)
		assert.Equal(t, model.SourceFile{Name: name, Bytes: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}, p.Files[i])
	}

	single := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, load(t, dir, model.LoadOptions{}).SaveGGUF(context.Background(), single, "i2_s"))
	meta = savedMetadata(t, load(t, single, model.LoadOptions{}), model.SaveOptions{})
	require.NoError(t, json.Unmarshal([]byte(meta[model.KeyProvenance]), &p))
	assert.Equal(t, "m.gguf", p.Source)
	assert.Equal(t, "gguf", p.Format)
	require.Len(t, p.Files, 1)
}

func TestMetadataStayWithAModel(t *testing.T) {
	dir := copyModel(t, "bitnet_offline_packed", t.TempDir())
	native := filepath.Join(dir, "own.bitnet")
	require.NoError(t, load(t, dir, model.LoadOptions{}).SaveContext(context.Background(), native, model.SaveOptions{
		Metadata: map[string]string{model.KeyCard: "# Mine", model.KeyLicense: "Apache-2.0", "note": "x"},
	}))
	first := load(t, native, model.LoadOptions{}).Info.Metadata
	for _, o := range []model.LoadOptions{{}, {Trainable: true}} {
		meta := savedMetadata(t, load(t, native, o), model.SaveOptions{Metadata: map[string]string{"note": ""}})
		assert.Equal(t, "# Mine", meta[model.KeyCard])
		assert.Equal(t, "Apache-2.0", meta[model.KeyLicense])
		assert.Equal(t, first[model.KeyProvenance], meta[model.KeyProvenance])
		assert.NotContains(t, meta, "note")
	}
}

// What is wrong with a card, or with files that are gone, does not keep a model from being saved.
func TestAModelIsSavedWhateverItsCardIs(t *testing.T) {
	for name, card := range map[string]string{
		"no front matter": "# A model", "an open one": "---\nlicense: mit", "no YAML": "---\n: [\n---\n", "a list": "---\n- mit\n---\n",
		"another kind": "---\nlicense: [mit]\n---\n", "not UTF-8": "\xff\xfe",
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyModel(t, "bitnet_offline_packed", filepath.Join(t.TempDir(), "m"))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "README.md"), []byte(card), 0o600))
			m, late := load(t, dir, model.LoadOptions{}), load(t, dir, model.LoadOptions{})
			first := savedMetadata(t, m, model.SaveOptions{})
			require.NotContains(t, first, model.KeyLicense)
			require.NoError(t, os.RemoveAll(dir))
			require.Equal(t, first[model.KeyProvenance], savedMetadata(t, m, model.SaveOptions{})[model.KeyProvenance])
			var p model.Provenance
			require.NoError(t, json.Unmarshal([]byte(savedMetadata(t, late, model.SaveOptions{})[model.KeyProvenance]), &p))
			require.Equal(t, "m", p.Source)
			require.Empty(t, p.Files)
		})
	}
}
