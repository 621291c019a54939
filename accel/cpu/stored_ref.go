package cpu

import "math"

// addProductHalfRef is addProductRef with halves.
func addProductHalfRef(c []float32, ldc int, a []float32, row, step int, b []uint16, ldb, rows, cols, n int) {
	addConverted(c, ldc, a, row, step, b, ldb, rows, cols, n, FromHalf)
}

// addProductInt8Ref is addProductRef with int8.
func addProductInt8Ref(c []float32, ldc int, a []float32, row, step int, b []int8, ldb, rows, cols, n int) {
	addConverted(c, ldc, a, row, step, b, ldb, rows, cols, n, func(v int8) float32 { return float32(v) })
}

func addConverted[T any](c []float32, ldc int, a []float32, row, step int, b []T, ldb, rows, cols, n int, float func(T) float32) {
	for k := range n {
		for j, v := range b[k*ldb:][:cols] {
			f := float(v)
			for i := range rows {
				c[i*ldc+j] = FMA(a[i*row+k*step], f, c[i*ldc+j])
			}
		}
	}
}

// toHalvesRef rounds half to even.
func toHalvesRef(dst []uint16, x []float32) {
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
