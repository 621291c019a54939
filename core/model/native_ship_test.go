package model_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

var compressed = model.SaveOptions{Compression: model.CompressionZstd}

// created is what differs in two files of one model.
var created = regexp.MustCompile(`"created":"[^"]*"`)

// openReader loads a file as a stream.
func openReader(t *testing.T, path string, o model.LoadOptions) (*model.Model, error) {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return model.LoadReader(context.Background(), bytes.NewReader(content), int64(len(content)), "a stream", o)
}

func TestCompressedShardedAndStreamedModelsHaveTheSameBits(t *testing.T) {
	ctx := context.Background()
	for name, m := range variants(t) {
		t.Run(name, func(t *testing.T) {
			want := logits(t, m)
			dir := t.TempDir()
			plain, packed, shards := filepath.Join(dir, "m.bitnet"), filepath.Join(dir, "z.bitnet"), filepath.Join(dir, "shards")
			require.NoError(t, m.Save(plain, nil))
			require.NoError(t, m.SaveContext(ctx, packed, compressed))
			require.NoError(t, m.SaveContext(ctx, shards, model.SaveOptions{Compression: model.CompressionZstd, MaxShard: 20_000}))
			for _, o := range []model.LoadOptions{{}, {Verify: model.VerifyNever}, {Verify: model.VerifyNow, Resident: model.ResidentCopy}} {
				for _, path := range []string{packed, shards, filepath.Join(shards, model.NativeIndex)} {
					back := load(t, path, o)
					require.Equal(t, want, logits(t, back))
					assert.Equal(t, "native", back.Info.Format)
				}
				for _, path := range []string{plain, packed} {
					back, err := openReader(t, path, o)
					require.NoError(t, err)
					require.Equal(t, want, logits(t, back))
					require.NoError(t, back.Close())
				}
			}
		})
	}
}

func TestAnyHeadAndPackingComesFromACompressedFileOrAStream(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"bitnet_offline_packed", "llama_bitlinear_packed"} {
		path := filepath.Join(dir, folder+".bitnet")
		require.NoError(t, load(t, filepath.Join(golden, folder), model.LoadOptions{}).SaveContext(context.Background(), path, compressed))
		for _, o := range []model.LoadOptions{{HeadFormat: "int8"}, {HeadFormat: "exact"}, {HeadFormat: "int4", Verify: model.VerifyNever}, {Packing: model.Packing2Bit}, {Trainable: true}} {
			want := load(t, filepath.Join(golden, folder), o)
			requireSame(t, want, load(t, path, o))
			streamed, err := openReader(t, path, o)
			require.NoError(t, err)
			requireSame(t, want, streamed)
			require.NoError(t, streamed.Close())
		}
	}
}

func TestCompressionMakesFilesSmaller(t *testing.T) {
	m := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	dir := t.TempDir()
	plain, packed := filepath.Join(dir, "m.bitnet"), filepath.Join(dir, "z.bitnet")
	require.NoError(t, m.Save(plain, nil))
	require.NoError(t, m.SaveContext(context.Background(), packed, compressed))
	before, err := os.Stat(plain)
	require.NoError(t, err)
	after, err := os.Stat(packed)
	require.NoError(t, err)
	assert.Less(t, float64(after.Size()), 0.85*float64(before.Size()))
	want, err := model.Assets(plain)
	require.NoError(t, err)
	have, err := model.Assets(packed)
	require.NoError(t, err)
	require.Equal(t, want, have)
	require.NotEmpty(t, have)
	info, err := model.Inspect(context.Background(), packed, true, "", nil)
	require.NoError(t, err)
	for _, tensor := range info.Tensors {
		require.Empty(t, tensor.Error, tensor.Name)
	}
}

func TestACompressedOrStreamedModelIsNotMapped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.bitnet")
	m := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	require.NoError(t, m.SaveContext(context.Background(), path, compressed))
	o := model.LoadOptions{Resident: model.ResidentMap, Pool: pool.New(pool.Options{})}
	_, err := model.Load(context.Background(), path, o)
	require.ErrorIs(t, err, model.ErrOption)
	require.ErrorContains(t, err, "compressed")
	_, err = openReader(t, path, o)
	require.ErrorIs(t, err, model.ErrOption)
	require.Zero(t, o.Pool.Stats().LiveBlocks)
}

func TestAStreamGivesTheFilesInsideToo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.bitnet")
	require.NoError(t, load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{}).SaveContext(context.Background(), path, compressed))
	want, err := model.Assets(path)
	require.NoError(t, err)
	m, err := openReader(t, path, model.LoadOptions{})
	require.NoError(t, err)
	require.Empty(t, m.Info.Path)
	again := filepath.Join(t.TempDir(), "again.bitnet")
	require.NoError(t, m.Save(again, nil))
	require.NoError(t, m.Close())
	have, err := model.Assets(again)
	require.NoError(t, err)
	require.Equal(t, want, have)
}

