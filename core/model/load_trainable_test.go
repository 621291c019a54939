package model

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// Quantizing the masters that packed weights get gives the packed weights back: every code, and every bit of the scale.
func TestMastersOfPackedWeightsQuantizeToThem(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		rows, cols := 1+r.IntN(40), 1+r.IntN(90)
		want := &quant.Ternary{Rows: rows, Cols: cols, Data: make([]byte, cpu.TernaryBytes(rows, cols))}
		w := make([]float32, rows*cols)
		zeros := r.Float64()
		for i := range w {
			if r.Float64() >= zeros {
				w[i] = float32(r.IntN(2)*2 - 1)
			}
		}
		require.NoError(t, quant.TernarizeScaled(want.Data, quant.F32, pool.BytesOf(w), rows, cols, 1))
		want.Scale = float32(math.Exp(8*r.NormFloat64() - 4))
		if want.Scale < 1e-5 { // the rule's smallest
			want.Scale = 1e-5
		}
		empty := true
		for _, v := range w {
			empty = empty && v == 0
		}
		masters := make([]float32, rows*cols)
		copyRows(masters, want.Cols, derivedMasters(want))
		panels := make([]byte, len(want.Data))
		scale, err := quant.TernarizeF32(panels, pool.BytesOf(masters), rows, cols)
		require.NoError(t, err)
		require.Equal(t, want.Data, panels)
		if !empty { // of zeros the scale does not matter
			require.Equal(t, want.Scale, scale, "%d x %d", rows, cols)
		}
	}
}
