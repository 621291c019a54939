package cpu

func sigmoid(dst, x []float32) {
	switch vectors() {
	case AVX512:
		sigmoidAVX512(&dst[0], &x[0], len(x))
	case AVX2:
		sigmoidAVX2(&dst[0], &x[0], len(x))
	default:
		sigmoidRef(dst, x)
	}
}

func tanh(dst, x []float32) {
	switch vectors() {
	case AVX512:
		tanhAVX512(&dst[0], &x[0], len(x))
	case AVX2:
		tanhAVX2(&dst[0], &x[0], len(x))
	default:
		tanhRef(dst, x)
	}
}

func normalCDF(dst, x []float32) {
	switch vectors() {
	case AVX512:
		normalCDFAVX512(&dst[0], &x[0], len(x))
	case AVX2:
		normalCDFAVX2(&dst[0], &x[0], len(x))
	default:
		normalCDFRef(dst, x)
	}
}
