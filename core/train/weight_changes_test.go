package train

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// Changes are counted as a loop over the codes counts them, whatever the shape's padding.
func TestWeightChangesAreCountedCodeByCode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(1, 40).Draw(t, "rows"), rapid.IntRange(1, 40).Draw(t, "cols")
		draw := func(label string) []int8 {
			return rapid.SliceOfN(rapid.Int8Range(-1, 1), rows*cols, rows*cols).Draw(t, label)
		}
		before, after := draw("before"), draw("after")
		l := &nn.Linear{Out: rows, In: cols, Ternary: &quant.Ternary{Rows: rows, Cols: cols, Data: make([]byte, cpu.TernaryBytes(rows, cols))}}
		cpu.PackTernary(l.Ternary.Data, before, rows, cols)
		w := &weightWatch{layers: []*nn.Linear{l}, codes: [][]byte{append([]byte(nil), l.Ternary.Data...)}, total: rows * cols}
		cpu.PackTernary(l.Ternary.Data, after, rows, cols)
		var want WeightChanges
		flipped, zeroed, zero := 0, 0, 0
		for i, a := range after {
			switch {
			case a == 0:
				zero++
				if before[i] != 0 {
					zeroed++
				}
			case a == -before[i]:
				flipped++
			}
		}
		n := float64(rows * cols)
		want = WeightChanges{float64(flipped) / n, float64(zeroed) / n, float64(zero) / n}
		require.Equal(t, &want, w.changes())
		require.Equal(t, &WeightChanges{0, 0, want.Zero}, w.changes(), "since the last record nothing has changed")
	})
}
