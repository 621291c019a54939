package cpu

import "math"

// addProductHalfRef is addProductRef with halves.
func addProductHalfRef(c []float32, ldc int, a []float32, row, step int, h Half, b []uint16, ldb, rows, cols, n int) {
	for k := range n {
		for j, v := range b[k*ldb:][:cols] {
			f := h.Float32(v)
			for i := range rows {
				c[i*ldc+j] = FMA(a[i*row+k*step], f, c[i*ldc+j])
			}
		}
	}
}

func addPairsRef(c []float32, ldc int, a []int16, lda int, scale []float32, b []int8, ldb, rows, cols, n int) {
	for i := range rows {
		left, to := a[i*lda:][:2*n], c[i*ldc:][:cols]
		for j := range to {
			sum := int32(0)
			for k := range n {
				right := b[k*ldb+2*j:][:2]
				sum += int32(left[2*k])*int32(right[0]) + int32(left[2*k+1])*int32(right[1])
			}
			to[j] = FMA(float32(sum), scale[i], to[j])
		}
	}
}

func quantizeRowsRef(dst []int16, ldd int, x []float32, ldx, rows, cols int, scale []float32, limit float32) {
	for i := range rows {
		from, to := x[i*ldx:][:cols], dst[i*ldd:][:cols]
		var steps float32
		scale[i], steps = stepsOf(absMaxRef(0, from), limit)
		for j, v := range from {
			v *= steps
			if !(v > -limit) {
				v = -limit
			}
			if v > limit {
				v = limit
			}
			to[j] = int16(math.Float32bits(float32(v) + expMagic)) // the low bits are v rounded, ties to even
		}
	}
}

// stepsOf gives what one step is worth where limit of them are top, and how many steps one is: none where that is not finite.
func stepsOf(top, limit float32) (scale, steps float32) {
	if steps = limit / top; !(steps <= math.MaxFloat32) {
		steps = 0
	}
	return top / limit, steps
}

// toHalvesRef rounds half to even.
func toHalvesRef(f Half, dst []uint16, x []float32) {
	if f == BFloat16 {
		for i, v := range x {
			dst[i] = toBF16(v)
		}
		return
	}
	for i, v := range x {
		bits := math.Float32bits(v)
		sign, magnitude := uint16(bits>>16&0x8000), bits&0x7fffffff
		var h uint32
		switch {
		case magnitude > 0xff<<23: // NaN: quiet, with the upper bits of what it carries
			h = 0x7e00 | magnitude>>13&0x1ff
		case magnitude >= 0x477ff000: // 65520 and more round to infinity
			h = 0x7c00
		case magnitude >= 0x38800000: // from the smallest normal half on
			h = (magnitude - 112<<23 + 0xfff + magnitude>>13&1) >> 13
		default: // adding 0.5 leaves as many bits as a subnormal has, rounded half to even
			h = math.Float32bits(math.Float32frombits(magnitude)+0.5) - math.Float32bits(0.5)
		}
		dst[i] = sign | uint16(h)
	}
}

func toBF16(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16 | 0x40) // quiet, with the upper bits of what it carries
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}
