package model

import (
	"bytes"
	"errors"
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

func TestRowsAreWrittenInOrder(t *testing.T) {
	const rows, size = 200, 40_000 // several times as many as are made at once
	var out bytes.Buffer
	fill := func(text []byte, first, n int) {
		for i := range text[:n*size] {
			text[i] = byte(first + i/size)
		}
	}
	var w rowWriter
	require.NoError(t, w.write(&out, rows, size, fill))
	require.Equal(t, rows*size, out.Len())
	for r := range rows {
		require.Equal(t, bytes.Repeat([]byte{byte(r)}, size), out.Next(size))
	}
	broken := errors.New("broken")
	require.ErrorIs(t, w.write(failing{broken}, rows, size, fill), broken)
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
