package cpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Each element-wise kernel against its formula on one element.
func TestElementwiseKernelsAreTheirFormulas(t *testing.T) {
	kernels := []struct {
		name string
		run  func(dst, a, b []float32, s float32)
		one  func(a, b, s float32) float32
	}{
		{"ScaleMul", func(dst, a, b []float32, s float32) { ScaleMul(dst, a, b, s) }, func(a, b, s float32) float32 { return float32(a*s) * b }},
		{"ScaleMul without w", func(dst, a, _ []float32, s float32) { ScaleMul(dst, a, nil, s) }, func(a, _, s float32) float32 { return a * s }},
		{"Mul", func(dst, a, b []float32, _ float32) { Mul(dst, a, b) }, func(a, b, _ float32) float32 { return a * b }},
		{"SubMul", func(dst, a, b []float32, s float32) { SubMul(dst, a, b, s) }, func(a, b, s float32) float32 { return float32(a-s) * b }},
		{"Add", func(dst, a, b []float32, _ float32) { Add(dst, a, b) }, func(a, b, _ float32) float32 { return a + b }},
		{"Silu", func(dst, a, _ []float32, _ float32) { Silu(dst, a) }, func(a, _, _ float32) float32 { return a / (1 + expRef(-a)) }},
		{"ReLU2", func(dst, a, _ []float32, _ float32) { ReLU2(dst, a) }, func(a, _, _ float32) float32 {
			if a < 0 {
				return 0
			}
			return a * a
		}},
	}
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		n := rapid.IntRange(0, 100).Draw(t, "n")
		a, b := drawFloats(t, r, "a", n), drawFloats(t, r, "b", n)
		s := rapid.SampledFrom([]float32{0, 1, -0.37, 1e-30, 1e30}).Draw(t, "s")
		for _, k := range kernels {
			want := make([]float32, n)
			for i := range want {
				want[i] = k.one(a[i], b[i], s)
			}
			for _, isa := range Supported() {
				onISA(isa, func() {
					dst, untouched := guarded[float32](n, -7777)
					k.run(dst, a, b, s)
					untouched(t, "%s %v", k.name, isa)
					sameBits(t, want, dst, "%s %v", k.name, isa)
					copy(dst, a) // in place
					k.run(dst, dst, b, s)
					sameBits(t, want, dst, "%s %v in place", k.name, isa)
				})
			}
		}
	})
}

func TestSumSquaresAddsInLanes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawFloats(t, source(t), "x", rapid.IntRange(0, 300).Draw(t, "n"))
		terms := make([]float32, len(x))
		for i, v := range x {
			terms[i] = v * v
		}
		for _, isa := range Supported() {
			onISA(isa, func() { sameBits(t, []float32{laneSum(terms)}, []float32{SumSquares(x)}, isa) })
		}
	})
}

func TestAbsMaxIsTheLargestMagnitude(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := drawFloats(t, source(t), "x", rapid.IntRange(0, 300).Draw(t, "n"))
		want := float64(0)
		for _, v := range x {
			if a := math.Abs(float64(v)); a > want || math.IsNaN(a) { // nothing is larger than NaN
				want = a
			}
		}
		for _, isa := range Supported() {
			onISA(isa, func() { sameBits(t, []float32{float32(want)}, []float32{AbsMax(x)}, isa) })
		}
	})
	for _, isa := range Supported() {
		onISA(isa, func() {
			x := floats(rand.New(rand.NewPCG(1, 1)), "normal", 40)
			x[7], x[9] = float32(math.NaN()), float32(math.Inf(1))
			require.True(t, math.IsNaN(float64(AbsMax(x))), isa)
		})
	}
}

func TestQuantizeInt8RoundsHalfToEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		x := drawFloats(t, r, "x", rapid.IntRange(0, 300).Draw(t, "n"))
		s := rapid.SampledFrom([]float32{1, 0.5, 127 / 3.5, 1e-3, 1e6}).Draw(t, "s")
		if rapid.Bool().Draw(t, "ties") {
			s = 1
			for i := range x {
				x[i] = float32(r.IntN(600)-300) / 2
			}
		}
		want, wantSum := make([]int8, len(x)), int32(0)
		for i, v := range x {
			q := math.RoundToEven(float64(v * s))
			switch {
			case math.IsNaN(q) || q < -128:
				q = -128
			case q > 127:
				q = 127
			}
			want[i] = int8(q)
			wantSum += int32(q)
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				dst, untouched := guarded[int8](len(x), 77)
				sum := QuantizeInt8(dst, x, s)
				untouched(t, isa)
				require.Equal(t, want, dst, isa)
				require.Equal(t, wantSum, sum, isa)
			})
		}
	})
}

func TestDequantRowScalesInt32(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		acc := make([]int32, rapid.IntRange(0, 100).Draw(t, "n"))
		want := make([]float32, len(acc))
		for i := range acc {
			acc[i] = int32(r.Uint32()) >> r.IntN(31)
			want[i] = float32(acc[i]) * 0.0371
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				dst, untouched := guarded[float32](len(acc), -7777)
				DequantRow(dst, acc, 0.0371)
				untouched(t, isa)
				sameBits(t, want, dst, isa)
			})
		}
	})
}

func TestElementwiseRejectsABrokenContract(t *testing.T) {
	x, short, q := make([]float32, 20), make([]float32, 19), make([]int8, 19)
	for name, call := range map[string]func(){
		"ScaleMul dst": func() { ScaleMul(short, x, nil, 1) },
		"ScaleMul w":   func() { ScaleMul(x, x, short, 1) },
		"Mul b":        func() { Mul(x, x, short) },
		"Mul dst":      func() { Mul(short, x, x) },
		"Add b":        func() { Add(x, x, short) },
		"Add dst":      func() { Add(short, x, x) },
		"Silu":         func() { Silu(short, x) },
		"ReLU2":        func() { ReLU2(short, x) },
		"QuantizeInt8": func() { QuantizeInt8(q, x, 1) },
		"DequantRow":   func() { DequantRow(short, make([]int32, 20), 1) },
	} {
		require.Panics(t, call, name)
	}
}
