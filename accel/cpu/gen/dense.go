package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// denseFormat is one way to store the float weights of a dense16 matrix.
type denseFormat struct {
	name    string
	columns int // of a block
}

var denseFormats = []denseFormat{{"F32", 1}, {"BF16", 2}, {"F16", 2}}

// dense emits the products with float dense16 matrices: full panels for one token, which streams from memory, and for several
// tokens as many rows as the registers hold: 16 with AVX-512, 8 with AVX2.
func dense(s simd) {
	for _, f := range denseFormats {
		most := 3
		if s.wide() {
			most = 6
		}
		for tokens := 1; tokens <= most; tokens++ {
			denseKernel(s, f, tokens)
		}
	}
}

// denseKernel: four accumulators for each token, one for each k mod 4.
func denseKernel(s simd, f denseFormat, tokens int) {
	parts, rows := s.parts, "the 16 rows r of a panel"
	if tokens > 1 {
		parts = 1
		if !s.wide() {
			rows = "the 8 rows r of the half panel that w and scale point to"
		}
	}
	name := fmt.Sprintf("dense%s%st%d", f.name, s.suffix, tokens)
	TEXT(name, NOSPLIT, "func(dst *float32, ldd int, w *byte, scale *float32, x *float32, ldx int, quads int)")
	Doc(fmt.Sprintf("%s: dst[t*ldd+r] = scale[r] * sum_k w[r,k]*x[t*ldx+k] for %s and t < %d,", name, rows, tokens),
		"in the order of DenseMatMul; scale may be nil; quads > 0 groups of four columns.")
	Pragma("noescape")
	dst, ldd, w, scale, x, ldx, n := load("dst"), load("ldd"), load("w"), load("scale"), load("x"), load("ldx"), load("quads")
	SHLQ(u8(2), ldd)
	SHLQ(u8(2), ldx)
	tok := newRows(x, ldx, tokens)
	acc := make([][]reg.VecVirtual, parts*tokens) // [part*tokens+t][k mod 4]
	for i := range acc {
		acc[i] = s.regs(4)
		s.zero(acc[i]...)
	}
	weight, xb, odd := make([][]reg.VecVirtual, parts), s.vec(), operand.Op(constant(cUpper))
	if s.wide() && f.name == "BF16" {
		odd = s.splat(upperHalf)
	}
	for p := range weight {
		weight[p] = s.regs(2)
	}
	Label("loop")
	bytes := 4 / f.columns * 64 // of a quad
	if tokens == 1 {
		prefetch(w, 0, bytes)
	} else {
		prefetchTwice(w, 0, bytes)
	}
	for k := range 4 {
		if !s.wide() && tokens == 1 {
			VBROADCASTSS(tok.at(0, 4*k), xb)
		}
		for p := range parts {
			v := s.decode(f, w, k, p, weight[p], odd)
			for t := range tokens {
				sum := acc[p*tokens+t][k]
				if s.wide() {
					VFMADD231PS_BCST(tok.at(t, 4*k), v, sum)
					continue
				}
				if tokens > 1 {
					VBROADCASTSS(tok.at(t, 4*k), xb)
				}
				VFMADD231PS(xb, v, sum)
			}
		}
	}
	ADDQ(u32(bytes), w)
	tok.advance(16)
	DECQ(n)
	JNZ(label("loop"))
	for _, a := range acc {
		VADDPS(a[1], a[0], a[0])
		VADDPS(a[3], a[2], a[2])
		VADDPS(a[2], a[0], a[0])
	}
	TESTQ(scale, scale)
	JZ(label("store"))
	for p := range parts {
		VMOVUPS(at(scale, s.bytes*p), xb)
		for t := range tokens {
			VMULPS(xb, acc[p*tokens+t][0], acc[p*tokens+t][0])
		}
	}
	Label("store")
	for t := range tokens {
		for p := range parts {
			VMOVUPS(acc[p*tokens+t][0], at(dst, s.bytes*p))
		}
		if t < tokens-1 {
			ADDQ(ldd, dst)
		}
	}
	done()
}

// decode loads column k of a quad as float32, rows 8*part on for the narrow width. A bfloat16 pair of columns is loaded with its
// even one, into v[1], where the odd one masks its half out.
func (s simd) decode(f denseFormat, w reg.Register, k, part int, v []reg.VecVirtual, odd operand.Op) reg.VecVirtual {
	block := at(w, k/f.columns*64+part*s.bytes)
	switch {
	case f.name == "F32":
		VMOVUPS(block, v[0])
	case f.name == "F16":
		VCVTPH2PS(at(w, 32*k+part*s.bytes/2), v[0])
	case k%2 == 0:
		VMOVUPS(block, v[1])
		VPSLLD(u8(16), v[1], v[0])
	default:
		VANDPS(odd, v[1], v[1])
		return v[1]
	}
	return v[0]
}
