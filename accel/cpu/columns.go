package cpu

import "fmt"

// A gradient of weights is a product of two transposes, dY^T X: here rows become columns on the way into an integer product.

// AbsMaxColumns is top[i] = max(top[i], |x[i]*f|), with NaN as the largest. Rows taken one after the other give the largest
// magnitude of every column.
func AbsMaxColumns(top, x []float32, f float32) {
	n := len(x)
	need("AbsMaxColumns", "top", len(top), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		absMaxColumns(top[:body], x[:body], f)
	}
	absMaxColumnsRef(top[body:n], x[body:], f)
}

// QuantizeColumns16 makes 16-bit rows of the columns of x [rows, cols], whose rows lie ldx apart: as [QuantizeInt16] with
//
//	v = clamp(roundHalfEven((x[r*ldx+c]*f[r]) * s[c]), -32512, 32512)
//
// for row c and column r of dst. Of dst it fills the planes, with zeros up to a multiple of [Int16Cols], and their sums.
func QuantizeColumns16(dst Int16Rows, x []float32, ldx, rows, cols int, f, s []float32) {
	const op = "QuantizeColumns16"
	if rows < 0 || cols < 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d rows, %d columns", op, rows, cols))
	}
	if cols == 0 {
		return
	}
	width := ceilDiv(rows, Int16Cols) * Int16Cols
	if rows > 0 {
		needRows(op, "x", len(x), rows, cols, ldx)
	}
	needRows(op, "hi", len(dst.Hi), cols, width, dst.Stride)
	needRows(op, "lo", len(dst.Lo), cols, width, dst.Stride)
	need(op, "sumHi", len(dst.SumHi), cols)
	need(op, "sumLo", len(dst.SumLo), cols)
	need(op, "f", len(f), rows)
	need(op, "s", len(s), cols)
	clear(dst.SumHi[:cols])
	clear(dst.SumLo[:cols])
	const strip = 64 // rows whose neighbouring columns are read while they are near
	body, wide := rows&^(Lanes-1), cols&^(Lanes-1)
	for r := 0; r < body; r += strip {
		for c := 0; c < wide; c += Lanes {
			quantizeColumns(&dst, x, ldx, r, min(r+strip, body), c, f, s)
		}
	}
	quantizeColumnsRef(&dst, x, ldx, body, rows, 0, wide, f, s)
	quantizeColumnsRef(&dst, x, ldx, 0, rows, wide, cols, f, s)
	for c := range cols {
		clear(dst.Hi[c*dst.Stride+rows : c*dst.Stride+width])
		clear(dst.Lo[c*dst.Stride+rows : c*dst.Stride+width])
	}
}

// PackInt8Columns packs the transpose of x [rows, cols], whose rows lie ldx apart, as [DenseInt8]: dst is a matrix of cols rows and rows
// columns, [DenseBytes] long.
func PackInt8Columns(dst []byte, x []int8, ldx, rows, cols int) {
	const op = "PackInt8Columns"
	if rows < 0 || cols < 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d rows, %d columns", op, rows, cols))
	}
	need(op, "dst", len(dst), DenseBytes(DenseInt8, cols, rows))
	if rows == 0 || cols == 0 {
		return
	}
	needRows(op, "x", len(x), rows, cols, ldx)
	stride := densePanelBytes(DenseInt8, rows)
	panels, blocks := cols/PanelRows, rows/4
	if panels > 0 && blocks > 0 {
		int8Columns(dst, stride, x, ldx, blocks, panels)
	}
	int8ColumnsRef(dst[:panels*stride], stride, x, ldx, blocks, rows, 0, panels*PanelRows)
	int8ColumnsRef(dst, stride, x, ldx, 0, rows, panels*PanelRows, cols)
}

// PackTernaryColumns ternarizes w [rows, cols], whose rows lie ldw apart, as 1 above half, -1 below -half and else 0, and packs the
// transpose as [PackTernary] does: dst is a matrix of cols rows and rows columns.
func PackTernaryColumns(dst []byte, w []float32, ldw, rows, cols int, half float32) {
	const op = "PackTernaryColumns"
	if rows < 0 || cols < 0 || !(half >= 0) {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d rows, %d columns, half %v", op, rows, cols, half))
	}
	need(op, "dst", len(dst), TernaryBytes(cols, rows))
	if rows == 0 || cols == 0 {
		return
	}
	needRows(op, "w", len(w), rows, cols, ldw)
	stride := panelBytes(rows)
	panels, blocks := cols/PanelRows, rows/BlockCols
	for p := 0; p < panels && blocks > 0; p++ {
		ternaryFlip(dst[p*stride:], w[p*PanelRows:], ldw, blocks, half)
	}
	ternaryFlipRef(dst[:panels*stride], stride, w, ldw, blocks, rows, 0, panels*PanelRows, half)
	ternaryFlipRef(dst, stride, w, ldw, 0, rows, panels*PanelRows, cols, half)
}

// PackTernaryRow ternarizes a row of a matrix as [PackTernaryColumns] does and packs it: lane is where the row's lane of its panel begins, 4
// bytes in each block of 64.
func PackTernaryRow(lane []byte, w []float32, half float32) {
	blocks := ceilDiv(len(w), BlockCols)
	if blocks == 0 {
		return
	}
	need("PackTernaryRow", "lane", len(lane), (blocks-1)*BlockBytes+4)
	body := len(w) &^ (BlockCols - 1)
	if body > 0 {
		ternaryRow(lane, w[:body], half)
	}
	if body < len(w) {
		ternaryRowRef(lane[body/BlockCols*BlockBytes:], w[body:], half)
	}
}
