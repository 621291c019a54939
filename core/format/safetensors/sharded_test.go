package safetensors

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestACheckpointSplitsIntoShardsAndReadsAsOne(t *testing.T) {
	dir := t.TempDir()
	tensors := []container.Tensor{u8("a", 60), u8("b", 60), u8("huge", 500), u8("c", 40), u8("d", 60), u8("e", 1)}
	names, err := WriteSharded(dir, tensors, map[string]string{"format": "pt"}, 100)
	require.NoError(t, err)
	require.Equal(t, []string{
		"model-00001-of-00005.safetensors", "model-00002-of-00005.safetensors", "model-00003-of-00005.safetensors",
		"model-00004-of-00005.safetensors", "model-00005-of-00005.safetensors",
	}, names)

	for _, path := range []string{dir, filepath.Join(dir, IndexName)} {
		set, err := OpenSet(path)
		require.NoError(t, err)
		require.Equal(t, filepath.Join(dir, IndexName), set.Path())
		require.Equal(t, map[string]string{"format": "pt"}, set.(*Sharded).Metadata())
		require.Len(t, set.Tensors(), len(tensors))
		require.Len(t, set.(*Sharded).Shards(), 5)
		for _, want := range tensors {
			require.True(t, set.Has(want.Name))
			v, err := set.Tensor(want.Name)
			require.NoError(t, err)
			require.Equal(t, want.Data, v.Data)
		}
		_, err = set.Tensor("f")
		require.ErrorIs(t, err, container.ErrTensorMissing)
		require.False(t, set.Has("f"))
		require.NoError(t, set.Close())
		require.NoError(t, set.Close())
		_, err = set.Tensor("a")
		require.ErrorIs(t, err, container.ErrClosed)
	}
	var index struct {
		Metadata struct {
			TotalSize int64 `json:"total_size"`
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, IndexName))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &index))
	require.Equal(t, int64(721), index.Metadata.TotalSize)
}

func TestSavingAgainRemovesTheFilesOfTheOldLayoutAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "adapter.safetensors")
	write(t, other, nil, nil)
	tensors := []container.Tensor{u8("a", 60), u8("b", 60)}
	for _, c := range []struct {
		limit int64
		want  []string
	}{
		{60, []string{"adapter.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", IndexName}},
		{1000, []string{"adapter.safetensors", SingleName}},
		{60, []string{"adapter.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", IndexName}},
	} {
		_, err := WriteSharded(dir, tensors, nil, c.limit)
		require.NoError(t, err)
		require.Equal(t, c.want, list(t, dir))
		set, err := OpenSet(dir)
		require.NoError(t, err)
		require.Len(t, set.Tensors(), 2)
		require.NoError(t, set.Close())
	}
}

func TestShardedWritingRefusesBadTensorsBeforeTouchingTheDirectory(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		tensors []container.Tensor
		limit   int64
		want    error
	}{
		"no room":                  {nil, 0, container.ErrSize},
		"a name twice, two shards": {[]container.Tensor{u8("a", 60), u8("a", 60)}, 60, ErrDuplicateKey},
		"an unknown dtype":         {[]container.Tensor{{Name: "a", DType: "?"}}, 60, ErrDType},
	} {
		_, err := WriteSharded(dir, c.tensors, nil, c.limit)
		require.ErrorIs(t, err, c.want, name)
		require.Empty(t, list(t, dir))
	}
	_, err := WriteSharded(filepath.Join(dir, "absent"), []container.Tensor{u8("a", 1)}, nil, 10)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = WriteSharded(filepath.Join(dir, "absent"), []container.Tensor{u8("a", 1), u8("b", 10)}, nil, 10)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestALyingIndexIsATypedError(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(filepath.Dir(dir), "outside.safetensors")
	write(t, outside, []container.Tensor{u8("a", 1)}, nil)
	write(t, filepath.Join(dir, "s.safetensors"), []container.Tensor{u8("a", 1)}, nil)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "d.safetensors"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bad.safetensors"), []byte("short"), 0o644))
	one := func(tensor, shard string) string { return fmt.Sprintf(`{"weight_map":{%q:%q}}`, tensor, shard) }
	path := filepath.Join(dir, "i.json")
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"no JSON":                {"{", ErrIndex},
		"not UTF-8":              {"{\"\xff\":1}", ErrIndex},
		"no weight_map":          {"{}", ErrIndex},
		"weight_map is a list":   {`{"weight_map":[]}`, ErrIndex},
		"weight_map is null":     {`{"weight_map":null}`, ErrIndex},
		"a shard is a number":    {`{"weight_map":{"a":1}}`, ErrIndex},
		"a shard is an object":   {`{"weight_map":{"a":{}}}`, ErrIndex},
		"a tensor twice":         {`{"weight_map":{"a":"s.safetensors","a":"s.safetensors"}}`, ErrDuplicateKey},
		"a shard above":          {one("a", "../outside.safetensors"), ErrShardName},
		"an absolute shard":      {one("a", outside), ErrShardName},
		"a shard below":          {one("a", "sub/s.safetensors"), ErrShardName},
		"a backslash":            {one("a", `..\outside.safetensors`), ErrShardName},
		"a drive":                {one("a", "c:s.safetensors"), ErrShardName},
		"another kind of file":   {one("a", "i.json"), ErrShardName},
		"no shard name":          {one("a", ""), ErrShardName},
		"a missing shard":        {one("a", "t.safetensors"), ErrShardMissing},
		"a tensor not in it":     {one("b", "s.safetensors"), ErrShardTensor},
		"a shard is a directory": {one("a", "d.safetensors"), container.ErrNotRegular},
		"a malformed shard":      {one("a", "bad.safetensors"), ErrFileTooShort},
	} {
		require.NoError(t, os.WriteFile(path, []byte(c.text), 0o644))
		_, err := OpenSharded(path)
		require.ErrorIs(t, err, c.want, name)
		require.ErrorIs(t, err, container.ErrFormat, name)
	}
	_, err := OpenSharded(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = OpenSharded(filepath.Join(dir, "absent.json"))
	require.ErrorIs(t, err, os.ErrNotExist)

	huge := filepath.Join(dir, "huge.json")
	f, err := os.Create(huge)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(MaxHeader+1))
	require.NoError(t, f.Close())
	_, err = OpenSharded(huge)
	require.ErrorIs(t, err, ErrIndex)
}

func TestTensorsThatTheIndexDoesNotNameStayHidden(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "s.safetensors"), []container.Tensor{u8("a", 1), u8("b", 1)}, map[string]string{"x": "s"})
	write(t, filepath.Join(dir, "t.safetensors"), []container.Tensor{u8("c", 1)}, map[string]string{"x": "t", "y": "t"})
	require.NoError(t, os.WriteFile(filepath.Join(dir, IndexName), []byte(`{"weight_map":{"a":"s.safetensors","c":"t.safetensors"}}`), 0o644))
	set, err := OpenSet(dir)
	require.NoError(t, err)
	defer set.Close()
	require.Len(t, set.Tensors(), 2)
	require.False(t, set.Has("b"))
	require.Equal(t, map[string]string{"x": "s", "y": "t"}, set.(*Sharded).Metadata())
}
