package cpu

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// fmaCases fills a, b and c with arguments that a second rounding, an underflow or an overflow would betray.
func fmaCases(r *rand.Rand, a, b, c []float32) {
	sparse := func() float32 { // few bits, so that sums fall on ties and just beside them
		bits := 1<<23 | uint32(r.Uint32()&r.Uint32()&r.Uint32()&r.Uint32())&0x7fffff
		return float32(math.Ldexp(float64(bits), r.IntN(40)-43))
	}
	special := []float32{
		0, 1, math.MaxFloat32, math.SmallestNonzeroFloat32, 0x1p-126, 0x1.fffffcp-127, 0x1.000002p0, 0x1.fffffep0, 0x1p-63, 0x1p64,
		float32(math.Inf(1)), float32(math.NaN()),
	}
	for i := range a {
		switch i % 4 {
		case 0: // (1+d)(1-d) = 1-d^2 halves of c's last bit: beside a tie by less than float64 can tell
			c[i] = float32(r.NormFloat64())
			half, d := math.Ldexp(1, math.Ilogb(float64(c[i]))-24), float64(r.IntN(3))*0x1p-23
			a[i], b[i] = float32(1+d), float32(half*(1-d))
		case 1: // a sum that nearly cancels
			a[i], b[i] = sparse(), float32(r.NormFloat64())
			c[i] = -(a[i] * b[i]) * (1 + float32(r.IntN(5)-2)*0x1p-23)
		case 2: // results among the subnormal numbers, which have fewer bits
			a[i], b[i], c[i] = sparse()*0x1p-60, sparse()*0x1p-66, sparse()*0x1p-126
		case 3:
			for _, x := range [][]float32{a, b, c} {
				if x[i] = math.Float32frombits(r.Uint32()); r.IntN(3) == 0 {
					x[i] = special[r.IntN(len(special))]
				}
			}
		}
		if r.IntN(2) == 0 {
			a[i] = -a[i]
		}
	}
}

// exactFMA goes by rational arithmetic where that is defined.
func exactFMA(a, b, c float32) float32 {
	for _, v := range []float32{a, b, c} {
		if v-v != 0 { // infinite or NaN: rounding has nothing to do
			return float32(float64(float64(a)*float64(b)) + float64(c))
		}
	}
	exact := func(v float32) *big.Float { return new(big.Float).SetPrec(1000).SetFloat64(float64(v)) }
	sum := exact(a)
	sum.Mul(sum, exact(b))
	sum.Add(sum, exact(c))
	f, _ := sum.Float32()
	return f
}

func TestFMARoundsTheExactSumOnce(t *testing.T) {
	const n = 200_000
	a, b, c := make([]float32, n), make([]float32, n), make([]float32, n)
	fmaCases(rand.New(rand.NewPCG(1, 2)), a, b, c)
	twice := 0
	for i := range a {
		want := exactFMA(a[i], b[i], c[i])
		sameBits(t, []float32{want}, []float32{FMA(a[i], b[i], c[i])}, "FMA(%x, %x, %x)", a[i], b[i], c[i])
		if float32(float64(a[i])*float64(b[i])+float64(c[i])) != want && want == want {
			twice++
		}
	}
	require.Greater(t, twice, 1000, "cases in which rounding twice is wrong")
}

// A product with one term is one fused multiply-add for each element.
func TestFMAIsThatOfTheProcessor(t *testing.T) {
	const n = 1 << 16
	r := rand.New(rand.NewPCG(3, 4))
	a, b, c, want, got := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	for range 20 {
		fmaCases(r, a, b, c)
		for i := 0; i < n; i += Lanes { // lanes share a factor
			for j := range Lanes {
				want[i+j] = FMA(a[i], b[i+j], c[i+j])
			}
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				copy(got, c)
				for i := 0; i < n; i += Lanes {
					AddProduct(got[i:], Lanes, a[i:], 1, 1, b[i:], Lanes, 1, Lanes, 1, Ahead{})
				}
				sameBits(t, want, got, isa)
			})
		}
	}
}
