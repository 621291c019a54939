package model

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// digest is a hash of every weight of a model, by its value: how it lies in memory does not matter.
func digest(t *testing.T, m *Model) string {
	t.Helper()
	require.NoError(t, m.Acquire())
	defer m.Release()
	h := sha256.New()
	require.NoError(t, m.eachWeight(func(name string, l *nn.Linear) error {
		h.Write([]byte(name))
		if l.Ternary != nil {
			for _, code := range l.Ternary.Codes(nil) {
				h.Write([]byte{byte(code)})
			}
			hashFloats(h, []float32{l.Ternary.Scale})
		} else {
			row := make([]float32, l.In)
			for r := range l.Out {
				l.Dense.Row(row, r)
				hashFloats(h, row)
			}
		}
		hashFloats(h, l.Bias)
		if l.Norm != nil {
			hashFloats(h, l.Norm.Weight)
		}
		return nil
	}, func(name string, n *nn.Norm) error {
		h.Write([]byte(name))
		hashFloats(h, n.Weight)
		hashFloats(h, n.Bias)
		return nil
	}))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func TestADigestSeesEveryPartOfANorm(t *testing.T) {
	m := tinyGPT2(t, false)
	seen := map[string]bool{digest(t, m): true}
	for _, values := range [][]float32{m.Head.Norm.Weight, m.Head.Norm.Bias, m.Blocks[0].InputNorm.Bias, m.Blocks[0].Attn.Q.Bias} {
		values[len(values)-1] += 0.5
		seen[digest(t, m)] = true
	}
	require.Len(t, seen, 5)
}

// tinyGPT2 is a random GPT-2 of ternary or float layers, with an odd head_dim.
func tinyGPT2(t testing.TB, ternary bool) *Model {
	t.Helper()
	c := Config{Architecture: ArchGPT2, VocabSize: 5, HiddenSize: 10, IntermediateSize: 12, NumHiddenLayers: 1, NumAttentionHeads: 2, MaxPositionEmbeddings: 7,
		TieWordEmbeddings: true, AttentionBias: true, MLPBias: true}
	if !ternary {
		c.Quantization = floatLayers()
	}
	m, err := NewRandom(&c, 1, LoadOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func hashFloats(h hash.Hash, values []float32) {
	var b [4]byte
	for _, v := range values {
		binary.LittleEndian.PutUint32(b[:], math.Float32bits(v))
		h.Write(b[:])
	}
}
