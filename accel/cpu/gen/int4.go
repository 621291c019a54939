package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The blocks of a panel that follow a block of scales, and how many of them share a scale.
const (
	int4Run    = 16
	groupBlock = 8
)

// int4Widen is how many blocks the int16 sums of AVX2 hold: a block adds at most 2*2*15*127 to, and takes at most 2*2*15*128 off, their sum,
// so that four are within -30720..30480.
const int4Widen = 4

// int4 emits the products of dense16 matrices of int4 with activations in two int8 planes. Weights are multiplied as unsigned numbers; the
// sums begin with what that is too much.
func int4(s simd) {
	most := 3
	if s.wide() {
		most = 8
		int4Side512()
	}
	int4Gemv(s)
	for tokens := 2; tokens <= most; tokens++ {
		int4Gemm(s, tokens)
	}
}

// int4Gemv multiplies panels side by side with one token: in turns, a run of a panel and then the next panel's, so that there are registers.
func int4Gemv(s simd) {
	name := fmt.Sprintf("denseInt4%st1", s.suffix)
	TEXT(name, NOSPLIT, "func(dst, y *float32, w *byte, hi, lo *int8, eights *int32, inv *float32, add, blocks, panels int)")
	Doc(name+": the results of DenseIntMatMul for one token and the 16 rows of each of some panels of blocks blocks of weights, both > 0;",
		fmt.Sprintf("more than one panel are read side by side, at most %d. y holds 16 zeros for each panel; add: dst += the results.", sides))
	Pragma("noescape")
	g := int4Turn{s: s, planes: [2]reg.Register{load("hi"), load("lo")}, eights: load("eights"), ahead: GP64(), panel: GP64(), to: GP64(), i: GP64(), end: GP64()}
	if s.wide() {
		g.mask = []reg.VecVirtual{s.splat(lowNibbles), s.splat(highNibbles)}
	}
	w, n, turn := load("w"), load("blocks"), GP64()
	stride := int4Stride(n)
	MOVQ(u32(prefetchOnce), g.ahead)
	Load(Param("panels"), turn)
	CMPQ(turn, u8(1))
	JE(label("run"))
	MOVQ(u32(64*(1+int4Run)), g.ahead)
	Label("run")
	takeAtMost(int4Run, n, g.end)
	SHLQ(u8(3), g.end)
	MOVQ(w, g.panel)
	Load(Param("y"), g.to)
	Load(Param("panels"), turn)
	Label("panel")
	prefetchAt(g.panel, g.ahead, 0)
	g.group(0)
	g.group(1)
	Label("next")
	ADDQ(stride, g.panel)
	ADDQ(u8(64), g.to)
	DECQ(turn)
	JNZ(label("panel"))
	for _, p := range g.planes {
		ADDQ(u32(8*int4Run), p)
	}
	ADDQ(u8(8), g.eights)
	ADDQ(u32(64*(1+int4Run)), w)
	TESTQ(n, n)
	JNZ(label("run"))

	dst, add, inv := load("dst"), load("add"), s.splatParamAt("inv")
	Load(Param("y"), g.to)
	Load(Param("panels"), turn)
	v := s.regs(s.parts)
	Label("finish")
	for p, v := range v {
		VMULPS(at(g.to, s.bytes*p), inv, v)
	}
	TESTQ(add, add)
	JZ(label("store"))
	for p, v := range v {
		VADDPS(at(dst, s.bytes*p), v, v)
	}
	Label("store")
	for p, v := range v {
		VMOVUPS(v, at(dst, s.bytes*p))
	}
	ADDQ(u8(64), g.to)
	ADDQ(u8(64), dst)
	DECQ(turn)
	JNZ(label("finish"))
	done()
}

// int4Stride is the size of a panel of n blocks of weights.
func int4Stride(n reg.Register) reg.Register {
	stride := GP64()
	LEAQ(at(n, int4Run-1), stride)
	SHRQ(u8(4), stride)
	ADDQ(n, stride)
	SHLQ(u8(6), stride)
	return stride
}

