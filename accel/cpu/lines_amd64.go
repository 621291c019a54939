package cpu

import "math"

func lineDot(dst []int32, src []byte, stride int, ids []int32, x []int8, xsum int32) {
	switch vectors() {
	case AVX512:
		lineDotAVX512(&dst[0], &src[0], stride, &ids[0], &x[0], int(xsum), stride/BlockBytes)
	case AVX2:
		for i := 0; i < LineRun; i += 4 {
			lineDotAVX2(&dst[i], &src[0], stride, &ids[i], &x[0], int(xsum), stride/BlockBytes)
		}
	default:
		lineDotRef(dst, src, stride, ids, x, xsum)
	}
}

func lineAdd(acc []int32, src []byte, stride int, ids []int32, q []int8) {
	switch vectors() {
	case AVX512:
		for i := 0; i < len(q); i += LineRun {
			lineAddAVX512(&acc[0], &src[0], stride, &ids[i], &q[i], stride/BlockBytes)
		}
	case AVX2:
		lineAdd256(acc, src, stride, ids, q)
	default:
		lineAddRef(acc, src, stride, ids, q)
	}
}

// lineAdd256 adds runs to int16 sums for as long as these hold them: a line adds at most 4*2*|q| to each, so that 24 lines always fit.
func lineAdd256(acc []int32, src []byte, stride int, ids []int32, q []int8) {
	const most = math.MaxInt16 / 8
	space := newTileSpace()
	defer space.release()
	blocks, size := stride/BlockBytes, 0
	space.lineSums = room(space.lineSums, blocks*lineBlock)
	clear(space.lineSums)
	sums := &space.lineSums[0]
	for i := 0; i < len(q); i += LineRun {
		more := 0
		for _, v := range q[i : i+LineRun] {
			more += max(int(v), -int(v))
		}
		if size += more; size > most {
			lineAddEndAVX2(&acc[0], sums, blocks)
			size = more
		}
		lineAddAVX2(sums, &src[0], stride, &ids[i], &q[i], blocks)
	}
	if size > 0 {
		lineAddEndAVX2(&acc[0], sums, blocks)
	}
}

func lineSums(dst, acc []int32, n int, qsum int32) {
	body := 0
	if blocks := n / lineBlock; blocks > 0 && vectors() != Scalar {
		lineSumsAVX2(&dst[0], &acc[0], blocks, int(qsum))
		body = blocks * lineBlock
	}
	lineSumsRef(dst[body:], acc[body:], n-body, qsum)
}

func addInts(dst, x []int32) {
	body := len(x) &^ 15
	if vectors() == Scalar {
		body = 0
	}
	if body > 0 {
		addIntsAVX2(&dst[0], &x[0], body)
	}
	addIntsRef(dst[body:], x[body:])
}

func positive(ids []int32, x []float32, first int) (count int) {
	body := 0
	if vectors() == AVX512 && len(x) >= 16 {
		body = len(x) &^ 15
		count = positiveAVX512(&ids[0], &x[0], body, first)
	}
	return count + positiveRef(ids[count:], x[body:], first+body)
}

func nonzero(ids []int32, x []int8, first int) (count int) {
	body := 0
	if vectors() == AVX512 && len(x) >= 16 {
		body = len(x) &^ 15
		count = nonzeroAVX512(&ids[0], &x[0], body, first)
	}
	return count + nonzeroRef(ids[count:], x[body:], first+body)
}

func flipLanes(dst []byte, dstStride, dstStep int, src []byte, stride, srcStep, count int) {
	switch vectors() {
	case AVX512:
		flipLanesAVX512(&dst[0], dstStride, dstStep, &src[0], stride, srcStep, count)
	case AVX2:
		flipLanesAVX2(&dst[0], dstStride, dstStep, &src[0], stride, srcStep, count)
	default:
		flipLanesRef(dst, dstStride, dstStep, src, stride, srcStep, count)
	}
}

func flipCodes(dst []byte, dstStride, dstStep int, src []byte, stride, srcStep, count int) {
	switch vectors() {
	case AVX512:
		flipCodesAVX512(&dst[0], dstStride, dstStep, &src[0], stride, srcStep, count)
	case AVX2:
		flipCodesAVX2(&dst[0], dstStride, dstStep, &src[0], stride, srcStep, count)
	default:
		flipCodesRef(dst, dstStride, dstStep, src, stride, srcStep, count)
	}
}
