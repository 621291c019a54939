package nn

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// tables are token tables that make it hard to tell the largest logits from scores.
var tables = map[string]func(r *rand.Rand, rows, cols int) []float32{
	"normal": func(r *rand.Rand, rows, cols int) []float32 { return randoms(r, rows*cols) },
	"almost equal": func(r *rand.Rand, rows, cols int) []float32 { // rows that differ in one element, by a little
		w, row := make([]float32, 0, rows*cols), randoms(r, cols)
		for range rows {
			w = append(w, row...)
			w[len(w)-1-r.IntN(cols)] += float32(r.NormFloat64() * 0.02)
		}
		return w
	},
	"equal": func(r *rand.Rand, rows, cols int) []float32 { return slices.Repeat(randoms(r, cols), rows) },
	"one large element a row": func(r *rand.Rand, rows, cols int) []float32 { // int8 keeps little of the others
		w := randoms(r, rows*cols)
		for i := range rows {
			w[i*cols+r.IntN(cols)] *= 1e4
		}
		return w
	},
	"all scales": func(r *rand.Rand, rows, cols int) []float32 {
		w := randoms(r, rows*cols)
		for i := range w {
			w[i] *= float32(math.Pow(10, float64(i/cols%60-30)))
		}
		return w
	},
	"zero": func(_ *rand.Rand, rows, cols int) []float32 { return make([]float32, rows*cols) },
}

var hiddenStates = map[string]func(r *rand.Rand, n int) []float32{
	"normal": randoms,
	"one large element": func(r *rand.Rand, n int) []float32 {
		x := randoms(r, n)
		x[r.IntN(n)] = 1e5
		return x
	},
	"zero": func(_ *rand.Rand, n int) []float32 { return make([]float32, n) },
}

func newScoredHead(t require.TestingT, w []float32, f cpu.DenseFormat, rows, cols int) *Head {
	d, err := quant.NewDense(f, quant.F32, pool.BytesOf(w), rows, cols)
	require.NoError(t, err)
	s, err := quant.NewScores(d, make([]byte, cpu.DenseBytes(cpu.DenseInt8, rows, cols)))
	require.NoError(t, err)
	return &Head{Norm: &Norm{Weight: slices.Repeat([]float32{1}, cols), Eps: 1e-5}, Proj: &Linear{In: cols, Out: rows, Dense: d}, Scores: s}
}

func names[T any](m map[string]T) []string {
	var list []string
	for name := range m {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func TestTheLargestLogitsAreThoseOfTheFloatHead(t *testing.T) {
	p := pool.New(pool.Options{})
	c := NewCtx(p)
	defer c.Close()
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		vocab, dim, n := rapid.IntRange(1, 400).Draw(t, "vocab"), rapid.IntRange(1, 300).Draw(t, "dim"), rapid.IntRange(1, 3).Draw(t, "rows")
		format := rapid.SampledFrom([]cpu.DenseFormat{cpu.DenseBF16, cpu.DenseF16, cpu.DenseF32}).Draw(t, "format")
		w := tables[rapid.SampledFrom(names(tables)).Draw(t, "table")](r, vocab, dim)
		x := hiddenStates[rapid.SampledFrom(names(hiddenStates)).Draw(t, "x")](r, n*dim)
		k := rapid.SampledFrom([]int{1, 2, 50, MostTop}).Draw(t, "k")
		h := newScoredHead(t, w, format, vocab, dim)
		rows := []int32{0, 1, 2}[:n]

		c.Begin(context.Background(), uint64(n), positions(n), nil)
		defer c.End()
		want, got := make([]float32, n*vocab), make([]float32, n*vocab)
		hidden, err := tensor.FromFloat32(x, n, dim)
		require.NoError(t, err)
		h.Forward(c, hidden, rows, want)
		h.ForwardTop(c, hidden, rows, k, got)
		for i := range n {
			want, got := want[i*vocab:(i+1)*vocab], got[i*vocab:(i+1)*vocab]
			least := slices.Sorted(slices.Values(want))[vocab-min(k, vocab)]
			for j, logit := range want {
				if logit >= least {
					require.Equal(t, math.Float32bits(logit), math.Float32bits(got[j]), "row %d, logit %d", i, j)
				} else {
					require.Less(t, got[j], least, "row %d, score %d", i, j)
				}
			}
		}
	})
}

