package cpu

func lineDot(dst []int32, src []byte, stride int, ids []int32, x []int8, xsum int32) {
	switch vectors() {
	case AVX512:
		lineDotAVX512(&dst[0], &src[0], stride, &ids[0], &x[0], int(xsum), stride/BlockBytes)
	case AVX2:
		lineDotAVX2(&dst[0], &src[0], stride, &ids[0], &x[0], int(xsum), stride/BlockBytes)
	default:
		lineDotRef(dst, src, stride, ids, x, xsum)
	}
}

func lineAdd(acc []int32, src []byte, stride int, ids []int32, q []int8) {
	switch vectors() {
	case AVX512:
		lineAddAVX512(&acc[0], &src[0], stride, &ids[0], &q[0], stride/BlockBytes)
	case AVX2:
		lineAddAVX2(&acc[0], &src[0], stride, &ids[0], &q[0], stride/BlockBytes)
	default:
		lineAddRef(acc, src, stride, ids, q)
	}
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
