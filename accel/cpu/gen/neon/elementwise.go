package main

func elementwise() {
	sumSquares()
	absMax()
	quantizeInt8()
	quantizeInt16()

	mapping("scale", "dst, x *float32, n int, s float32", "dst[i] = x[i]*s", func(m mapped) lanes {
		with(fmul, m.in["x"], m.in["x"], m.s)
		return m.in["x"]
	})
	mapping("scaleMul", "dst, x, w *float32, n int, s float32", "dst[i] = (x[i]*s)*w[i]", func(m mapped) lanes {
		with(fmul, m.in["x"], m.in["x"], m.s)
		three16(fmul, m.in["x"], m.in["x"], m.in["w"])
		return m.in["x"]
	})
	mapping("mul", "dst, a, b *float32, n int", "dst[i] = a[i]*b[i]", func(m mapped) lanes {
		three16(fmul, m.in["a"], m.in["a"], m.in["b"])
		return m.in["a"]
	})
	mapping("add", "dst, a, b *float32, n int", "dst[i] = a[i]+b[i]", func(m mapped) lanes {
		three16(fadd, m.in["a"], m.in["a"], m.in["b"])
		return m.in["a"]
	})
	mapping("subMul", "dst, a, b *float32, n int, s float32", "dst[i] = (a[i]-s)*b[i]", func(m mapped) lanes {
		with(fsub, m.in["a"], m.in["a"], m.s)
		three16(fmul, m.in["a"], m.in["a"], m.in["b"])
		return m.in["a"]
	})
	mapping("silu", "dst, x *float32, n int", "dst[i] = x[i] / (1+exp(-x[i]))", func(m mapped) lanes {
		x, neg := m.in["x"], newLanes()
		two16(fneg, neg, x)
		e := exp(neg, m.table)
		m.by(fadd, e, e, cOne)
		three16(fdiv, x, x, e)
		return x
	})
	mapping("relu2", "dst, x *float32, n int", "dst[i] = max(x[i], 0)^2", func(m mapped) lanes {
		x := m.in["x"]
		positive(x, newLanes())
		three16(fmul, x, x, x)
		return x
	})
	mapping("dequantRow", "dst *float32, acc *int32, n int, s float32", "dst[i] = float32(acc[i])*s", func(m mapped) lanes {
		two16(scvtf, m.in["acc"], m.in["acc"])
		with(fmul, m.in["acc"], m.in["acc"], m.s)
		return m.in["acc"]
	})
}

// positive makes numbers below zero zero; NaN and -0 stay.
func positive(x, t lanes) {
	two16(fcmlt0, t, x)
	three16(bic, x, x, t)
}

// mapped is what one step of a mapping works with.
type mapped struct {
	in    map[string]lanes // sixteen elements of each parameter
	s     vec
	table reg
}

// by calls op with a constant.
func (m mapped) by(op func(d, n, m vec), d, n lanes, c int) {
	v := constant(m.table, c)
	with(op, d, n, v)
	release(v)
}

// mapping emits dst[i] = f(inputs[i]) for i < n.
func mapping(name, list, formula string, f func(mapped) lanes) {
	text(name+"NEON", list, "", formula+" for i < n; n > 0 and a multiple of 16; dst may be an input.")
	dst, n := load("dst"), load("n")
	m := mapped{in: map[string]lanes{}, table: table()}
	var from []reg
	var in []lanes
	for _, p := range []string{"x", "w", "a", "b", "acc"} {
		if has(p) {
			m.in[p] = newLanes()
			from, in = append(from, load(p)), append(in, m.in[p])
		}
	}
	if has("s") {
		m.s = splat("s")
	}
	loop(n, 16, func() {
		for i, r := range from {
			in[i].load(r)
			add(r, 64)
		}
		f(m).store(dst)
		add(dst, 64)
	})
	ret()
}