func TestFewRowsAreComputed(t *testing.T) {
	const vocab, dim = 32000, 256
	c, p := testCtx(t), NewProfile()
	h := newScoredHead(t, randoms(rand.New(rand.NewPCG(1, 1)), vocab*dim), cpu.DenseBF16, vocab, dim)
	c.Measure(p)
	c.Begin(context.Background(), 1, positions(1), nil)
	defer c.End()
	h.ForwardTop(c, matrix(t, randoms(rand.New(rand.NewPCG(2, 2)), dim), 1, dim), []int32{0}, 1, make([]float32, vocab))
	share := read(t, p).Rescored
	require.NotNil(t, share)
	require.Positive(t, *share)
	require.Less(t, *share, 0.03)
}

// The row with the largest logit has a score below that of all others: its rounding errors all push the same way for this x, as far as the bound
// allows. A bound that is less than nine tenths of the proven one misses it.
func TestTheBoundHoldsWhereAllErrorsAddUp(t *testing.T) {
	const vocab, dim = 40, 512
	r := rand.New(rand.NewPCG(7, 7))
	c := testCtx(t)
	for _, row := range []int{0, 17, vocab - 1} {
		w := randoms(r, dim)
		stored := make([]float32, dim)
		newScoredHead(t, w, cpu.DenseF32, 1, dim).Scores.Row(stored, 0)
		lost, lostLen, storedLen := make([]float32, dim), 0.0, 0.0
		for i := range w {
			lost[i] = w[i] - stored[i]
			lostLen += float64(lost[i]) * float64(lost[i])
			storedLen += float64(stored[i]) * float64(stored[i])
		}
		lostLen, storedLen = math.Sqrt(lostLen), math.Sqrt(storedLen)
		x, score := make([]float32, dim), 0.0 // along what was lost, and a little along what was kept
		for i := range x {
			x[i] = lost[i]/float32(lostLen) + 0.3*stored[i]/float32(storedLen)
			score += float64(stored[i]) * float64(x[i])
		}
		raise := float32(1 + 0.9*lostLen/score)
		table := make([]float32, 0, vocab*dim)
		for j := range vocab {
			for i := range dim {
				switch {
				case j == row:
					table = append(table, w[i])
				case j/cpu.PanelRows == row/cpu.PanelRows: // would be computed with it
					table = append(table, 0)
				default:
					table = append(table, stored[i]*raise) // int8 loses nothing of it
				}
			}
		}
		h := newScoredHead(t, table, cpu.DenseF32, vocab, dim)
		c.Begin(context.Background(), 1, positions(1), nil)
		want, got, scores := make([]float32, vocab), make([]float32, vocab), make([]float32, vocab)
		hidden := matrix(t, x, 1, dim)
		h.Forward(c, hidden, []int32{0}, want)
		h.ForwardTop(c, hidden, []int32{0}, 1, got)
		(&Head{Norm: h.Norm, Proj: &Linear{In: dim, Out: vocab, Dense: &h.Scores.Dense}}).Forward(c, hidden, []int32{0}, scores)
		c.End()
		require.Equal(t, slices.Max(want), want[row])
		require.Less(t, scores[row], scores[(row+20)%vocab])
		require.Equal(t, want[row], got[row])
		for j := range got {
			require.True(t, j == row || got[j] < got[row])
		}
	}
}

// Weights that int8 holds exactly, beside one activation so large that all others are less than half a step of its integers: the row with the
// largest logit has a score of zero.
func TestTheBoundHoldsWhereActivationsAreRounded(t *testing.T) {
	const vocab, dim, row = 40, 64, 17
	x, table := make([]float32, dim), make([]float32, vocab*dim)
	x[0] = 1e5 // a step is about 3
	for i := 1; i < dim; i++ {
		x[i], table[row*dim+i] = 1.4, 127
	}
	for j := range vocab {
		if j/cpu.PanelRows != row/cpu.PanelRows { // those would be computed with it
			table[j*dim] = 0.1
		}
	}
	c, h := testCtx(t), newScoredHead(t, table, cpu.DenseF32, vocab, dim)
	c.Begin(context.Background(), 1, positions(1), nil)
	defer c.End()
	want, got := make([]float32, vocab), make([]float32, vocab)
	hidden := matrix(t, x, 1, dim)
	h.Forward(c, hidden, []int32{0}, want)
	h.ForwardTop(c, hidden, []int32{0}, 1, got)
	require.Equal(t, slices.Max(want), want[row])
	require.Equal(t, want[row], got[row])
	for j := range got {
		require.True(t, j == row || got[j] < got[row])
	}
}
