package cpu

func sumSquares(lanes *[Lanes]float32, x []float32) {
	switch vectors() {
	case AVX512:
		sumSquaresAVX512(&lanes[0], &x[0], len(x))
	case AVX2:
		sumSquaresAVX2(&lanes[0], &x[0], len(x))
	default:
		sumSquaresRef(lanes, x)
	}
}

func absMax(x []float32) float32 {
	var lanes [Lanes]float32
	switch vectors() {
	case AVX512:
		absMaxAVX512(&lanes[0], &x[0], len(x))
	case AVX2:
		absMaxAVX2(&lanes[0], &x[0], len(x))
	default:
		return absMaxRef(0, x)
	}
	return absMaxRef(0, lanes[:])
}

func quantizeInt8(dst []int8, x []float32, s float32) int32 {
	var lanes [Lanes]int32
	switch vectors() {
	case AVX512:
		quantizeInt8AVX512(&lanes[0], &dst[0], &x[0], len(x), s)
	case AVX2:
		quantizeInt8AVX2(&lanes[0], &dst[0], &x[0], len(x), s)
	default:
		return quantizeInt8Ref(dst, x, s)
	}
	sum := int32(0)
	for _, v := range lanes {
		sum += v
	}
	return sum
}

func scale(dst, x []float32, s float32) {
	switch vectors() {
	case AVX512:
		scaleAVX512(&dst[0], &x[0], len(x), s)
	case AVX2:
		scaleAVX2(&dst[0], &x[0], len(x), s)
	default:
		scaleRef(dst, x, s)
	}
}

func scaleMul(dst, x, w []float32, s float32) {
	switch vectors() {
	case AVX512:
		scaleMulAVX512(&dst[0], &x[0], &w[0], len(x), s)
	case AVX2:
		scaleMulAVX2(&dst[0], &x[0], &w[0], len(x), s)
	default:
		scaleMulRef(dst, x, w, s)
	}
}

func silu(dst, x []float32) {
	switch vectors() {
	case AVX512:
		siluAVX512(&dst[0], &x[0], len(x))
	case AVX2:
		siluAVX2(&dst[0], &x[0], len(x))
	default:
		siluRef(dst, x)
	}
}

func relu2(dst, x []float32) {
	switch vectors() {
	case AVX512:
		relu2AVX512(&dst[0], &x[0], len(x))
	case AVX2:
		relu2AVX2(&dst[0], &x[0], len(x))
	default:
		relu2Ref(dst, x)
	}
}

func mul(dst, a, b []float32) {
	switch vectors() {
	case AVX512:
		mulAVX512(&dst[0], &a[0], &b[0], len(a))
	case AVX2:
		mulAVX2(&dst[0], &a[0], &b[0], len(a))
	default:
		mulRef(dst, a, b)
	}
}

func subMul(dst, a, b []float32, s float32) {
	switch vectors() {
	case AVX512:
		subMulAVX512(&dst[0], &a[0], &b[0], len(a), s)
	case AVX2:
		subMulAVX2(&dst[0], &a[0], &b[0], len(a), s)
	default:
		subMulRef(dst, a, b, s)
	}
}

func add(dst, a, b []float32) {
	switch vectors() {
	case AVX512:
		addAVX512(&dst[0], &a[0], &b[0], len(a))
	case AVX2:
		addAVX2(&dst[0], &a[0], &b[0], len(a))
	default:
		addRef(dst, a, b)
	}
}

func dequantRow(dst []float32, acc []int32, s float32) {
	switch vectors() {
	case AVX512:
		dequantRowAVX512(&dst[0], &acc[0], len(acc), s)
	case AVX2:
		dequantRowAVX2(&dst[0], &acc[0], len(acc), s)
	default:
		dequantRowRef(dst, acc, s)
	}
}

// readSum reads b, whose length is a multiple of 256.
func readSum(b []byte) uint64 {
	switch vectors() {
	case AVX512:
		return readSumAVX512(&b[0], len(b))
	case AVX2:
		return readSumAVX2(&b[0], len(b))
	default:
		return readSumRef(b)
	}
}

// readSumSide is readSum that reads from sides places at once; the length is a multiple of 64*sides.
func readSumSide(b []byte) uint64 {
	switch vectors() {
	case AVX512:
		return readSumAVX512Side(&b[0], len(b)/(64*sides))
	case AVX2:
		return readSumAVX2Side(&b[0], len(b)/(64*sides))
	default:
		return readSumRef(b)
	}
}
