package quant

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func drawOptions(t *rapid.T) Options {
	return Options{
		Bits:        rapid.SampledFrom([]int{8, 4, 2, 1}).Draw(t, "bits"),
		Granularity: rapid.SampledFrom([]Granularity{PerTensor, PerRow, PerGroup}).Draw(t, "granularity"),
		Group:       rapid.IntRange(1, 40).Draw(t, "group"),
		FitClip:     rapid.Bool().Draw(t, "fit"),
	}
}

// gaussian gives weights like a network's, the same for the same seed.
func gaussian(n int, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(r.NormFloat64() * 0.02)
	}
	return w
}

// All but the 2-bit one, of which TestTheTwoBitFitIsLeastSquaresAndLosesNoMoreThanItsStart says more.
func TestEveryQuantizerReturnsTheNearestLevelOfItsGroup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols, o := rapid.IntRange(0, 6).Draw(t, "rows"), rapid.IntRange(0, 50).Draw(t, "cols"), drawOptions(t)
		w := rapid.SliceOfN(rapid.Float32Range(-2, 2), rows*cols, rows*cols).Draw(t, "w")
		q, err := Quantize(w, rows, cols, o)
		require.NoError(t, err)
		require.Len(t, q.Codes, rows*((cols*o.Bits+7)/8))
		lowest, highest := int8(-1<<(o.Bits-1)), int8(1<<(o.Bits-1)-1)
		if o.Bits == 8 || o.Bits == 4 && !o.FitClip {
			lowest = -highest
		}
		back := q.Dequantize(nil)
		group, perRow := q.groups()
		for i, v := range w {
			r, c := i/cols, i%cols
			s := q.Scales[0]
			if o.Granularity != PerTensor {
				s = q.Scales[r*perRow+c/group]
			}
			code := q.Code(r, c)
			require.True(t, lowest <= code && code <= highest)
			require.Equal(t, dequantize(code, s, o.Bits), back[i])
			if o.Bits == 2 {
				continue
			}
			for other := int(lowest); other <= int(highest); other++ {
				nearest, level := math.Abs(float64(v)-float64(back[i])), math.Abs(float64(v)-float64(dequantize(int8(other), s, o.Bits)))
				require.LessOrEqual(t, nearest, level+roundings(o, s), "weight %g, scale %g, code %d beaten by %d", v, s, code, other)
			}
		}
	})
}

// roundings is how far float32 takes a weight past the border between two levels, twice, and rounds both: 1/scale, weight/scale, the scale and the
// levels are each off by 2^-24 of at most all the steps there are.
func roundings(o Options, scale float32) float64 {
	return float64(int(1)<<(o.Bits-1)) * 0x1p-21 * math.Abs(float64(scale))
}

// The last step of the 2-bit fit moves the scale after the codes, so a weight near a border may be on its other side. What holds is that codes follow
// the weights, that the scale is the least-squares one of the codes, and that no error is above that of the scale for normal weights.
func TestTheTwoBitFitIsLeastSquaresAndLosesNoMoreThanItsStart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SliceOfN(rapid.Float32Range(-2, 2), 1, 80).Draw(t, "w")
		q, err := Quantize(w, 1, len(w), Options{Bits: 2})
		require.NoError(t, err)
		var mean, dot, norm, inner float64
		outer := math.Inf(1)
		for c, v := range w {
			level, size := float64(q.Code(0, c))+0.5, math.Abs(float64(v))
			if size >= tiny {
				require.Equal(t, v < 0, level < 0)
			}
			if math.Abs(level) == 1.5 {
				outer = min(outer, size)
			} else {
				inner = max(inner, size)
			}
			mean += size / float64(len(w))
			dot, norm = dot+float64(v)*level, norm+level*level
		}
		scale := float64(q.Scales[0])
		if scale == 0 { // weights that count as zero
			require.Less(t, inner, tiny)
			return
		}
		require.LessOrEqual(t, inner, outer)
		require.InEpsilon(t, dot/norm, scale, 1e-6)
		lost := func(scale float64, level func(c int) float64) (sum float64) {
			for c, v := range w {
				d := float64(v) - scale*level(c)
				sum += d * d
			}
			return sum
		}
		fitted := lost(scale, func(c int) float64 { return float64(q.Code(0, c)) + 0.5 })
		start := 1.248 * mean
		atStart := lost(start, func(c int) float64 { return min(max(math.Floor(float64(w[c])/start), -2), 1) + 0.5 })
		require.LessOrEqual(t, fitted, atStart*(1+1e-9)+norm*scale*scale*0x1p-46, "float32 moves the scale by 2^-24 of it")
	})
}

