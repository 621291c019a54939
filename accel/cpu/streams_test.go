package cpu

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// eachOrder runs f with memory read from one place at a time and side by side, whichever suits this processor.
func eachOrder(f func()) {
	old := manyStreams
	defer func() { manyStreams = old }()
	for _, many := range []bool{false, true} {
		manyStreams = many
		f()
	}
}

func TestPanelsReadSideBySideGiveTheSameProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, panels := range []int{1, 7, 8, 9, 16, 27} {
		for _, cols := range []int{1, 16, 40, 272} {
			rows := panels*PanelRows - 5
			for _, input := range ternaryInputs {
				c := newTernaryCase(r, rows, cols, 1, 3, ternaryWeights["random"], input)
				eachOrder(func() { c.check(t, 0, panels) })
			}
			for _, f := range intFormats {
				for _, weight := range intWeights {
					c := newIntCase(r, f, rows, cols, 1, 0, weight, ternaryInputs["extremes"])
					eachOrder(func() { c.check(t, 0, panels) })
				}
			}
		}
	}
}

func TestPanelsReadSideBySideDoNotOverflowAtTheExtremes(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, w := range []string{"plus", "minus"} {
		for _, input := range ternaryInputs {
			c := newTernaryCase(r, sides*PanelRows, 20000, 1, 0, ternaryWeights[w], input)
			eachOrder(func() { c.check(t, 0, sides) })
		}
	}
}

func TestLinesReadSideBySideGiveTheSameSums(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, count := range []int{0, 1, leastSides - 1, leastSides, leastSides + 1, 100, mostSides - 1, mostSides, mostSides + 1, 2*mostSides + leastSides, 700} {
		c := newLineCase(r, 50, 300, count, ternaryWeights["random"])
		x, q := randomInts(r, c.n, ternaryInputs["random"]), randomInts(r, ceilDiv(count, LineQuad)*LineQuad, ternaryInputs["random"])
		clear(q[count:])
		eachOrder(func() {
			c.checkDots(t, x)
			c.checkSums(t, q)
		})
	}
}

func TestAWalkThroughLinesVisitsEachOnce(t *testing.T) {
	for n := 1; n <= mostSides; n++ {
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(1000 + i)
		}
		var w lineWalk
		w.begin(ids)
		require.Equal(t, n, w.n)
		seen := map[int32]bool{}
		for i, at := range w.at[:n] {
			require.Equal(t, ids[at], w.ids[i])
			seen[w.ids[i]] = true
		}
		require.Len(t, seen, n)
		for _, id := range w.ids[n : n+2*LineQuad] {
			require.Equal(t, w.ids[n-1], id, "what is read ahead exists")
		}
	}
}
