package cpu

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var smooth = []struct {
	name string
	run  func(dst, x []float32)
	ref  func(dst, x []float32)
	real func(x float64) float64
	abs  float64 // largest error
	rel  float64 // largest relative error, 0: not bounded
}{
	{"Sigmoid", Sigmoid, sigmoidRef, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, 1.5e-7, 4e-7},
	{"Tanh", Tanh, tanhRef, math.Tanh, 2e-7, 3e-7},
	{"NormalCDF", NormalCDF, normalCDFRef, func(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }, 4e-7, 0},
}

func TestSmoothActivationsGiveTheSameBitsOnEveryISA(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		x := drawFloats(t, r, "x", rapid.IntRange(0, 300).Draw(t, "n"))
		spread := rapid.SampledFrom([]float32{0.1, 1, 10, 50}).Draw(t, "spread")
		for i := range x {
			x[i] *= spread
		}
		for _, k := range smooth {
			want := make([]float32, len(x))
			k.ref(want, x)
			for _, isa := range Supported() {
				onISA(isa, func() {
					dst, untouched := guarded[float32](len(x), -7777)
					k.run(dst, x)
					untouched(t, "%s %v", k.name, isa)
					sameBits(t, want, dst, "%s %v", k.name, isa)
					copy(dst, x) // in place
					k.run(dst, dst)
					sameBits(t, want, dst, "%s %v in place", k.name, isa)
				})
			}
		}
	})
}

func TestSmoothActivationsAreAccurate(t *testing.T) {
	const step = 4999 // of the bit pattern
	var x []float32
	for _, sign := range []uint32{0, 1 << 31} {
		for bits := uint32(0); bits < math.Float32bits(80); bits += step {
			x = append(x, math.Float32frombits(bits|sign))
		}
	}
	y := make([]float32, len(x))
	for _, k := range smooth {
		k.run(y, x)
		abs, rel := 0.0, 0.0
		for i, v := range x {
			want := k.real(float64(v))
			abs = max(abs, math.Abs(float64(y[i])-want))
			if want != 0 && math.Abs(want) > 1e-37 {
				rel = max(rel, math.Abs(float64(y[i])/want-1))
			}
		}
		t.Logf("%s: largest error %.3g, relative %.3g", k.name, abs, rel)
		require.LessOrEqual(t, abs, k.abs, k.name)
		if k.rel > 0 {
			require.LessOrEqual(t, rel, k.rel, k.name)
		}
	}
}

func TestSmoothActivationsAtTheirBorders(t *testing.T) {
	inf := float32(math.Inf(1))
	for name, c := range map[string]struct {
		run  func(dst, x []float32)
		x, y []float32
	}{
		"Sigmoid":   {Sigmoid, []float32{-inf, 0, inf}, []float32{0, 0.5, 1}},
		"Tanh":      {Tanh, []float32{-inf, 0, inf, 1e-30}, []float32{-1, 0, 1, 1e-30}},
		"NormalCDF": {NormalCDF, []float32{-inf, 0, inf}, []float32{0, 0.5, 1}},
	} {
		for _, isa := range Supported() {
			onISA(isa, func() {
				for i, v := range c.x {
					x := make([]float32, 17) // a whole vector and one beyond
					for j := range x {
						x[j] = v
					}
					c.run(x, x)
					require.InDelta(t, c.y[i], x[0], 1e-7, "%s(%v) %v", name, v, isa)
					require.Equal(t, x[0], x[16])
				}
				nan := []float32{float32(math.NaN())}
				c.run(nan, nan)
				require.True(t, math.IsNaN(float64(nan[0])), name)
			})
		}
		require.Panics(t, func() { c.run(make([]float32, 19), make([]float32, 20)) }, name)
	}
}
