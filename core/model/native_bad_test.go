package model_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// native is a native file that a test takes apart.
type native struct {
	t       *testing.T
	path    string
	meta    map[string]string
	index   map[string]map[string]any
	tensors []container.Tensor
}

func openNative(t *testing.T, folder string) *native {
	t.Helper()
	return takeApart(t, load(t, filepath.Join(golden, folder), model.LoadOptions{}))
}

func takeApart(t *testing.T, m *model.Model) *native {
	t.Helper()
	n := &native{t: t, path: filepath.Join(t.TempDir(), "m.bitnet"), index: map[string]map[string]any{}}
	require.NoError(t, m.Save(n.path, nil))
	f, err := safetensors.Open(n.path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	n.meta = f.Metadata()
	require.NoError(t, json.Unmarshal([]byte(n.meta["tensors"]), &n.index))
	for _, info := range f.Tensors() {
		v, err := f.Tensor(info.Name)
		require.NoError(t, err)
		n.tensors = append(n.tensors, container.Tensor{Name: v.Name, DType: v.DType, Shape: v.Shape, Data: bytes.Clone(v.Data)})
	}
	return n
}

func (n *native) write() {
	text, err := json.Marshal(n.index)
	require.NoError(n.t, err)
	if n.meta["tensors"] != "" {
		n.meta["tensors"] = string(text)
	}
	require.NoError(n.t, safetensors.Write(n.path, n.tensors, n.meta))
}

func (n *native) tensor(name string) *container.Tensor {
	for i := range n.tensors {
		if n.tensors[i].Name == name {
			return &n.tensors[i]
		}
	}
	n.t.Fatalf("no tensor %s", name)
	return nil
}

func (n *native) remove(name string) {
	for i := range n.tensors {
		if n.tensors[i].Name == name {
			n.tensors = append(n.tensors[:i], n.tensors[i+1:]...)
			break
		}
	}
	delete(n.index, name)
}

func (n *native) sum(name string) {
	n.index[name]["crc32c"] = fmt.Sprintf("%08x", model.CRC32C(n.tensor(name).Data))
}

func TestBadNativeFilesNameFileTensorFoundAndExpected(t *testing.T) {
	const q, norm, embed, tok = "model.layers.2.self_attn.q_proj.weight", "model.norm.weight", "model.embed_tokens.weight", "file/tokenizer.json"
	for _, tc := range []struct {
		name   string
		change func(n *native)
		kind   error
		field  string // of FormatError: tensor or metadata key
		words  []string
	}{
		{"not this format", func(n *native) { n.meta["format"] = "pt" }, safetensors.ErrMetadata, "format", []string{`"pt"`, `"bitnet"`}},
		{"a later version", func(n *native) { n.meta["format_version"] = "3" }, model.ErrVersion, "format_version", []string{"3", "at most 2"}},
		{"no version", func(n *native) { n.meta["format_version"] = "new" }, safetensors.ErrMetadata, "format_version", []string{`"new"`}},
		{"no index", func(n *native) { delete(n.meta, "tensors") }, safetensors.ErrMetadata, "tensors", nil},
		{"an index that is no JSON", func(n *native) { n.index[q]["shape"] = "wide" }, safetensors.ErrMetadata, "tensors", nil},
		{"a checksum that is no number", func(n *native) { n.index[q]["crc32c"] = "xyz" }, safetensors.ErrMetadata, "tensors", []string{"eight hexadecimal digits"}},
		{"a tensor that is not listed", func(n *native) { delete(n.index, q) }, model.ErrUnexpected, q, nil},
		{"a listed tensor that is not there", func(n *native) { n.index["x"] = n.index[q] }, safetensors.ErrMetadata, "tensors", []string{"one for each tensor"}},
		{"a missing matrix", func(n *native) { n.remove(q) }, container.ErrTensorMissing, q, nil},
		{"a missing norm", func(n *native) { n.remove(norm) }, container.ErrTensorMissing, norm, nil},
		{"a missing embedding", func(n *native) { n.remove(embed) }, container.ErrTensorMissing, embed, nil},
		{"a tensor without a place", func(n *native) {
			n.tensors = append(n.tensors, container.Tensor{Name: "extra", DType: "F32", Shape: []int{0}})
			n.index["extra"] = map[string]any{"layout": "vector", "shape": []int{0}, "crc32c": "00000000"}
		}, model.ErrUnexpected, "extra", []string{"BitNetForCausalLM"}},
		{"another shape", func(n *native) { n.index[q]["shape"] = []int{256, 512} }, container.ErrMismatch, q, []string{"[256 512]", "[256 256]"}},
		{"another size", func(n *native) {
			*n.tensor(q) = container.Tensor{Name: q, DType: "U8", Shape: []int{64}, Data: make([]byte, 64)}
		}, container.ErrMismatch, q, []string{"[64]", "[16384]"}},
		{"another dtype", func(n *native) { n.tensor(q).DType = "I8" }, container.ErrMismatch, q, []string{"I8", "U8"}},
		{"an unknown layout", func(n *native) { n.index[q]["layout"] = "panel99" }, container.ErrMismatch, q, []string{"panel99", "panel16-base3", "dense16-f32"}},
		{"a layout of former days", func(n *native) { n.index[embed]["layout"] = "dense16-bf16" }, container.ErrMismatch, embed,
			[]string{"dense16-bf16", "one of dense16-f32, dense16x2-bf16, dense16x2-f16, dense16x4-int8, dense16x8-int4g64", "save the model again"}},
		{"int4 with a scale a row", func(n *native) { n.index[embed]["layout"] = "dense16x8-int4" }, container.ErrMismatch, embed,
			[]string{"dense16x8-int4", "earlier bitnet_rust", "save the model again from the checkpoint"}},
		{"a vector of another layout", func(n *native) { n.index[norm]["layout"] = "file" }, container.ErrMismatch, norm, []string{"file", "vector"}},
		{"no scale", func(n *native) { delete(n.index[q], "scale") }, model.ErrValue, q, []string{"none", "positive"}},
		{"a bad scale", func(n *native) { n.index[q]["scale"] = -1 }, model.ErrValue, q, []string{"-1"}},
		{"a damaged matrix", func(n *native) { n.tensor(q).Data[77] ^= 1 }, model.ErrChecksum, q, nil},
		{"a damaged norm", func(n *native) { n.tensor(norm).Data[2] ^= 1 }, model.ErrChecksum, norm, nil},
		{"a damaged embedding", func(n *native) { n.tensor(embed).Data[100000] ^= 1 }, model.ErrChecksum, embed, nil},
		{"code 3", func(n *native) { n.tensor(q).Data[9] = 0xff; n.sum(q) }, model.ErrValue, q, []string{"code 3"}},
		{"an unaligned matrix", func(n *native) {
			n.tensors = append([]container.Tensor{{Name: "file/a", DType: "U8", Shape: []int{1}, Data: []byte{0}}}, n.tensors...)
			n.index["file/a"] = map[string]any{"layout": "file", "shape": []int{1}, "crc32c": "527d5351"}
		}, container.ErrMismatch, embed, []string{"multiple of 64"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := openNative(t, "bitnet_offline_packed")
			tc.change(n)
			n.write()
			p := pool.New(pool.Options{})
			for _, o := range []model.LoadOptions{{Pool: p}, {Pool: p, Resident: model.ResidentCopy}} {
				_, err := model.Load(context.Background(), n.path, o)
				require.ErrorIs(t, err, container.ErrFormat)
				require.ErrorIs(t, err, tc.kind)
				var fe *container.Error
				require.ErrorAs(t, err, &fe)
				assert.Equal(t, n.path, fe.Path)
				assert.Contains(t, []string{fe.Tensor, fe.Field}, tc.field)
				for _, word := range append(tc.words, n.path, tc.field) {
					assert.Contains(t, err.Error(), word)
				}
				assert.Zero(t, p.Stats().LiveBlocks)
			}
		})
	}
	t.Run("a damaged file in it", func(t *testing.T) {
		n := openNative(t, "bitnet_offline_packed")
		n.tensor(tok).Data[0] ^= 1
		n.write()
		_, err := model.Assets(n.path)
		require.ErrorIs(t, err, model.ErrChecksum)
		load(t, n.path, model.LoadOptions{})
	})
	t.Run("a file that leaves its directory", func(t *testing.T) {
		n := openNative(t, "bitnet_offline_packed")
		n.tensor(tok).Name = "file/../x"
		n.index["file/../x"] = n.index[tok]
		delete(n.index, tok)
		n.write()
		_, err := model.Assets(n.path)
		require.ErrorIs(t, err, safetensors.ErrName)
	})
	t.Run("an integer matrix too wide for int32 sums", func(t *testing.T) {
		cfg := model.Config{Architecture: model.ArchLlama, VocabSize: 32, HiddenSize: 16, IntermediateSize: cpu.MaxDenseIntCols + 4, NumHiddenLayers: 1, NumAttentionHeads: 2}
		m, err := model.NewRandom(&cfg, 1, model.LoadOptions{})
		require.NoError(t, err)
		defer func() { require.NoError(t, m.Close()) }()
		n := takeApart(t, m)
		n.index["model.layers.0.mlp.down_proj.weight"]["layout"] = "dense16x4-int8"
		n.write()
		_, err = model.Load(context.Background(), n.path, model.LoadOptions{})
		require.ErrorIs(t, err, container.ErrMismatch)
		require.ErrorContains(t, err, "a float layout for more than 131072 columns")
	})
	t.Run("a bad config", func(t *testing.T) {
		n := openNative(t, "bitnet_offline_packed")
		n.meta["config"] = strings.Replace(n.meta["config"], `"hidden_size":256`, `"hidden_size":-1`, 1)
		n.write()
		_, err := model.Load(context.Background(), n.path, model.LoadOptions{})
		require.ErrorIs(t, err, model.ErrConfig)
		require.ErrorContains(t, err, n.path)
	})
	t.Run("a file cut off", func(t *testing.T) {
		n := openNative(t, "bitnet_offline_packed")
		require.NoError(t, os.Truncate(n.path, 300_000))
		_, err := model.Load(context.Background(), n.path, model.LoadOptions{})
		require.ErrorIs(t, err, container.ErrFormat)
		_, err = model.LoadConfig(n.path)
		require.ErrorIs(t, err, container.ErrFormat)
	})
}

func TestSkippingVerificationReadsNoWeight(t *testing.T) {
	const q = "model.layers.2.self_attn.q_proj.weight"
	n := openNative(t, "bitnet_offline_packed")
	n.tensor(q).Data[77] ^= 1
	n.write()
	m := load(t, n.path, model.LoadOptions{Verify: model.VerifyNever})
	assert.Equal(t, n.tensor(q).Data, m.Blocks[2].Attn.Q.Ternary.Data)
}

func TestACanceledNativeLoadKeepsNothing(t *testing.T) {
	n := openNative(t, "bitnet_offline_packed")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := model.Load(ctx, n.path, model.LoadOptions{})
	require.ErrorIs(t, err, context.Canceled)
	ctx, cancel = context.WithCancel(context.Background())
	_, err = model.Load(ctx, n.path, model.LoadOptions{Progress: func(_, _ int64) { cancel() }})
	require.ErrorIs(t, err, context.Canceled)
}
