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

func TestAWalkThroughLinesVisitsEachOnce(t *testing.T) {
	for n := range 300 {
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(1000 + 2*i)
		}
		eachOrder(func() {
			walk := make([]int32, n)
			LineWalk(walk, ids)
			require.ElementsMatch(t, ids, walk)
			if run := ceilDiv(n, sides); manyStreams && n > 100 {
				for i, id := range walk[:sides] {
					require.EqualValues(t, 1000+2*i*run, id)
				}
			}
		})
	}
}
