package nn

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

func TestCutsCoverEverythingInEverSmallerChunks(t *testing.T) {
	defer func(n int) { require.NoError(t, cpu.SetNumThreads(n)) }(cpu.NumThreads())
	for _, threads := range []int{1, 2, 7, 64} {
		require.NoError(t, cpu.SetNumThreads(threads))
		for _, total := range []int{1, 7, 8, 9, 160, 432, 6912, 8016, 100003} {
			for _, unit := range []int{1, 8, 128} {
				name := fmt.Sprint(threads, " threads, ", total, " in units of ", unit)
				c, end, last := newCuts(total, unit), 0, total+unit
				for i := range c.n {
					from, to := c.chunk(i)
					require.Equal(t, end, from, name)
					require.Less(t, from, to, name)
					require.LessOrEqual(t, to-from, last, name)
					if to < total {
						require.Zero(t, to%unit, name)
					}
					end, last = to, to-from
				}
				require.Equal(t, total, end, name)
			}
		}
	}
}
