package model

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// FuzzNative: whatever the bytes of a native file are, in memory or as a stream, they become a model that is saved and loaded to the same
// weights, or an error that says which kind it is; and Verify's look at each tensor ends, too.
func FuzzNative(f *testing.F) {
	add := func(m *Model, o SaveOptions) {
		path := filepath.Join(f.TempDir(), "m.bitnet")
		require.NoError(f, m.SaveContext(context.Background(), path, o))
		content, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(content, uint8(0))
		f.Add(content, uint8(255))
	}
	for _, head := range []string{"float32", "bfloat16", "float16", "int8", "int4"} {
		c := Config{Architecture: ArchBitNet, HiddenAct: ActReLU2, VocabSize: 5, HiddenSize: 8, IntermediateSize: 12, NumHiddenLayers: 1, NumAttentionHeads: 2, TieWordEmbeddings: head != "int8"}
		m, err := NewRandom(&c, 1, LoadOptions{HeadFormat: head})
		require.NoError(f, err)
		add(m, SaveOptions{Files: map[string]string{"tokenizer.json": "{}"}})
		add(m, SaveOptions{Files: map[string]string{"tokenizer.json": string(bytes.Repeat([]byte("text "), 100))}, Compression: CompressionZstd})
		require.NoError(f, m.Close())
	}
	for _, ternary := range []bool{false, true} {
		m := tinyGPT2(f, ternary)
		add(m, SaveOptions{})
		add(m, SaveOptions{Compression: CompressionZstd})
	}
	for name := range firstVersion {
		content, err := os.ReadFile(filepath.Join("testdata", "native", name))
		require.NoError(f, err)
		f.Add(content, uint8(0))
	}
	f.Fuzz(func(t *testing.T, content []byte, choice uint8) {
		p := pool.New(pool.Options{Budget: 64 << 20})
		o := LoadOptions{Pool: p, HeadFormat: []string{"auto", "int8", "int4", "float32"}[choice&3]}
		o.Verify = []string{VerifyBackground, VerifyNever}[choice>>2&1]
		o.Resident = []string{ResidentAuto, ResidentCopy}[choice>>3&1]
		o.Packing = []string{PackingAuto, Packing2Bit}[choice>>4&1]
		ctx := context.Background()
		streamed, err := LoadReader(ctx, bytes.NewReader(content), int64(len(content)), "fuzz", o)
		if err != nil {
			requireKnown(t, err)
		} else {
			path := filepath.Join(t.TempDir(), "m.bitnet")
			require.NoError(t, streamed.Save(path, nil))
			back, err := Load(ctx, path, LoadOptions{Pool: p})
			if o.Verify != VerifyNever { // else there may be codes that are no weights
				require.NoError(t, err)
				require.Equal(t, digest(t, streamed), digest(t, back))
			}
			if err == nil {
				require.NoError(t, back.Close())
			}
			require.NoError(t, streamed.Close())
		}

		mapping, err := p.AllocUninit(max(1, len(content)), "fuzz") // aligned as a mapped file is
		require.NoError(t, err)
		copy(mapping.Bytes(), content)
		if file, err := readNative(container.OpenBytes("fuzz", mapping.Bytes()[:len(content)])); err != nil {
			requireKnown(t, err)
		} else {
			for _, info := range file.Tensors() {
				if v, err := file.listed(info.Name); err != nil {
					requireKnown(t, err)
				} else if err := v.read(ctx, true, nil); err != nil {
					requireKnown(t, err)
				}
			}
			m, err := buildNative(ctx, file, newLoader(o, tableFormat{}))
			if err != nil {
				requireKnown(t, err)
			} else {
				require.NoError(t, m.Close())
			}
		}
		mapping.Release()
		require.Zero(t, p.Stats().LiveBlocks)
		require.NoError(t, p.Close())
	})
}

func requireKnown(t *testing.T, err error) {
	t.Helper()
	for _, kind := range []error{container.ErrFormat, ErrConfig, ErrOption, pool.ErrOutOfMemory, pool.ErrSize} {
		if errors.Is(err, kind) {
			return
		}
	}
	t.Fatalf("an error of no kind: %v", err)
}
