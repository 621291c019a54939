package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// ternary emits the products with panel16 matrices. The two-bit codes w+1 are multiplied as unsigned bytes; the sum of x is
// taken off at the end.
func ternary(s simd) {
	if s.wide() {
		for _, panels := range []int{1, 2, 4} {
			ternaryGemv512(panels)
		}
		for _, panels := range []int{1, 2} {
			for tokens := 2; tokens <= 12; tokens++ {
				ternaryGemm512(panels, tokens)
			}
		}
		return
	}
	ternaryGemv256()
	for tokens := 2; tokens <= 4; tokens++ {
		ternaryGemm256(tokens)
	}
}

const gemvSignature = "func(dst *int32, w *byte, x *int8, xsum *int32, blocks int)"

// ternaryGemv512 multiplies several panels with one token. The four fields of a byte are masked in place and accumulated
// scaled by 1, 4, 16 and 64, so that the loop has no shifts; the scale is shifted out at the end.
func ternaryGemv512(panels int) {
	name := fmt.Sprintf("ternaryGemvAVX512p%d", panels)
	TEXT(name, NOSPLIT, gemvSignature)
	Doc(fmt.Sprintf("%s: dst[r] = sum_k w[r,k]*x[k] for the rows r of %d panels that follow each other; blocks > 0.", name, panels))
	Pragma("noescape")
	dst, w, x, xsum, n := load("dst"), load("w"), load("x"), load("xsum"), load("blocks")
	var mask [4]reg.VecVirtual
	for f := range mask {
		mask[f] = avx512.splat(0x03030303 << (2 * f))
	}
	base := []reg.Register{w}
	stride := GP64()
	MOVQ(n, stride)
	SHLQ(u8(6), stride)
	for i := 1; i < panels; i++ {
		next := GP64()
		LEAQ(operand.Mem{Base: base[i-1], Index: stride, Scale: 1}, next)
		base = append(base, next)
	}
	ahead := 1 // blocks in flight: one panel alone would wait for its own sums
	if panels == 1 {
		ahead = 2
	}
	acc := make([][]reg.VecVirtual, panels*ahead)
	for i := range acc {
		acc[i] = avx512.regs(4)
		avx512.zero(acc[i]...)
	}
	v, t := ZMM(), avx512.regs(4)
	block := func(panel, sum, off int) {
		VMOVDQU32(at(base[panel], 64*off), v)
		prefetch(base[panel], 64*off, 64)
		for f := range mask {
			VPANDD(mask[f], v, t[f])
			VPDPBUSD_BCST(at(x, 16*off+4*f), t[f], acc[sum][f])
		}
	}
	if ahead == 2 { // an odd block first
		TESTQ(u32(1), n)
		JZ(label("loop"))
		block(0, 0, 0)
		ADDQ(u8(64), w)
		ADDQ(u8(16), x)
		DECQ(n)
		JZ(label("end"))
	}
	Label("loop")
	for i := range panels {
		for k := range ahead {
			block(i, i*ahead+k, k)
		}
		ADDQ(u32(64*ahead), base[i])
	}
	ADDQ(u8(16*ahead), x)
	SUBQ(u8(ahead), n)
	JNZ(label("loop"))
	Label("end")
	for i := range panels {
		a := acc[i*ahead]
		if ahead == 2 {
			for f := range a {
				VPADDD(acc[i*ahead+1][f], a[f], a[f])
			}
		}
		for f := 1; f < 4; f++ {
			VPSRAD(u8(2*f), a[f], a[f])
			VPADDD(a[f], a[0], a[0])
		}
		VPSUBD_BCST(at(xsum, 0), a[0], a[0])
		VMOVDQU32(a[0], at(dst, 64*i))
	}
	done()
}