func TestAllZeroGroupsStayExactlyZero(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := drawOptions(t)
		value := rapid.SampledFrom([]float32{0, float32(math.Copysign(0, -1)), 1e-38, 1e-45}).Draw(t, "value")
		w := []float32{value, value, value, value, value, value}
		q, err := Quantize(w, 2, 3, o)
		require.NoError(t, err)
		for _, s := range q.Scales {
			require.Zero(t, s)
		}
		for _, v := range q.Dequantize(nil) {
			require.Equal(t, uint32(0), math.Float32bits(v))
		}
	})
}

func TestARaggedLastGroupHasAScaleOfItsOwn(t *testing.T) {
	w := []float32{1, 2, 3, 4, 100, 10, 20, 30, 40, 0}
	q, err := Quantize(w, 2, 5, Options{Bits: 8, Granularity: PerGroup, Group: 4})
	require.NoError(t, err)
	require.Equal(t, []float32{4. / 127, 100. / 127, 40. / 127, 0}, q.Scales)
	require.Equal(t, 10+16, q.Bytes())
}

func TestTheLargestWeightSurvivesWithoutClipping(t *testing.T) {
	for _, bits := range []int{8, 4} {
		q, err := Quantize([]float32{-3, 0, 3, 1}, 1, 4, Options{Bits: bits})
		require.NoError(t, err)
		got := q.Dequantize(nil)
		require.InDelta(t, -3, got[0], 1e-6)
		require.Zero(t, got[1])
		require.InDelta(t, 3, got[2], 1e-6)
	}
}

func TestTwoBitAndOneBitLevelsAreSymmetric(t *testing.T) {
	q, err := Quantize([]float32{-3, -1, 1, 3, -3, -1, 1, 3}, 2, 4, Options{Bits: 2, Granularity: PerRow})
	require.NoError(t, err)
	require.Equal(t, []float32{2, 2}, q.Scales)
	require.Equal(t, []byte{0b01_00_11_10, 0b01_00_11_10}, q.Codes)
	require.Equal(t, []float32{-3, -1, 1, 3, -3, -1, 1, 3}, q.Dequantize(nil))
	q, err = Quantize([]float32{-3, -1, 1, 3, 0}, 1, 5, Options{Bits: 1})
	require.NoError(t, err)
	require.Equal(t, []float32{1.6}, q.Scales)
	require.Equal(t, []byte{0b00011}, q.Codes)
	require.Equal(t, []float32{-1.6, -1.6, 1.6, 1.6, 1.6}, q.Dequantize(nil))
}

func TestErrorsOfNormalWeightsAreWhatTheoryGives(t *testing.T) {
	const rows, cols = 64, 1024
	w := gaussian(rows*cols, 7)
	// Uniform quantizers of a normal source: Max 1960 gives 9.25 dB at 2 bits and
	// 4.40 dB for signs; absmax at 4 and 8 bits depends on the largest of 1024.
	for _, c := range []struct {
		o        Options
		low, top float64
	}{
		{Options{Bits: 8, Granularity: PerRow}, 40, 44},
		{Options{Bits: 4, Granularity: PerRow}, 15, 18.5},
		{Options{Bits: 4, Granularity: PerRow, FitClip: true}, 18.5, 20.3},
		{Options{Bits: 4, Granularity: PerGroup, Group: 32}, 18.5, 20.3},
		{Options{Bits: 2, Granularity: PerRow}, 9.2, 9.35},
		{Options{Bits: 2}, 9.2, 9.3},
		{Options{Bits: 1, Granularity: PerRow}, 4.3, 4.5},
	} {
		q, err := Quantize(w, rows, cols, c.o)
		require.NoError(t, err)
		m, err := q.Metrics(w)
		require.NoError(t, err)
		require.True(t, c.low < m.SQNR && m.SQNR < c.top, "%+v: %v", c.o, m)
	}
}

