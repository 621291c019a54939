package main

// backward emits kernels that training alone needs, and those of rotary positions, which it shares with inference.
func backward() {
	rotate()
	joinPlanes()
	relu2Grad()
	rmsNormDot()
	rmsNormGrad("rmsNormGrad", "dx[i] = ", "; dx may be dy")
	rmsNormGrad("rmsNormGradAdd", "dx[i] += ", "")
	absMaxColumns()
	adam()
	sgdMomentum("sgdMomentum", false)
	sgdMomentum("sgdNesterov", true)
	sum64("addAbs64", "|x[i]|", func(v vec) { fabs64(v, v) })
	sum64("addSquares64", "x[i]*x[i]", func(v vec) { fmul64(v, v, v) })
}

// slices loads the pointers of a loop over vectors of sixteen elements.
type slices16 map[string]reg

func loadSlices(names ...string) slices16 {
	s := slices16{}
	for _, name := range names {
		s[name] = load(name)
	}
	return s
}

func (s slices16) load(name string) lanes {
	l := newLanes()
	l.load(s[name])
	return l
}

func (s slices16) advance(names ...string) {
	for _, name := range names {
		add(s[name], 64)
	}
}

func rotate() {
	text("rotateNEON", "lo, hi, cos, sin *float32, n int, direction float32", "",
		"with s = direction*sin[i], lo[i], hi[i] = lo[i]*cos[i] - hi[i]*s, hi[i]*cos[i] + lo[i]*s for i < n;", "n > 0 and a multiple of 16.")
	names := []string{"lo", "hi", "cos", "sin"}
	p, n, direction := loadSlices(names...), load("n"), splat("direction")
	loop(n, 16, func() {
		a, b, c, s, t := p.load("lo"), p.load("hi"), p.load("cos"), p.load("sin"), newLanes()
		with(fmul, s, s, direction)
		three16(fmul, t, b, s)
		three16(fmul, s, a, s)
		three16(fmul, a, a, c)
		three16(fmul, b, b, c)
		three16(fsub, a, a, t)
		three16(fadd, b, b, s)
		a.store(p["lo"])
		b.store(p["hi"])
		p.advance(names...)
	})
	ret()
}

func joinPlanes() {
	text("joinPlanesNEON", "dst *float32, hi, lo *int32, n int, scale, inv float32, add int", "",
		"dst[i] = ((float32(hi[i])*256 + float32(lo[i])) * scale) * inv for i < n, a multiple of 16 > 0; add: dst += that.")
	p, n, more := loadSlices("dst", "hi", "lo"), load("n"), load("add")
	scale, inv, times := splat("scale"), splat("inv"), constant(table(), c256)
	loop(n, 16, func() {
		hi, lo := p.load("hi"), p.load("lo")
		two16(scvtf, hi, hi)
		two16(scvtf, lo, lo)
		with(fmul, hi, hi, times)
		three16(fadd, hi, hi, lo)
		with(fmul, hi, hi, scale)
		with(fmul, hi, hi, inv)
		unlessZero(more, func() {
			lo.load(p["dst"])
			three16(fadd, hi, hi, lo)
		})
		hi.store(p["dst"])
		p.advance("dst", "hi", "lo")
	})
	ret()
}

func relu2Grad() {
	text("relu2GradNEON", "dg, du, x, u, dy *float32, n int", "",
		"with p = max(x[i], 0), dg[i] = (dy[i]*u[i])*(2*p), du[i] = dy[i]*(p*p) for i < n;", "n > 0 and a multiple of 16; outputs may be inputs.")
	names := []string{"dg", "du", "x", "u", "dy"}
	p, n := loadSlices(names...), load("n")
	loop(n, 16, func() {
		x, u, dy, t := p.load("x"), p.load("u"), p.load("dy"), newLanes()
		positive(x, t)
		three16(fmul, u, dy, u)
		three16(fadd, t, x, x)
		three16(fmul, u, u, t)
		three16(fmul, x, x, x)
		three16(fmul, x, dy, x)
		u.store(p["dg"])
		x.store(p["du"])
		p.advance(names...)
	})
	ret()
}

func rmsNormDot() {
	text("rmsNormDotNEON", "lanes *float32, x, w, dy *float32, n int", "",
		"lanes[i mod 16] = sum of (dy[i]*w[i])*x[i] for i < n in ascending order; n > 0 and a multiple of 16.")
	to, p, n, sum := load("lanes"), loadSlices("x", "w", "dy"), load("n"), newLanes()
	zero(sum[:]...)
	loop(n, 16, func() {
		x, w, dy := p.load("x"), p.load("w"), p.load("dy")
		three16(fmul, dy, dy, w)
		three16(fmul, dy, dy, x)
		three16(fadd, sum, sum, dy)
		p.advance("x", "w", "dy")
	})
	sum.store(to)
	ret()
}

