package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/reg"
)

// denseFormat is one way to store the weights of a dense16 matrix.
type denseFormat struct {
	name    string
	columns int // bytes of a column of 16 rows; half that for a pair's byte in int4
}

var denseFormats = []denseFormat{{"F32", 64}, {"BF16", 32}, {"Int8", 16}, {"Int4", 8}}

// dense emits the products with dense16 matrices: full panels for one token, which streams from memory, and for several
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
	weight, product, xb, int4 := make([][]reg.VecVirtual, parts), s.regs(2), s.vec(), reg.VecVirtual(nil)
	if s.wide() && f.name == "Int4" {
		int4 = s.vec()
		VMOVUPS(constant(cInt4), int4)
	}
	for p := range weight {
		weight[p] = s.regs(2)
	}
	Label("loop")
	if tokens == 1 && f.columns >= 32 {
		prefetch(w, 0, 4*f.columns)
	} else {
		prefetchTwice(w, 0, 4*f.columns)
	}
	for k := range 4 {
		if !s.wide() && tokens == 1 {
			VBROADCASTSS(tok.at(0, 4*k), xb)
		}
		for p := range parts {
			v := s.decode(f, w, k, p, weight[p], int4)
			for t := range tokens {
				m := product[t%2]
				switch {
				case s.wide():
					VMULPS_BCST(tok.at(t, 4*k), v, m)
				case tokens == 1:
					VMULPS(xb, v, m)
				default:
					VBROADCASTSS(tok.at(t, 4*k), m)
					VMULPS(m, v, m)
				}
				VADDPS(m, acc[p*tokens+t][k], acc[p*tokens+t][k])
			}
		}
	}
	ADDQ(u32(4*f.columns), w)
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

// decode loads column k of a quad as float32, rows 8*part on for the narrow width. For int4 an even column decodes its pair,
// and the odd column finds its half in v[1].
// The wide int4 code looks its floats up: VPERMPS takes the low four bits of each lane as an index.
func (s simd) decode(f denseFormat, w reg.Register, k, part int, v []reg.VecVirtual, int4 reg.VecVirtual) reg.VecVirtual {
	rows := s.bytes / 4
	column := at(w, k*f.columns)
	column.Disp += part * rows * f.columns / 16
	switch f.name {
	case "F32":
		VMOVUPS(column, v[0])
	case "BF16":
		VPMOVZXWD(column, v[0])
		VPSLLD(u8(16), v[0], v[0])
	case "Int8":
		VPMOVSXBD(column, v[0])
		VCVTDQ2PS(v[0], v[0])
	case "Int4":
		if k%2 == 1 {
			return v[1]
		}
		pair := at(w, k/2*16+part*rows)
		if s.wide() {
			VPMOVZXBD(pair, v[1])
			VPERMPS(int4, v[1], v[0])
			VPSRLD(u8(4), v[1], v[1])
			VPERMPS(int4, v[1], v[1])
			return v[0]
		}
		VPMOVSXBD(pair, v[1])
		VPSLLD(u8(28), v[1], v[0])
		VPSRAD(u8(28), v[0], v[0])
		VPSRAD(u8(4), v[1], v[1])
		VCVTDQ2PS(v[0], v[0])
		VCVTDQ2PS(v[1], v[1])
	}
	return v[0]
}
