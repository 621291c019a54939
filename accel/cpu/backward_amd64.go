package cpu

func relu2Grad(dg, du, g, u, dy []float32) {
	switch vectors() {
	case AVX512:
		relu2GradAVX512(&dg[0], &du[0], &g[0], &u[0], &dy[0], len(g))
	case AVX2:
		relu2GradAVX2(&dg[0], &du[0], &g[0], &u[0], &dy[0], len(g))
	default:
		relu2GradRef(dg, du, g, u, dy)
	}
}

func rmsNormDot(lanes *[Lanes]float32, x, w, dy []float32) {
	switch vectors() {
	case AVX512:
		rmsNormDotAVX512(&lanes[0], &x[0], &w[0], &dy[0], len(x))
	case AVX2:
		rmsNormDotAVX2(&lanes[0], &x[0], &w[0], &dy[0], len(x))
	default:
		rmsNormDotRef(lanes, x, w, dy)
	}
}

func rmsNormGrad(dx, dw, x, w, dy []float32, inv, mean float32, add bool) {
	switch isa := vectors(); {
	case isa == AVX512 && add:
		rmsNormGradAddAVX512(&dx[0], &dw[0], &x[0], &w[0], &dy[0], len(x), inv, mean)
	case isa == AVX512:
		rmsNormGradAVX512(&dx[0], &dw[0], &x[0], &w[0], &dy[0], len(x), inv, mean)
	case isa == AVX2 && add:
		rmsNormGradAddAVX2(&dx[0], &dw[0], &x[0], &w[0], &dy[0], len(x), inv, mean)
	case isa == AVX2:
		rmsNormGradAVX2(&dx[0], &dw[0], &x[0], &w[0], &dy[0], len(x), inv, mean)
	default:
		rmsNormGradRef(dx, dw, x, w, dy, inv, mean, add)
	}
}

func rotate(lo, hi, cos, sin []float32, direction float32) {
	switch vectors() {
	case AVX512:
		rotateAVX512(&lo[0], &hi[0], &cos[0], &sin[0], len(lo), direction)
	case AVX2:
		rotateAVX2(&lo[0], &hi[0], &cos[0], &sin[0], len(lo), direction)
	default:
		rotateRef(lo, hi, cos, sin, direction)
	}
}

func adam(c *AdamStep, p, g, m, v []float32) {
	switch vectors() {
	case AVX512:
		adamAVX512(&p[0], &g[0], &m[0], &v[0], len(p), c.Scale, c.L2, c.Keep, c.Mix, c.Beta2, c.Mix2, c.Root, c.Eps, c.Rate)
	case AVX2:
		adamAVX2(&p[0], &g[0], &m[0], &v[0], len(p), c.Scale, c.L2, c.Keep, c.Mix, c.Beta2, c.Mix2, c.Root, c.Eps, c.Rate)
	default:
		adamRef(c, p, g, m, v)
	}
}

func absMaxColumns(top, x []float32, f float32) {
	switch vectors() {
	case AVX512:
		absMaxColumnsAVX512(&top[0], &x[0], len(x), f)
	case AVX2:
		absMaxColumnsAVX2(&top[0], &x[0], len(x), f)
	default:
		absMaxColumnsRef(top, x, f)
	}
}

// quantizeColumns does rows [r0, r1) and the 16 columns from c on.
func quantizeColumns(dst *Int16Rows, x []float32, ldx, r0, r1, c int, f, s []float32) {
	switch vectors() {
	case AVX512:
		at := c*dst.Stride + r0
		quantizeColumnsAVX512(&dst.Hi[at], &dst.Lo[at], dst.Stride, &dst.SumHi[c], &dst.SumLo[c], &x[r0*ldx+c], ldx, &f[r0], &s[c], r1-r0)
	case AVX2:
		for range 2 {
			at := c*dst.Stride + r0
			quantizeColumnsAVX2(&dst.Hi[at], &dst.Lo[at], dst.Stride, &dst.SumHi[c], &dst.SumLo[c], &x[r0*ldx+c], ldx, &f[r0], &s[c], r1-r0)
			c += Lanes / 2
		}
	default:
		quantizeColumnsRef(dst, x, ldx, r0, r1, c, c+Lanes, f, s)
	}
}

func int8Columns(dst []byte, stride int, x []int8, ldx, blocks, panels int) {
	if vectors() == Scalar {
		int8ColumnsRef(dst[:panels*stride], stride, x, ldx, 0, 4*blocks, 0, panels*PanelRows)
		return
	}
	int8ColumnsAVX2(&dst[0], stride, &x[0], ldx, blocks, panels)
}

func ternaryFlip(dst []byte, w []float32, ldw, blocks int, half float32) {
	switch vectors() {
	case AVX512:
		ternaryFlipAVX512(&dst[0], &w[0], ldw, blocks, half)
	case AVX2:
		ternaryFlipAVX2(&dst[0], &w[0], ldw, blocks, half)
	default:
		ternaryFlipRef(dst, blocks*BlockBytes, w, ldw, 0, BlockCols*blocks, 0, PanelRows, half)
	}
}

func sgd(c *SGDStep, p, g, b []float32) {
	switch isa := vectors(); {
	case isa == AVX512 && c.Nesterov:
		sgdNesterovAVX512(&p[0], &g[0], &b[0], len(p), c.Scale, c.L2, c.Momentum, c.Mix, c.Rate)
	case isa == AVX512:
		sgdMomentumAVX512(&p[0], &g[0], &b[0], len(p), c.Scale, c.L2, c.Momentum, c.Mix, c.Rate)
	case isa == AVX2 && c.Nesterov:
		sgdNesterovAVX2(&p[0], &g[0], &b[0], len(p), c.Scale, c.L2, c.Momentum, c.Mix, c.Rate)
	case isa == AVX2:
		sgdMomentumAVX2(&p[0], &g[0], &b[0], len(p), c.Scale, c.L2, c.Momentum, c.Mix, c.Rate)
	default:
		sgdRef(c, p, g, b)
	}
}

func addAbs64(lanes *[4]float64, x []float32) {
	if vectors() == Scalar {
		addAbs64Ref(lanes, x)
		return
	}
	addAbs64AVX2(&lanes[0], &x[0], len(x))
}

func addSquares64(lanes *[4]float64, x []float32) {
	if vectors() == Scalar {
		addSquares64Ref(lanes, x)
		return
	}
	addSquares64AVX2(&lanes[0], &x[0], len(x))
}

func ternaryRow(dst []byte, w []float32, half float32) {
	switch vectors() {
	case AVX512:
		ternaryRowAVX512(&dst[0], &w[0], len(w)/BlockCols, half)
	case AVX2:
		ternaryRowAVX2(&dst[0], &w[0], len(w)/BlockCols, half)
	default:
		ternaryRowRef(dst, w, half)
	}
}
