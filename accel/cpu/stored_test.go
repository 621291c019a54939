package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestStoredProductsAreThoseOfTheirFloats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		rows, cols, n := rapid.IntRange(1, 11).Draw(t, "rows"), 16*rapid.IntRange(1, 9).Draw(t, "cols/16"), rapid.IntRange(1, 37).Draw(t, "n")
		row := n + rapid.IntRange(0, 9).Draw(t, "gap of a")
		ldb, ldc := cols+rapid.IntRange(0, 20).Draw(t, "gap of b"), cols+rapid.IntRange(0, 20).Draw(t, "gap of c")
		size := (rows-1)*ldc + cols
		a, start := drawFloats(t, r, "a", (rows-1)*row+n), drawFloats(t, r, "c", size)
		ahead := Ahead{First: make([]byte, r.IntN(300)), Apart: r.IntN(5000)} // changes nothing
		halves, ints := make([]uint16, (n-1)*ldb+cols), make([]int8, (n-1)*ldb+cols)
		asHalves, asInts := make([]float32, len(halves)), make([]float32, len(ints))
		for i := range halves {
			halves[i], ints[i] = uint16(r.Uint32()), int8(r.Uint32())
			asHalves[i], asInts[i] = FromHalf(halves[i]), float32(ints[i])
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				for _, kind := range []string{"half", "int8"} {
					want, c := append([]float32(nil), start...), append([]float32(nil), start...)
					if kind == "half" {
						AddProduct(want, ldc, a, row, 1, asHalves, ldb, rows, cols, n, Ahead{})
						AddProductHalf(c, ldc, a, row, 1, halves, ldb, rows, cols, n, ahead)
					} else {
						AddProduct(want, ldc, a, row, 1, asInts, ldb, rows, cols, n, Ahead{})
						AddProductInt8(c, ldc, a, row, 1, ints, ldb, rows, cols, n, ahead)
					}
					sameBits(t, want, c, fmt.Sprint(kind, isa))
				}
			})
		}
	})
}

// Every half is its own rounding, and what lies between two goes to the nearer, or to the even one.
func TestToHalvesRoundsHalfToEven(t *testing.T) {
	var x []float32
	var want []uint16
	for h := range uint32(0x7c00) {
		low := FromHalf(uint16(h))
		high := FromHalf(uint16(h + 1))
		if h == 0x7bff {
			high = 65536 // what would come next
		}
		middle := low/2 + high/2
		x = append(x, low, -low, math.Nextafter32(middle, 0), middle, math.Nextafter32(middle, 1e9))
		even := h + h&1
		want = append(want, uint16(h), uint16(h|0x8000), uint16(h), uint16(even), uint16(h+1))
	}
	x = append(x, float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, 1e-30, -1e-30, float32(math.Copysign(0, -1)))
	want = append(want, 0x7c00, 0xfc00, 0x7c00, 0, 0x8000, 0x8000)
	for _, isa := range Supported() {
		onISA(isa, func() {
			got := make([]uint16, len(x))
			ToHalves(got, x)
			require.Equal(t, want, got, isa)
			nan := make([]uint16, 33)
			ToHalves(nan, slices.Repeat([]float32{float32(math.NaN())}, len(nan)))
			for _, h := range nan {
				require.True(t, math.IsNaN(float64(FromHalf(h))), isa)
			}
		})
	}
}

func BenchmarkAddProductOfStoredValues(b *testing.B) {
	const dim, keys = 128, 64
	a, c := floats(rand.New(rand.NewPCG(1, 1)), "normal", 4*keys), make([]float32, 4*dim)
	single, half, int8s := make([]float32, keys*dim), make([]uint16, keys*dim), make([]int8, keys*dim)
	for name, f := range map[string]func(){
		"float32": func() { AddProduct(c, dim, a, keys, 1, single, dim, 4, dim, keys, Ahead{}) },
		"half":    func() { AddProductHalf(c, dim, a, keys, 1, half, dim, 4, dim, keys, Ahead{}) },
		"int8":    func() { AddProductInt8(c, dim, a, keys, 1, int8s, dim, 4, dim, keys, Ahead{}) },
	} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				f()
			}
		})
	}
}
