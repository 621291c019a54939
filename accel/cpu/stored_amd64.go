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
