package tensor

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestEveryHalfSurvivesFloat32(t *testing.T) {
	for i := range 1 << 16 {
		h, b := Float16Bits(i), BFloat16Bits(i)
		if f := h.Float32(); f == f {
			require.Equal(t, h, ToFloat16(f))
		} else {
			require.Equal(t, h|0x200, ToFloat16(f), "a NaN becomes quiet and stays a NaN")
		}
		if f := b.Float32(); f == f {
			require.Equal(t, b, ToBFloat16(f))
		} else {
			require.Equal(t, b|0x40, ToBFloat16(f))
		}
	}
}

func TestFloat16ValuesOfTheStandard(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		f float32
		h Float16Bits
	}{
		{0, 0}, {float32(math.Copysign(0, -1)), 0x8000}, {1, 0x3c00}, {-2, 0xc000}, {65504, 0x7bff},
		{65519.996, 0x7bff}, {65520, 0x7c00}, {inf, 0x7c00}, {-inf, 0xfc00}, {math.MaxFloat32, 0x7c00},
		{0x1p-14, 0x0400}, {0x1p-24, 1}, {0x1p-25, 0}, {0x1.8p-24, 2}, {0x1.000002p-25, 1}, {-0x1p-149, 0x8000},
		{1 + 0x1p-11, 0x3c00}, {1 + 3*0x1p-11, 0x3c02}, // ties to even
	} {
		require.Equal(t, c.h, ToFloat16(c.f), "%v", c.f)
	}
	require.Equal(t, BFloat16Bits(0x7f80), ToBFloat16(math.MaxFloat32), "rounds up to infinity")
	require.Equal(t, BFloat16Bits(0x3f80), ToBFloat16(1+0x1p-8), "a tie to even")
	require.Equal(t, BFloat16Bits(0x3f82), ToBFloat16(1+3*0x1p-8), "a tie to even")
}

// Rounding is right when no neighbour is closer and a tie went to the even one.
func TestHalvesAreNearest(t *testing.T) {
	check(t, func(t *rapid.T) {
		f := math.Float32frombits(rapid.Uint32Range(0, 0x7f7fffff).Draw(t, "bits"))
		nearest := func(h uint16, value func(uint16) float64) {
			d := math.Abs(value(h) - float64(f))
			for _, n := range []uint16{h - 1, h + 1} {
				if h == 0 && n == 0xffff || math.IsInf(value(h), 0) || math.IsInf(value(n), 0) {
					continue
				}
				e := math.Abs(value(n) - float64(f))
				require.True(t, d < e || d == e && h%2 == 0, "%v became %v, but %v is at hand", f, value(h), value(n))
			}
		}
		nearest(uint16(ToFloat16(f)), func(h uint16) float64 { return float64(Float16Bits(h).Float32()) })
		nearest(uint16(ToBFloat16(f)), func(h uint16) float64 { return float64(BFloat16Bits(h).Float32()) })
		require.Equal(t, f >= 65520, math.IsInf(float64(ToFloat16(f).Float32()), 1))
	})
}
