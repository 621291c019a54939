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
		for _, shape := range [][2]int{{4, 128}, {8, 256}, {1028, 128}, {300, 384}} {
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
			byRow, byCol, err := I2SZeros(layout, src, rows, cols)
			require.NoError(t, err)
			require.Equal(t, wantRow, byRow, fmt.Sprint(layout, shape))
			require.Equal(t, wantCol, byCol, fmt.Sprint(layout, shape))
		}
	}
	_, _, err := I2SZeros("x87", make([]byte, 64), 1, 128)
	require.ErrorIs(t, err, container.ErrFormat)
	_, _, err = I2SZeros(I2SRow4, make([]byte, 64), 1, 128)
	require.ErrorIs(t, err, container.ErrFormat)
	_, _, err = I2SZeros(I2SArm64, make([]byte, 64/4+i2sTail), 1, 64)
	require.ErrorIs(t, err, container.ErrFormat)
}