// int4Side512 multiplies panels side by side with one token, block by block: memory is read faster so than in turns, and the registers suffice.
func int4Side512() {
	const name = "denseInt4AVX512Side"
	s := avx512
	TEXT(name, NOSPLIT, "func(dst *float32, w *byte, hi, lo *int8, eights *int32, inv *float32, add, blocks int)")
	Doc(fmt.Sprintf("%s: the results of DenseIntMatMul for one token and %d panels of blocks > 0 blocks of weights; add: dst += the results.", name, sides))
	Pragma("noescape")
	planes := [2]reg.Register{load("hi"), load("lo")}
	w, n, eights, count := load("w"), load("blocks"), load("eights"), GP64()
	panel := sideAt(w, int4Stride(n), 64*(1+int4Run))
	scales := side{stride: panel.stride, bases: [3]reg.Register{GP64(), GP64(), GP64()}}
	y, sums, mask := s.regs(sides), [2][]reg.VecVirtual{s.regs(sides), s.regs(sides)}, s.splat(lowNibbles)
	s.zero(y...)
	Label("run")
	for i, b := range panel.bases {
		MOVQ(b, scales.bases[i])
	}
	for i := range sides {
		PREFETCHT0(panel.at(i, panel.ahead))
	}
	panel.next()
	for half := range 2 {
		if half == 1 {
			TESTQ(n, n)
			JZ(label("end"))
		}
		takeAtMost(groupBlock, n, count)
		for i := range sides {
			VPBROADCASTD(at(eights, 0), sums[1][i])
		}
		s.zero(sums[0]...)
		ADDQ(u8(4), eights)
		x, field := [2][]reg.VecVirtual{s.regs(2), s.regs(2)}, s.regs(2)
		loop := fmt.Sprintf("block%d", half)
		Label(loop)
		for p := range x {
			for j := range field {
				VPBROADCASTD(at(planes[p], 4*j), x[p][j])
			}
		}
		for i := range sides {
			panel.load(i, field[0])
			VPSRLW(u8(4), field[0], field[1])
			VPANDD(mask, field[0], field[0])
			VPANDD(mask, field[1], field[1])
			for j, v := range field {
				for p := range x {
					VPDPBUSD(x[p][j], v, sums[p][i])
				}
			}
		}
		panel.next()
		for _, p := range planes {
			ADDQ(u8(8), p)
		}
		DECQ(count)
		JNZ(label(loop))
		for i := range sides {
			VPSLLD(u8(8), sums[0][i], sums[0][i])
			VPADDD(sums[0][i], sums[1][i], sums[1][i])
			VCVTDQ2PS(sums[1][i], sums[1][i])
			scale := s.vec()
			int4Scale(scales.at(i, 0), half, scale)
			VFMADD231PS(sums[1][i], scale, y[i])
		}
	}
	TESTQ(n, n)
	JNZ(label("run"))
	Label("end")
	dst, add, inv := load("dst"), load("add"), s.splatParamAt("inv")
	for _, v := range y {
		VMULPS(inv, v, v)
	}
	TESTQ(add, add)
	JZ(label("store"))
	for i, v := range y {
		VADDPS(at(dst, 64*i), v, v)
	}
	Label("store")
	for i, v := range y {
		VMOVUPS(v, at(dst, 64*i))
	}
	done()
}

func prefetchAt(p, ahead reg.Register, disp int) {
	PREFETCHT0(operand.Mem{Base: p, Index: ahead, Scale: 1, Disp: disp})
}

// splatParamAt fills a new register with the float32 that a parameter points to.
func (s simd) splatParamAt(name string) reg.VecVirtual {
	v := s.vec()
	VBROADCASTSS(at(load(name), 0), v)
	return v
}

// int4Turn multiplies a run of a panel with one token.
type int4Turn struct {
	s         simd
	planes    [2]reg.Register // hi, lo, at the run's first column
	eights    reg.Register    // of the run's first group
	panel, to reg.Register    // the run's scales, and the results so far
	ahead     reg.Register    // how far in front memory is asked for
	mask      []reg.VecVirtual
	i, end    reg.Register // 8 times a block's number in the run, and 8 times the number of blocks
}

