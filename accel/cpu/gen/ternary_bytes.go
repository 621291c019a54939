package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Products with many tokens read every weight once for each group of tokens. So codes are made bytes first: the four columns of a field of
// a block become 64 bytes, the order in which all kernels multiply.

// ternaryDecode emits what makes codes bytes, from each of the ways in which they lie.
func ternaryDecode(s simd) {
	ternaryDecodePanel(s)
	ternaryDecodeRows(s)
	ternaryDecodeColumns(s)
}

// ternaryDecodePanel takes blocks of a panel.
func ternaryDecodePanel(s simd) {
	name := "ternaryDecode" + s.suffix
	TEXT(name, NOSPLIT, "func(dst *byte, w *byte, blocks, ahead, zero int)")
	Doc(name + ": dst[256*b+64*f+i] = field f of byte i of block b, plus zero, for b < blocks; reads ahead; blocks > 0.")
	Pragma("noescape")
	dst, w, n, ahead := load("dst"), load("w"), load("blocks"), load("ahead")
	mask, zero := s.splat(0x03030303), s.vec()
	VMOVQ(load("zero"), zero.AsX())
	VPBROADCASTB(zero.AsX(), zero)
	v := s.vec()
	Label("loop")
	PREFETCHT0(indexed(w, ahead, 0))
	for part := 0; part < 64; part += s.bytes {
		s.move(at(w, part), v)
		s.fields(v, mask, func(f int, t reg.VecVirtual) {
			VPADDB(zero, t, t)
			s.move(t, at(dst, 64*f+part))
		})
	}
	ADDQ(u8(64), w)
	ADDQ(u32(256), dst)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

// fields calls use for each field of the bytes of v.
func (s simd) fields(v, mask reg.VecVirtual, use func(f int, t reg.VecVirtual)) {
	for f := range 4 {
		t := s.vec()
		if f == 0 {
			s.move(v, t)
		} else {
			VPSRLW(u8(2*f), v, t)
		}
		s.and(mask, t)
		use(f, t)
	}
}

// ternaryDecodeRows takes the lines that are the rows of a panel.
func ternaryDecodeRows(s simd) {
	name := "ternaryDecodeRows" + s.suffix
	TEXT(name, NOSPLIT, "func(dst *byte, src *byte, stride, count, ahead int)")
	Doc(name + ": dst[4096*i+256*c+64*f+4*r+j] = field f of byte 64*i+4*c+j of line r, for 16 lines and i < count; reads ahead; count > 0.")
	Pragma("noescape")
	dst, src, stride, n, ahead := load("dst"), load("src"), load("stride"), load("count"), load("ahead")
	mask := s.splat(0x03030303)
	t := transposer{s: s}
	lanes := s.bytes / 4
	line := GP64()
	Label("loop")
	for from := 0; from < 16; from += lanes { // lanes of the lines, blocks of dst
		MOVQ(src, line)
		for row := 0; row < 16; row += lanes {
			v := s.regs(lanes)
			for i := range v {
				s.move(at(line, 4*from), v[i])
				if from == 0 {
					PREFETCHT0(indexed(line, ahead, 0))
				}
				ADDQ(stride, line)
			}
			for i, block := range t.lanes(v) {
				s.fields(block, mask, func(f int, t reg.VecVirtual) { s.move(t, at(dst, 256*(from+i)+64*f+4*row)) })
			}
		}
	}
	ADDQ(u8(64), src)
	ADDQ(u32(4096), dst)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

// ternaryDecodeColumns takes lines that are columns: 64 bytes of four of them become 64 bytes of 16 panels.
func ternaryDecodeColumns(s simd) {
	name := "ternaryDecodeColumns" + s.suffix
	TEXT(name, NOSPLIT, "func(dst *byte, size int, src *byte, stride, count, ahead, step int)")
	Doc(name+": dst[size*c+64*i+16*f+4*j+k] = field f of byte 4*c+j of line 4*i+k, for c < 16 and i < count; count > 0.",
		"For every line, 64 bytes are read ahead: those at src+ahead first, the next step bytes further.")
	Pragma("noescape")
	dst, size, src, stride, n := load("dst"), load("size"), load("src"), load("stride"), load("count")
	next, step := load("ahead"), load("step")
	ADDQ(src, next)
	mask := s.splat(0x03030303)
	shift := s.regs(4 / (s.bytes / 16)) // of the quarters of a register
	for i := range shift {
		shift[i] = s.vec()
		s.move(constant(cQuarters).Offset(s.bytes*i), shift[i])
	}
	line, to := GP64(), GP64()
	Label("loop")
	MOVQ(dst, to)
	for part := 0; part < 64; part += s.bytes {
		v := s.regs(4)
		MOVQ(src, line)
		for k := range v {
			s.move(at(line, part), v[k])
			if part == 0 {
				PREFETCHT1(at(next, 0))
				ADDQ(step, next)
			}
			if k < 3 {
				ADDQ(stride, line)
			}
		}
		ks := interleave(s, v)
		for l := range s.bytes / 16 { // quarters
			for m, k := range ks {
				t := s.vec()
				if s.wide() {
					VSHUFI32X4(u8(0x55*l), k, k, t)
				} else {
					VPERM2I128(u8(0x11*l), k, k, t)
				}
				for i, by := range shift {
					d := s.vec()
					VPSRLVD(by, t, d)
					s.and(mask, d)
					s.move(d, at(to, s.bytes*i))
				}
				if part+s.bytes < 64 || l < s.bytes/16-1 || m < 3 {
					ADDQ(size, to)
				}
			}
		}
	}
	LEAQ(operand.Mem{Base: line, Index: stride, Scale: 1}, src)
	ADDQ(u8(64), dst)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

// ternaryFinish takes a number off sums.
func ternaryFinish(s simd) {
	name := "ternaryFinish" + s.suffix
	TEXT(name, NOSPLIT, "func(dst, sums *int32, count, sum int)")
	Doc(name + ": dst[i] = sums[i] - sum for i < 16*count; count > 0.")
	Pragma("noescape")
	dst, sums, n, sum := load("dst"), load("sums"), load("count"), s.vec()
	VPBROADCASTD(paramMem("sum"), sum)
	v := s.regs(s.parts)
	Label("loop")
	for p := range v {
		s.move(at(sums, s.bytes*p), v[p])
		VPSUBD(sum, v[p], v[p])
		s.move(v[p], at(dst, s.bytes*p))
	}
	ADDQ(u8(64), sums)
	ADDQ(u8(64), dst)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

// mostTokens is how many tokens the kernels below take at once: as many as registers hold sums for, those of two registers for each.
func (s simd) mostTokens() int {
	if s.wide() {
		return 12
	}
	return 6
}

// ternaryBytes emits the product of tokens with weights that are bytes.
func ternaryBytes(s simd) {
	rows := "16 rows r of a panel"
	if s.wide() {
		rows = "32 rows r of two panels, which lie size bytes apart,"
	}
	name := "ternaryBytes" + s.suffix
	TEXT(name, NOSPLIT, "func(c *int32, ldc int, x *int8, ldx int, w *byte, size, blocks, tokens, more int, dst *int32, ldd int, xsum *int32)")
	Doc(fmt.Sprintf("%s: c[t*ldc+r] = sum_k (w[r,k]+1)*x[t*ldx+k] for the %s and t < tokens, at most %d; more: c += that; blocks > 0.", name, rows, s.mostTokens()),
		"With xsum, dst[t*ldd+r] = that - xsum[t], and c is left undefined.")
	Pragma("noescape")
	k := bytesKernel{s: s, x: load("x"), ldx: load("ldx"), w: load("w"), n: load("blocks")}
	if s.wide() {
		k.size = load("size")
	}
	tokens := load("tokens")
	for n := s.mostTokens(); n >= 1; n-- {
		if n > 1 {
			CMPQ(tokens, u8(n))
			JNE(label(fmt.Sprintf("not%d", n)))
		}
		switch s.suffix {
		case avx512.suffix:
			k.dot512(n)
		case avx2.suffix:
			k.short(n)
		default:
			k.dot256(n)
		}
		done()
		if n > 1 {
			Label(fmt.Sprintf("not%d", n))
		}
	}
}

// bytesKernel holds the parameters of ternaryBytes.
type bytesKernel struct {
	s          simd
	x, ldx     reg.Register
	w, size, n reg.Register
}

// dot512 multiplies n tokens with VPDPBUSD. Another hardware thread on the core leaves this one every second cycle to issue in, and then it
// counts how few instructions there are: those of two tokens in three read their columns from memory themselves, which wants an address
// without an index. With those of all tokens, reading would become what takes longest.
func (k bytesKernel) dot512(n int) {
	acc, loop := k.sums(n), fmt.Sprintf("loop%d", n)
	var bases []reg.Register
	for i := range n {
		switch {
		case i == 0:
			bases = append(bases, k.x)
		case i%3 < 2:
			next, last := GP64(), bases[len(bases)-1]
			LEAQ(operand.Mem{Base: last, Index: k.ldx, Scale: uint8(2 - i%3)}, next)
			bases = append(bases, next)
		}
	}
	w, x := k.s.regs(2), k.s.vec()
	Label(loop)
	for f := range 4 {
		k.s.move(at(k.w, 64*f), w[0])
		k.s.move(indexed(k.w, k.size, 64*f), w[1])
		for i := range acc {
			if i%3 < 2 {
				for p := range w {
					VPDPBUSD_BCST(at(bases[i/3*2+i%3], 4*f), w[p], acc[i][p])
				}
				continue
			}
			VPBROADCASTD(indexed(bases[i/3*2+1], k.ldx, 4*f), x)
			for p := range w {
				VPDPBUSD(x, w[p], acc[i][p])
			}
		}
	}
	ADDQ(u32(256), k.w)
	for _, b := range bases {
		ADDQ(u8(16), b)
	}
	DECQ(k.n)
	JNZ(label(loop))
	k.finish(acc)
}

// sums are two zeroed registers for each of n tokens.
func (k bytesKernel) sums(n int) [][]reg.VecVirtual {
	acc := make([][]reg.VecVirtual, n)
	for i := range acc {
		acc[i] = k.s.regs(2)
		k.s.zero(acc[i]...)
	}
	return acc
}

// dot256 multiplies n tokens with VPDPBUSD for half the width.
func (k bytesKernel) dot256(n int) {
	acc, loop := k.sums(n), fmt.Sprintf("loop%d", n)
	tok, off := k.tokens(n)
	w, x := k.s.regs(2), k.s.vec()
	Label(loop)
	for f := range 4 {
		k.halves(f, w)
		for i := range acc {
			VPBROADCASTD(indexed(tok[i], off, 4*f), x)
			for p := range w {
				dpbusd(x, w[p], acc[i][p])
			}
		}
	}
	ADDQ(u32(256), k.w)
	ADDQ(u8(16), off)
	DECQ(k.n)
	JNZ(label(loop))
	k.finish(acc)
}

// tokens addresses n rows of x, each with a register and all with one more, which alone moves.
func (k bytesKernel) tokens(n int) (bases []reg.Register, off reg.Register) {
	bases, off = []reg.Register{k.x}, GP64()
	for i := 1; i < n; i++ {
		next := GP64()
		LEAQ(indexed(bases[i-1], k.ldx, 0), next)
		bases = append(bases, next)
	}
	XORQ(off, off)
	return bases, off
}

// halves reads field f of a block of a panel.
func (k bytesKernel) halves(f int, w []reg.VecVirtual) {
	for p := range w {
		k.s.move(at(k.w, 64*f+32*p), w[p])
	}
}

// finish adds sums to those of c and stores them there, or in dst when they are whole.
func (k bytesKernel) finish(acc [][]reg.VecVirtual) {
	n := len(acc)
	more, xsum := load("more"), load("xsum")
	first, part := fmt.Sprintf("first%d", n), fmt.Sprintf("part%d", n)
	c := rowsOf("c", "ldc", n)
	TESTQ(more, more)
	JZ(label(first))
	for i := range acc {
		for p, a := range acc[i] {
			VPADDD(c.at(i, k.s.bytes*p), a, a)
		}
	}
	Label(first)
	TESTQ(xsum, xsum)
	JZ(label(part))
	dst, sum := rowsOf("dst", "ldd", n), k.s.vec()
	for i := range acc {
		VPBROADCASTD(at(xsum, 4*i), sum)
		for p, a := range acc[i] {
			VPSUBD(sum, a, a)
			k.s.move(a, dst.at(i, k.s.bytes*p))
		}
	}
	done()
	Label(part)
	for i := range acc {
		for p, a := range acc[i] {
			k.s.move(a, c.at(i, k.s.bytes*p))
		}
	}
}

// rowsOf addresses n rows of int32.
func rowsOf(base, stride string, n int) rows {
	b, s := load(base), load(stride)
	SHLQ(u8(2), s)
	return newRows(b, s, n)
}

// short multiplies n tokens with sums of int16 over 16 blocks: 64 times 4*127 and -4*128 are within -32768..32512.
func (k bytesKernel) short(n int) {
	sum := k.s.regs(2 * n) // those of a token beside each other
	w, x, product := k.s.regs(2), k.s.vec(), k.s.vec()
	more := load("more")
	inner, outer, begin := fmt.Sprintf("inner%d", n), fmt.Sprintf("outer%d", n), fmt.Sprintf("begin%d", n)
	out := rowsOf("c", "ldc", n)
	TESTQ(more, more)
	JNZ(label(begin))
	k.s.zero(product)
	for i := range sum {
		k.s.move(product, out.at(i/2, 32*(i%2)))
	}
	Label(begin)
	tok, off := k.tokens(n)
	count := GP64()
	Label(outer)
	takeAtMost(16, k.n, count)
	k.s.zero(sum...)
	Label(inner)
	for f := range 4 {
		k.halves(f, w)
		for i := range n {
			VPBROADCASTD(indexed(tok[i], off, 4*f), x)
			VPMADDUBSW(x, w[0], product)
			VPMADDUBSW(x, w[1], x)
			VPADDW(product, sum[2*i], sum[2*i])
			VPADDW(x, sum[2*i+1], sum[2*i+1])
		}
	}
	ADDQ(u32(256), k.w)
	ADDQ(u8(16), off)
	DECQ(count)
	JNZ(label(inner))
	for i, a := range sum {
		VPMADDWD(constant(cOnes16), a, a)
		VPADDD(out.at(i/2, 32*(i%2)), a, a)
		k.s.move(a, out.at(i/2, 32*(i%2)))
	}
	TESTQ(k.n, k.n)
	JNZ(label(outer))
	end, xsum := fmt.Sprintf("end%d", n), load("xsum")
	TESTQ(xsum, xsum)
	JZ(label(end))
	dst := rowsOf("dst", "ldd", n)
	for i := range n {
		VPBROADCASTD(at(xsum, 4*i), x)
		for p, a := range sum[2*i : 2*i+2] {
			k.s.move(out.at(i, 32*p), a)
			VPSUBD(x, a, a)
			k.s.move(a, dst.at(i, 32*p))
		}
	}
	Label(end)
}
