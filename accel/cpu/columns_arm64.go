package cpu

// quantizeColumns does rows [r0, r1) and the 16 columns from c on.
func quantizeColumns(dst *Int16Rows, x []float32, ldx, r0, r1, c int, f, s []float32) {
	if !vectors() {
		quantizeColumnsRef(dst, x, ldx, r0, r1, c, c+Lanes, f, s)
		return
	}
	for range Lanes / 4 {
		at := c*dst.Stride + r0
		quantizeColumnsNEON(&dst.Hi[at], &dst.Lo[at], dst.Stride, &dst.SumHi[c], &dst.SumLo[c], &x[r0*ldx+c], ldx, &f[r0], &s[c], r1-r0)
		c += 4
	}
}

func int8Columns(dst []byte, stride int, x []int8, ldx, blocks, panels int) {
	if !vectors() {
		int8ColumnsRef(dst[:panels*stride], stride, x, ldx, 0, 4*blocks, 0, panels*PanelRows)
		return
	}
	int8ColumnsNEON(&dst[0], stride, &x[0], ldx, blocks, panels)
}

func ternaryFlip(dst []byte, w []float32, ldw, blocks int, half float32) {
	if !vectors() {
		ternaryFlipRef(dst, blocks*BlockBytes, w, ldw, 0, BlockCols*blocks, 0, PanelRows, half)
		return
	}
	ternaryFlipNEON(&dst[0], &w[0], ldw, blocks, half)
}

func ternaryRow(dst []byte, w []float32, half float32) {
	if !vectors() {
		ternaryRowRef(dst, w, half)
		return
	}
	ternaryRowNEON(&dst[0], &w[0], len(w)/BlockCols, half)
}
