package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// base3 emits what reads ternary matrices in base 3, for AVX-512 VBMI: see base3.go in the parent package for the bytes' meaning.
func base3(s simd) {
	if !s.wide() {
		return
	}
	tables := base3Tables()
	base3Unpack512(tables)
	base3Gemv512(tables)
	base3Gemv512Side(tables)
}

// base3Tables are of 64 bytes, for the low six bits of a byte: the four codes of those below 192 in their fields, those of the others, and the
// fifth code of the others shifted by 6, and by 2.
func base3Tables() operand.Mem {
	codes := func(n int) uint64 { return uint64(n%3 | n/3%3<<2 | n/9%3<<4 | n/27<<6) }
	t := GLOBL("base3Tables", RODATA|NOPTR)
	for i := 0; i < 4*64; i += 8 {
		var v uint64
		for j := range 8 {
			n, b := i%64+j, uint64(0)
			switch kind := i / 64; {
			case kind == 0:
				b = codes(n)
			case n >= 3*17: // no byte that is written
			case kind == 1:
				b = codes(64 + n%17)
			case kind == 2:
				b = uint64(n / 17 << 6)
			default:
				b = uint64(n / 17 << 2)
			}
			v |= b << (8 * j)
		}
		DATA(i, operand.U64(v))
	}
	return t
}

// base3Look holds the tables.
type base3Look struct {
	plain, rest, fifth reg.VecVirtual
	shift              int // of the fifth code: 6 or 2
}

func newBase3Look(tables operand.Mem, shift int) base3Look {
	l := base3Look{plain: ZMM(), rest: ZMM(), fifth: ZMM(), shift: shift}
	VMOVDQU32(tables, l.plain)
	VMOVDQU32(tables.Offset(64), l.rest)
	VMOVDQU32(tables.Offset(64*(3-shift/6)), l.fifth)
	return l
}

// decode gives the four codes of the bytes v in their fields, and the fifth, shifted, in fifth. upper has the two bits of the fifth.
func (l base3Look) decode(v, upper, codes, fifth reg.VecVirtual) {
	k, from := K(), v
	if l.shift != 6 {
		VPSRLW(u8(6-l.shift), v, fifth)
		from = fifth
	}
	VPANDD(upper, from, fifth)
	VPCMPEQB(upper, fifth, k)
	VPERMB(l.plain, v, codes)
	VPERMB(l.rest, v, k, codes)
	VPERMB(l.fifth, v, k, fifth)
}

