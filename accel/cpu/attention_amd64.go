package cpu

import "unsafe"

func ask(b []byte, rows, stride, lines int) { askLines(&b[0], rows, stride, lines) }

func dot(lanes *[Lanes]float32, a, b []float32) {
	switch vectors() {
	case AVX512:
		dotAVX512(&lanes[0], &a[0], &b[0], len(a))
	case AVX2:
		dotAVX2(&lanes[0], &a[0], &b[0], len(a))
	default:
		dotRef(lanes, a, b)
	}
}

func sumLanes(l *[Lanes]float32) float32 {
	if vectors() == Scalar {
		return sumLanesRef(l)
	}
	return sumLanesAVX2(&l[0])
}

func topLane(l *[Lanes]float32) float32 {
	if vectors() == Scalar {
		return topLaneRef(l)
	}
	return topLaneAVX2(&l[0])
}

func transpose(dst []float32, ldd int, x []float32, ldx, rows, cols int) {
	if vectors() == Scalar {
		transposeRef(dst, ldd, x, ldx, 0, rows, 0, cols)
		return
	}
	transposeAVX2(&dst[0], ldd, &x[0], ldx, rows, cols)
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

func expRows(x []float32, ldx, rows, cols int, scale, weight, top, sum []float32) {
	switch vectors() {
	case AVX512:
		expRowsAVX512(&x[0], ldx, rows, cols, unsafe.SliceData(scale), unsafe.SliceData(weight), &top[0], &sum[0])
	case AVX2:
		expRowsAVX2(&x[0], ldx, rows, cols, unsafe.SliceData(scale), unsafe.SliceData(weight), &top[0], &sum[0])
	default:
		expRowsRef(x, ldx, rows, cols, scale, weight, top, sum)
	}
}
