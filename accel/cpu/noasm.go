//go:build !amd64 && !arm64

package cpu

// Without kernels for this processor every call runs the Go reference.

func pause() {}

func ask([]byte, int, int, int) {}

func ternaryMatMul(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	ternaryMatMulRef(dst, ldd, panels, nb, x, ldx, xsum)
}

func base3Ready() bool { return false }

func base3Unpack(dst, src []byte, groups int) { base3UnpackRef(dst, src, groups) }

func base3MatVec(dst []int32, src []byte, nb int, x []int8, xsum int32) {
	base3MatVecRef(dst, src, nb, x, xsum)
}

// readsLines says whether kernels multiply with lines as they lie.
func readsLines() bool { return false }

func ternaryLines([]int32, int, *TernaryLines, int, int, []int8, int, []int32) {}

func ternaryAddColumns([]int32, int, []byte, int, int, int, int, []int8, int, int) {}

func densePanel(dst []float32, ldd int, f DenseFormat, panel []byte, scale *[PanelRows]float32, quads int, x []float32, ldx, tokens int) {
	densePanelRef(dst, ldd, f, panel, scale, quads, x, ldx, tokens)
}

func int8Panels(dst []float32, ldd int, panels []byte, stride int, scale []float32, x Int16Rows, tokens int, add bool) {
	int8Each(dst, ldd, panels, stride, scale, x, tokens, add)
}

func int8Panel(dst []float32, ldd int, panel []byte, scale *[PanelRows]float32, x *Int16Rows, tokens int, add bool) {
	int8PanelRef(dst, ldd, panel, scale, x, tokens, add)
}

func int4Panels(dst []float32, ldd int, panels []byte, stride, blocks int, x Int16Rows, tokens int, add bool) {
	int4Each(dst, ldd, panels, stride, blocks, &x, tokens, add)
}

func int4Panel(dst []float32, ldd int, panel []byte, blocks int, x *Int16Rows, tokens int, add bool) {
	int4PanelRef(dst, ldd, panel, blocks, x, tokens, add)
}

func int4Errors(dst, s *[Lanes]float32, x []float32) { int4ErrorsRef(dst, s, x) }

func quantizeInt16(hi, lo []int8, x []float32, s float32) (sumHi, sumLo int32) {
	return quantizeInt16Ref(hi, lo, x, s)
}

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

func addProductHalf(c []float32, ldc int, a []float32, row, step int, f Half, b []uint16, ldb, rows, cols, n int, _ Ahead) {
	addProductHalfRef(c, ldc, a, row, step, f, b, ldb, rows, cols, n)
}

func addPairs(c []float32, ldc int, a []int16, lda int, scale []float32, b []int8, ldb, rows, cols, n int, _ Ahead) {
	addPairsRef(c, ldc, a, lda, scale, b, ldb, rows, cols, n)
}

func quantizeRows(dst []int16, ldd int, x []float32, ldx, rows, cols int, scale []float32, limit float32) {
	quantizeRowsRef(dst, ldd, x, ldx, rows, cols, scale, limit)
}

func softmaxPairs([]int16, int, []int16, int, []float32, []int8, int, int, int, int, []float32, []float32, []float32, []float32, float32, []float32, Ahead) bool {
	return false
}

func softmaxHalf([]float32, int, []float32, int, int, Half, []uint16, int, int, int, int, []float32, []float32, Ahead) bool {
	return false
}

func toHalves(f Half, dst []uint16, x []float32) { toHalvesRef(f, dst, x) }

