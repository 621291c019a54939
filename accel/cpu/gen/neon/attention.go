package main

import "fmt"

// lanes are sixteen float32, one for each lane of the package's reductions.
type lanes [4]vec

func newLanes() lanes { return lanes(newVecs(4)) }

func (l lanes) free() { release(l[:]...) }

func (l lanes) load(p reg)  { ldrs(l[:], p, 0) }
func (l lanes) store(p reg) { strs(l[:], p, 0) }

// Instructions for all sixteen.

func three16(op func(d, n, m vec), d, n, m lanes) {
	for i := range d {
		op(d[i], n[i], m[i])
	}
}

func with(op func(d, n, m vec), d, n lanes, m vec) {
	for i := range d {
		op(d[i], n[i], m)
	}
}

func two16(op func(d, n vec), d, n lanes) {
	for i := range d {
		op(d[i], n[i])
	}
}

// transpose takes l as four rows of four; it spoils t.
func (l lanes) transpose(t lanes) {
	zip1(t[0], l[0], l[2])
	zip2(t[1], l[0], l[2])
	zip1(t[2], l[1], l[3])
	zip2(t[3], l[1], l[3])
	zip1(l[0], t[0], t[2])
	zip2(l[1], t[0], t[2])
	zip1(l[2], t[1], t[3])
	zip2(l[3], t[1], t[3])
}

func attention() {
	for _, f := range factors {
		for _, rows := range []int{4, 2, 1} {
			addProduct(f, rows)
		}
	}
	for _, rows := range []int{2, 1} {
		addIntPairs(rows)
	}
	roundRow()
	toHalves()
	toBFloats()
	dot()
	expSum()
	maxLanes()
	foldLanes("sumLanes", "lanes[i] + lanes[i+n/2] for n = 16, 8, 4, 2", func(upper, lower, t vec) { fadd(lower, lower, upper) })
	foldLanes("topLane", "the larger of lanes[i+n/2] and lanes[i] for n = 16, 8, 4, 2 (the latter unless the former is larger)", larger)
	transpose()
}

// larger puts v in top where it is larger; NaN never is.
func larger(v, top, t vec) {
	fcmgt(t, v, top)
	bit(top, v, t)
}

// factor is how the right factor of a product is stored; load gives sixteen of its elements.
type factor struct {
	name, typ string
	shift     int // log2 of the bytes of an element
	load      func(l lanes, p reg)
}

var factors = []factor{
	{"", "*float32", 2, lanes.load},
	{"Half", "*uint16", 1, func(l lanes, p reg) { l.widen(p, halves, halves2) }},
	{"BF16", "*uint16", 1, func(l lanes, p reg) { l.widen(p, shll, shll2) }},
}

// widen loads elements of 16 bits; lower makes four of 32 bits of a vector's first four, upper of the others.
func (l lanes) widen(p reg, lower, upper func(d, n vec)) {
	ldr(l[1], p, 0)
	ldr(l[3], p, 16)
	for i := 0; i < 4; i += 2 {
		lower(l[i], l[i+1])
		upper(l[i+1], l[i+1])
	}
}

// addProduct keeps a tile of sums in registers while it goes over k.
func addProduct(f factor, rows int) {
	text(fmt.Sprintf("addProduct%sNEONr%d", f.name, rows), fmt.Sprintf("c *float32, ldc int, a *float32, row, step int, b %s, ldb, n int", f.typ), "",
		fmt.Sprintf("c[i*ldc+j] += a[i*row+k*step]*b[k*ldb+j], fused, for k = 0..n-1 in this order, i < %d and j < 16; n > 0.", rows))
	from, to := pointers(load("a"), loadBytes("row", 2), rows), pointers(load("c"), loadBytes("ldc", 2), rows)
	b, ldb, step, n := load("b"), loadBytes("ldb", f.shift), loadBytes("step", 2), load("n")
	sum := make([]lanes, rows)
	for i := range sum {
		sum[i] = newLanes()
		sum[i].load(to[i])
	}
	right, x := newLanes(), newVec()
	loop(n, 1, func() {
		f.load(right, b)
		addReg(b, ldb)
		for i := range sum {
			ldr32(x, from[i])
			addReg(from[i], step)
			with(fmla, sum[i], right, x)
		}
	})
	for i := range sum {
		sum[i].store(to[i])
	}
	ret()
}

