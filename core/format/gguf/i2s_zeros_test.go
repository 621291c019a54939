package gguf

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

func TestZerosAreCountedAsDecodingFindsThem(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, layout := range I2SLayouts() {
		for _, shape := range [][2]int{{4, 128}, {8, 256}, {1028, 128}, {300, 384}, {4 * 255, 128}} {
			rows, cols := shape[0], shape[1]
			src := make([]byte, rows*cols/4+i2sTail)
			for i := range src {
				for f := range 4 { // no code 3, which no writer makes
					src[i] |= byte(rng.IntN(3)) << (2 * f)
				}
			}
			codes := make([]int8, rows*cols)
			_, err := I2S(codes, layout, src, rows, cols)
			require.NoError(t, err)
			wantRow, wantCol := make([]int, rows), make([]int, cols)
			for i, c := range codes {
				if c == 0 {
					wantRow[i/cols]++
					wantCol[i%cols]++
				}
			}
			got, err := I2SZeros(src, rows, cols, func(int) error { return nil })
			require.NoError(t, err)
			require.Equal(t, Zeros{wantRow, wantCol}, got[layout], fmt.Sprint(layout, shape))
		}
	}
	for _, shape := range [][2]int{{1, 128}, {4, 64}, {4, 256}} {
		_, err := I2SZeros(make([]byte, 4*128/4+i2sTail), shape[0], shape[1], nil)
		require.ErrorIs(t, err, container.ErrFormat)
	}
}
