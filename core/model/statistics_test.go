package model_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
)

// allocated is how much memory run asks for, given back or not.
func allocated(run func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// zeros is a tensor of so many zeros.
func zeros(name, dtype string, bytes int, shape ...int) container.Tensor {
	return container.Tensor{Name: name, DType: dtype, Shape: shape, Stream: func(w io.Writer) error {
		_, err := io.CopyN(w, endless{}, int64(bytes))
		return err
	}}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What is known of a tensor takes a buffer, not the tensor: the codes of each of these files are 16 MB and more.
func TestStatisticsTakeTheMemoryOfAPieceInEveryFormat(t *testing.T) {
	const rows, cols, most = 1024, 4096, 8 << 20 // 4 M weights
	dir := t.TempDir()
	var tensors []container.Tensor
	for _, dtype := range gguf.DTypes() {
		if size, ok := gguf.Bytes(dtype, rows*cols, cols); ok && (gguf.IsTernary(dtype) || gguf.Decodes(dtype) && dtype != gguf.F32) {
			tensors = append(tensors, zeros(dtype, dtype, size, rows, cols))
		}
	}
	require.Len(t, tensors, 11)
	blocks := filepath.Join(dir, "m.gguf")
	require.NoError(t, gguf.Write(blocks, nil, tensors))
	packed := filepath.Join(dir, "model.safetensors")
	require.NoError(t, safetensors.Write(packed, []container.Tensor{
		zeros("a.weight", safetensors.U8, rows*cols, rows, cols), {Name: "a.weight_scale", DType: safetensors.F32, Shape: []int{1}, Data: []byte{0, 0, 0x80, 0x3f}},
		zeros("b.weight", safetensors.F32, 4*rows*cols, rows, cols),
	}, nil))
	config := model.Config{Architecture: model.ArchBitNet, VocabSize: 4096, HiddenSize: 1024, IntermediateSize: 4096, NumHiddenLayers: 1, NumAttentionHeads: 8, NumKeyValueHeads: 8,
		MaxPositionEmbeddings: 64, HiddenAct: model.ActReLU2, RMSNormEps: 1e-5, RopeTheta: 1e4}
	config.Quantization.LinearClass, config.Quantization.Mode = model.AutoBitLinear, model.ModeOffline
	paths := []string{blocks, packed}
	for _, head := range []string{"float32", "int8", "int4"} {
		m, err := model.NewRandom(&config, 1, model.LoadOptions{HeadFormat: head})
		require.NoError(t, err)
		name := func(ext string) string { return filepath.Join(dir, head+ext) }
		require.NoError(t, m.Save(name(".bitnet"), nil))
		require.NoError(t, m.SaveContext(context.Background(), name("-z.bitnet"), compressed))
		paths = append(paths, name(".bitnet"), name("-z.bitnet"))
		require.NoError(t, m.Close())
	}
	for _, path := range paths {
		_, err := model.Inspect(context.Background(), path, true, "x86", nil) // what is made once does not count
		require.NoError(t, err)
		require.Less(t, allocated(func() {
			info, err := model.Inspect(context.Background(), path, true, "x86", nil)
			require.NoError(t, err)
			for _, tensor := range info.Tensors {
				require.Empty(t, tensor.Error, tensor.Name)
				if s := tensor.Ternary; s != nil {
					require.Equal(t, tensor.Shape[0]*tensor.Shape[1], s.Minus+s.Zero+s.Plus, tensor.Name)
				}
			}
		}), most, path)
	}
}

// until is a context that ends after so many looks at it: the calls are counted, not the time.
type until struct {
	context.Context
	left int
}

func (u *until) Err() error {
	if u.left--; u.left < 0 {
		return context.Canceled
	}
	return nil
}

// Whoever looks at numbers looks at the context too: these files are in order and have terabytes, of which nothing is on the disk.
func TestReadingAHugeTensorEndsWithItsContext(t *testing.T) {
	const rows, cols = 1 << 22, 1 << 18
	dir := t.TempDir()
	sparse := func(name string, content []byte, size int) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		require.NoError(t, os.Truncate(path, int64(len(content)+size)))
		return path
	}
	checkpoint := func(name, dtype string, size int) string {
		text := fmt.Sprintf(`{"a.weight_scale":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a.weight":{"dtype":%q,"shape":[%d,%d],"data_offsets":[4,%d]}}`, dtype, rows, cols, 4+size)
		one := []byte{0, 0, 0x80, 0x3f}
		return sparse(name, append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), one...), size)
	}
	paths := []string{checkpoint("floats.safetensors", safetensors.F32, 4*rows*cols), checkpoint("codes.safetensors", safetensors.U8, rows*cols)}
	for _, dtype := range []string{gguf.I2_S, gguf.TQ1_0, gguf.IQ2_BN, gguf.Q6_K} {
		size, _ := gguf.Bytes(dtype, rows*cols, cols)
		small, _ := gguf.Bytes(dtype, 4*512, 512)
		path := filepath.Join(dir, dtype+".gguf")
		require.NoError(t, gguf.Write(path, nil, []container.Tensor{zeros("a", dtype, small, 4, 512)}))
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		shape := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, 512), 4)
		at := bytes.Index(content, shape)
		binary.LittleEndian.PutUint64(content[at:], cols)
		binary.LittleEndian.PutUint64(content[at+8:], rows)
		paths = append(paths, sparse(filepath.Base(path), content[:len(content)-small], size))
	}
	for _, path := range paths {
		require.Less(t, allocated(func() {
			_, err := model.Inspect(&until{context.Background(), 20}, path, true, "x86", nil)
			require.ErrorIs(t, err, context.Canceled, path)
		}), 4<<20, path)
	}
}

// The vocabulary has 8 GB, is in order, and nothing of it is on the disk.
func TestVerifyTellsHowFarItIsInATensorAndEndsInTheMidstOfIt(t *testing.T) {
	const embed, vocab = "model.embed_tokens.weight", 1 << 24
	c := open(t, "bitnet_offline_packed")
	c.config["vocab_size"] = vocab
	hidden := c.tensors[embed].Shape[1]
	c.remove(embed)
	dir := c.write()
	path := filepath.Join(dir, safetensors.SingleName)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	text := bytes.TrimRight(content[8:8+binary.LittleEndian.Uint64(content)], " ")
	data := content[8+binary.LittleEndian.Uint64(content):]
	text = fmt.Appendf(text[:len(text)-1], `,%q:{"dtype":"BF16","shape":[%d,%d],"data_offsets":[%d,%d]}}`, embed, vocab, hidden, len(data), len(data)+2*vocab*hidden)
	head := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	require.NoError(t, os.WriteFile(path, append(head, data...), 0o600))
	require.NoError(t, os.Truncate(path, int64(len(head)+len(data)+2*vocab*hidden)))

	ctx, cancel := context.WithCancel(context.Background())
	var last int64
	_, err = model.Verify(ctx, dir, model.LoadOptions{}, func(done, total int64) {
		require.GreaterOrEqual(t, done, last)
		require.Equal(t, int64(len(data)+2*vocab*hidden), total)
		if last = done; done > int64(len(data)+64<<20) {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, last, int64(len(data)+128<<20))
}
