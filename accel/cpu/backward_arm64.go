package cpu

func relu2Grad(dg, du, g, u, dy []float32) {
	if !vectors() {
		relu2GradRef(dg, du, g, u, dy)
		return
	}
	relu2GradNEON(&dg[0], &du[0], &g[0], &u[0], &dy[0], len(g))
}

func rmsNormDot(lanes *[Lanes]float32, x, w, dy []float32) {
	if !vectors() {
		rmsNormDotRef(lanes, x, w, dy)
		return
	}
	rmsNormDotNEON(&lanes[0], &x[0], &w[0], &dy[0], len(x))
}

func rmsNormGrad(dx, dw, x, w, dy []float32, inv, mean float32, add bool) {
	switch {
	case !vectors():
		rmsNormGradRef(dx, dw, x, w, dy, inv, mean, add)
	case add:
		rmsNormGradAddNEON(&dx[0], &dw[0], &x[0], &w[0], &dy[0], len(x), inv, mean)
	default:
		rmsNormGradNEON(&dx[0], &dw[0], &x[0], &w[0], &dy[0], len(x), inv, mean)
	}
}

func rotate(lo, hi, cos, sin []float32, direction float32) {
	if !vectors() {
		rotateRef(lo, hi, cos, sin, direction)
		return
	}
	rotateNEON(&lo[0], &hi[0], &cos[0], &sin[0], len(lo), direction)
}

func adam(c *AdamStep, p, g, m, v []float32) {
	if !vectors() {
		adamRef(c, p, g, m, v)
		return
	}
	adamNEON(&p[0], &g[0], &m[0], &v[0], len(p), c.Scale, c.L2, c.Keep, c.Mix, c.Beta2, c.Mix2, c.Root, c.Eps, c.Rate)
}

func sgd(c *SGDStep, p, g, b []float32) {
	switch {
	case !vectors():
		sgdRef(c, p, g, b)
	case c.Nesterov:
		sgdNesterovNEON(&p[0], &g[0], &b[0], len(p), c.Scale, c.L2, c.Momentum, c.Mix, c.Rate)
	default:
		sgdMomentumNEON(&p[0], &g[0], &b[0], len(p), c.Scale, c.L2, c.Momentum, c.Mix, c.Rate)
	}
}

func absMaxColumns(top, x []float32, f float32) {
	if !vectors() {
		absMaxColumnsRef(top, x, f)
		return
	}
	absMaxColumnsNEON(&top[0], &x[0], len(x), f)
}

func addAbs64(lanes *[4]float64, x []float32) {
	if !vectors() {
		addAbs64Ref(lanes, x)
		return
	}
	addAbs64NEON(&lanes[0], &x[0], len(x))
}

func addSquares64(lanes *[4]float64, x []float32) {
	if !vectors() {
		addSquares64Ref(lanes, x)
		return
	}
	addSquares64NEON(&lanes[0], &x[0], len(x))
}