func rmsNormGrad(name, assign, alias string) {
	text(name+"NEON", "dx, dw, x, w, dy *float32, n int, inv, mean float32", "",
		"with h = x[i]*inv, dw[i] += dy[i]*h, "+assign+"(dy[i]*w[i] - h*mean)*inv for i < n;", "n > 0 and a multiple of 16"+alias+".")
	names := []string{"dx", "dw", "x", "w", "dy"}
	p, n, inv, mean := loadSlices(names...), load("n"), splat("inv"), splat("mean")
	loop(n, 16, func() {
		h, dy, t, dw := p.load("x"), p.load("dy"), newLanes(), p.load("dw")
		with(fmul, h, h, inv)
		three16(fmul, t, dy, h)
		three16(fadd, t, dw, t)
		t.store(p["dw"])
		w := dw
		w.load(p["w"])
		three16(fmul, t, dy, w)
		with(fmul, h, h, mean)
		three16(fsub, t, t, h)
		with(fmul, t, t, inv)
		if alias == "" {
			h.load(p["dx"])
			three16(fadd, t, h, t)
		}
		t.store(p["dx"])
		p.advance(names...)
	})
	ret()
}

func absMaxColumns() {
	text("absMaxColumnsNEON", "top, x *float32, n int, f float32", "",
		"top[i] = max(top[i], |x[i]*f|) by bit pattern (NaN is the largest) for i < n; n > 0 and a multiple of 16.")
	p, n, f := loadSlices("top", "x"), load("n"), splat("f")
	loop(n, 16, func() {
		top, x := p.load("top"), p.load("x")
		with(fmul, x, x, f)
		two16(fabs, x, x)
		three16(umax, top, top, x)
		top.store(p["top"])
		p.advance("top", "x")
	})
	ret()
}

func adam() {
	text("adamNEON", "p, grad, m, v *float32, n int, scale, l2, keep, mix, beta2, mix2, root, eps, rate float32", "",
		"d = scale*grad + l2*p, m += mix*(d-m), v = v*beta2 + (mix2*d)*d, p = p*keep + (rate*m)/(sqrt(v)/root + eps)",
		"for each of n elements, n > 0 and a multiple of 16.")
	names := []string{"p", "grad", "m", "v"}
	at, n := loadSlices(names...), load("n")
	f := map[string]vec{}
	for _, name := range []string{"scale", "l2", "keep", "mix", "beta2", "mix2", "root", "eps", "rate"} {
		f[name] = splat(name)
	}
	loop(n, 16, func() {
		p, d, m, v, t := at.load("p"), at.load("grad"), at.load("m"), at.load("v"), newLanes()
		with(fmul, d, d, f["scale"])
		with(fmul, t, p, f["l2"])
		three16(fadd, d, d, t)
		three16(fsub, t, d, m)
		with(fmul, t, t, f["mix"])
		three16(fadd, m, m, t)
		m.store(at["m"])
		with(fmul, t, d, f["mix2"])
		three16(fmul, t, t, d)
		with(fmul, v, v, f["beta2"])
		three16(fadd, v, v, t)
		v.store(at["v"])
		two16(fsqrt, v, v)
		with(fdiv, v, v, f["root"])
		with(fadd, v, v, f["eps"])
		with(fmul, m, m, f["rate"])
		three16(fdiv, m, m, v)
		with(fmul, p, p, f["keep"])
		three16(fadd, p, p, m)
		p.store(at["p"])
		at.advance(names...)
	})
	ret()
}

// sgdMomentum: with Nesterov's momentum the step is that of the next update.
func sgdMomentum(name string, nesterov bool) {
	formula := "b = b*momentum + mix*d, p += rate*b"
	if nesterov {
		formula = "b = b*momentum + mix*d, p += rate*(d + momentum*b)"
	}
	text(name+"NEON", "p, grad, b *float32, n int, scale, l2, momentum, mix, rate float32", "",
		"d = scale*grad + l2*p, "+formula+" for each of n elements,", "n > 0 and a multiple of 16.")
	names := []string{"p", "grad", "b"}
	at, n := loadSlices(names...), load("n")
	scale, l2, momentum, mix, rate := splat("scale"), splat("l2"), splat("momentum"), splat("mix"), splat("rate")
	loop(n, 16, func() {
		p, d, b, t := at.load("p"), at.load("grad"), at.load("b"), newLanes()
		with(fmul, d, d, scale)
		with(fmul, t, p, l2)
		three16(fadd, d, d, t)
		with(fmul, b, b, momentum)
		with(fmul, t, d, mix)
		three16(fadd, b, b, t)
		b.store(at["b"])
		if nesterov {
			with(fmul, b, b, momentum)
			three16(fadd, b, d, b)
		}
		with(fmul, b, b, rate)
		three16(fadd, p, p, b)
		p.store(at["p"])
		at.advance(names...)
	})
	ret()
}

// sum64 adds in float64.
func sum64(name, term string, f func(v vec)) {
	text(name+"NEON", "lanes *float64, x *float32, n int", "", "lanes[i mod 4] += float64 of "+term+" for i < n in ascending order; n > 0 and a multiple of 16.")
	to, x, n, sum := load("lanes"), load("x"), load("n"), newVecs(2)
	ldrs(sum, to, 0)
	loop(n, 16, func() {
		v := newLanes()
		v.load(x)
		add(x, 64)
		half := newVec()
		for i := range v {
			fcvtl(half, v[i])
			fcvtl2(v[i], v[i])
			f(half)
			f(v[i])
			fadd64(sum[0], sum[0], half)
			fadd64(sum[1], sum[1], v[i])
		}
	})
	strs(sum, to, 0)
	ret()
}
