package nn

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// Chunks cover a product once, and give work to the threads, however few panels a layer has.
func TestEveryThreadGetsAPartOfAProduct(t *testing.T) {
	defer func(n int) { require.NoError(t, cpu.SetNumThreads(n)) }(cpu.NumThreads())
	for _, threads := range []int{1, 2, 3, 8, 16} {
		require.NoError(t, cpu.SetNumThreads(threads))
		for _, rows := range []int{skipRows + 1, 60, 64, 200, 257, 1000} {
			for _, panels := range []int{1, 4, 16, 17, 48, 160} {
				for _, multiple := range []int{1, piecePanels} {
					g := newGrid(rows, panels, 256)
					if multiple > 1 {
						g.align(multiple)
					}
					chunks := g.open(nil)
					covered := make([]int, rows*panels)
					for i := range chunks {
						r, n, p0, p1, _ := g.chunk(i, nil)
						require.Positive(t, n)
						require.Zero(t, p0%multiple)
						for row := r; row < r+n; row++ {
							for p := p0; p < p1; p++ {
								covered[row*panels+p]++
							}
						}
					}
					require.NotContains(t, covered, 0)
					require.NotContains(t, covered, 2)
					require.True(t, 2*chunks > threads || g.tile == leastRows, "%d threads, %d rows, %d panels: %d chunks of %d rows", threads, rows, panels, chunks, g.tile)
				}
			}
		}
	}
}
