package train

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnEpochSeesEveryExampleOnce(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 1000, 4097} {
		for epoch := range uint64(3) {
			p := newPermutation(n, 42, epoch)
			seen := make([]bool, n)
			for i := range n {
				at := p.at(i)
				require.False(t, seen[at], "n %d, epoch %d: %d came twice", n, epoch, at)
				seen[at] = true
			}
		}
	}
}

// Every example is about as likely at every place: of 6000 seeds and 6 examples, each place sees each about 1000 times.
func TestTheOrderIsFair(t *testing.T) {
	const n, seeds = 6, 6000
	var counts [n][n]int
	for seed := range uint64(seeds) {
		p := newPermutation(n, seed, 1)
		for i := range n {
			counts[i][p.at(i)]++
		}
	}
	for i := range n {
		for j := range n {
			require.InDelta(t, seeds/n, counts[i][j], 150, "place %d, example %d", i, j) // 5 standard deviations
		}
	}
}

func TestEpochsAndSeedsHaveOrdersOfTheirOwn(t *testing.T) {
	order := func(seed, epoch uint64) (all []int) {
		p := newPermutation(1<<40, seed, epoch) // needs no memory
		for i := range 100 {
			all = append(all, p.at(i))
		}
		return all
	}
	require.Equal(t, order(1, 0), order(1, 0))
	require.NotEqual(t, order(1, 0), order(1, 1))
	require.NotEqual(t, order(1, 0), order(2, 0))
}