// ternaryGemv256 multiplies one panel, as two halves of eight rows, with one token. Pairs of products are int16; the fields 1
// and 3 stay scaled by 4, so that a block adds at most 2*2*8*127 to, and at most 2*2*8*128 takes off, their sum: eight blocks
// are within -32768..32512 and are then widened to int32.
func ternaryGemv256() {
	TEXT("ternaryGemvAVX2", NOSPLIT, gemvSignature)
	Doc("ternaryGemvAVX2: dst[r] = sum_k w[r,k]*x[k] for the 16 rows r of a panel; blocks > 0.")
	Pragma("noescape")
	dst, w, x, xsum, n := load("dst"), load("w"), load("x"), load("xsum"), load("blocks")
	mask0, mask1, ones := avx2.splat(0x03030303), avx2.splat(0x0c0c0c0c), avx2.splat(0x00010001)
	lo32, hi32, lo, hi := avx2.regs(2), avx2.regs(2), avx2.regs(2), avx2.regs(2)
	avx2.zero(lo32...)
	avx2.zero(hi32...)
	count, most := GP64(), GP64()
	MOVQ(u32(8), most)
	Label("outer")
	takeUpTo(most, n, count)
	avx2.zero(lo...)
	avx2.zero(hi...)
	Label("inner")
	prefetch(w, 0, 64)
	v, v4, ta, tb, xb := YMM(), YMM(), YMM(), YMM(), YMM()
	for i := range 2 {
		VMOVDQU(at(w, 32*i), v)
		VPSRLW(u8(4), v, v4)
		for f, c := range []struct{ src, mask, sum, t reg.VecVirtual }{
			{v, mask0, lo[i], ta}, {v, mask1, hi[i], tb}, {v4, mask0, lo[i], ta}, {v4, mask1, hi[i], tb},
		} {
			VPBROADCASTD(at(x, 4*f), xb)
			VPAND(c.src, c.mask, c.t)
			VPMADDUBSW(xb, c.t, c.t)
			VPADDW(c.t, c.sum, c.sum)
		}
	}
	ADDQ(u8(64), w)
	ADDQ(u8(16), x)
	DECQ(count)
	JNZ(label("inner"))
	for i := range lo {
		widen(ones, lo[i], lo32[i])
		widen(ones, hi[i], hi32[i])
	}
	TESTQ(n, n)
	JNZ(label("outer"))
	VPBROADCASTD(at(xsum, 0), v)
	for i := range lo {
		VPSRAD(u8(2), hi32[i], hi32[i])
		VPADDD(hi32[i], lo32[i], lo32[i])
		VPSUBD(v, lo32[i], lo32[i])
		VMOVDQU(lo32[i], at(dst, 32*i))
	}
	done()
}

// takeUpTo moves min(most, n) from n to count.
func takeUpTo(most, n, count reg.Register) {
	MOVQ(n, count)
	CMPQ(count, most)
	CMOVQGT(most, count)
	SUBQ(count, n)
}

// widen adds pairs of int16 to int32 sums.
func widen(ones, sum16, sum32 reg.VecVirtual) {
	VPMADDWD(ones, sum16, sum16)
	VPADDD(sum16, sum32, sum32)
}

const gemmSignature = "func(dst *int32, ldd int, w *byte, x *int8, ldx int, xsum *int32, blocks int)"

func gemmDoc(name, rows string, tokens int) {
	Doc(fmt.Sprintf("%s: dst[t*ldd+r] = sum_k w[r,k]*x[t*ldx+k] for %s and t < %d; blocks > 0.", name, rows, tokens))
	Pragma("noescape")
}

