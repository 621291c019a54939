package cpu

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestInt4ErrorsAreThoseOfRoundingAndClipping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		x := floats(r, rapid.SampledFrom([]string{"normal", "positive"}).Draw(t, "x"), rapid.IntRange(0, 150).Draw(t, "n"))
		var s, got, want [Lanes]float32
		for i := range s {
			s[i] = float32(r.NormFloat64() * rapid.SampledFrom([]float64{0, 0.5, 4, 1e3}).Draw(t, "size"))
		}
		for i := range want {
			for _, v := range x {
				v = float32(v * s[i])
				d := v - float32(math.RoundToEven(float64(min(max(v, -8), 7))))
				want[i] += float32(d * d)
			}
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				Int4Errors(&got, &s, x)
				sameBits(t, want[:], got[:], "%v", isa)
			})
		}
	})
}

// The order in which panels are read changes no bit: one after the other, side by side, and those that are left.
func TestInt4PanelsSideBySideGiveTheSameProducts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(1, 300).Draw(t, "rows"), rapid.IntRange(1, 300).Draw(t, "cols")
		c := newIntCase(source(t), DenseInt4, rows, cols, 1, 0, randomCode, ternaryInputs["random"])
		eachOrder(func() { c.check(t, 0, ceilDiv(rows, PanelRows)) })
	})
}