// group adds the products of a group to the results.
func (g int4Turn) group(half int) {
	whole, part, sums := fmt.Sprintf("whole%d", half), fmt.Sprintf("part%d", half), newInt4Sums(g.s, g.mask)
	if half == 1 {
		CMPQ(g.end, u32(8*groupBlock))
		JLE(label("next"))
	}
	sums.begin(at(g.eights, 4*half))
	CMPQ(g.end, u32(8*groupBlock*(half+1)))
	JGE(label(whole))
	MOVQ(u32(8*groupBlock*half), g.i)
	Label(part)
	sums.block(g.s, func(disp int) operand.Mem { return operand.Mem{Base: g.panel, Index: g.i, Scale: 8, Disp: 64 + disp} },
		func(plane, disp int) operand.Mem {
			return operand.Mem{Base: g.planes[plane], Index: g.i, Scale: 1, Disp: disp}
		})
	sums.widen()
	ADDQ(u8(8), g.i)
	CMPQ(g.i, g.end)
	JLT(label(part))
	JMP(label(part + "end"))
	Label(whole)
	for b := range groupBlock {
		n := half*groupBlock + b
		sums.block(g.s, func(disp int) operand.Mem { return at(g.panel, 64*(1+n)+disp) },
			func(plane, disp int) operand.Mem { return at(g.planes[plane], 8*n+disp) })
		prefetchAt(g.panel, g.ahead, 64*(1+n))
		if (b+1)%int4Widen == 0 {
			sums.widen()
		}
	}
	Label(part + "end")
	sums.end()
	scale := g.s.regs(g.s.parts)
	for p, v := range sums.total {
		VCVTDQ2PS(v, v)
		int4Scale(at(g.panel, g.s.bytes*p), half, scale[p])
		VFMADD213PS(at(g.to, g.s.bytes*p), scale[p], v)
		VMOVUPS(v, at(g.to, g.s.bytes*p))
	}
}

// int4Scale makes the scales of a group of a block of scales.
func int4Scale(block operand.Mem, half int, v reg.VecVirtual) {
	VMOVUPS(block, v)
	if half == 0 {
		VPSLLD(u8(16), v, v)
	} else {
		VANDPS(constant(cUpper), v, v)
	}
}

// int4Sums are the sums of a group for one token.
type int4Sums struct {
	s      simd
	sums   [2][]reg.VecVirtual // [plane]: with AVX-512 for each field of a byte, the second one times 16; else for each half of the panel
	total  []reg.VecVirtual    // for each part of the panel
	fields []reg.VecVirtual
	mask   []reg.VecVirtual // with AVX-512 of each field
}

func newInt4Sums(s simd, mask []reg.VecVirtual) int4Sums {
	m := int4Sums{s: s, mask: mask, sums: [2][]reg.VecVirtual{s.regs(2), s.regs(2)}, fields: s.regs(2 * s.parts)}
	switch s.suffix {
	case avx512.suffix:
		m.total = m.sums[1][:1]
	case avxvnni.suffix:
		m.total = m.sums[1]
	default:
		m.total = s.regs(s.parts)
	}
	return m
}

// begin sets the sums to what takes the 8 of each weight off.
func (m int4Sums) begin(eights operand.Mem) {
	for _, v := range m.total {
		VPBROADCASTD(eights, v)
	}
	m.s.zero(m.sums[0]...)
	switch m.s.suffix {
	case avx512.suffix:
		m.s.zero(m.sums[1][1])
	case avx2.suffix:
		m.s.zero(m.sums[1]...)
	}
}

// block adds the products of a block; w and x address its weights and the activations of a plane.
func (m int4Sums) block(s simd, w func(disp int) operand.Mem, x func(plane, disp int) operand.Mem) {
	if s.wide() {
		VMOVDQU32(w(0), m.fields[0])
		VPANDD(m.mask[1], m.fields[0], m.fields[1])
		VPANDD(m.mask[0], m.fields[0], m.fields[0])
		for field, v := range m.fields {
			for p := range m.sums {
				VPDPBUSD_BCST(x(p, 4*field), v, m.sums[p][field])
			}
		}
		return
	}
	xb, t := s.vec(), s.vec()
	for part := range 2 {
		v := m.fields[2*part : 2*part+2]
		VMOVDQU(w(32*part), v[0])
		VPSRLW(u8(4), v[0], v[1])
		VPAND(constant(cMask4), v[0], v[0])
		VPAND(constant(cMask4), v[1], v[1])
	}
	for field := range 2 {
		for p := range m.sums {
			VPBROADCASTD(x(p, 4*field), xb)
			for part, sum := range m.sums[p] {
				s.addBytes(xb, m.fields[2*part+field], t, sum)
			}
		}
	}
}

