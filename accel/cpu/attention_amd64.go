package cpu

func dotRows(dst, q, k []float32, stride int) {
	switch vectors() {
	case AVX512:
		dotRowsAVX512(&dst[0], &q[0], &k[0], len(dst), len(q), stride)
	case AVX2:
		dotRowsAVX2(&dst[0], &q[0], &k[0], len(dst), len(q), stride)
	default:
		dotRowsRef(dst, q, k, stride)
	}
}

// accumRows keeps up to 128 (AVX-512) or 64 (AVX2) sums in registers while it goes over the rows.
func accumRows(acc, p, v []float32, stride int) {
	isa := vectors()
	if isa == Scalar {
		accumRowsRef(acc, p, v, stride)
		return
	}
	for d, width := 0, 0; d < len(acc); d += width {
		a, row := &acc[d], &v[d]
		switch left := len(acc) - d; {
		case isa == AVX512 && left >= 128:
			width = 128
			accumRowsAVX512x128(a, &p[0], row, len(p), stride)
		case isa == AVX512 && left >= 64:
			width = 64
			accumRowsAVX512x64(a, &p[0], row, len(p), stride)
		case isa == AVX512:
			width = 16
			accumRowsAVX512x16(a, &p[0], row, len(p), stride)
		case left >= 64:
			width = 64
			accumRowsAVX2x64(a, &p[0], row, len(p), stride)
		default:
			width = 16
			accumRowsAVX2x16(a, &p[0], row, len(p), stride)
		}
	}
}

func expSum(lanes *[Lanes]float32, x []float32, shift float32) {
	switch vectors() {
	case AVX512:
		expSumAVX512(&lanes[0], &x[0], len(x), shift)
	case AVX2:
		expSumAVX2(&lanes[0], &x[0], len(x), shift)
	default:
		expSumRef(lanes, x, shift)
	}
}

func maxLanes(lanes *[Lanes]float32, x []float32) {
	switch vectors() {
	case AVX512:
		maxLanesAVX512(&lanes[0], &x[0], len(x))
	case AVX2:
		maxLanesAVX2(&lanes[0], &x[0], len(x))
	default:
		maxLanesRef(lanes, x)
	}
}