// A stream that fails, ends early or is canceled leaves nothing behind, and its error is the caller's own.
func TestAStreamThatFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.bitnet")
	require.NoError(t, load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{}).SaveContext(context.Background(), path, compressed))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	size := int64(len(content))
	broken := errors.New("the network is gone")
	for _, from := range []int64{0, 8, 5_000, 200_000, size - 1} {
		o := model.LoadOptions{Pool: pool.New(pool.Options{})}
		_, err = model.LoadReader(context.Background(), failing{bytes.NewReader(content), from, broken}, size, "a stream", o)
		require.ErrorIs(t, err, broken, from)
		_, err = model.LoadReader(context.Background(), bytes.NewReader(content[:from]), size, "a stream", o)
		require.ErrorIs(t, err, container.ErrUnreadable, from)
		require.ErrorContains(t, err, "a stream")
		_, err = model.LoadReader(context.Background(), bytes.NewReader(content[:from]), from, "a stream", o)
		require.ErrorIs(t, err, container.ErrFormat, from)
		ctx, cancel := context.WithCancel(context.Background())
		o.Progress = func(done, total int64) { cancel() }
		_, err = model.LoadReader(ctx, bytes.NewReader(content), size, "a stream", o)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, o.Pool.Stats().LiveBlocks)
	}
	_, err = model.LoadReader(context.Background(), bytes.NewReader(nil), -1, "a stream", model.LoadOptions{})
	require.ErrorIs(t, err, container.ErrFormat)
}

type failing struct {
	io.ReaderAt
	from int64
	err  error
}

func (f failing) ReadAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > f.from {
		return 0, f.err
	}
	return f.ReaderAt.ReadAt(p, at)
}

func TestShardsBelongTogether(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	m := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	shards := model.SaveOptions{MaxShard: 200_000}
	require.NoError(t, m.SaveContext(ctx, dir, shards))
	names, err := filepath.Glob(filepath.Join(dir, "*"+model.NativeExt))
	require.NoError(t, err)
	require.Greater(t, len(names), 2)
	cfg, err := model.LoadConfig(filepath.Join(dir, model.NativeIndex))
	require.NoError(t, err)
	require.Equal(t, m.Config, cfg)

	_, err = model.Load(ctx, names[0], model.LoadOptions{})
	require.ErrorIs(t, err, model.ErrShards)
	require.ErrorContains(t, err, model.NativeIndex)
	require.ErrorIs(t, m.SaveContext(ctx, filepath.Join(dir, "m.bitnet"), shards), model.ErrOption)
	require.ErrorIs(t, m.SaveHF(dir), model.ErrOption, "the checkpoint would be hidden")

	other := t.TempDir()
	n := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	require.NoError(t, n.SaveContext(ctx, other, model.SaveOptions{MaxShard: 200_000, Metadata: map[string]string{"note": "another"}}))
	content, err := os.ReadFile(filepath.Join(other, filepath.Base(names[1])))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(names[1], content, 0o600))
	_, err = model.Load(ctx, dir, model.LoadOptions{})
	require.ErrorIs(t, err, model.ErrShards)
	require.ErrorContains(t, err, names[1])

	require.NoError(t, os.Remove(names[1]))
	_, err = model.Load(ctx, dir, model.LoadOptions{})
	require.ErrorIs(t, err, container.ErrFormat)

	require.NoError(t, m.Save(dir, nil))
	left, err := filepath.Glob(filepath.Join(dir, "model*"))
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, model.NativeName)}, left, "one file takes the place of the shards")
}

func TestSavingTwiceGivesTheSameBytesButForTheTime(t *testing.T) {
	for _, o := range []model.SaveOptions{{}, compressed, {Metadata: map[string]string{"b": "2", "a": "1", model.KeyCard: "# A model"}}} {
		var first []byte
		for range 2 {
			m := load(t, filepath.Join(golden, "llama_bitlinear_packed"), model.LoadOptions{})
			path := filepath.Join(t.TempDir(), "m.bitnet")
			require.NoError(t, m.SaveContext(context.Background(), path, o))
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Len(t, created.FindAll(content, -1), 1)
			content = created.ReplaceAll(content, nil)
			if first != nil {
				require.True(t, bytes.Equal(first, content))
			}
			first = content
		}
	}
}

func TestWhatNeedsNoLaterVersionIsWrittenInTheFirst(t *testing.T) {
	m := load(t, filepath.Join(golden, "llama_bitlinear_packed"), model.LoadOptions{})
	for want, o := range map[string]model.SaveOptions{"1": {MaxShard: 1 << 40}, "2": compressed} {
		dir := t.TempDir()
		require.NoError(t, m.SaveContext(context.Background(), dir, o))
		assert.Equal(t, want, load(t, dir, model.LoadOptions{}).Info.Metadata["format_version"])
	}
}

func TestBadSaveOptionsNameThemselves(t *testing.T) {
	m := load(t, filepath.Join(golden, "llama_bitlinear_packed"), model.LoadOptions{})
	for word, o := range map[string]model.SaveOptions{
		"compression": {Compression: "lzma"}, "max_shard_size": {MaxShard: -1}, "tensors": {Metadata: map[string]string{"tensors": "{}"}},
		"header too large": {Metadata: map[string]string{"big": strings.Repeat("\n", 4_190_000), "b": strings.Repeat("x", 3000)}},
		"without an end":   {Metadata: map[string]string{model.KeyCard: strings.Repeat(`"`, 2_200_000)}},
		`""`:               {Metadata: map[string]string{"": "x"}}, "5000003 bytes": {Metadata: map[string]string{"big": strings.Repeat("x", 5_000_000)}},
	} {
		path := filepath.Join(t.TempDir(), "m.bitnet")
		err := m.SaveContext(context.Background(), path, o)
		require.ErrorIs(t, err, model.ErrOption)
		require.ErrorContains(t, err, word)
		require.NoFileExists(t, path)
	}
}
