package cpu

func toHalves(dst []uint16, x []float32) {
	switch vectors() {
	case AVX512:
		toHalvesAVX512(&dst[0], &x[0], len(x))
	case AVX2:
		toHalvesAVX2(&dst[0], &x[0], len(x))
	default:
		toHalvesRef(dst, x)
	}
}

func quantizeRows(dst []int16, ldd int, x []float32, ldx, rows, cols int, scale []float32, limit float32) {
	switch vectors() {
	case AVX512:
		quantizeRowsAVX512(&dst[0], ldd, &x[0], ldx, rows, cols, &scale[0], limit)
	case AVX2:
		quantizeRowsAVX2(&dst[0], ldd, &x[0], ldx, rows, cols, &scale[0], limit)
	default:
		quantizeRowsRef(dst, ldd, x, ldx, rows, cols, scale, limit)
	}
}
