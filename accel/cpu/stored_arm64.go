package cpu

func addProductHalf(c []float32, ldc int, a []float32, row, step int, b []uint16, ldb, rows, cols, n int, _ Ahead) {
	if !vectors() {
		addProductHalfRef(c, ldc, a, row, step, b, ldb, rows, cols, n)
		return
	}
	for j := 0; j < cols; j += Lanes {
		for i, tall := 0, 0; i < rows; i += tall {
			to, left, right := &c[i*ldc+j], &a[i*row], &b[j]
			switch tall = tileRows(rows - i); tall {
			case 4:
				addProductHalfNEONr4(to, ldc, left, row, step, right, ldb, n)
			case 2:
				addProductHalfNEONr2(to, ldc, left, row, step, right, ldb, n)
			case 1:
				addProductHalfNEONr1(to, ldc, left, row, step, right, ldb, n)
			}
		}
	}
}

func addProductInt8(c []float32, ldc int, a []float32, row, step int, b []int8, ldb, rows, cols, n int, _ Ahead) {
	if !vectors() {
		addProductInt8Ref(c, ldc, a, row, step, b, ldb, rows, cols, n)
		return
	}
	for j := 0; j < cols; j += Lanes {
		for i, tall := 0, 0; i < rows; i += tall {
			to, left, right := &c[i*ldc+j], &a[i*row], &b[j]
			switch tall = tileRows(rows - i); tall {
			case 4:
				addProductInt8NEONr4(to, ldc, left, row, step, right, ldb, n)
			case 2:
				addProductInt8NEONr2(to, ldc, left, row, step, right, ldb, n)
			case 1:
				addProductInt8NEONr1(to, ldc, left, row, step, right, ldb, n)
			}
		}
	}
}

func toHalves(dst []uint16, x []float32) {
	if !vectors() {
		toHalvesRef(dst, x)
		return
	}
	toHalvesNEON(&dst[0], &x[0], len(x))
}
