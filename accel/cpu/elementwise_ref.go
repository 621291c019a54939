package cpu

import "math"

// The loops below define the element-wise kernels; they also finish the last len mod 16 elements for every ISA.

func sumSquaresRef(lanes *[Lanes]float32, x []float32) {
	for i, v := range x {
		lanes[i%Lanes] += float32(v * v)
	}
}

// absMaxRef compares bit patterns, in which NaN is larger than every number.
func absMaxRef(m float32, x []float32) float32 {
	bits := math.Float32bits(m)
	for _, v := range x {
		bits = max(bits, math.Float32bits(v)&^(1<<31))
	}
	return math.Float32frombits(bits)
}

func scaleRef(dst, x []float32, s float32) {
	for i, v := range x {
		dst[i] = v * s
	}
}

func scaleMulRef(dst, x, w []float32, s float32) {
	for i, v := range x {
		dst[i] = float32(v*s) * w[i]
	}
}

func quantizeInt8Ref(dst []int8, x []float32, s float32) int32 {
	sum := int32(0)
	for i, v := range x {
		v *= s
		if !(v > -128) {
			v = -128
		}
		if v > 127 {
			v = 127
		}
		q := int8(math.Float32bits(float32(v) + expMagic)) // the low bits are v rounded, ties to even
		dst[i] = q
		sum += int32(q)
	}
	return sum
}

func siluRef(dst, x []float32) {
	for i, v := range x {
		dst[i] = v / (1 + expRef(-v))
	}
}

func relu2Ref(dst, x []float32) {
	for i, v := range x {
		if v < 0 {
			v = 0
		}
		dst[i] = v * v
	}
}

func mulRef(dst, a, b []float32) {
	for i, v := range a {
		dst[i] = v * b[i]
	}
}

func subMulRef(dst, a, b []float32, s float32) {
	for i, v := range a {
		dst[i] = float32(v-s) * b[i]
	}
}

func addRef(dst, a, b []float32) {
	for i, v := range a {
		dst[i] = v + b[i]
	}
}

func dequantRowRef(dst []float32, acc []int32, scale float32) {
	for i, v := range acc {
		dst[i] = float32(v) * scale
	}
}
