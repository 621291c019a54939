package main

import (
	"fmt"
	"strings"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// backward emits the kernels that only training needs.
func backward(s simd) {
	relu2Grad(s)
	rmsNormDot(s)
	rmsNormGrad(s, "rmsNormGrad", "dx[i] = ", "; dx may be dy")
	rmsNormGrad(s, "rmsNormGradAdd", "dx[i] += ", "")
	rotate(s)
	absMaxColumns(s)
	quantizeColumns(s)
	ternaryFlip(s)
	joinPlanes(s)
	ternaryRow(s)
	adam(s)
	for _, nesterov := range []bool{false, true} {
		sgdMomentum(s, nesterov)
	}
	if !s.wide() {
		int8Columns()
		transpose()
		sum64("addAbs64", "|x[i]|", func(v reg.VecVirtual) { VANDPD(constant(cAbs64), v, v) })
		sum64("addSquares64", "x[i]*x[i]", func(v reg.VecVirtual) { VMULPD(v, v, v) })
		foldLanes("sumLanes", "lanes[i] + lanes[i+n/2] for n = 16, 8, 4, 2", func(upper, lower, to reg.Register) { VADDPS(upper, lower, to) })
		foldLanes("topLane", "the larger of lanes[i+n/2] and lanes[i] for n = 16, 8, 4, 2 (the latter unless the former is larger)",
			func(upper, lower, to reg.Register) { VMAXPS(lower, upper, to) })
	}
}

// lanes is the state of a loop over vectors of 16 elements.
type lanes struct {
	s     simd
	i     reg.Register // bytes done
	parts map[string]reg.Register
	f     map[string]reg.VecVirtual
	part  int
}

// at is the vector of a slice at this step.
func (l lanes) at(name string) operand.Mem {
	return operand.Mem{Base: l.parts[name], Index: l.i, Scale: 1, Disp: l.s.bytes * l.part}
}

// loop16 emits a function with float32 slices and constants as parameters: before, then step for each part of 16 elements, then after.
func loop16(s simd, name, params string, doc []string, before func(), step func(lanes), after func()) {
	name += s.suffix
	TEXT(name, NOSPLIT, "func("+params+")")
	doc[0] = name + ": " + doc[0]
	Doc(doc...)
	Pragma("noescape")
	l := lanes{s: s, parts: map[string]reg.Register{}, f: map[string]reg.VecVirtual{}}
	for _, p := range paramsOf(params, "*float32") {
		l.parts[p] = load(p)
	}
	for _, p := range paramsOf(params, "float32") {
		l.f[p] = s.splatParam(p)
	}
	n := load("n")
	SHLQ(u8(2), n)
	l.i = GP64()
	XORQ(l.i, l.i)
	before()
	Label("loop")
	for l.part = range s.parts {
		step(l)
	}
	ADDQ(u8(64), l.i)
	CMPQ(l.i, n)
	JNE(label("loop"))
	after()
	done()
}

// paramsOf lists the parameters of one type in a list such as "dst, x *float32, n int".
func paramsOf(params, typ string) []string {
	var names []string
	var group []string
	for _, p := range strings.Split(params, ",") {
		f := strings.Fields(p)
		group = append(group, f[0])
		if len(f) > 1 {
			if f[1] == typ {
				names = append(names, group...)
			}
			group = nil
		}
	}
	return names
}

func relu2Grad(s simd) {
	loop16(s, "relu2Grad", "dg, du, x, u, dy *float32, n int",
		[]string{"with p = max(x[i], 0), dg[i] = (dy[i]*u[i])*(2*p), du[i] = dy[i]*(p*p) for i < n;", "n > 0 and a multiple of 16; outputs may be inputs."},
		func() {}, func(l lanes) {
			p, dy, t, zero := s.vec(), s.vec(), s.vec(), s.vec()
			s.zero(zero)
			VMAXPS(l.at("x"), zero, p) // 0 > x ? 0 : x, NaN gives x
			VMOVUPS(l.at("dy"), dy)
			VMULPS(l.at("u"), dy, t)
			VADDPS(p, p, zero)
			VMULPS(zero, t, t)
			VMULPS(p, p, p)
			VMULPS(p, dy, p)
			VMOVUPS(t, l.at("dg"))
			VMOVUPS(p, l.at("du"))
		}, func() {})
}

func rmsNormDot(s simd) {
	var sum []reg.VecVirtual
	var to reg.Register
	loop16(s, "rmsNormDot", "lanes *float32, x, w, dy *float32, n int",
		[]string{"lanes[i mod 16] = sum of (dy[i]*w[i])*x[i] for i < n in ascending order; n > 0 and a multiple of 16."},
		func() {
			to = load("lanes")
			sum = s.regs(s.parts)
			s.zero(sum...)
		}, func(l lanes) {
			t := s.vec()
			VMOVUPS(l.at("dy"), t)
			VMULPS(l.at("w"), t, t)
			VMULPS(l.at("x"), t, t)
			VADDPS(t, sum[l.part], sum[l.part])
		}, func() {
			for p := range sum {
				VMOVUPS(sum[p], at(to, s.bytes*p))
			}
		})
}

func rmsNormGrad(s simd, name, assign, alias string) {
	loop16(s, name, "dx, dw, x, w, dy *float32, n int, inv, mean float32",
		[]string{"with h = x[i]*inv, dw[i] += dy[i]*h, " + assign + "(dy[i]*w[i] - h*mean)*inv for i < n;", "n > 0 and a multiple of 16" + alias + "."},
		func() {}, func(l lanes) {
			h, dy, t := s.vec(), s.vec(), s.vec()
			VMOVUPS(l.at("dy"), dy)
			VMULPS(l.at("x"), l.f["inv"], h)
			VMULPS(h, dy, t)
			VADDPS(l.at("dw"), t, t)
			VMOVUPS(t, l.at("dw"))
			VMULPS(l.at("w"), dy, t)
			VMULPS(l.f["mean"], h, h)
			VSUBPS(h, t, t)
			VMULPS(l.f["inv"], t, t)
			if alias == "" {
				VADDPS(l.at("dx"), t, t)
			}
			VMOVUPS(t, l.at("dx"))
		}, func() {})
}

func rotate(s simd) {
	loop16(s, "rotate", "lo, hi, cos, sin *float32, n int, direction float32",
		[]string{"with s = direction*sin[i], lo[i], hi[i] = lo[i]*cos[i] - hi[i]*s, hi[i]*cos[i] + lo[i]*s for i < n;", "n > 0 and a multiple of 16."},
		func() {}, func(l lanes) {
			a, b, c, d, t := s.vec(), s.vec(), s.vec(), s.vec(), s.vec()
			VMULPS(l.at("sin"), l.f["direction"], d)
			VMOVUPS(l.at("lo"), a)
			VMOVUPS(l.at("hi"), b)
			VMOVUPS(l.at("cos"), c)
			VMULPS(b, d, t)
			VMULPS(a, d, d)
			VMULPS(a, c, a)
			VMULPS(b, c, b)
			VSUBPS(t, a, a)
			VADDPS(d, b, b)
			VMOVUPS(a, l.at("lo"))
			VMOVUPS(b, l.at("hi"))
		}, func() {})
}

func absMaxColumns(s simd) {
	var abs reg.VecVirtual
	loop16(s, "absMaxColumns", "top, x *float32, n int, f float32",
		[]string{"top[i] = max(top[i], |x[i]*f|) by bit pattern (NaN is the largest) for i < n; n > 0 and a multiple of 16."},
		func() {
			abs = s.vec()
			VMOVUPS(constant(cAbs), abs)
		}, func(l lanes) {
			t := s.vec()
			VMULPS(l.at("x"), l.f["f"], t)
			VANDPS(abs, t, t)
			VPMAXSD(l.at("top"), t, t)
			VMOVUPS(t, l.at("top"))
		}, func() {})
}

// quantizeColumns takes as many columns as a register has lanes. With u = v+128, the upper byte of u's 16 bits is hi and the lower
// one lo+128. Two rows share a 32-bit lane, then four; sixteen rows are transposed as 4x4 lanes within each 128 bits.
func quantizeColumns(s simd) {
	name := "quantizeColumns" + s.suffix
	TEXT(name, NOSPLIT, "func(hi, lo *int8, stride int, sumHi, sumLo *int32, x *float32, ldx int, f, s *float32, rows int)")
	Doc(fmt.Sprintf("%s: v = clamp(roundHalfEven((x[r*ldx+c]*f[r])*s[c]), -32512, 32512), hi[c*stride+r] = (v+128)>>8,", name),
		fmt.Sprintf("lo[c*stride+r] = v - 256*hi, sumHi[c] += hi, sumLo[c] += lo for c < %d and r < rows, a multiple of 16 > 0.", s.bytes/4))
	Pragma("noescape")
	hi, lo, stride := load("hi"), load("lo"), load("stride")
	x, ldx, f, scales, n := load("x"), load("ldx"), load("f"), load("s"), load("rows")
	SHLQ(u8(2), ldx)
	lower := reg.VecVirtual(nil)
	if s.wide() {
		lower = s.splat(0xffff)
	}
	scale, sums := s.vec(), s.regs(2) // of hi, lo
	VMOVUPS(at(scales, 0), scale)
	s.zero(sums...)
	var ones reg.VecVirtual
	if s.wide() {
		ones = s.splat(0x01010101)
	}
	Label("loop")
	var out [2][]reg.VecVirtual // [plane][rows/4]
	for range 4 {
		var pair [2]reg.VecVirtual
		for h := range pair {
			var u [2]reg.VecVirtual
			for i := range u {
				v, t := s.vec(), s.vec()
				VBROADCASTSS(at(f, 0), t)
				VMULPS(at(x, 0), t, v)
				VMULPS(scale, v, v)
				VMAXPS(constant(cMin16), v, v) // v > min ? v : min, NaN gives min
				VMINPS(constant(cMax16), v, v)
				VCVTPS2DQ(v, v)
				VPADDD(constant(c128), v, v)
				u[i] = v
				ADDQ(ldx, x)
				ADDQ(u8(4), f)
			}
			VPSLLD(u8(16), u[1], u[1])
			s.lowHigh(u[0], u[1], lower)
			VPSHUFB(constant(cEvenOdd), u[0], u[0]) // lower bytes of the lane's halves, then upper ones
			pair[h] = u[0]
		}
		l, t := s.vec(), s.vec()
		VPSLLD(u8(16), pair[1], t)
		s.move(pair[0], l)
		s.lowHigh(l, t, lower)
		s.xor(constant(cSignBytes), l)
		VPSRLD(u8(16), pair[0], pair[0])
		s.lowHigh(pair[0], pair[1], lower)
		for plane, bytes := range []reg.VecVirtual{pair[0], l} {
			out[plane] = append(out[plane], bytes)
			if s.wide() {
				VPDPBUSD(bytes, ones, sums[plane])
				continue
			}
			VMOVDQU(constant(cOnes8), t)
			VPMADDUBSW(bytes, t, t)
			VPMADDWD(constant(cOnes16), t, t)
			VPADDD(t, sums[plane], sums[plane])
		}
	}
	for plane, to := range []reg.Register{hi, lo} {
		o := out[plane]
		a, b := s.vec(), s.vec()
		VPUNPCKHDQ(o[1], o[0], b)
		VPUNPCKLDQ(o[1], o[0], o[0])
		VPUNPCKHDQ(o[3], o[2], a)
		VPUNPCKLDQ(o[3], o[2], o[2])
		VPUNPCKHQDQ(o[2], o[0], o[1])
		VPUNPCKLQDQ(o[2], o[0], o[0])
		VPUNPCKHQDQ(a, b, o[3])
		VPUNPCKLQDQ(a, b, o[2])
		row := GP64()
		MOVQ(to, row)
		for lane := range s.bytes / 16 {
			for j := range o {
				if lane == 0 {
					VMOVDQU(o[j].AsX(), at(row, 0))
				} else {
					s.extract128(lane, o[j], at(row, 0))
				}
				ADDQ(stride, row)
			}
		}
	}
	ADDQ(u8(16), hi)
	ADDQ(u8(16), lo)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	for plane, name := range []string{"sumHi", "sumLo"} {
		to := load(name)
		VPADDD(at(to, 0), sums[plane], sums[plane])
		s.move(sums[plane], at(to, 0))
	}
	done()
}

// ternaryFlip: the code of a column and row is 1 + (v > half) - (v < -half); four neighbouring rows go to the bytes of the column's lane,
// the next four to the next field of these.
func ternaryFlip(s simd) {
	name := "ternaryFlip" + s.suffix
	TEXT(name, NOSPLIT, "func(dst *byte, w *float32, ldw, blocks int, half float32)")
	Doc(name+": with t(v) = 1 if v > half, -1 if v < -half, else 0: field f of dst[64*b+4*c+j] = t(w[(16*b+4*f+j)*ldw+c]) + 1",
		"for b < blocks, c < 16 and j, f < 4; blocks > 0.")
	Pragma("noescape")
	dst, w, ldw, n, high := load("dst"), load("w"), load("ldw"), load("blocks"), s.splatParam("half")
	SHLQ(u8(2), ldw)
	low, one := s.vec(), s.splat(1)
	VXORPS(constant(cSign), high, low)
	var two reg.VecVirtual
	if s.wide() {
		two = s.splat(2)
	}
	Label("loop")
	out := s.regs(s.parts)
	s.zero(out...)
	for r := range 16 {
		f, j := r/4, r%4
		for p := range out {
			v, code := s.vec(), s.vec()
			VMOVUPS(at(w, s.bytes*p), v)
			if s.wide() {
				more, less := K(), K()
				VCMPPS(u8(moreThan), high, v, more)
				VCMPPS(u8(lessThan), low, v, less)
				VPBLENDMD(two, one, more, code)
				VPSUBD(one, code, less, code)
			} else {
				t := s.vec()
				VCMPPS(u8(moreThan), high, v, t)
				VCMPPS(u8(lessThan), low, v, v)
				VPADDD(v, one, code)
				VPSUBD(t, code, code)
			}
			if shift := 8*j + 2*f; shift > 0 {
				VPSLLD(u8(shift), code, code)
			}
			VPADDD(code, out[p], out[p])
		}
		ADDQ(ldw, w)
	}
	for p := range out {
		s.move(out[p], at(dst, s.bytes*p))
	}
	ADDQ(u8(64), dst)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

func joinPlanes(s simd) {
	name := "joinPlanes" + s.suffix
	TEXT(name, NOSPLIT, "func(dst *float32, hi, lo *int32, n int, scale, inv float32, add int)")
	Doc(name + ": dst[i] = ((float32(hi[i])*256 + float32(lo[i])) * scale) * inv for i < n, a multiple of 16 > 0; add: dst += that.")
	Pragma("noescape")
	dst, hi, lo, n, add := load("dst"), load("hi"), load("lo"), load("n"), load("add")
	scale, inv := s.splatParam("scale"), s.splatParam("inv")
	y, z := s.regs(s.parts), s.vec()
	Label("loop")
	for p := range y {
		VCVTDQ2PS(at(hi, s.bytes*p), y[p])
		VCVTDQ2PS(at(lo, s.bytes*p), z)
		VMULPS(constant(c256), y[p], y[p])
		VADDPS(z, y[p], y[p])
		VMULPS(scale, y[p], y[p])
		VMULPS(inv, y[p], y[p])
	}
	TESTQ(add, add)
	JZ(label("store"))
	for p := range y {
		VADDPS(at(dst, s.bytes*p), y[p], y[p])
	}
	Label("store")
	for p := range y {
		VMOVUPS(y[p], at(dst, s.bytes*p))
	}
	for _, r := range []reg.Register{dst, hi, lo} {
		ADDQ(u8(64), r)
	}
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	done()
}

// int8Columns interleaves the bytes of four rows.
func int8Columns() {
	TEXT("int8ColumnsAVX2", NOSPLIT, "func(dst *byte, stride int, x *int8, ldx, blocks, panels int)")
	Doc("int8ColumnsAVX2: dst[p*stride+64*b+4*c+j] = x[(4*b+j)*ldx+16*p+c] + 128 for p < panels, b < blocks, c < 16 and j < 4; panels, blocks > 0.")
	Pragma("noescape")
	dst, stride, x, ldx, n := load("dst"), load("stride"), load("x"), load("ldx"), load("blocks")
	flip := XMM()
	VMOVDQU(constant(cSignBytes), flip)
	Label("block")
	count, out := GP64(), GP64()
	Load(Param("panels"), count)
	MOVQ(dst, out)
	var rows [4]reg.Register
	for j := range rows {
		rows[j] = GP64()
		if j == 0 {
			MOVQ(x, rows[0])
		} else {
			LEAQ(operand.Mem{Base: rows[j-1], Index: ldx, Scale: 1}, rows[j])
		}
	}
	Label("panel")
	v := make([]reg.VecVirtual, 4)
	for j := range v {
		v[j] = XMM()
		VMOVDQU(at(rows[j], 0), v[j])
	}
	ab, AB, cd, CD := XMM(), XMM(), XMM(), XMM()
	VPUNPCKLBW(v[1], v[0], ab)
	VPUNPCKHBW(v[1], v[0], AB)
	VPUNPCKLBW(v[3], v[2], cd)
	VPUNPCKHBW(v[3], v[2], CD)
	VPUNPCKLWD(cd, ab, v[0])
	VPUNPCKHWD(cd, ab, v[1])
	VPUNPCKLWD(CD, AB, v[2])
	VPUNPCKHWD(CD, AB, v[3])
	for j := range v {
		VPXOR(flip, v[j], v[j])
		VMOVDQU(v[j], at(out, 16*j))
		ADDQ(u8(16), rows[j])
	}
	ADDQ(stride, out)
	DECQ(count)
	JNZ(label("panel"))
	LEAQ(operand.Mem{Base: x, Index: ldx, Scale: 4}, x)
	ADDQ(u8(64), dst)
	DECQ(n)
	JNZ(label("block"))
	done()
}

// sgdMomentum: with Nesterov's momentum the step is that of the next update.
func sgdMomentum(s simd, nesterov bool) {
	name, formula := "sgdMomentum", "b = b*momentum + mix*d, p += rate*b"
	if nesterov {
		name, formula = "sgdNesterov", "b = b*momentum + mix*d, p += rate*(d + momentum*b)"
	}
	loop16(s, name, "p, grad, b *float32, n int, scale, l2, momentum, mix, rate float32",
		[]string{"d = scale*grad + l2*p, " + formula + " for each of n elements,", "n > 0 and a multiple of 16."},
		func() {}, func(l lanes) {
			p, d, b, t := s.vec(), s.vec(), s.vec(), s.vec()
			VMOVUPS(l.at("p"), p)
			VMULPS(l.at("grad"), l.f["scale"], d)
			VMULPS(l.f["l2"], p, t)
			VADDPS(t, d, d)
			VMULPS(l.at("b"), l.f["momentum"], b)
			VMULPS(l.f["mix"], d, t)
			VADDPS(t, b, b)
			VMOVUPS(b, l.at("b"))
			if nesterov {
				VMULPS(l.f["momentum"], b, b)
				VADDPS(b, d, b)
			}
			VMULPS(l.f["rate"], b, b)
			VADDPS(b, p, p)
			VMOVUPS(p, l.at("p"))
		}, func() {})
}

// sum64 adds in float64.
func sum64(name, term string, f func(v reg.VecVirtual)) {
	TEXT(name+"AVX2", NOSPLIT, "func(lanes *float64, x *float32, n int)")
	Doc(name + "AVX2: lanes[i mod 4] += float64 of " + term + " for i < n in ascending order; n > 0 and a multiple of 16.")
	Pragma("noescape")
	lanes, x, n, sum := load("lanes"), load("x"), load("n"), YMM()
	VMOVUPD(at(lanes, 0), sum)
	Label("loop")
	for i := range 4 {
		v := YMM()
		VCVTPS2PD(at(x, 16*i), v)
		f(v)
		VADDPD(v, sum, sum)
	}
	ADDQ(u8(64), x)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	VMOVUPD(sum, at(lanes, 0))
	done()
}

// ternaryRow packs sixteen columns of a row into its lane: the codes as bytes, four by four in the fields of a 32-bit word.
func ternaryRow(s simd) {
	name := "ternaryRow" + s.suffix
	TEXT(name, NOSPLIT, "func(dst *byte, w *float32, blocks int, half float32)")
	Doc(name+": with t(v) = 1 if v > half, -1 if v < -half, else 0: field f of dst[64*b+j] = t(w[16*b+4*f+j]) + 1",
		"for b < blocks and j, f < 4; blocks > 0.")
	Pragma("noescape")
	dst, w, n, high := load("dst"), load("w"), load("blocks"), s.splatParam("half")
	low, one := s.vec(), s.splat(1)
	VXORPS(constant(cSign), high, low)
	var two reg.VecVirtual
	if s.wide() {
		two = s.splat(2)
	}
	Label("loop")
	codes, x := s.regs(s.parts), XMM()
	for p := range codes {
		v := s.vec()
		VMOVUPS(at(w, s.bytes*p), v)
		if s.wide() {
			more, less := K(), K()
			VCMPPS(u8(moreThan), high, v, more)
			VCMPPS(u8(lessThan), low, v, less)
			VPBLENDMD(two, one, more, codes[p])
			VPSUBD(one, codes[p], less, codes[p])
		} else {
			t := s.vec()
			VCMPPS(u8(moreThan), high, v, t)
			VCMPPS(u8(lessThan), low, v, v)
			VPADDD(v, one, codes[p])
			VPSUBD(t, codes[p], codes[p])
		}
	}
	if s.wide() {
		VPMOVDB(codes[0], x)
	} else {
		VPACKSSDW(codes[1], codes[0], codes[0])
		VPERMQ(u8(0xd8), codes[0], codes[0])
		VEXTRACTI128(u8(1), codes[0], x)
		VPACKSSWB(x, codes[0].AsX(), x)
	}
	VPSLLVD(constant(cFields), x, x)
	t := XMM()
	VPSHUFD(u8(0x4e), x, t)
	VPOR(t, x, x)
	VPSHUFD(u8(0xb1), x, t)
	VPOR(t, x, x)
	VMOVD(x, at(dst, 0))
	ADDQ(u8(64), w)
	ADDQ(u8(64), dst)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

// foldLanes reduces sixteen lanes as a tree.
func foldLanes(name, formula string, op func(upper, lower, to reg.Register)) {
	TEXT(name+"AVX2", NOSPLIT, "func(lanes *float32) float32")
	Doc(name + "AVX2 folds sixteen lanes to one: " + formula + ".")
	Pragma("noescape")
	p, l := load("lanes"), []reg.VecVirtual{YMM(), YMM()}
	for i := range l {
		VMOVUPS(at(p, 32*i), l[i])
	}
	x := avx2.fold(l, op)
	Store(x, ReturnIndex(0))
	done()
}

// transpose goes by squares of eight.
func transpose() {
	TEXT("transposeAVX2", NOSPLIT, "func(dst *float32, ldd int, x *float32, ldx, rows, cols int)")
	Doc("transposeAVX2: dst[c*ldd+r] = x[r*ldx+c] for r < rows and c < cols, both > 0 and multiples of 8.")
	Pragma("noescape")
	dst, ldd, x, ldx, n := load("dst"), load("ldd"), load("x"), load("ldx"), load("rows")
	SHLQ(u8(2), ldd)
	SHLQ(u8(2), ldx)
	Label("rows")
	cols, to, from := GP64(), GP64(), GP64()
	Load(Param("cols"), cols)
	MOVQ(dst, to)
	MOVQ(x, from)
	Label("square")
	in := newRows(from, ldx, 8)
	r, t := make([]reg.VecVirtual, 8), make([]reg.VecVirtual, 8)
	for i := range r {
		r[i], t[i] = YMM(), YMM()
		VMOVUPS(in.at(i, 0), r[i])
	}
	for i := 0; i < 8; i += 2 {
		VUNPCKLPS(r[i+1], r[i], t[i])
		VUNPCKHPS(r[i+1], r[i], t[i+1])
	}
	for i := 0; i < 8; i += 4 {
		VUNPCKLPD(t[i+2], t[i], r[i])
		VUNPCKHPD(t[i+2], t[i], r[i+1])
		VUNPCKLPD(t[i+3], t[i+1], r[i+2])
		VUNPCKHPD(t[i+3], t[i+1], r[i+3])
	}
	row := GP64()
	MOVQ(to, row)
	for i := range 4 {
		VPERM2F128(u8(0x20), r[i+4], r[i], t[i])
		VPERM2F128(u8(0x31), r[i+4], r[i], t[i+4])
	}
	for i := range t {
		VMOVUPS(t[i], at(row, 0))
		if i < 7 {
			ADDQ(ldd, row)
		}
	}
	ADDQ(u8(32), from)
	LEAQ(operand.Mem{Base: to, Index: ldd, Scale: 8}, to)
	SUBQ(u8(8), cols)
	JNZ(label("square"))
	LEAQ(operand.Mem{Base: x, Index: ldx, Scale: 8}, x)
	ADDQ(u8(32), dst)
	SUBQ(u8(8), n)
	JNZ(label("rows"))
	done()
}

func adam(s simd) {
	loop16(s, "adam", "p, grad, m, v *float32, n int, scale, l2, keep, mix, beta2, mix2, root, eps, rate float32",
		[]string{"d = scale*grad + l2*p, m += mix*(d-m), v = v*beta2 + (mix2*d)*d, p = p*keep + (rate*m)/(sqrt(v)/root + eps)", "for each of n elements, n > 0 and a multiple of 16."},
		func() {}, func(l lanes) {
			p, d, m, v, t := s.vec(), s.vec(), s.vec(), s.vec(), s.vec()
			VMOVUPS(l.at("p"), p)
			VMULPS(l.at("grad"), l.f["scale"], d)
			VMULPS(l.f["l2"], p, t)
			VADDPS(t, d, d)
			VMOVUPS(l.at("m"), m)
			VSUBPS(m, d, t)
			VMULPS(l.f["mix"], t, t)
			VADDPS(t, m, m)
			VMOVUPS(m, l.at("m"))
			VMULPS(l.f["mix2"], d, t)
			VMULPS(d, t, t)
			VMULPS(l.at("v"), l.f["beta2"], v)
			VADDPS(t, v, v)
			VMOVUPS(v, l.at("v"))
			VSQRTPS(v, v)
			VDIVPS(l.f["root"], v, v)
			VADDPS(l.f["eps"], v, v)
			VMULPS(l.f["rate"], m, m)
			VDIVPS(v, m, m)
			VMULPS(l.f["keep"], p, p)
			VADDPS(m, p, p)
			VMOVUPS(p, l.at("p"))
		}, func() {})
}

// lowHigh keeps the lower 16 bits of each lane of a and takes the upper ones of b; lower has the lower bits set, for the wide width.
func (s simd) lowHigh(a, b, lower reg.VecVirtual) {
	if s.wide() {
		VPTERNLOGD(u8(0xe4), lower, b, a)
	} else {
		VPBLENDW(u8(0xaa), b, a, a)
	}
}

// extract128 stores 16 bytes of a register.
func (s simd) extract128(lane int, v reg.VecVirtual, to operand.Mem) {
	if s.wide() {
		VEXTRACTI32X4(u8(lane), v, to)
	} else {
		VEXTRACTI128(u8(lane), v, to)
	}
}

// Integer moves and XOR have names of their own for the wide width.
func (s simd) move(from, to operand.Op) {
	if s.wide() {
		VMOVDQU32(from, to)
	} else {
		VMOVDQU(from, to)
	}
}

func (s simd) xor(a operand.Op, to reg.VecVirtual) {
	if s.wide() {
		VPXORD(a, to, to)
	} else {
		VPXOR(a, to, to)
	}
}
