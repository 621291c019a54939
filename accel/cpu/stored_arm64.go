package cpu

func addProductHalf(c []float32, ldc int, a []float32, row, step int, f Half, b []uint16, ldb, rows, cols, n int, _ Ahead) {
	if !vectors() {
		addProductHalfRef(c, ldc, a, row, step, f, b, ldb, rows, cols, n)
		return
	}
	for j := 0; j < cols; j += Lanes {
		for i, tall := 0, 0; i < rows; i += tall {
			to, left, right := &c[i*ldc+j], &a[i*row], &b[j]
			tall = tileRows(rows - i)
			switch int(f)<<8 | tall {
			case 4:
				addProductHalfNEONr4(to, ldc, left, row, step, right, ldb, n)
			case 2:
				addProductHalfNEONr2(to, ldc, left, row, step, right, ldb, n)
			case 1:
				addProductHalfNEONr1(to, ldc, left, row, step, right, ldb, n)
			case int(BFloat16)<<8 | 4:
				addProductBF16NEONr4(to, ldc, left, row, step, right, ldb, n)
			case int(BFloat16)<<8 | 2:
				addProductBF16NEONr2(to, ldc, left, row, step, right, ldb, n)
			case int(BFloat16)<<8 | 1:
				addProductBF16NEONr1(to, ldc, left, row, step, right, ldb, n)
			}
		}
	}
}

func addPairs(c []float32, ldc int, a []int16, lda int, scale []float32, b []int8, ldb, rows, cols, n int, _ Ahead) {
	if !vectors() {
		addPairsRef(c, ldc, a, lda, scale, b, ldb, rows, cols, n)
		return
	}
	for j := 0; j < cols; j += Lanes {
		for i := 0; i < rows; i += 2 {
			to, left, right := &c[i*ldc+j], &a[i*lda], &b[2*j]
			if i+1 < rows {
				addPairsNEONr2(to, ldc, left, lda, &scale[i], right, ldb, n)
			} else {
				addPairsNEONr1(to, ldc, left, lda, &scale[i], right, ldb, n)
			}
		}
	}
}

func quantizeRows(dst []int16, ldd int, x []float32, ldx, rows, cols int, scale []float32, limit float32) {
	if !vectors() {
		quantizeRowsRef(dst, ldd, x, ldx, rows, cols, scale, limit)
		return
	}
	for i := range rows {
		row := x[i*ldx:][:cols]
		var steps float32
		scale[i], steps = stepsOf(absMax(row), limit)
		roundRowNEON(&dst[i*ldd], &row[0], cols, steps, limit)
	}
}

func softmaxPairs([]int16, int, []int16, int, []float32, []int8, int, int, int, int, []float32, []float32, []float32, []float32, float32, []float32, Ahead) bool {
	return false
}

func softmaxHalf([]float32, int, []float32, int, int, Half, []uint16, int, int, int, int, []float32, []float32, Ahead) bool {
	return false
}

func toHalves(f Half, dst []uint16, x []float32) {
	switch {
	case !vectors():
		toHalvesRef(f, dst, x)
	case f == BFloat16:
		toBF16NEON(&dst[0], &x[0], len(x))
	default:
		toHalvesNEON(&dst[0], &x[0], len(x))
	}
}