func TestFinerGranularityIsNeverWorse(t *testing.T) {
	const rows, cols = 16, 256
	w := gaussian(rows*cols, 3)
	for i := range w {
		w[i] *= float32(1 + i/cols) // rows of different size
	}
	for _, bits := range []int{8, 4, 2, 1} {
		previous := math.Inf(1)
		for _, o := range []Options{{Bits: bits}, {Bits: bits, Granularity: PerRow}, {Bits: bits, Granularity: PerGroup, Group: 32}} {
			q, err := Quantize(w, rows, cols, o)
			require.NoError(t, err)
			m, err := q.Metrics(w)
			require.NoError(t, err)
			require.Less(t, m.MSE, previous, "%d bits per %v", bits, o.Granularity)
			previous = m.MSE
		}
	}
}

func TestImpossibleOptionsAndWeightsAreTypedErrors(t *testing.T) {
	w := make([]float32, 4)
	for _, o := range []Options{{}, {Bits: 3}, {Bits: 16}, {Bits: 8, Granularity: 9}, {Bits: 8, Granularity: PerGroup}, {Bits: 8, Granularity: PerGroup, Group: -1}} {
		_, err := Quantize(w, 2, 2, o)
		require.ErrorIs(t, err, ErrOption)
	}
	for _, shape := range [][2]int{{2, 3}, {-2, -2}, {0, 2}} {
		_, err := Quantize(w, shape[0], shape[1], Options{Bits: 8})
		require.ErrorIs(t, err, ErrShape)
	}
	w[3] = float32(math.NaN())
	_, err := Quantize(w, 2, 2, Options{Bits: 8})
	require.ErrorIs(t, err, ErrNotFinite)
	require.ErrorContains(t, err, "row 1, column 1")
	w[3] = 1
	q, err := Quantize(w, 2, 2, Options{Bits: 8})
	require.NoError(t, err)
	_, err = q.Metrics(w[:3])
	require.ErrorIs(t, err, ErrShape)
	_, err = Compare(w, w[:3])
	require.ErrorIs(t, err, ErrShape)
	require.Equal(t, "tensor row group Granularity(7)", fmt.Sprint(PerTensor, PerRow, PerGroup, Granularity(7)))
}

func TestMetricsAreTheTextbookOnes(t *testing.T) {
	m, err := Compare([]float32{3, 4}, []float32{3, 3})
	require.NoError(t, err)
	require.InDelta(t, 0.5, m.MSE, 1e-12)
	require.InDelta(t, 10*math.Log10(25), m.SQNR, 1e-12)
	require.InDelta(t, 21/(5*math.Sqrt(18)), m.Cosine, 1e-12)
	require.InDelta(t, 1, m.MaxAbs, 1e-12)
	require.Equal(t, "mse 0.5, sqnr 13.98 dB, cosine 0.989949, max 1", m.String())

	same, err := Compare([]float32{1, 2}, []float32{1, 2})
	require.NoError(t, err)
	require.True(t, math.IsInf(same.SQNR, 1))
	require.InDelta(t, 1, same.Cosine, 1e-12)
	both, err := Compare(nil, nil)
	require.NoError(t, err)
	require.Equal(t, Metrics{SQNR: math.Inf(1), Cosine: 1}, both)
	one, err := Compare([]float32{1}, []float32{0})
	require.NoError(t, err)
	require.Zero(t, one.Cosine)
}