func sumSquares() {
	text("sumSquaresNEON", "lanes, x *float32, n int", "", "lanes[i mod 16] += x[i]*x[i] for i < n in ascending order; n > 0 and a multiple of 16.")
	to, x, n := load("lanes"), load("x"), load("n")
	sum, v := newLanes(), newLanes()
	sum.load(to)
	loop(n, 16, func() {
		v.load(x)
		add(x, 64)
		three16(fmul, v, v, v)
		three16(fadd, sum, sum, v)
	})
	sum.store(to)
	ret()
}

func absMax() {
	text("absMaxNEON", "lanes, x *float32, n int", "", "lanes[i mod 16] = max |x[i]| by bit pattern (NaN is the largest) for i < n;", "n > 0 and a multiple of 16.")
	to, x, n := load("lanes"), load("x"), load("n")
	top, v := newLanes(), newLanes()
	zero(top[:]...)
	loop(n, 16, func() {
		v.load(x)
		add(x, 64)
		two16(fabs, v, v)
		three16(umax, top, top, v)
	})
	top.store(to)
	ret()
}

func quantizeInt8() {
	text("quantizeInt8NEON", "lanes *int32, dst *int8, x *float32, n int, s float32", "",
		"dst[i] = clamp(roundHalfEven(x[i]*s), -128, 127), lanes = sixteen partial sums of dst,", "for i < n; n > 0 and a multiple of 16.")
	to, dst, x, n, s, t := load("lanes"), load("dst"), load("x"), load("n"), splat("s"), table()
	low, high, sum, v := constant(t, cMin8), constant(t, cMax8), newLanes(), newLanes()
	zero(sum[:]...)
	loop(n, 16, func() {
		v.load(x)
		add(x, 64)
		round(v, s, low, high)
		three16(addWords, sum, sum, v)
		v.storeInt8(dst)
		add(dst, 16)
	})
	sum.store(to)
	ret()
}

// round: v = clamp(roundHalfEven(v*s), low, high) as integers; NaN gives low.
func round(v lanes, s, low, high vec) {
	with(fmul, v, v, s)
	with(fmaxnm, v, v, low)
	with(fminnm, v, v, high)
	two16(fcvtns, v, v)
}

// storeInt8 stores sixteen int32 as int8, which they fit; it spoils l.
func (l lanes) storeInt8(dst reg) {
	uzp1Halves(l[0], l[0], l[1])
	uzp1Halves(l[2], l[2], l[3])
	uzp1Bytes(l[0], l[0], l[2])
	str(l[0], dst, 0)
}

func quantizeInt16() {
	text("quantizeInt16NEON", "lanes *int32, hi, lo *int8, x *float32, n int, s float32", "",
		"v = clamp(roundHalfEven(x[i]*s), -32512, 32512), hi[i] = (v+128)>>8, lo[i] = v - 256*hi[i],",
		"lanes = sixteen partial sums of hi and then sixteen of lo, for i < n; n > 0 and a multiple of 16.")
	to, hi, lo, x, n, s, t := load("lanes"), load("hi"), load("lo"), load("x"), load("n"), splat("s"), table()
	low, high, half := constant(t, cMin16), constant(t, cMax16), constant(t, c128)
	sumHi, sumLo, h, l, v := newLanes(), newLanes(), newLanes(), newLanes(), newLanes()
	zero(sumHi[:]...)
	zero(sumLo[:]...)
	loop(n, 16, func() {
		l.load(x)
		add(x, 64)
		round(l, s, low, high)
		with(addWords, h, l, half)
		for i := range h {
			sshr(h[i], h[i], 8)
			shl(v[i], h[i], 8)
		}
		three16(subWords, l, l, v)
		three16(addWords, sumHi, sumHi, h)
		three16(addWords, sumLo, sumLo, l)
		h.storeInt8(hi)
		l.storeInt8(lo)
		add(hi, 16)
		add(lo, 16)
	})
	sumHi.store(to)
	strs(sumLo[:], to, 64)
	ret()
}
