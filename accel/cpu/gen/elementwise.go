package main

import (
	"strings"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func elementwise(s simd) {
	sumSquares(s)
	absMax(s)
	quantizeInt8(s)
	quantizeInt16(s)

	mapping(s, "scale", "dst, x *float32, n int, s float32", "dst[i] = x[i]*s", func(m mapped) reg.VecVirtual {
		VMULPS(m.in("x"), m.scalar("s"), m.v)
		return m.v
	})
	mapping(s, "scaleMul", "dst, x, w *float32, n int, s float32", "dst[i] = (x[i]*s)*w[i]", func(m mapped) reg.VecVirtual {
		VMULPS(m.in("x"), m.scalar("s"), m.v)
		VMULPS(m.in("w"), m.v, m.v)
		return m.v
	})
	mapping(s, "mul", "dst, a, b *float32, n int", "dst[i] = a[i]*b[i]", func(m mapped) reg.VecVirtual {
		VMOVUPS(m.in("a"), m.v)
		VMULPS(m.in("b"), m.v, m.v)
		return m.v
	})
	mapping(s, "add", "dst, a, b *float32, n int", "dst[i] = a[i]+b[i]", func(m mapped) reg.VecVirtual {
		VMOVUPS(m.in("a"), m.v)
		VADDPS(m.in("b"), m.v, m.v)
		return m.v
	})
	mapping(s, "subMul", "dst, a, b *float32, n int, s float32", "dst[i] = (a[i]-s)*b[i]", func(m mapped) reg.VecVirtual {
		VMOVUPS(m.in("a"), m.v)
		VSUBPS(m.scalar("s"), m.v, m.v)
		VMULPS(m.in("b"), m.v, m.v)
		return m.v
	})
	mapping(s, "silu", "dst, x *float32, n int", "dst[i] = x[i] / (1+exp(-x[i]))", func(m mapped) reg.VecVirtual {
		VMOVUPS(m.in("x"), m.v)
		neg := s.vec()
		VXORPS(constant(cSign), m.v, neg)
		e := s.exp(neg)
		VADDPS(constant(cOne), e, e)
		VDIVPS(e, m.v, m.v)
		return m.v
	})
	mapping(s, "relu2", "dst, x *float32, n int", "dst[i] = max(x[i], 0)^2", func(m mapped) reg.VecVirtual {
		zero := m.zero
		VMAXPS(m.in("x"), zero, m.v) // 0 > x ? 0 : x, NaN gives x
		VMULPS(m.v, m.v, m.v)
		return m.v
	})
	mapping(s, "dequantRow", "dst *float32, acc *int32, n int, s float32", "dst[i] = float32(acc[i])*s", func(m mapped) reg.VecVirtual {
		VCVTDQ2PS(m.in("acc"), m.v)
		VMULPS(m.scalar("s"), m.v, m.v)
		return m.v
	})
}

// mapped is what one step of a mapping works with.
type mapped struct {
	in      func(name string) operand.Mem // the vector of a parameter at this step
	scalar  func(name string) reg.VecVirtual
	v, zero reg.VecVirtual
}

// mapping emits dst[i] = f(inputs[i]) for i < n.
func mapping(s simd, name, params, formula string, f func(mapped) reg.VecVirtual) {
	name += s.suffix
	TEXT(name, NOSPLIT, "func("+params+")")
	Doc(name + ": " + formula + " for i < n; n > 0 and a multiple of 16; dst may be an input.")
	Pragma("noescape")
	dst, n := load("dst"), load("n")
	SHLQ(u8(2), n)
	i := GP64()
	XORQ(i, i)
	pointers, scalars := map[string]reg.Register{}, map[string]reg.VecVirtual{}
	for _, p := range []string{"x", "w", "a", "b", "acc"} {
		if hasParam(params, p) {
			pointers[p] = load(p)
		}
	}
	if hasParam(params, "s") {
		scalars["s"] = s.splatParam("s")
	}
	zero := s.vec()
	s.zero(zero)
	Label("loop")
	for p := range s.parts {
		m := mapped{
			in: func(name string) operand.Mem {
				return operand.Mem{Base: pointers[name], Index: i, Scale: 1, Disp: s.bytes * p}
			},
			scalar: func(name string) reg.VecVirtual { return scalars[name] },
			v:      s.vec(), zero: zero,
		}
		VMOVUPS(f(m), operand.Mem{Base: dst, Index: i, Scale: 1, Disp: s.bytes * p})
	}
	ADDQ(u8(64), i)
	CMPQ(i, n)
	JNE(label("loop"))
	done()
}

func sumSquares(s simd) {
	name := "sumSquares" + s.suffix
	TEXT(name, NOSPLIT, "func(lanes, x *float32, n int)")
	Doc(name + ": lanes[i mod 16] += x[i]*x[i] for i < n in ascending order; n > 0 and a multiple of 16.")
	Pragma("noescape")
	lanes, x, n := load("lanes"), load("x"), load("n")
	sum, v := s.regs(s.parts), s.regs(s.parts)
	for p := range sum {
		VMOVUPS(at(lanes, s.bytes*p), sum[p])
	}
	Label("loop")
	for p := range sum {
		VMOVUPS(at(x, s.bytes*p), v[p])
		VMULPS(v[p], v[p], v[p])
		VADDPS(v[p], sum[p], sum[p])
	}
	ADDQ(u8(64), x)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	for p := range sum {
		VMOVUPS(sum[p], at(lanes, s.bytes*p))
	}
	done()
}

func absMax(s simd) {
	name := "absMax" + s.suffix
	TEXT(name, NOSPLIT, "func(lanes, x *float32, n int)")
	Doc(name+": lanes[i mod 16] = max |x[i]| by bit pattern (NaN is the largest) for i < n;", "n > 0 and a multiple of 16.")
	Pragma("noescape")
	lanes, x, n := load("lanes"), load("x"), load("n")
	top, v, abs := s.regs(s.parts), s.regs(s.parts), s.vec()
	s.zero(top...)
	VMOVUPS(constant(cAbs), abs)
	Label("loop")
	for p := range top {
		VANDPS(at(x, s.bytes*p), abs, v[p])
		VPMAXSD(v[p], top[p], top[p])
	}
	ADDQ(u8(64), x)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	for p := range top {
		VMOVUPS(top[p], at(lanes, s.bytes*p))
	}
	done()
}

func quantizeInt8(s simd) {
	name := "quantizeInt8" + s.suffix
	TEXT(name, NOSPLIT, "func(lanes *int32, dst *int8, x *float32, n int, s float32)")
	Doc(name+": dst[i] = clamp(roundHalfEven(x[i]*s), -128, 127), lanes = sixteen partial sums of dst,", "for i < n; n > 0 and a multiple of 16.")
	Pragma("noescape")
	lanes, dst, x, n, f := load("lanes"), load("dst"), load("x"), load("n"), s.splatParam("s")
	sum, v := s.regs(s.parts), s.regs(s.parts)
	s.zero(sum...)
	Label("loop")
	for p := range sum {
		VMULPS(at(x, s.bytes*p), f, v[p])
		VMAXPS(constant(cMin8), v[p], v[p]) // v > -128 ? v : -128, NaN gives -128
		VMINPS(constant(cMax8), v[p], v[p])
		VCVTPS2DQ(v[p], v[p]) // rounds half to even
		VPADDD(v[p], sum[p], sum[p])
	}
	s.storeInt8(v, dst)
	ADDQ(u8(64), x)
	ADDQ(u8(16), dst)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	for p := range sum {
		VMOVUPS(sum[p], at(lanes, s.bytes*p))
	}
	done()
}

// storeInt8 stores sixteen int32 as int8, which they fit; it spoils v.
func (s simd) storeInt8(v []reg.VecVirtual, dst reg.Register) {
	if s.wide() {
		VPMOVDB(v[0], at(dst, 0))
		return
	}
	VPACKSSDW(v[1], v[0], v[0]) // 0..3 8..11 | 4..7 12..15
	VPERMQ(u8(0xd8), v[0], v[0])
	t := XMM()
	VEXTRACTI128(u8(1), v[0], t)
	VPACKSSWB(t, v[0].AsX(), t)
	VMOVDQU(t, at(dst, 0))
}

func quantizeInt16(s simd) {
	name := "quantizeInt16" + s.suffix
	TEXT(name, NOSPLIT, "func(lanes *int32, hi, lo *int8, x *float32, n int, s float32)")
	Doc(name+": v = clamp(roundHalfEven(x[i]*s), -32512, 32512), hi[i] = (v+128)>>8, lo[i] = v - 256*hi[i],",
		"lanes = sixteen partial sums of hi and then sixteen of lo, for i < n; n > 0 and a multiple of 16.")
	Pragma("noescape")
	lanes, hi, lo, x, n, f := load("lanes"), load("hi"), load("lo"), load("x"), load("n"), s.splatParam("s")
	half := s.splat(128)
	sumHi, sumLo, h, l := s.regs(s.parts), s.regs(s.parts), s.regs(s.parts), s.regs(s.parts)
	s.zero(sumHi...)
	s.zero(sumLo...)
	Label("loop")
	t := s.vec()
	for p := range l {
		VMULPS(at(x, s.bytes*p), f, l[p])
		VMAXPS(constant(cMin16), l[p], l[p]) // v > min ? v : min, NaN gives min
		VMINPS(constant(cMax16), l[p], l[p])
		VCVTPS2DQ(l[p], l[p]) // rounds half to even
		VPADDD(half, l[p], h[p])
		VPSRAD(u8(8), h[p], h[p])
		VPSLLD(u8(8), h[p], t)
		VPSUBD(t, l[p], l[p])
		VPADDD(h[p], sumHi[p], sumHi[p])
		VPADDD(l[p], sumLo[p], sumLo[p])
	}
	s.storeInt8(h, hi)
	s.storeInt8(l, lo)
	ADDQ(u8(64), x)
	ADDQ(u8(16), hi)
	ADDQ(u8(16), lo)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	for p := range sumHi {
		VMOVUPS(sumHi[p], at(lanes, s.bytes*p))
		VMOVUPS(sumLo[p], at(lanes, 64+s.bytes*p))
	}
	done()
}

// hasParam says whether a parameter list such as "dst, x *float32, n int" names p.
func hasParam(params, p string) bool {
	for _, group := range strings.Split(params, ",") {
		if strings.Fields(group)[0] == p {
			return true
		}
	}
	return false
}
