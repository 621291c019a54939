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
		return nil
	}))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func hashFloats(h hash.Hash, values []float32) {
	var b [4]byte
	for _, v := range values {
		binary.LittleEndian.PutUint32(b[:], math.Float32bits(v))
		h.Write(b[:])
	}
}