// addBytes adds the products of w, unsigned, and x: in int16 with AVX2, else in int32.
func (s simd) addBytes(x, w, t, sum reg.VecVirtual) {
	if s.suffix == avxvnni.suffix {
		dpbusd(x, w, sum)
		return
	}
	VPMADDUBSW(x, w, t)
	VPADDW(t, sum, sum)
}

// widen adds the int16 sums of AVX2 to the totals.
func (m int4Sums) widen() {
	if m.s.suffix != avx2.suffix {
		return
	}
	for part, total := range m.total {
		widenPlanes(m.sums[0][part], m.sums[1][part], total)
	}
	m.s.zero(append(m.sums[0], m.sums[1]...)...)
}

// widenPlanes adds int16 sums of both planes to int32 ones of their integers. The planes' are lost.
func widenPlanes(hi, lo, total reg.VecVirtual) {
	VPMADDWD(constant(c256s), hi, hi)
	VPMADDWD(constant(cOnes16), lo, lo)
	VPADDD(hi, total, total)
	VPADDD(lo, total, total)
}

// end makes the totals.
func (m int4Sums) end() {
	switch m.s.suffix {
	case avx512.suffix:
		for field := range 2 {
			VPSLLD(u8(8), m.sums[0][field], m.sums[0][field])
			VPADDD(m.sums[0][field], m.sums[1][field], m.sums[1][field])
		}
		VPSRAD(u8(4), m.sums[1][1], m.sums[1][1])
		VPADDD(m.sums[1][1], m.total[0], m.total[0])
	case avxvnni.suffix:
		for part, total := range m.total {
			VPSLLD(u8(8), m.sums[0][part], m.sums[0][part])
			VPADDD(m.sums[0][part], total, total)
		}
	}
}

