package cpu

// addProduct cuts c into tiles that fit the registers.
func addProduct(c []float32, ldc int, a []float32, row, step int, b []float32, ldb, rows, cols, n int) {
	isa := vectors()
	if isa == Scalar {
		addProductRef(c, ldc, a, row, step, b, ldb, rows, cols, n)
		return
	}
	for j, width := 0, 0; j < cols; j += width {
		most := 6
		switch left := cols - j; {
		case isa == AVX2:
			width = 16
		case left >= 64:
			width, most = 64, 4
		case left >= 32:
			width, most = 32, 8
		default:
			width, most = 16, 8
		}
		for i, tall := 0, 0; i < rows; i += tall {
			for tall = most; tall > rows-i; tall = nextRows(tall) {
			}
			to, left, right := &c[i*ldc+j], &a[i*row], &b[j]
			switch {
			case isa == AVX2:
				addProduct256(tall, to, ldc, left, row, step, right, ldb, n)
			case width == 64:
				addProduct512x64(tall, to, ldc, left, row, step, right, ldb, n)
			case width == 32:
				addProduct512x32(tall, to, ldc, left, row, step, right, ldb, n)
			default:
				addProduct512x16(tall, to, ldc, left, row, step, right, ldb, n)
			}
		}
	}
}

// nextRows is the next smaller number of rows that there is a kernel for.
func nextRows(rows int) int {
	if rows == 6 {
		return 4
	}
	return rows / 2
}

func addProduct512x64(rows int, c *float32, ldc int, a *float32, row, step int, b *float32, ldb, n int) {
	switch rows {
	case 1:
		addProductAVX512r1x64(c, ldc, a, row, step, b, ldb, n)
	case 2:
		addProductAVX512r2x64(c, ldc, a, row, step, b, ldb, n)
	case 4:
		addProductAVX512r4x64(c, ldc, a, row, step, b, ldb, n)
	}
}

func addProduct512x32(rows int, c *float32, ldc int, a *float32, row, step int, b *float32, ldb, n int) {
	switch rows {
	case 1:
		addProductAVX512r1x32(c, ldc, a, row, step, b, ldb, n)
	case 2:
		addProductAVX512r2x32(c, ldc, a, row, step, b, ldb, n)
	case 4:
		addProductAVX512r4x32(c, ldc, a, row, step, b, ldb, n)
	case 8:
		addProductAVX512r8x32(c, ldc, a, row, step, b, ldb, n)
	}
}

func addProduct512x16(rows int, c *float32, ldc int, a *float32, row, step int, b *float32, ldb, n int) {
	switch rows {
	case 1:
		addProductAVX512r1x16(c, ldc, a, row, step, b, ldb, n)
	case 2:
		addProductAVX512r2x16(c, ldc, a, row, step, b, ldb, n)
	case 4:
		addProductAVX512r4x16(c, ldc, a, row, step, b, ldb, n)
	case 8:
		addProductAVX512r8x16(c, ldc, a, row, step, b, ldb, n)
	}
}

func addProduct256(rows int, c *float32, ldc int, a *float32, row, step int, b *float32, ldb, n int) {
	switch rows {
	case 1:
		addProductAVX2r1x16(c, ldc, a, row, step, b, ldb, n)
	case 2:
		addProductAVX2r2x16(c, ldc, a, row, step, b, ldb, n)
	case 4:
		addProductAVX2r4x16(c, ldc, a, row, step, b, ldb, n)
	case 6:
		addProductAVX2r6x16(c, ldc, a, row, step, b, ldb, n)
	}
}

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
