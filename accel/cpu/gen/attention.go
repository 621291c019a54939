package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func attention(s simd) {
	dotRows(s)
	widths := []int{4, 1}
	if s.wide() {
		widths = []int{8, 4, 1}
	}
	for _, w := range widths {
		accumRows(s, w)
	}
	expSum(s)
	maxLanes(s)
}

// dotRows takes four keys at a time and adds their lanes together at the end, as the tree of the package's reductions.
func dotRows(s simd) {
	name := "dotRows" + s.suffix
	TEXT(name, NOSPLIT, "func(dst, q, k *float32, n, dim, stride int)")
	Doc(name + ": dst[j] = sum_d q[d]*k[j*stride+d] for j < n and d < dim, dim > 0 and a multiple of 16.")
	Pragma("noescape")
	dst, q, k, n, dim, stride := load("dst"), load("q"), load("k"), load("n"), load("dim"), load("stride")
	SHLQ(u8(2), stride)
	SHLQ(u8(2), dim)
	d := GP64()
	acc := make([][]reg.VecVirtual, 4) // [row][part]
	for j := range acc {
		acc[j] = s.regs(s.parts)
	}
	qv, t := s.regs(s.parts), s.vec()
	// step adds 16 elements of some rows, and jumps back until dim is reached.
	step := func(loop string, rows int) {
		for j := range rows {
			s.zero(acc[j]...)
		}
		XORQ(d, d)
		k3 := GP64()
		if rows == 4 {
			LEAQ(operand.Mem{Base: stride, Index: stride, Scale: 2}, k3)
			ADDQ(k, k3)
		}
		kd := GP64()
		MOVQ(k, kd)
		Label(loop)
		for p := range s.parts {
			VMOVUPS(operand.Mem{Base: q, Index: d, Scale: 1, Disp: s.bytes * p}, qv[p])
		}
		for j := range rows {
			m := at(kd, 0)
			if j == 3 {
				m = operand.Mem{Base: k3, Index: d, Scale: 1}
			} else if j > 0 {
				m.Index, m.Scale = stride, uint8(j)
			}
			for p := range s.parts {
				m := m
				m.Disp = s.bytes * p
				VMULPS(m, qv[p], t)
				VADDPS(t, acc[j][p], acc[j][p])
			}
		}
		ADDQ(u8(64), kd)
		ADDQ(u8(64), d)
		CMPQ(d, dim)
		JNE(label(loop))
	}
	Label("four")
	CMPQ(n, operand.Imm(4))
	JLT(label("one"))
	step("fourloop", 4)
	x := make([]reg.VecVirtual, 4)
	for j := range x {
		x[j] = s.fold(acc[j])
	}
	lo, hi := XMM(), XMM()
	half := func(a, b reg.VecVirtual) { // a = a0+a2 a1+a3 b0+b2 b1+b3
		VUNPCKLPD(b, a, lo)
		VUNPCKHPD(b, a, hi)
		VADDPS(hi, lo, a)
	}
	half(x[0], x[1])
	half(x[2], x[3])
	VSHUFPS(u8(0x88), x[2], x[0], lo)
	VSHUFPS(u8(0xdd), x[2], x[0], hi)
	VADDPS(hi, lo, lo)
	VMOVUPS(lo, at(dst, 0))
	ADDQ(u8(16), dst)
	LEAQ(operand.Mem{Base: k, Index: stride, Scale: 4}, k)
	SUBQ(u8(4), n)
	JMP(label("four"))

	Label("one")
	TESTQ(n, n)
	JZ(label("end"))
	step("oneloop", 1)
	y := s.fold(acc[0])
	VUNPCKHPD(y, y, hi)
	VADDPS(hi, y, y)
	VMOVSHDUP(y, hi)
	VADDSS(hi, y, y)
	VMOVSS(y, at(dst, 0))
	ADDQ(u8(4), dst)
	ADDQ(stride, k)
	DECQ(n)
	JMP(label("one"))
	Label("end")
	done()
}

// fold adds sixteen lanes to four: lane i + lane i+8, then lane i + lane i+4.
func (s simd) fold(acc []reg.VecVirtual) reg.VecVirtual {
	y, t := acc[0].AsY(), YMM()
	if s.wide() {
		VEXTRACTF64X4(u8(1), acc[0], t)
		VADDPS(t, y, y)
	} else {
		VADDPS(acc[1], y, y)
	}
	x := XMM()
	VEXTRACTF128(u8(1), y, x)
	VADDPS(acc[0].AsX(), x, x)
	return x
}

