package model_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// mostMemory is what refusing a hostile file may take beside what the file itself takes.
const mostMemory = 50 << 20

// frames compresses n zeros, as frames of a MiB.
func frames(t *testing.T, n int) []byte {
	t.Helper()
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	defer func() { require.NoError(t, encoder.Close()) }()
	var out []byte
	for zeros := make([]byte, 1<<20); n > 0; n -= len(zeros) {
		out = encoder.EncodeAll(zeros[:min(n, len(zeros))], out)
	}
	return out
}

// skipped is a frame of n bytes that a decoder skips.
func skipped(n int) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(n)), make([]byte, n)...)
}

// packed makes a tensor compressed bytes.
func (n *native) packed(name string, content []byte) {
	*n.tensor(name) = container.Tensor{Name: name, DType: "U8", Shape: []int{len(content)}, Data: content}
	n.index[name]["compression"] = "zstd"
	for i := range n.tensors { // bytes of any number come last
		if n.tensors[i].Name == name {
			last := n.tensors[i]
			n.tensors = append(append(n.tensors[:i:i], n.tensors[i+1:]...), last)
			return
		}
	}
}

// config changes the config in the metadata.
func (n *native) config(field string, value any) {
	var c map[string]any
	require.NoError(n.t, json.Unmarshal([]byte(n.meta["config"]), &c))
	c[field] = value
	text, err := json.Marshal(c)
	require.NoError(n.t, err)
	n.meta["config"] = string(text)
}

