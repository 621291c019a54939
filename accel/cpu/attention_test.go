package cpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// laneSum is the order of Lanes, written out.
func laneSum(terms []float32) float32 {
	var l [16]float32
	for i, v := range terms {
		l[i%16] += v
	}
	var a [8]float32
	for i := range a {
		a[i] = l[i] + l[i+8]
	}
	var b [4]float32
	for i := range b {
		b[i] = a[i] + a[i+4]
	}
	return float32(b[0]+b[2]) + float32(b[1]+b[3])
}

func TestDotRowsAddsInLanes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		n, dim := rapid.IntRange(1, 37).Draw(t, "n"), 16*rapid.IntRange(1, 20).Draw(t, "dim/16")
		stride := dim + rapid.IntRange(0, 40).Draw(t, "gap")
		q, k := drawFloats(t, r, "q", dim), drawFloats(t, r, "k", (n-1)*stride+dim)
		want, terms := make([]float32, n), make([]float32, dim)
		for j := range want {
			for d := range terms {
				terms[d] = q[d] * k[j*stride+d]
			}
			want[j] = laneSum(terms)
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				dst, untouched := guarded[float32](n, -7777)
				DotRows(dst, q, k, n, dim, stride)
				untouched(t, isa)
				sameBits(t, want, dst, isa)
			})
		}
	})
}

func TestAccumRowsAddsInAscendingOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		n, dim := rapid.IntRange(1, 37).Draw(t, "n"), 16*rapid.IntRange(1, 20).Draw(t, "dim/16")
		stride := dim + rapid.IntRange(0, 40).Draw(t, "gap")
		p, v, start := drawFloats(t, r, "p", n), drawFloats(t, r, "v", (n-1)*stride+dim), drawFloats(t, r, "acc", dim)
		want := append([]float32(nil), start...)
		for j := range n {
			for d := range want {
				want[d] += float32(p[j] * v[j*stride+d])
			}
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				acc, untouched := guarded[float32](dim, -7777)
				copy(acc, start)
				AccumRows(acc, p, v, n, dim, stride)
				untouched(t, isa)
				sameBits(t, want, acc, isa)
			})
		}
	})
}

func TestExpSumGivesTheSameBitsOnEveryISA(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		x := drawFloats(t, r, "x", rapid.IntRange(0, 300).Draw(t, "n"))
		spread := rapid.SampledFrom([]float32{1, 10, 50}).Draw(t, "spread")
		for i := range x {
			x[i] *= spread
		}
		shift := rapid.SampledFrom([]float32{0, 1.5, -30}).Draw(t, "shift")
		want := make([]float32, len(x))
		for i, v := range x {
			want[i] = expRef(v - shift)
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				y, untouched := guarded[float32](len(x), -7777)
				copy(y, x)
				sum := ExpSum(y, shift)
				untouched(t, isa)
				sameBits(t, want, y, isa)
				sameBits(t, []float32{laneSum(want)}, []float32{sum}, isa)
			})
		}
	})
}

func TestExpIsWithinTwoTenMillionths(t *testing.T) {
	worst, at := 0.0, float32(0)
	const step = 499 // of the bit pattern: some four million arguments
	var x []float32
	for _, sign := range []uint32{0, 1 << 31} {
		for bits := uint32(0); bits < math.Float32bits(88.8); bits += step {
			x = append(x, math.Float32frombits(bits|sign))
		}
	}
	got := append([]float32(nil), x...)
	ExpSum(got, 0)
	for i, v := range x {
		want := math.Exp(float64(v))
		if v < expLow || v > expHigh {
			continue
		}
		if e := math.Abs(float64(got[i])/want - 1); e > worst {
			worst, at = e, v
		}
	}
	t.Logf("largest relative error %.3g at %v", worst, at)
	require.LessOrEqual(t, worst, 2e-7)
}

func TestExpAtItsBorders(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range [][2]float32{
		{0, 1}, {float32(math.Copysign(0, -1)), 1}, {-inf, 0}, {inf, inf}, {-87.34, 0}, {-1000, 0}, {-math.MaxFloat32, 0},
		{88.73, inf}, {1000, inf}, {1e-45, 1}, {math.Nextafter32(expLow, -inf), 0}, {math.Nextafter32(expHigh, inf), inf},
	} {
		for _, isa := range Supported() {
			onISA(isa, func() {
				x := make([]float32, 16)
				for i := range x {
					x[i] = c[0]
				}
				ExpSum(x, 0)
				require.Equal(t, c[1], x[3], "%v: exp(%v)", isa, c[0])
			})
		}
	}
	require.GreaterOrEqual(t, expRef(expLow), float32(0x1p-126))
	require.Less(t, expRef(expHigh), inf)
	require.True(t, math.IsNaN(float64(expRef(float32(math.NaN())))))
}

func TestMaxF32PassesOverNaN(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		x := drawFloats(t, r, "x", rapid.IntRange(0, 300).Draw(t, "n"))
		want := float32(math.Inf(-1))
		for _, v := range x {
			if v > want {
				want = v
			}
		}
		var first float32
		for i, isa := range Supported() {
			onISA(isa, func() {
				got := MaxF32(x)
				require.True(t, got == want, "%v: got %v, want %v", isa, got, want)
				if i == 0 {
					first = got
				}
				sameBits(t, []float32{first}, []float32{got}, isa) // -0 or 0: the same one
			})
		}
	})
}

func TestAttentionWithNothingToDo(t *testing.T) {
	DotRows(nil, nil, nil, 0, 64, 64)
	AccumRows(nil, nil, nil, 0, 64, 64)
	dst := []float32{1, 2, 3}
	DotRows(dst, nil, nil, 2, 0, 0)
	require.Equal(t, []float32{0, 0, 3}, dst)
	require.Zero(t, ExpSum(nil, 0))
	require.Equal(t, float32(math.Inf(-1)), MaxF32(nil))
}

func TestAttentionRejectsABrokenContract(t *testing.T) {
	x := floats(rand.New(rand.NewPCG(1, 1)), "normal", 64)
	for name, call := range map[string]func(){
		"dim":     func() { DotRows(x, x, x, 1, 15, 15) },
		"rows":    func() { DotRows(x, x, x, -1, 16, 16) },
		"stride":  func() { DotRows(x, x, x, 2, 16, -16) },
		"dst":     func() { DotRows(x[:1], x, x, 2, 16, 16) },
		"q":       func() { DotRows(x, x[:15], x, 2, 16, 16) },
		"k":       func() { DotRows(x, x, x[:47], 3, 16, 16) },
		"acc":     func() { AccumRows(x[:15], x, x, 1, 16, 16) },
		"weights": func() { AccumRows(x, x[:1], x, 2, 16, 16) },
		"v":       func() { AccumRows(x, x, x[:47], 3, 16, 16) },
	} {
		require.Panics(t, call, name)
	}
}