// addIntPairs keeps twice as many sums as its tile has: those of the even and of the odd terms, which it adds at the end.
func addIntPairs(rows int) {
	text(fmt.Sprintf("addPairsNEONr%d", rows), "c *float32, ldc int, a *int16, lda int, scale *float32, b *int8, ldb, n int", "",
		"c[i*ldc+j] += scale[i] * (sum of a[i*lda+2*k]*b[k*ldb+2*j] + a[i*lda+2*k+1]*b[k*ldb+2*j+1] for k < n), fused,",
		fmt.Sprintf("the sum an int32 that becomes a float32, for i < %d and j < 16; n > 0.", rows))
	from, to := pointers(load("a"), loadBytes("lda", 1), rows), pointers(load("c"), loadBytes("ldc", 2), rows)
	scale, b, ldb, n := load("scale"), load("b"), load("ldb"), load("n")
	sum := make([][2]lanes, rows)
	for i := range sum {
		sum[i] = [2]lanes{newLanes(), newLanes()}
		zero(sum[i][0][:]...)
		zero(sum[i][1][:]...)
	}
	right, x := newLanes(), newVec()
	loop(n, 1, func() {
		ldrs(right[2:], b, 0)
		addReg(b, ldb)
		sxtlBytes(right[0], right[2])
		sxtlBytes2(right[1], right[2])
		sxtlBytes(right[2], right[3])
		sxtlBytes2(right[3], right[3])
		for i := range sum {
			ldr32(x, from[i])
			add(from[i], 4)
			with(smlalHalves, sum[i][0], right, x)
			with(smlalHalves2, sum[i][1], right, x)
		}
	})
	for i := range sum {
		three16(addPairs, sum[i][0], sum[i][0], sum[i][1])
		two16(scvtf, sum[i][0], sum[i][0])
		ldr32(x, scale)
		add(scale, 4)
		right.load(to[i])
		with(fmla, right, sum[i][0], x)
		right.store(to[i])
	}
	ret()
}

func roundRow() {
	text("roundRowNEON", "dst *int16, x *float32, n int, s, limit float32", "",
		"dst[i] = clamp(roundHalfEven(x[i]*s), -limit, limit) for i < n; n > 0 and a multiple of 16.")
	dst, x, n, s, high, v := load("dst"), load("x"), load("n"), splat("s"), splat("limit"), newLanes()
	low := newVec()
	fneg(low, high)
	loop(n, 16, func() {
		v.load(x)
		add(x, 64)
		round(v, s, low, high)
		uzp1Halves(v[0], v[0], v[1])
		uzp1Halves(v[1], v[2], v[3])
		strs(v[:2], dst, 0)
		add(dst, 32)
	})
	ret()
}

func toHalves() {
	text("toHalvesNEON", "dst *uint16, x *float32, n int", "", "dst[i] = x[i] in half precision, rounded half to even, for i < n; n > 0 and a multiple of 16.")
	dst, x, n, v := load("dst"), load("x"), load("n"), newLanes()
	loop(n, 16, func() {
		v.load(x)
		add(x, 64)
		for i := 0; i < 4; i += 2 {
			fcvtn(v[i], v[i])
			fcvtn2(v[i], v[i+1])
		}
		str(v[0], dst, 0)
		str(v[2], dst, 16)
		add(dst, 32)
	})
	ret()
}

// toBFloats adds to 32 bits just less than half of what the upper sixteen count in, or half of that where these are odd, and keeps them.
func toBFloats() {
	text("toBF16NEON", "dst *uint16, x *float32, n int", "", "dst[i] = x[i] as bfloat16, rounded half to even, NaN quiet, for i < n; n > 0 and a multiple of 16.")
	dst, x, n, v, t, quiet := load("dst"), load("x"), load("n"), newLanes(), newLanes(), newLanes()
	one, nearly := words(1), words(0x7fff)
	loop(n, 16, func() {
		v.load(x)
		add(x, 64)
		for i := range t {
			ushr(t[i], v[i], 16)
		}
		with(and, t, t, one)
		with(addWords, t, t, nearly)
		three16(addWords, t, t, v)
		three16(fadd, quiet, v, v) // of NaN the same, but quiet
		three16(fcmeq, v, v, v)
		three16(bif, t, quiet, v)
		uzp2Halves(t[0], t[0], t[1])
		uzp2Halves(t[2], t[2], t[3])
		str(t[0], dst, 0)
		str(t[2], dst, 16)
		add(dst, 32)
	})
	ret()
}

func dot() {
	text("dotNEON", "lanes *float32, a, b *float32, n int", "", "lanes[i mod 16] += a[i]*b[i], fused, for i < n in ascending order; n > 0 and a multiple of 16.")
	to, a, b, n := load("lanes"), load("a"), load("b"), load("n")
	sum, x, y := newLanes(), newLanes(), newLanes()
	sum.load(to)
	loop(n, 16, func() {
		x.load(a)
		y.load(b)
		add(a, 64)
		add(b, 64)
		three16(fmla, sum, x, y)
	})
	sum.store(to)
	ret()
}