// Files that mean to harm are errors of a kind, mapped or from a stream, for Load and for Verify, and take little memory.
func TestHostileNativeFilesAreRefused(t *testing.T) {
	const q, embed, norm, tok = "model.layers.2.self_attn.q_proj.weight", "model.embed_tokens.weight", "model.norm.weight", "file/tokenizer.json"
	const size = 16384 // bytes of q
	huge := []int{1 << 24, 1 << 17}
	changed := func(change func(n *native)) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			n := openNative(t, "bitnet_offline_packed")
			change(n)
			n.write()
			content, err := os.ReadFile(n.path)
			require.NoError(t, err)
			return content
		}
	}
	header := func(length uint64, text string) func(*testing.T) []byte {
		return func(*testing.T) []byte { return append(binary.LittleEndian.AppendUint64(nil, length), text...) }
	}
	filled := func(text string, data int) func(*testing.T) []byte {
		return header(uint64(len(text)), text+strings.Repeat("x", data))
	}
	meta := func(tensors string) func(t *testing.T) []byte {
		return func(t *testing.T) []byte {
			var b bytes.Buffer
			require.NoError(t, safetensors.WriteTo(&b, nil, map[string]string{"format": "bitnet", "format_version": "1", "config": "{}", "tensors": tensors}))
			return b.Bytes()
		}
	}
	for _, tc := range []struct {
		name    string
		content func(t *testing.T) []byte
		kind    error
	}{
		{"nothing", func(*testing.T) []byte { return nil }, safetensors.ErrFileTooShort},
		{"a header of 2^63 bytes", header(1<<63, "{}"), safetensors.ErrHeaderTooLarge},
		{"a header of 100 MB in a small file", header(100_000_000, "{}"), safetensors.ErrHeaderTooLarge},
		{"a header longer than the file", header(1000, "{}"), safetensors.ErrHeaderTruncated},
		{"a header of 9 MB", header(9<<20, "{"+strings.Repeat(" ", 9<<20)), safetensors.ErrHeaderTooLarge},
		{"a deep header", header(4<<20, `{"x":`+strings.Repeat("[", 4<<20)), safetensors.ErrField},
		{"a hundred thousand tensors", func(t *testing.T) []byte {
			var b strings.Builder
			b.WriteString(`{"__metadata__":{"format":"bitnet","format_version":"1","config":"{}","tensors":"{}"}`)
			for i := range 100_000 {
				fmt.Fprintf(&b, `,"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`, i)
			}
			b.WriteString("}")
			return filled(b.String(), 0)(t)
		}, safetensors.ErrHeaderTooLarge},
		{"overlapping tensors", filled(`{"a":{"dtype":"U8","shape":[64],"data_offsets":[0,64]},"b":{"dtype":"U8","shape":[64],"data_offsets":[32,96]}}`, 96), safetensors.ErrOverlap},
		{"a tensor behind the end", filled(`{"a":{"dtype":"U8","shape":[64],"data_offsets":[0,64]}}`, 4), safetensors.ErrOutOfBounds},
		{"a shape that overflows", filled(`{"a":{"dtype":"U8","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,0]}}`, 0), safetensors.ErrShape},
		{"no list of tensors", meta(""), safetensors.ErrMetadata},
		{"a deep list of tensors", meta(`{"a":` + strings.Repeat("[", 1<<20)), safetensors.ErrMetadata},
		{"a list of tensors that are not there", meta(`{"a":{"layout":"vector","shape":[` + strings.Repeat("1,", 1<<20) + `1]}}`), safetensors.ErrMetadata},
		{"a deep config", changed(func(n *native) { n.meta["config"] = strings.Repeat("[", 1<<19) }), model.ErrConfig},
		{"a config of megabytes", changed(func(n *native) { n.config("note", strings.Repeat("x", 2<<20)) }), safetensors.ErrMetadata},
		{"a huge vocabulary", changed(func(n *native) { n.config("vocab_size", huge[0]) }), container.ErrMismatch},
		{"a huge vocabulary, in the list too", changed(func(n *native) {
			n.config("vocab_size", huge[0])
			n.index[embed]["shape"] = []int{huge[0], 256}
		}), container.ErrMismatch},
		{"a thousand layers", changed(func(n *native) { n.config("num_hidden_layers", 1024) }), container.ErrTensorMissing},
		{"shapes that are not those of the model", changed(func(n *native) { n.index[q]["shape"] = huge }), container.ErrMismatch},
		{"negative shapes", changed(func(n *native) { n.index[q]["shape"] = []int{-256, -256} }), container.ErrMismatch},
		{"a long shape", changed(func(n *native) { n.index[q]["shape"] = make([]int, 1<<12) }), container.ErrMismatch},
		{"a key that changes what the bytes mean", changed(func(n *native) { n.index[q]["xor"] = 7 }), safetensors.ErrMetadata},
		{"an unknown compression", changed(func(n *native) { n.index[q]["compression"] = "lzma" }), container.ErrMismatch},
		{"text that says it is compressed", changed(func(n *native) { n.packed(q, bytes.Repeat([]byte("text"), 100)) }), model.ErrCompression},
		{"frames with less than there should be", changed(func(n *native) { n.packed(q, frames(t, size-1)) }), model.ErrCompression},
		{"frames with a byte more", changed(func(n *native) { n.packed(q, frames(t, size+1)) }), model.ErrCompression},
		{"a bomb: frames with 128 MiB", changed(func(n *native) { n.packed(q, frames(t, 128<<20)) }), model.ErrCompression},
		{"a bomb whose list says so", changed(func(n *native) {
			n.config("vocab_size", huge[0])
			n.index[embed]["shape"] = []int{huge[0], 256}
			n.packed(embed, frames(t, 64<<20))
		}), model.ErrCompression},
		{"a bomb of a file inside", changed(func(n *native) {
			n.index[tok]["shape"] = []int{50 << 20}
			n.packed(tok, frames(t, 50<<20))
		}), model.ErrCompression},
		{"a file inside that grows a hundred times", changed(func(n *native) {
			n.index[tok]["shape"] = []int{50 << 20}
			n.packed(tok, append(frames(t, 50<<20), skipped(500<<10)...))
		}), model.ErrCompression},
		{"a file inside of which there is only a start", changed(func(n *native) {
			n.index[tok]["shape"] = []int{50 << 20}
			n.packed(tok, append(frames(t, 1<<20), skipped(3<<20)...))
		}), model.ErrCompression},
		{"files inside that are too large together", changed(func(n *native) {
			for _, name := range []string{"file/a", "file/b", "file/c"} {
				n.tensors = append(n.tensors, container.Tensor{Name: name})
				n.index[name] = map[string]any{"layout": "file", "shape": []int{30 << 20}, "crc32c": "00000000"}
				n.packed(name, append(frames(t, 30<<20), skipped(2<<20)...))
			}
		}), container.ErrMismatch},
		{"a frame with a window of a GiB", changed(func(n *native) {
			n.packed(q, []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00})
		}), model.ErrCompression},
		{"a frame cut off", changed(func(n *native) { n.packed(q, frames(t, size)[:10]) }), model.ErrCompression},
		{"no frame at all", changed(func(n *native) { n.packed(q, nil) }), model.ErrCompression},
		{"frames to skip", changed(func(n *native) { n.packed(q, bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, size/8-1)) }), model.ErrCompression},
		{"more frames to skip than there are bytes", changed(func(n *native) { n.packed(q, bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, 100_000)) }), model.ErrCompression},
		{"other bytes than were compressed", changed(func(n *native) {
			n.packed(q, append(frames(t, size), bytes.Repeat([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, 10)...))
		}), model.ErrChecksum},
		{"a compressed norm of other bytes", changed(func(n *native) { n.packed(norm, frames(t, 1024)) }), model.ErrChecksum},
		{"a file of the outside", changed(func(n *native) {
			n.tensor(tok).Name = "file/../../x"
			n.index["file/../../x"] = n.index[tok]
			delete(n.index, tok)
		}), safetensors.ErrName},
	} {
		t.Run(tc.name, func(t *testing.T) {
			content := tc.content(t)
			path := filepath.Join(t.TempDir(), "m.bitnet")
			require.NoError(t, os.WriteFile(path, content, 0o600))
			p := pool.New(pool.Options{})
			o := model.LoadOptions{Pool: p}
			for name, open := range map[string]func() error{
				"a file": func() error {
					m, err := model.Load(context.Background(), path, o)
					if err == nil { // what is wrong is a file inside
						require.NoError(t, m.Close())
						_, err = model.Assets(path)
					}
					return err
				},
				"a stream": func() error {
					_, err := model.LoadReader(context.Background(), bytes.NewReader(content), int64(len(content)), path, o)
					return err
				},
				"verification": func() error {
					v, err := model.Verify(context.Background(), path, model.LoadOptions{}, nil)
					if err == nil {
						require.NotEmpty(t, v.Problems)
						err = tc.kind
					}
					return err
				},
			} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				err := open()
				runtime.ReadMemStats(&after)
				require.ErrorIs(t, err, tc.kind, name)
				assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(mostMemory), name)
				if name != "verification" {
					require.True(t, errors.Is(err, container.ErrFormat) || errors.Is(err, model.ErrConfig), err)
					require.ErrorContains(t, err, path, name)
				}
			}
			assert.Less(t, p.Stats().PeakRequested, int64(mostMemory))
			assert.Zero(t, p.Stats().LiveBlocks)
		})
	}
}