// accumRows keeps 16*width sums in registers over all rows.
func accumRows(s simd, width int) {
	name := fmt.Sprintf("accumRows%sx%d", s.suffix, 16*width)
	TEXT(name, NOSPLIT, "func(acc, p, v *float32, n, stride int)")
	Doc(fmt.Sprintf("%s: acc[d] += p[j]*v[j*stride+d] for j = 0..n-1 in this order and d < %d; n > 0.", name, 16*width))
	Pragma("noescape")
	acc, p, v, n, stride := load("acc"), load("p"), load("v"), load("n"), load("stride")
	SHLQ(u8(2), stride)
	sum := s.regs(width * s.parts)
	for i := range sum {
		VMOVUPS(at(acc, s.bytes*i), sum[i])
	}
	w, t := s.vec(), s.regs(2)
	Label("loop")
	VBROADCASTSS(at(p, 0), w)
	for i := range sum {
		VMULPS(at(v, s.bytes*i), w, t[i%2])
		VADDPS(t[i%2], sum[i], sum[i])
	}
	ADDQ(u8(4), p)
	ADDQ(stride, v)
	DECQ(n)
	JNZ(label("loop"))
	for i := range sum {
		VMOVUPS(sum[i], at(acc, s.bytes*i))
	}
	done()
}

func expSum(s simd) {
	name := "expSum" + s.suffix
	TEXT(name, NOSPLIT, "func(lanes, x *float32, n int, shift float32)")
	Doc(name+": x[j] = exp(x[j]-shift), lanes[j mod 16] += x[j] for j < n in ascending order;", "n > 0 and a multiple of 16.")
	Pragma("noescape")
	lanes, x, n, shift := load("lanes"), load("x"), load("n"), s.splatParam("shift")
	sum := s.regs(s.parts)
	for p := range sum {
		VMOVUPS(at(lanes, s.bytes*p), sum[p])
	}
	Label("loop")
	for p := range sum {
		v := s.vec()
		VMOVUPS(at(x, s.bytes*p), v)
		VSUBPS(shift, v, v)
		e := s.exp(v)
		VMOVUPS(e, at(x, s.bytes*p))
		VADDPS(e, sum[p], sum[p])
	}
	ADDQ(u8(64), x)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	for p := range sum {
		VMOVUPS(sum[p], at(lanes, s.bytes*p))
	}
	done()
}

// exp is expRef step by step; it keeps x.
func (s simd) exp(x reg.VecVirtual) reg.VecVirtual {
	t, n, r, p := s.vec(), s.vec(), s.vec(), s.vec()
	VMULPS(constant(cLog2e), x, t)
	VADDPS(constant(cMagic), t, t)
	VSUBPS(constant(cMagic), t, n)
	VMULPS(constant(cLn2Hi), n, p)
	VSUBPS(p, x, r)
	VMULPS(constant(cLn2Lo), n, p)
	VSUBPS(p, r, r)
	VMULPS(constant(cC0), r, p)
	for c := cC1; c < cC5; c++ {
		VADDPS(constant(c), p, p)
		VMULPS(r, p, p)
	}
	VADDPS(constant(cC5), p, p)
	VMULPS(r, r, n)
	VMULPS(n, p, p)
	VADDPS(r, p, p)
	VADDPS(constant(cOne), p, p)
	VPSLLD(u8(23), t, t)
	VPADDD(t, p, p)
	s.replace(p, lessThan, x, constant(cExpLow), constant(cZero))
	s.replace(p, moreThan, x, constant(cExpHigh), constant(cInf))
	s.replace(p, isUnordered, x, x, x)
	return p
}

// replace puts value into p where the comparison of x with y holds.
func (s simd) replace(p reg.VecVirtual, comparison int, x reg.VecVirtual, y, value operand.Op) {
	if s.wide() {
		k := K()
		VCMPPS(u8(comparison), y, x, k)
		VBLENDMPS(value, p, k, p)
		return
	}
	mask := s.vec()
	VCMPPS(u8(comparison), y, x, mask)
	VBLENDVPS(mask, value, p, p)
}

func maxLanes(s simd) {
	name := "maxLanes" + s.suffix
	TEXT(name, NOSPLIT, "func(lanes, x *float32, n int)")
	Doc(name + ": lanes[j mod 16] = x[j] if that is larger, for j < n; n > 0 and a multiple of 16.")
	Pragma("noescape")
	lanes, x, n := load("lanes"), load("x"), load("n")
	top := s.regs(s.parts)
	for p := range top {
		VMOVUPS(at(lanes, s.bytes*p), top[p])
	}
	Label("loop")
	for p := range top {
		v := s.vec()
		VMOVUPS(at(x, s.bytes*p), v)
		VMAXPS(top[p], v, top[p]) // v > top ? v : top, NaN gives top
	}
	ADDQ(u8(64), x)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	for p := range top {
		VMOVUPS(top[p], at(lanes, s.bytes*p))
	}
	done()
}
