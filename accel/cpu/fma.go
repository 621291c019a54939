package cpu

import "math"

// FMA is a*b+c with one rounding, to the nearest float32, ties to even: what VFMADD and FMLA do.
//
// The product is exact in float64, which has more than twice the bits; the sum is rounded there, and again to float32. That is as good as
// rounding once unless the rounded sum lies halfway between two float32 and the exact one beside it, since no rounding crosses a number that
// it can give. The last 28 bits of such a sum are 0, subnormal results included; one step towards the exact one breaks the false tie.
func FMA(a, b, c float32) float32 {
	product := float64(float64(a) * float64(b))
	if sum := product + float64(c); math.Float64bits(sum)<<36 != 0 {
		return float32(sum)
	}
	return untie(product, float64(c))
}

// untie rounds the sum once where its rounding to float64 may be a tie.
func untie(product, addend float64) float32 {
	sum := product + addend
	bits, rest := math.Float64bits(sum), sum-product
	rest = (product - (sum - rest)) + (addend - rest) // what the sum lost (Knuth's TwoSum); NaN if it is infinite or NaN
	switch {
	case rest == 0 || rest != rest:
	case (rest > 0) == (sum > 0):
		sum = math.Float64frombits(bits + 1)
	default:
		sum = math.Float64frombits(bits - 1)
	}
	return float32(sum)
}

// addScaled is to[j] = FMA(x, from[j], to[j]): scalar products spend their time here.
func addScaled(to []float32, x float32, from []float32) {
	for j, v := range from[:len(to)] {
		product, addend := float64(float64(x)*float64(v)), float64(to[j])
		sum := product + addend
		to[j] = float32(sum)
		if math.Float64bits(sum)<<36 == 0 {
			to[j] = untie(product, addend)
		}
	}
}
