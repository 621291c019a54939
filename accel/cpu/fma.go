package cpu

import "math"

// FMA is a*b+c with one rounding, to the nearest float32, ties to even: what VFMADD and FMLA do.
//
// The product is exact in float64, which has more than twice the bits; the sum is rounded there, and again to float32. That is as good as
// rounding once unless the rounded sum lies halfway between two float32 and the exact one beside it, since no rounding crosses a number that
// it can give. The last 28 bits of such a sum are 0, subnormal results included; one step towards the exact one breaks the false tie.
func FMA(a, b, c float32) float32 {
	product, addend := float64(float64(a)*float64(b)), float64(c)
	sum := product + addend
	if bits := math.Float64bits(sum); bits<<36 == 0 {
		rest := sum - product
		rest = (product - (sum - rest)) + (addend - rest) // what the sum lost (Knuth's TwoSum); NaN if it is infinite or NaN
		switch {
		case rest == 0 || rest != rest:
		case (rest > 0) == (sum > 0):
			sum = math.Float64frombits(bits + 1)
		default:
			sum = math.Float64frombits(bits - 1)
		}
	}
	return float32(sum)
}
