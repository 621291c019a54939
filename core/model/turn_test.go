package model

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestTurnIsATranspositionOfAnyShape(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(0, 40).Draw(t, "rows"), rapid.IntRange(0, 40).Draw(t, "cols")
		lds, ldd := cols+rapid.IntRange(0, 9).Draw(t, "gap"), rows+rapid.IntRange(0, 9).Draw(t, "gap")
		src := rapid.SliceOfN(rapid.Byte(), rows*lds, rows*lds).Draw(t, "src")
		dst, want := make([]byte, cols*ldd), make([]byte, cols*ldd)
		for r := range rows {
			for c := range cols {
				want[c*ldd+r] = src[r*lds+c]
			}
		}
		turn(dst, ldd, src, lds, rows, cols)
		require.Equal(t, want, dst)
	})
}

func TestTurnFloatsIsATranspositionOfAnyShape(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols, size := rapid.IntRange(0, 40).Draw(t, "rows"), rapid.IntRange(0, 40).Draw(t, "cols"), rapid.SampledFrom([]int{2, 4}).Draw(t, "size")
		lds, ldd := cols+rapid.IntRange(0, 9).Draw(t, "gap"), rows+rapid.IntRange(0, 9).Draw(t, "gap")
		src := rapid.SliceOfN(rapid.Byte(), rows*lds*size, rows*lds*size).Draw(t, "src")
		dst, want := make([]byte, cols*ldd*size), make([]byte, cols*ldd*size)
		for r := range rows {
			for c := range cols {
				copy(want[(c*ldd+r)*size:][:size], src[(r*lds+c)*size:])
			}
		}
		turnFloats(dst, ldd, src, lds, rows, cols, size)
		require.Equal(t, want, dst)
	})
}