// int4Gemm multiplies a panel, or half of one without AVX-512, with several tokens, which share the decoded weights.
func int4Gemm(s simd, tokens int) {
	name, which := fmt.Sprintf("denseInt4%st%d", s.suffix, tokens), "the 16 rows of a panel"
	if !s.wide() {
		which = "the 8 rows of the half panel that w points to"
	}
	TEXT(name, NOSPLIT, "func(dst *float32, ldd int, w *byte, hi, lo *int8, ldx int, eights *int32, groups int, inv *float32, add, blocks int)")
	Doc(fmt.Sprintf("%s: the results of DenseIntMatMul for %d tokens and %s, of blocks > 0 blocks of weights; add: dst += the results.", name, tokens, which))
	Pragma("noescape")
	w, n, eights, ldx := load("w"), load("blocks"), load("eights"), load("ldx")
	planes := [2]rows{newRows(load("hi"), ldx, tokens), newRows(load("lo"), ldx, tokens)}
	y, total := s.regs(tokens), s.regs(tokens) // [token]
	var sums [2][]reg.VecVirtual               // [plane][token]
	sums[0], sums[1] = s.regs(tokens), total
	if s.suffix == avx2.suffix {
		sums[1] = s.regs(tokens)
	}
	field, mask := s.regs(2), operand.Op(constant(cMask4))
	if s.wide() {
		mask = s.splat(lowNibbles)
	}
	s.zero(y...)
	scale, count := GP64(), GP64()
	Label("run")
	MOVQ(w, scale)
	ADDQ(u8(64), w)
	for half := range 2 {
		name := func(s string) string { return fmt.Sprintf("%s%d", s, half) }
		if half == 1 {
			TESTQ(n, n)
			JZ(label("end"))
		}
		takeAtMost(groupBlock, n, count)
		from, step := GP64(), load("groups")
		SHLQ(u8(2), step)
		MOVQ(eights, from)
		for t, v := range total {
			VPBROADCASTD(at(from, 0), v)
			if t < tokens-1 {
				ADDQ(step, from)
			}
		}
		ADDQ(u8(4), eights)
		few := count
		if s.suffix == avx2.suffix {
			few = GP64()
			Label(name("few"))
			takeAtMost(int4Widen, count, few)
			s.zero(sums[0]...)
			s.zero(sums[1]...)
		} else {
			s.zero(sums[0]...)
		}
		Label(name("block"))
		prefetchTwice(w, 0, 64)
		if s.wide() {
			VMOVDQU32(at(w, 0), field[0])
			VPSRLW(u8(4), field[0], field[1])
			VPANDD(mask, field[0], field[0])
			VPANDD(mask, field[1], field[1])
		} else {
			VMOVDQU(at(w, 0), field[0])
			VPSRLW(u8(4), field[0], field[1])
			VPAND(mask, field[0], field[0])
			VPAND(mask, field[1], field[1])
		}
		for j, v := range field {
			for t := range tokens {
				for p := range planes {
					x := planes[p].at(t, 4*j)
					if s.wide() {
						VPDPBUSD_BCST(x, v, sums[p][t])
						continue
					}
					xb := s.vec()
					VPBROADCASTD(x, xb)
					s.addBytes(xb, v, xb, sums[p][t])
				}
			}
		}
		ADDQ(u8(64), w)
		for _, p := range planes {
			p.advance(8)
		}
		DECQ(few)
		JNZ(label(name("block")))
		if s.suffix == avx2.suffix {
			for t, v := range total {
				widenPlanes(sums[0][t], sums[1][t], v)
			}
			TESTQ(count, count)
			JNZ(label(name("few")))
		} else {
			for t, v := range total {
				VPSLLD(u8(8), sums[0][t], sums[0][t])
				VPADDD(sums[0][t], v, v)
			}
		}
		f := s.vec()
		int4Scale(at(scale, 0), half, f)
		for t, v := range total {
			VCVTDQ2PS(v, v)
			VFMADD231PS(v, f, y[t])
		}
	}
	TESTQ(n, n)
	JNZ(label("run"))
	Label("end")
	dst, ldd, inv, add := load("dst"), load("ldd"), load("inv"), load("add")
	SHLQ(u8(2), ldd)
	for t, v := range y {
		VBROADCASTSS(at(inv, 4*t), field[0])
		VMULPS(field[0], v, v)
	}
	out := newRows(dst, ldd, tokens)
	TESTQ(add, add)
	JZ(label("store"))
	for t, v := range y {
		VADDPS(out.at(t, 0), v, v)
	}
	Label("store")
	for t, v := range y {
		VMOVUPS(v, out.at(t, 0))
	}
	done()
}

// int4Errors tries steps for numbers that share one: a lane for each.
func int4Errors(s simd) {
	name := "int4Errors" + s.suffix
	TEXT(name, NOSPLIT, "func(dst, s, x *float32, n int)")
	Doc(name + ": dst[i] = sum_k (v - clamp(roundHalfEven(v), -8, 7))^2 with v = x[k]*s[i] for k < n ascending, i < 16; n > 0.")
	Pragma("noescape")
	dst, from, x, n := load("dst"), load("s"), load("x"), load("n")
	step, sum, v, r := s.regs(s.parts), s.regs(s.parts), s.regs(s.parts), s.vec()
	low, high, magic := s.splat(math.Float32bits(-8)), s.splat(math.Float32bits(7)), s.vec()
	VMOVUPS(constant(cMagic), magic)
	for p := range step {
		VMOVUPS(at(from, s.bytes*p), step[p])
	}
	s.zero(sum...)
	Label("loop")
	VBROADCASTSS(at(x, 0), r)
	for p := range v {
		VMULPS(step[p], r, v[p])
	}
	for p, v := range v {
		VMAXPS(low, v, r)
		VMINPS(high, r, r)
		VADDPS(magic, r, r)
		VSUBPS(magic, r, r)
		VSUBPS(r, v, v)
		VMULPS(v, v, v)
		VADDPS(v, sum[p], sum[p])
	}
	ADDQ(u8(4), x)
	DECQ(n)
	JNZ(label("loop"))
	for p := range sum {
		VMOVUPS(sum[p], at(dst, s.bytes*p))
	}
	done()
}
