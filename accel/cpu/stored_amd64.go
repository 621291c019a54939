package cpu

// storedTile is how many columns and rows a tile of a product has whose right factor is stored.
func storedTile(isa ISA, cols, rows int) (width, tall int) {
	width = 16
	if isa != AVX2 && cols >= 64 {
		width = 64
	}
	for tall = 4; tall > rows; tall /= 2 {
	}
	return width, tall
}

func addProductHalf(c []float32, ldc int, a []float32, row, step int, b []uint16, ldb, rows, cols, n int) {
	isa := vectors()
	if isa == Scalar {
		addProductHalfRef(c, ldc, a, row, step, b, ldb, rows, cols, n)
		return
	}
	for j, width := 0, 0; j < cols; j += width {
		for i, tall := 0, 0; i < rows; i += tall {
			width, tall = storedTile(isa, cols-j, rows-i)
			to, left, right := &c[i*ldc+j], &a[i*row], &b[j]
			switch {
			case isa == AVX2 && tall == 1:
				addProductHalfAVX2r1x16(to, ldc, left, row, step, right, ldb, n)
			case isa == AVX2 && tall == 2:
				addProductHalfAVX2r2x16(to, ldc, left, row, step, right, ldb, n)
			case isa == AVX2:
				addProductHalfAVX2r4x16(to, ldc, left, row, step, right, ldb, n)
			case width == 16 && tall == 1:
				addProductHalfAVX512r1x16(to, ldc, left, row, step, right, ldb, n)
			case width == 16 && tall == 2:
				addProductHalfAVX512r2x16(to, ldc, left, row, step, right, ldb, n)
			case width == 16:
				addProductHalfAVX512r4x16(to, ldc, left, row, step, right, ldb, n)
			case tall == 1:
				addProductHalfAVX512r1x64(to, ldc, left, row, step, right, ldb, n)
			case tall == 2:
				addProductHalfAVX512r2x64(to, ldc, left, row, step, right, ldb, n)
			default:
				addProductHalfAVX512r4x64(to, ldc, left, row, step, right, ldb, n)
			}
		}
	}
}

func addProductInt8(c []float32, ldc int, a []float32, row, step int, b []int8, ldb, rows, cols, n int) {
	isa := vectors()
	if isa == Scalar {
		addProductInt8Ref(c, ldc, a, row, step, b, ldb, rows, cols, n)
		return
	}
	for j, width := 0, 0; j < cols; j += width {
		for i, tall := 0, 0; i < rows; i += tall {
			width, tall = storedTile(isa, cols-j, rows-i)
			to, left, right := &c[i*ldc+j], &a[i*row], &b[j]
			switch {
			case isa == AVX2 && tall == 1:
				addProductInt8AVX2r1x16(to, ldc, left, row, step, right, ldb, n)
			case isa == AVX2 && tall == 2:
				addProductInt8AVX2r2x16(to, ldc, left, row, step, right, ldb, n)
			case isa == AVX2:
				addProductInt8AVX2r4x16(to, ldc, left, row, step, right, ldb, n)
			case width == 16 && tall == 1:
				addProductInt8AVX512r1x16(to, ldc, left, row, step, right, ldb, n)
			case width == 16 && tall == 2:
				addProductInt8AVX512r2x16(to, ldc, left, row, step, right, ldb, n)
			case width == 16:
				addProductInt8AVX512r4x16(to, ldc, left, row, step, right, ldb, n)
			case tall == 1:
				addProductInt8AVX512r1x64(to, ldc, left, row, step, right, ldb, n)
			case tall == 2:
				addProductInt8AVX512r2x64(to, ldc, left, row, step, right, ldb, n)
			default:
				addProductInt8AVX512r4x64(to, ldc, left, row, step, right, ldb, n)
			}
		}
	}
}

func toHalves(dst []uint16, x []float32) {
	switch vectors() {
	case AVX512:
		toHalvesAVX512(&dst[0], &x[0], len(x))
	case AVX2:
		toHalvesAVX2(&dst[0], &x[0], len(x))
	default:
		toHalvesRef(dst, x)
	}
}