// ternaryGemm512 multiplies one or two panels with several tokens, which share the decoded weights.
func ternaryGemm512(panels, tokens int) {
	name := fmt.Sprintf("ternaryGemmAVX512p%dt%d", panels, tokens)
	TEXT(name, NOSPLIT, gemmSignature)
	gemmDoc(name, fmt.Sprintf("the rows r of %d panels", panels), tokens)
	dst, ldd, w, x, ldx, xsum, n := load("dst"), load("ldd"), load("w"), load("x"), load("ldx"), load("xsum"), load("blocks")
	SHLQ(u8(2), ldd)
	mask := avx512.splat(0x03030303)
	stride := GP64()
	MOVQ(n, stride)
	SHLQ(u8(6), stride)
	tok := newRows(x, ldx, tokens)
	acc := make([][]reg.VecVirtual, tokens)
	for i := range acc {
		acc[i] = avx512.regs(panels)
		avx512.zero(acc[i]...)
	}
	v, t, xb := avx512.regs(panels), avx512.regs(panels), ZMM()
	Label("loop")
	for p := range v {
		m := at(w, 0)
		if p == 1 {
			m.Index, m.Scale = stride, 1
		}
		VMOVDQU32(m, v[p])
		m.Disp += prefetchAhead
		PREFETCHT0(m)
	}
	for f := range 4 {
		for p := range v {
			VPANDD(mask, v[p], t[p])
			if f < 3 {
				VPSRLW(u8(2), v[p], v[p])
			}
		}
		for i := range acc {
			if panels == 1 {
				VPDPBUSD_BCST(tok.at(i, 4*f), t[0], acc[i][0])
				continue
			}
			VPBROADCASTD(tok.at(i, 4*f), xb)
			for p := range t {
				VPDPBUSD(xb, t[p], acc[i][p])
			}
		}
	}
	ADDQ(u8(64), w)
	tok.advance(16)
	DECQ(n)
	JNZ(label("loop"))
	for i := range acc {
		for p, a := range acc[i] {
			VPSUBD_BCST(at(xsum, 4*i), a, a)
			VMOVDQU32(a, at(dst, 64*p))
		}
		if i < tokens-1 {
			ADDQ(ldd, dst)
		}
	}
	done()
}

// ternaryGemm256 multiplies eight rows, half a panel, with several tokens. Fields are shifted down, so that a block adds at
// most 4*2*2*127 to, and takes at most 4*2*2*128 off, an int16 sum: sixteen blocks are within -32768..32512.
func ternaryGemm256(tokens int) {
	name := fmt.Sprintf("ternaryGemmAVX2t%d", tokens)
	TEXT(name, NOSPLIT, gemmSignature)
	gemmDoc(name, "the 8 rows r of the half panel that w points to", tokens)
	dst, ldd, w, x, ldx, xsum, n := load("dst"), load("ldd"), load("w"), load("x"), load("ldx"), load("xsum"), load("blocks")
	SHLQ(u8(2), ldd)
	mask, ones := avx2.splat(0x03030303), avx2.splat(0x00010001)
	tok := newRows(x, ldx, tokens)
	sum32, sum16 := avx2.regs(tokens), avx2.regs(tokens)
	avx2.zero(sum32...)
	count, most := GP64(), GP64()
	MOVQ(u32(16), most)
	Label("outer")
	takeUpTo(most, n, count)
	avx2.zero(sum16...)
	v, d, p := YMM(), YMM(), avx2.regs(2)
	Label("inner")
	VMOVDQU(at(w, 0), v)
	prefetch(w, 0, 64)
	for f := range 4 {
		VPAND(v, mask, d)
		if f < 3 {
			VPSRLW(u8(2), v, v)
		}
		for i := range sum16 {
			VPBROADCASTD(tok.at(i, 4*f), p[i%2])
			VPMADDUBSW(p[i%2], d, p[i%2])
			VPADDW(p[i%2], sum16[i], sum16[i])
		}
	}
	ADDQ(u8(64), w)
	tok.advance(16)
	DECQ(count)
	JNZ(label("inner"))
	for i := range sum16 {
		widen(ones, sum16[i], sum32[i])
	}
	TESTQ(n, n)
	JNZ(label("outer"))
	for i, a := range sum32 {
		VPBROADCASTD(at(xsum, 4*i), d)
		VPSUBD(d, a, a)
		VMOVDQU(a, at(dst, 0))
		if i < tokens-1 {
			ADDQ(ldd, dst)
		}
	}
	done()
}
