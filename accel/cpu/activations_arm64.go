package cpu

func sigmoid(dst, x []float32) {
	if !vectors() {
		sigmoidRef(dst, x)
		return
	}
	sigmoidNEON(&dst[0], &x[0], len(x))
}

func tanh(dst, x []float32) {
	if !vectors() {
		tanhRef(dst, x)
		return
	}
	tanhNEON(&dst[0], &x[0], len(x))
}

func normalCDF(dst, x []float32) {
	if !vectors() {
		normalCDFRef(dst, x)
		return
	}
	normalCDFNEON(&dst[0], &x[0], len(x))
}
