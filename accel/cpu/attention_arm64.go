package cpu

func ask([]byte, int, int, int) {}

// tileRows is how many of n rows a tile of a product takes: what fits the registers.
func tileRows(n int) int {
	for _, tall := range [...]int{4, 2} {
		if n >= tall {
			return tall
		}
	}
	return 1
}

// addProduct cuts c into tiles.
func addProduct(c []float32, ldc int, a []float32, row, step int, b []float32, ldb, rows, cols, n int, _ Ahead) {
	if !vectors() {
		addProductRef(c, ldc, a, row, step, b, ldb, rows, cols, n)
		return
	}
	for j := 0; j < cols; j += Lanes {
		for i, tall := 0, 0; i < rows; i += tall {
			to, left, right := &c[i*ldc+j], &a[i*row], &b[j]
			switch tall = tileRows(rows - i); tall {
			case 4:
				addProductNEONr4(to, ldc, left, row, step, right, ldb, n)
			case 2:
				addProductNEONr2(to, ldc, left, row, step, right, ldb, n)
			case 1:
				addProductNEONr1(to, ldc, left, row, step, right, ldb, n)
			}
		}
	}
}

func dot(lanes *[Lanes]float32, a, b []float32) {
	if !vectors() {
		dotRef(lanes, a, b)
		return
	}
	dotNEON(&lanes[0], &a[0], &b[0], len(a))
}

func sumLanes(l *[Lanes]float32) float32 {
	if !vectors() {
		return sumLanesRef(l)
	}
	return sumLanesNEON(&l[0])
}

func topLane(l *[Lanes]float32) float32 {
	if !vectors() {
		return topLaneRef(l)
	}
	return topLaneNEON(&l[0])
}

func transpose(dst []float32, ldd int, x []float32, ldx, rows, cols int) {
	if !vectors() {
		transposeRef(dst, ldd, x, ldx, 0, rows, 0, cols)
		return
	}
	transposeNEON(&dst[0], ldd, &x[0], ldx, rows, cols)
}

func expSum(lanes *[Lanes]float32, x []float32, shift float32) {
	if !vectors() {
		expSumRef(lanes, x, shift)
		return
	}
	expSumNEON(&lanes[0], &x[0], len(x), shift)
}

func maxLanes(lanes *[Lanes]float32, x []float32) {
	if !vectors() {
		maxLanesRef(lanes, x)
		return
	}
	maxLanesNEON(&lanes[0], &x[0], len(x))
}

func expRows(x []float32, ldx, rows, cols int, scale, weight, top, sum []float32) {
	expRowsRef(x, ldx, rows, cols, scale, weight, top, sum)
}
