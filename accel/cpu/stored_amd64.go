package cpu

func toHalves(f Half, dst []uint16, x []float32) {
	switch isa := vectors(); {
	case isa == Scalar:
		toHalvesRef(f, dst, x)
	case isa == AVX512 && f == BFloat16:
		toBF16AVX512(&dst[0], &x[0], len(x))
	case isa == AVX512:
		toHalvesAVX512(&dst[0], &x[0], len(x))
	case f == BFloat16:
		toBF16AVX2(&dst[0], &x[0], len(x))
	default:
		toHalvesAVX2(&dst[0], &x[0], len(x))
	}
}

func quantizeRows(dst []int16, ldd int, x []float32, ldx, rows, cols int, scale []float32, limit float32) {
	switch vectors() {
	case AVX512:
		quantizeRowsAVX512(&dst[0], ldd, &x[0], ldx, rows, cols, &scale[0], limit)
	case AVX2:
		quantizeRowsAVX2(&dst[0], ldd, &x[0], ldx, rows, cols, &scale[0], limit)
	default:
		quantizeRowsRef(dst, ldd, x, ldx, rows, cols, scale, limit)
	}
}

// softmaxPairs is for a page of the keys and values of a sequence that decodes. Whether it did anything it says.
func softmaxPairs(dst []int16, ldd int, a []int16, lda int, scale []float32, b []int8, ldb, rows, cols, n int,
	keyScale, weight, top, sum []float32, limit float32, worth []float32, ahead Ahead) bool {
	if rows > streamedRows || cols != streamedColumns || vectors() != AVX512 {
		return false
	}
	for i, tall := 0, 0; i < rows; i += tall {
		to, left, next := &dst[i*ldd], &a[i*lda], &ahead.First[0]
		switch tall = tallest(rows - i); tall {
		case 4:
			softmaxPairsAVX512r4(to, ldd, left, lda, &scale[i], &b[0], ldb, n, &keyScale[0], &weight[0], &top[i], &sum[i], &worth[i], limit, next, ahead.Apart)
		case 2:
			softmaxPairsAVX512r2(to, ldd, left, lda, &scale[i], &b[0], ldb, n, &keyScale[0], &weight[0], &top[i], &sum[i], &worth[i], limit, next, ahead.Apart)
		case 1:
			softmaxPairsAVX512r1(to, ldd, left, lda, &scale[i], &b[0], ldb, n, &keyScale[0], &weight[0], &top[i], &sum[i], &worth[i], limit, next, ahead.Apart)
		}
	}
	return true
}

// softmaxHalf is for a page of the keys and values of a sequence that decodes. Whether it did anything it says.
func softmaxHalf(x []float32, ldx int, a []float32, row, step int, f Half, b []uint16, ldb, rows, cols, n int, top, sum []float32, ahead Ahead) bool {
	if rows > streamedRows || cols != streamedColumns || vectors() != AVX512 {
		return false
	}
	for i, tall := 0, 0; i < rows; i += tall {
		tall = tallest(rows - i)
		to, left, next := &x[i*ldx], &a[i*row], &ahead.First[0]
		switch int(f)<<8 | tall {
		case 4:
			softmaxHalfAVX512r4(to, ldx, left, row, step, &b[0], ldb, n, &top[i], &sum[i], next, ahead.Apart)
		case 2:
			softmaxHalfAVX512r2(to, ldx, left, row, step, &b[0], ldb, n, &top[i], &sum[i], next, ahead.Apart)
		case 1:
			softmaxHalfAVX512r1(to, ldx, left, row, step, &b[0], ldb, n, &top[i], &sum[i], next, ahead.Apart)
		case int(BFloat16)<<8 | 4:
			softmaxBF16AVX512r4(to, ldx, left, row, step, &b[0], ldb, n, &top[i], &sum[i], next, ahead.Apart)
		case int(BFloat16)<<8 | 2:
			softmaxBF16AVX512r2(to, ldx, left, row, step, &b[0], ldb, n, &top[i], &sum[i], next, ahead.Apart)
		case int(BFloat16)<<8 | 1:
			softmaxBF16AVX512r1(to, ldx, left, row, step, &b[0], ldb, n, &top[i], &sum[i], next, ahead.Apart)
		}
	}
	return true
}