func expSum() {
	text("expSumNEON", "lanes, x *float32, n int, shift float32", "", "x[j] = exp(x[j]-shift), lanes[j mod 16] += x[j] for j < n in ascending order;", "n > 0 and a multiple of 16.")
	to, x, n, by, t := load("lanes"), load("x"), load("n"), splat("shift"), table()
	sum, v := newLanes(), newLanes()
	sum.load(to)
	loop(n, 16, func() {
		v.load(x)
		with(fsub, v, v, by)
		e := exp(v, t)
		e.store(x)
		three16(fadd, sum, sum, e)
		e.free()
		add(x, 64)
	})
	sum.store(to)
	ret()
}

// exp is expRef step by step; it keeps x.
func exp(x lanes, table reg) lanes {
	t, n, r, p := newLanes(), newLanes(), newLanes(), newLanes()
	by := func(op func(d, n, m vec), d, n lanes, c int) {
		v := constant(table, c)
		with(op, d, n, v)
		release(v)
	}
	fill := func(l lanes, c int) {
		for _, v := range l {
			ldr(v, table, 16*c)
		}
	}
	fill(t, cMagic)
	by(fmla, t, x, cLog2e)
	by(fsub, n, t, cMagic)
	three16(orr, r, x, x)
	by(fmls, r, n, cLn2Hi)
	by(fmls, r, n, cLn2Lo)
	fill(p, cC0)
	for c := cC1; c <= cC5; c++ {
		fill(n, c)
		three16(fmla, n, p, r)
		p, n = n, p
	}
	three16(fmul, n, r, r)
	three16(fmla, r, p, n)
	p, r = r, p
	by(fadd, p, p, cOne)
	for i := range p {
		shl(t[i], t[i], 23)
	}
	three16(addWords, p, p, t)
	low := constant(table, cExpLow)
	for i := range p {
		fcmgt(t[i], low, x[i])
	}
	three16(bic, p, p, t)
	release(low)
	by(fcmgt, t, x, cExpHigh)
	inf := constant(table, cInf)
	for i := range p {
		bit(p[i], inf, t[i])
	}
	release(inf)
	three16(fcmeq, t, x, x)
	three16(bif, p, x, t)
	t.free()
	n.free()
	r.free()
	return p
}

func maxLanes() {
	text("maxLanesNEON", "lanes, x *float32, n int", "", "lanes[j mod 16] = x[j] if that is larger, for j < n; n > 0 and a multiple of 16.")
	to, x, n := load("lanes"), load("x"), load("n")
	top, v, t := newLanes(), newLanes(), newLanes()
	top.load(to)
	loop(n, 16, func() {
		v.load(x)
		add(x, 64)
		for i := range v {
			larger(v[i], top[i], t[i])
		}
	})
	top.store(to)
	ret()
}

// foldLanes reduces sixteen lanes as a tree.
func foldLanes(name, formula string, op func(upper, lower, t vec)) {
	text(name+"NEON", "lanes *float32", "float32", "folds sixteen lanes to one: "+formula+".")
	p, l, u, t := load("lanes"), newLanes(), newVec(), newVec()
	l.load(p)
	op(l[2], l[0], t)
	op(l[3], l[1], t)
	op(l[1], l[0], t)
	ext(u, l[0], l[0], 2)
	op(u, l[0], t)
	dup(u, l[0], 1)
	op(u, l[0], t)
	line("FMOVS F%d, ret+%d(FP)", l[0], offset("ret"))
	ret()
}

// transpose goes by squares of eight, as four of four.
func transpose() {
	text("transposeNEON", "dst *float32, ldd int, x *float32, ldx, rows, cols int", "", "dst[c*ldd+r] = x[r*ldx+c] for r < rows and c < cols, both > 0 and multiples of 8.")
	dst, ldd, x, ldx, n := load("dst"), loadBytes("ldd", 2), load("x"), loadBytes("ldx", 2), load("rows")
	cols, to, from, p := newReg(), newReg(), newReg(), newReg()
	v, t := newLanes(), newLanes()
	loop(n, 4, func() {
		line("MOVD cols+%d(FP), %v", offset("cols"), cols)
		line("MOVD %v, %v", dst, to)
		line("MOVD %v, %v", x, from)
		loop(cols, 4, func() {
			line("MOVD %v, %v", from, p)
			for i := range v {
				ldr(v[i], p, 0)
				if i < 3 {
					addReg(p, ldx)
				}
			}
			v.transpose(t)
			for i := range v {
				str(v[i], to, 0)
				addReg(to, ldd)
			}
			add(from, 16)
		})
		add(dst, 16)
		line("ADD %v<<2, %v, %v", ldx, x, x)
	})
	ret()
}