// base3Unpack512 makes five blocks of panel16 of four.
func base3Unpack512(tables operand.Mem) {
	TEXT("base3UnpackAVX512", NOSPLIT, "func(dst *byte, w *byte, groups int)")
	Doc("base3UnpackAVX512: five blocks of panel16 at dst[320*g] of four of base 3 at w[256*g], for g < groups; groups > 0; needs VBMI.")
	Pragma("noescape")
	dst, w, n := load("dst"), load("w"), load("groups")
	look, upper := newBase3Look(tables, 6), avx512.splat(0xc0c0c0c0)
	v, codes, fifth, last := ZMM(), ZMM(), ZMM(), ZMM()
	Label("loop")
	for b := range 4 {
		VMOVDQU32(at(w, 64*b), v)
		PREFETCHT0(at(w, 64*b+prefetchOnce))
		look.decode(v, upper, codes, fifth)
		VMOVDQU32(codes, at(dst, 64*b))
		switch b {
		case 0:
			VPSRLW(u8(6), fifth, last)
		case 3:
			VPORD(fifth, last, last)
		default:
			VPSRLW(u8(6-2*b), fifth, fifth)
			VPORD(fifth, last, last)
		}
	}
	VMOVDQU32(last, at(dst, 256))
	ADDQ(u32(256), w)
	ADDQ(u32(320), dst)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

// base3Gemv512 multiplies one panel with one token, as ternaryGemv512 does, whose sums it has: the fifth code lies where a byte's last field does.
func base3Gemv512(tables operand.Mem) {
	TEXT("base3GemvAVX512", NOSPLIT, "func(dst *int32, w *byte, x *int8, xsum *int32, groups, tail int)")
	Doc("base3GemvAVX512: dst[r] = sum_k w[r,k]*x[k] for the 16 rows r of a panel of groups in base 3 and tail blocks of panel16; needs VBMI.")
	Pragma("noescape")
	dst, w, x, xsum, n, tail := load("dst"), load("w"), load("x"), load("xsum"), load("groups"), load("tail")
	k, look := newGemv512(), newBase3Look(tables, 6)
	codes, fifth := ZMM(), ZMM()
	TESTQ(n, n)
	JZ(label("rest"))
	Label("loop")
	for b := range 4 {
		acc := k.acc[b%2]
		VMOVDQU32(at(w, 64*b), k.v)
		PREFETCHT0(at(w, 64*b+prefetchOnce))
		look.decode(k.v, k.mask[3], codes, fifth)
		VPDPBUSD_BCST(at(x, 64+4*b), fifth, acc[3])
		for f, mask := range k.mask {
			VPANDD(mask, codes, k.t[f])
			VPDPBUSD_BCST(at(x, 16*b+4*f), k.t[f], acc[f])
		}
	}
	ADDQ(u32(256), w)
	ADDQ(u8(80), x)
	DECQ(n)
	JNZ(label("loop"))
	Label("rest")
	TESTQ(tail, tail)
	JZ(label("end"))
	Label("block")
	k.block(at(w, 0), at(x, 0), 0)
	ADDQ(u8(64), w)
	ADDQ(u8(16), x)
	DECQ(tail)
	JNZ(label("block"))
	Label("end")
	for f, a := range k.acc[0] {
		VPADDD(k.acc[1][f], a, a)
	}
	k.store(0, xsum, at(dst, 0))
	done()
}

// base3Ahead is sideAhead for base 3, of which a block takes twice the time: from further away a thread reads a sixth less.
const base3Ahead = 256

// base3Gemv512Side multiplies panels side by side with one token, as ternaryGemv512Side does. The fifth code is shifted to where field 1 lies.
func base3Gemv512Side(tables operand.Mem) {
	TEXT("base3GemvAVX512Side", NOSPLIT, "func(dst *int32, w *byte, x *int8, xsum *int32, groups, tail, step int)")
	Doc(fmt.Sprintf("base3GemvAVX512Side: dst[16*step*p+r] = sum_k w[r,k]*x[k] for the 16 rows r of each panel step*p, p < %d, of groups in base 3 and tail blocks of panel16; needs VBMI.", sides))
	Pragma("noescape")
	dst, w, x, xsum, n, tail, step := load("dst"), load("w"), load("x"), load("xsum"), load("groups"), load("tail"), load("step")
	count, fifths := GP64(), GP64()
	LEAQ(operand.Mem{Base: tail, Index: n, Scale: 4}, count)
	panel, k, look := sideBySide(w, count, step), newGemv512Side(), newBase3Look(tables, 2)
	panel.ahead = base3Ahead
	v, codes, fifth, xf := ZMM(), ZMM(), ZMM(), ZMM()
	TESTQ(n, n)
	JZ(label("rest"))
	Label("group")
	LEAQ(at(x, 64), fifths)
	MOVQ(u32(4), count)
	Label("loop")
	k.inputs(x)
	VPBROADCASTD(at(fifths, 0), xf)
	for i := range sides {
		panel.load(i, v)
		look.decode(v, k.mask[1], codes, fifth)
		VPDPBUSD(xf, fifth, k.acc[i][1])
		k.multiply(i, codes)
	}
	panel.next()
	ADDQ(u8(16), x)
	ADDQ(u8(4), fifths)
	DECQ(count)
	JNZ(label("loop"))
	ADDQ(u8(16), x) // past what the fifth codes were multiplied with
	DECQ(n)
	JNZ(label("group"))
	Label("rest")
	TESTQ(tail, tail)
	JZ(label("end"))
	Label("block")
	k.inputs(x)
	for i := range sides {
		panel.load(i, v)
		k.multiply(i, v)
	}
	panel.next()
	ADDQ(u8(16), x)
	DECQ(tail)
	JNZ(label("block"))
	Label("end")
	k.store(xsum, dst, step)
	done()
}