func TestAHostileIndexOfShardsIsRefused(t *testing.T) {
	source := t.TempDir()
	m := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	require.NoError(t, m.SaveContext(context.Background(), source, model.SaveOptions{MaxShard: 200_000}))
	text, err := os.ReadFile(filepath.Join(source, model.NativeIndex))
	require.NoError(t, err)
	for _, tc := range []struct {
		name, from, to string
		kind           error
	}{
		{"a shard above", "model-00002", "../model-00002", safetensors.ErrShardName},
		{"an absolute shard", `"model-00002`, `"/etc/model-00002`, safetensors.ErrShardName},
		{"another kind of file", ".bitnet\"", ".safetensors\"", safetensors.ErrShardName},
		{"a shard that is not there", "model-00002", "model-00099", safetensors.ErrShardMissing},
		{"a shard that is the index", "model-00002-of-", "model.bitnet.index.json-", safetensors.ErrShardMissing},
		{"a tensor of another shard", "model-00001", "model-00002", safetensors.ErrShardTensor},
		{"a deep index", `"weight_map": {`, `"weight_map": {"a":` + strings.Repeat("[", 9_000), safetensors.ErrIndex},
		{"an index of 9 MB", "{", strings.Repeat(" ", 9<<20) + "{", safetensors.ErrIndex},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(dir, os.DirFS(source)))
			changed := strings.Replace(string(text), tc.from, tc.to, -1)
			if strings.HasSuffix(tc.name, "MB") {
				changed = strings.Replace(string(text), tc.from, tc.to, 1)
			}
			require.NotEqual(t, string(text), changed)
			require.NoError(t, os.WriteFile(filepath.Join(dir, model.NativeIndex), []byte(changed), 0o600))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := model.Load(context.Background(), dir, model.LoadOptions{})
			runtime.ReadMemStats(&after)
			require.ErrorIs(t, err, tc.kind)
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(mostMemory))
		})
	}
}