func dot(lanes *[Lanes]float32, a, b []float32)                { dotRef(lanes, a, b) }
func sumLanes(l *[Lanes]float32) float32                       { return sumLanesRef(l) }
func topLane(l *[Lanes]float32) float32                        { return topLaneRef(l) }
func expSum(lanes *[Lanes]float32, x []float32, shift float32) { expSumRef(lanes, x, shift) }
func maxLanes(lanes *[Lanes]float32, x []float32)              { maxLanesRef(lanes, x) }
func sumSquares(lanes *[Lanes]float32, x []float32)            { sumSquaresRef(lanes, x) }
func absMax(x []float32) float32                               { return absMaxRef(0, x) }
func scale(dst, x []float32, s float32)                        { scaleRef(dst, x, s) }
func scaleMul(dst, x, w []float32, s float32)                  { scaleMulRef(dst, x, w, s) }
func quantizeInt8(dst []int8, x []float32, s float32) int32    { return quantizeInt8Ref(dst, x, s) }
func silu(dst, x []float32)                                    { siluRef(dst, x) }
func relu2(dst, x []float32)                                   { relu2Ref(dst, x) }
func sigmoid(dst, x []float32)                                 { sigmoidRef(dst, x) }
func tanh(dst, x []float32)                                    { tanhRef(dst, x) }
func normalCDF(dst, x []float32)                               { normalCDFRef(dst, x) }
func mul(dst, a, b []float32)                                  { mulRef(dst, a, b) }
func subMul(dst, a, b []float32, s float32)                    { subMulRef(dst, a, b, s) }
func add(dst, a, b []float32)                                  { addRef(dst, a, b) }
func dequantRow(dst []float32, acc []int32, scale float32)     { dequantRowRef(dst, acc, scale) }
func readSum(b []byte) uint64                                  { return readSumRef(b) }
func readSumSide(b []byte) uint64                              { return readSumRef(b) }

func relu2Grad(dg, du, g, u, dy []float32)                 { relu2GradRef(dg, du, g, u, dy) }
func rmsNormDot(lanes *[Lanes]float32, x, w, dy []float32) { rmsNormDotRef(lanes, x, w, dy) }
func rotate(lo, hi, cos, sin []float32, direction float32) { rotateRef(lo, hi, cos, sin, direction) }
func adam(c *AdamStep, p, g, m, v []float32)               { adamRef(c, p, g, m, v) }
func absMaxColumns(top, x []float32, f float32)            { absMaxColumnsRef(top, x, f) }

func rmsNormGrad(dx, dw, x, w, dy []float32, inv, mean float32, add bool) {
	rmsNormGradRef(dx, dw, x, w, dy, inv, mean, add)
}

func quantizeColumns(dst *Int16Rows, x []float32, ldx, r0, r1, c int, f, s []float32) {
	quantizeColumnsRef(dst, x, ldx, r0, r1, c, c+Lanes, f, s)
}

func int8Columns(dst []byte, stride int, x []int8, ldx, blocks, panels int) {
	int8ColumnsRef(dst[:panels*stride], stride, x, ldx, 0, 4*blocks, 0, panels*PanelRows)
}

func ternaryFlip(dst []byte, w []float32, ldw, blocks int, half float32) {
	ternaryFlipRef(dst, blocks*BlockBytes, w, ldw, 0, BlockCols*blocks, 0, PanelRows, half)
}

func addProduct(c []float32, ldc int, a []float32, row, step int, b []float32, ldb, rows, cols, n int, _ Ahead) {
	addProductRef(c, ldc, a, row, step, b, ldb, rows, cols, n)
}

func transpose(dst []float32, ldd int, x []float32, ldx, rows, cols int) {
	transposeRef(dst, ldd, x, ldx, 0, rows, 0, cols)
}

func ternaryInt(dst []float32, ldd int, panels []byte, nb int, scale float32, x Int16Rows, tokens int, add bool) {
	ternaryIntEach(dst, ldd, panels, nb, scale, x, tokens, add)
}

func joinPlanes(dst []float32, hi, lo []int32, scale, inv float32, add bool) {
	joinPlanesRef(dst, hi, lo, scale, inv, add)
}

func sgd(c *SGDStep, p, g, b []float32)                { sgdRef(c, p, g, b) }
func addAbs64(lanes *[4]float64, x []float32)          { addAbs64Ref(lanes, x) }
func addSquares64(lanes *[4]float64, x []float32)      { addSquares64Ref(lanes, x) }
func ternaryRow(dst []byte, w []float32, half float32) { ternaryRowRef(dst, w, half) }

func lineSums(dst, acc []int32, n int, qsum int32) { lineSumsRef(dst, acc, n, qsum) }

func addInts(dst, x []int32) { addIntsRef(dst, x) }

func positive(ids []int32, x []float32, first int) int { return positiveRef(ids, x, first) }

func nonzero(ids []int32, x []int8, first int) int { return nonzeroRef(ids, x, first) }

func expRows(x []float32, ldx, rows, cols int, scale, weight, top, sum []float32) {
	expRowsRef(x, ldx, rows, cols, scale, weight, top, sum)
}
