package model

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// FuzzLoadGGUF: whatever the bytes, loading ends with a model that is written and loaded to the same weights, or with an error about the
// file or the config in it.
func FuzzLoadGGUF(f *testing.F) {
	for _, s := range []struct {
		kind, arch, act string
		width           int
		tied            bool
	}{
		{"f32", ArchLlama, ActSiLU, 8, true}, {"f16", ArchBitNet, ActReLU2, 8, false}, {"bf16", ArchBitnet, ActSiLU, 8, true},
		{"i2_s", ArchBitNet, ActReLU2, 128, true}, {"i2_s", ArchLlama, ActSiLU, 128, true}, {"tq1_0", ArchLlama, ActSiLU, 256, true}, {"tq2_0", ArchBitNet, ActReLU2, 256, true},
	} {
		c := Config{Architecture: s.arch, HiddenAct: s.act, VocabSize: 5, HiddenSize: s.width, IntermediateSize: s.width, NumHiddenLayers: 1,
			NumAttentionHeads: 2, TieWordEmbeddings: s.tied, EOSTokenIDs: []int{1, 2}}
		m, err := NewRandom(&c, 1, LoadOptions{})
		require.NoError(f, err)
		path := filepath.Join(f.TempDir(), "m.gguf")
		require.NoError(f, m.SaveGGUF(context.Background(), path, GGUFOptions{Type: s.kind}))
		require.NoError(f, m.Close())
		content, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(content, uint8(0))
		f.Add(content, uint8(3))
	}
	f.Fuzz(func(t *testing.T, content []byte, choice uint8) {
		p := pool.New(pool.Options{Budget: 64 << 20})
		o := LoadOptions{Pool: p, Quantize: choice&1 != 0, Lenient: true, I2SLayout: []string{gguf.I2SX86, gguf.I2SArm64, gguf.I2SRow4}[(choice>>1&3)%3]}
		head, err := parseHeadFormat([]string{"auto", "int8", "int4", "float32"}[choice>>3&3])
		require.NoError(t, err)
		file, err := gguf.OpenBytes("fuzz", content)
		if err != nil {
			require.ErrorIs(t, err, container.ErrFormat)
			return
		}
		ctx := context.Background()
		m, err := buildGGUF(ctx, file, newLoader(o, head))
		if err != nil {
			requireKnown(t, err)
		} else {
			require.NoError(t, m.Config.Validate())
			path := filepath.Join(t.TempDir(), "m.bitnet")
			require.NoError(t, m.Save(path, nil))
			back, err := Load(ctx, path, LoadOptions{Pool: p})
			require.NoError(t, err)
			require.Equal(t, digest(t, m), digest(t, back))
			require.NoError(t, back.Close())
			require.NoError(t, m.Close())
		}
		require.Zero(t, p.Stats().LiveBlocks)
		require.NoError(t, p.Close())
	})
}
