package cpu

func addProductHalf(c []float32, ldc int, a []float32, row, step int, b []uint16, ldb, rows, cols, n int) {
	addProductHalfRef(c, ldc, a, row, step, b, ldb, rows, cols, n)
}

func addProductInt8(c []float32, ldc int, a []float32, row, step int, b []int8, ldb, rows, cols, n int) {
	addProductInt8Ref(c, ldc, a, row, step, b, ldb, rows, cols, n)
}

func toHalves(dst []uint16, x []float32) { toHalvesRef(dst, x) }
