package cpu

func sumSquares(lanes *[Lanes]float32, x []float32) {
	if !vectors() {
		sumSquaresRef(lanes, x)
		return
	}
	sumSquaresNEON(&lanes[0], &x[0], len(x))
}

func absMax(x []float32) float32 {
	if !vectors() {
		return absMaxRef(0, x)
	}
	var lanes [Lanes]float32
	absMaxNEON(&lanes[0], &x[0], len(x))
	return absMaxRef(0, lanes[:])
}

func quantizeInt8(dst []int8, x []float32, s float32) int32 {
	if !vectors() {
		return quantizeInt8Ref(dst, x, s)
	}
	var lanes [Lanes]int32
	quantizeInt8NEON(&lanes[0], &dst[0], &x[0], len(x), s)
	sum := int32(0)
	for _, v := range lanes {
		sum += v
	}
	return sum
}

func scale(dst, x []float32, s float32) {
	if !vectors() {
		scaleRef(dst, x, s)
		return
	}
	scaleNEON(&dst[0], &x[0], len(x), s)
}

func scaleMul(dst, x, w []float32, s float32) {
	if !vectors() {
		scaleMulRef(dst, x, w, s)
		return
	}
	scaleMulNEON(&dst[0], &x[0], &w[0], len(x), s)
}

func silu(dst, x []float32) {
	if !vectors() {
		siluRef(dst, x)
		return
	}
	siluNEON(&dst[0], &x[0], len(x))
}

func relu2(dst, x []float32) {
	if !vectors() {
		relu2Ref(dst, x)
		return
	}
	relu2NEON(&dst[0], &x[0], len(x))
}

func mul(dst, a, b []float32) {
	if !vectors() {
		mulRef(dst, a, b)
		return
	}
	mulNEON(&dst[0], &a[0], &b[0], len(a))
}

func subMul(dst, a, b []float32, s float32) {
	if !vectors() {
		subMulRef(dst, a, b, s)
		return
	}
	subMulNEON(&dst[0], &a[0], &b[0], len(a), s)
}

func add(dst, a, b []float32) {
	if !vectors() {
		addRef(dst, a, b)
		return
	}
	addNEON(&dst[0], &a[0], &b[0], len(a))
}

func dequantRow(dst []float32, acc []int32, s float32) {
	if !vectors() {
		dequantRowRef(dst, acc, s)
		return
	}
	dequantRowNEON(&dst[0], &acc[0], len(acc), s)
}

// readSum reads b, whose length is a multiple of 256.
func readSum(b []byte) uint64 {
	if !vectors() {
		return readSumRef(b)
	}
	return readSumNEON(&b[0], len(b))
}

// readSumSide reads in one way only.
func readSumSide(b []byte) uint64 { return readSum(b) }
