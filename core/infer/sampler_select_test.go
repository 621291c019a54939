package infer

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func drawCandidates(t *rapid.T) []candidate {
	n := rapid.IntRange(1, 300).Draw(t, "n")
	keys := rapid.SliceOfN(rapid.IntRange(0, rapid.SampledFrom([]int{0, 3, 1000}).Draw(t, "distinct")), n, n).Draw(t, "keys")
	c := make([]candidate, n)
	for i := range c {
		c[i] = candidate{id: int32(i), key: float32(keys[i]), weight: float32(rapid.IntRange(0, 8).Draw(t, "weight"))}
	}
	return c
}

func TestBorderIsTheLastOfTheShortestSortedPrefixThatReachesTheTarget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCandidates(t)
		target := float64(rapid.IntRange(1, 2*len(c)).Draw(t, "target"))
		m := measure(rapid.Bool().Draw(t, "by weight"))

		sorted := slices.Clone(c)
		slices.SortFunc(sorted, func(a, b candidate) int {
			if a.before(b) {
				return -1
			}
			return 1
		})
		want, sum := sorted[len(sorted)-1], 0.0
		for _, x := range sorted {
			if sum += m.of(x); sum >= target {
				want = x
				break
			}
		}
		got := border(slices.Clone(c), target, m)
		require.Equal(t, want, got)

		kept := keepThrough(slices.Clone(c), got)
		require.Len(t, kept, slices.Index(sorted, want)+1)
		require.True(t, slices.IsSortedFunc(kept, func(a, b candidate) int { return int(a.id - b.id) }), "order is kept")
	})
}

func TestTopBorderKeepsTheKLargestAndTheLowestIDsOfEquals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 3000).Draw(t, "n")
		k := rapid.IntRange(1, n).Draw(t, "k")
		if rapid.Bool().Draw(t, "small k") {
			k = min(k, 5)
		}
		values := randomLogits(rapid.Uint64().Draw(t, "seed"), n, 3)
		switch rapid.IntRange(0, 2).Draw(t, "order") {
		case 0:
			slices.Sort(values) // every value enters the buffer
		case 1:
			for i := range values {
				values[i] = float32(math.Trunc(float64(values[i])))
			}
		}
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return compare(float64(values[b]), float64(values[a]), a, b) })
		want := slices.Clone(order[:k])
		slices.Sort(want)

		kth, _ := topBorder(values, k, nil)
		var got []int
		for i, v := range values {
			if kth.within(i, v) {
				got = append(got, i)
			}
		}
		require.Equal(t, want, got)
	})
}
