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
	require.NoError(t, load(t, dir, model.LoadOptions{}).SaveGGUF(context.Background(), single, model.GGUFOptions{Type: "i2_s"}))
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

func TestCardAndLicenceGoAlong(t *testing.T) {
	dir := copyModel(t, "bitnet_offline_packed", t.TempDir())
	for name, c := range map[string]struct{ card, license, want string }{
		"as it is":           {"---\nlicense: mit\n---\n# Mine", "mit", "---\nlicense: mit\n---\n# Mine"},
		"without front":      {"# Mine", "Apache-2.0", "---\nlicense: Apache-2.0\n---\n\n# Mine"},
		"front without":      {"---\ntags: [a]\n---\n# Mine", "mit", "---\nlicense: mit\ntags: [a]\n---\n# Mine"},
		"no identifier":      {"# Mine", "my \"own\": words\n2", "---\nlicense: other\nlicense_name: \"my \\\"own\\\": words\\n2\"\n---\n\n# Mine"},
		"no card":            {"", "mit", "---\nlicense: mit\n---\n\n"},
		"a card that argues": {"---\nlicense: gpl\n---\n# Mine", "mit", "---\nlicense: mit\n---\n\n---\nlicense: gpl\n---\n# Mine"},
	} {
		t.Run(name, func(t *testing.T) {
			place := t.TempDir()
			native := filepath.Join(place, "m.bitnet")
			require.NoError(t, load(t, dir, model.LoadOptions{}).SaveContext(context.Background(), native, model.SaveOptions{
				Metadata: map[string]string{model.KeyCard: c.card, model.KeyLicense: c.license, "author": "me", "note": "x"},
			}))
			m := load(t, native, model.LoadOptions{})
			require.NoError(t, m.SaveHF(filepath.Join(place, "hf")))
			text, err := os.ReadFile(filepath.Join(place, "hf", "README.md"))
			require.NoError(t, err)
			require.Equal(t, c.want, string(text))
			meta := savedMetadata(t, load(t, filepath.Join(place, "hf"), model.LoadOptions{}), model.SaveOptions{})
			require.Equal(t, c.want, meta[model.KeyCard])
			require.Equal(t, c.license, meta[model.KeyLicense])

			require.NoError(t, m.SaveGGUF(context.Background(), filepath.Join(place, "m.gguf"), model.GGUFOptions{Type: "i2_s"}))
			meta = savedMetadata(t, load(t, filepath.Join(place, "m.gguf"), model.LoadOptions{}), model.SaveOptions{})
			require.Equal(t, c.license, meta[model.KeyLicense])
			require.Equal(t, "me", meta["author"])
			require.NotContains(t, meta, "note")
			require.NoError(t, load(t, filepath.Join(place, "m.gguf"), model.LoadOptions{}).SaveGGUF(context.Background(), filepath.Join(place, "again.gguf"), model.GGUFOptions{Type: "i2_s"}))
			meta = savedMetadata(t, load(t, filepath.Join(place, "again.gguf"), model.LoadOptions{}), model.SaveOptions{})
			require.Equal(t, c.license, meta[model.KeyLicense])
		})
	}
}

// A README.md is somebody's: it is replaced only where the whole directory is.
func TestAReadmeThatIsThereStays(t *testing.T) {
	dir := copyModel(t, "bitnet_offline_packed", t.TempDir())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "README.md"), []byte("# Theirs"), 0o600))
	m, target := load(t, dir, model.LoadOptions{}), t.TempDir()
	mine := filepath.Join(target, "README.md")
	require.NoError(t, os.WriteFile(mine, []byte("# Mine"), 0o600))
	for whole, want := range map[bool]string{false: "# Mine", true: "# Theirs"} {
		require.NoError(t, os.WriteFile(mine, []byte("# Mine"), 0o600))
		require.NoError(t, m.SaveHFContext(context.Background(), target, model.HFOptions{Whole: whole}))
		text, err := os.ReadFile(mine)
		require.NoError(t, err)
		require.Equal(t, want, string(text))
	}
}
