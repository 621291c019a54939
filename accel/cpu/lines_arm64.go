package cpu

func lineDot(dst []int32, src []byte, stride int, ids []int32, x []int8, xsum int32) {
	lineDotRef(dst, src, stride, ids, x, xsum)
}

func lineAdd(acc []int32, src []byte, stride int, ids []int32, q []int8) {
	lineAddRef(acc, src, stride, ids, q)
}

func flipLanes(dst []byte, dstStride, dstStep int, src []byte, stride, srcStep, count int) {
	flipLanesRef(dst, dstStride, dstStep, src, stride, srcStep, count)
}

func flipCodes(dst []byte, dstStride, dstStep int, src []byte, stride, srcStep, count int) {
	flipCodesRef(dst, dstStride, dstStep, src, stride, srcStep, count)
}
