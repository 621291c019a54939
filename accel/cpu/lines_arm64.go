package cpu

func lineDot(dst []int32, src []byte, stride int, ids []int32, x []int8, xsum int32) {
	switch Active() {
	case NEONDot:
		for i := 0; i < LineRun; i += 4 {
			lineDotSDOT(&dst[i], &src[0], stride, &ids[i], &x[0], int(xsum), stride/BlockBytes)
		}
	case NEON:
		for i := 0; i < LineRun; i += 4 {
			lineDotNEON(&dst[i], &src[0], stride, &ids[i], &x[0], int(xsum), stride/BlockBytes)
		}
	default:
		lineDotRef(dst, src, stride, ids, x, xsum)
	}
}

func lineAdd(acc []int32, src []byte, stride int, ids []int32, q []int8) {
	switch Active() {
	case NEONDot:
		for i := 0; i < len(q); i += 4 {
			lineAddSDOT(&acc[0], &src[0], stride, &ids[i], &q[i], stride/BlockBytes)
		}
	case NEON:
		for i := 0; i < len(q); i += 4 {
			lineAddNEON(&acc[0], &src[0], stride, &ids[i], &q[i], stride/BlockBytes)
		}
	default:
		lineAddRef(acc, src, stride, ids, q)
	}
}

func flipLanes(dst []byte, dstStride, dstStep int, src []byte, stride, srcStep, count int) {
	if !vectors() {
		flipLanesRef(dst, dstStride, dstStep, src, stride, srcStep, count)
		return
	}
	flipLanesNEON(&dst[0], dstStride, dstStep, &src[0], stride, srcStep, count)
}

func flipCodes(dst []byte, dstStride, dstStep int, src []byte, stride, srcStep, count int) {
	if !vectors() {
		flipCodesRef(dst, dstStride, dstStep, src, stride, srcStep, count)
		return
	}
	flipCodesNEON(&dst[0], dstStride, dstStep, &src[0], stride, srcStep, count)
}

func lineSums(dst, acc []int32, n int, qsum int32) { lineSumsRef(dst, acc, n, qsum) }

func addInts(dst, x []int32) { addIntsRef(dst, x) }

func positive(ids []int32, x []float32, first int) int { return positiveRef(ids, x, first) }

func nonzero(ids []int32, x []int8, first int) int { return nonzeroRef(ids, x, first) }
