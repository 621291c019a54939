package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/reg"
)

// int8Dense emits the products of dense16 matrices of int8 with activations in two int8 planes. Weights are multiplied as
// unsigned numbers; the sums of the planes are taken off at the end.
func int8Dense(s simd) {
	most := 3
	if s.wide() {
		most = 8
		denseIntFinish()
		int8Side512()
	} else {
		joinPlanes16()
		int8Joined256(1)
		int8Joined256(4)
	}
	for tokens := 1; tokens <= most; tokens++ {
		switch {
		case s.wide() && tokens == 1:
			int8Gemv512()
		case s.wide():
			int8Gemm512(tokens)
		default:
			int8x256(tokens)
		}
	}
}

// int8Kernel holds the parameters that the loop of a kernel needs; the others are loaded behind it.
type int8Kernel struct {
	s      simd
	tokens int
	w, n   reg.Register
	planes [2]rows // hi, lo
}

// newInt8Kernel begins a kernel for tokens and a number of panels.
func newInt8Kernel(s simd, tokens, panels int) int8Kernel {
	rows := "the 16 rows r of a panel"
	if s.suffix == avx2.suffix && tokens > 1 {
		rows = "the 8 rows r of the half panel that w and scale point to"
	}
	name := fmt.Sprintf("denseInt8%st%d", s.suffix, tokens)
	if panels == sides {
		name, rows = fmt.Sprintf("denseInt8%sSide", s.suffix), fmt.Sprintf("the %d rows r of %d panels", 16*sides, sides)
	}
	TEXT(name, NOSPLIT, "func(dst *float32, ldd int, w *byte, scale *float32, hi, lo *int8, ldx int, sumHi, sumLo *int32, inv *float32, add, blocks int)")
	Doc(fmt.Sprintf("%s: with accHi = sum_k w[r,k]*hi[t*ldx+k] and accLo = sum_k w[r,k]*lo[t*ldx+k],", name),
		fmt.Sprintf("dst[t*ldd+r] = ((float32(accHi)*256 + float32(accLo)) * scale[r]) * inv[t] for %s and t < %d; blocks > 0; add: dst += that.", rows, tokens))
	Pragma("noescape")
	k := int8Kernel{s: s, tokens: tokens, w: load("w"), n: load("blocks")}
	ldx := load("ldx")
	for i, p := range []string{"hi", "lo"} {
		k.planes[i] = newRows(load(p), ldx, tokens)
	}
	return k
}

// advance goes on by a number of blocks.
func (k int8Kernel) advance(blocks int) {
	ADDQ(u32(64*blocks), k.w)
	for _, p := range k.planes {
		p.advance(4 * blocks)
	}
}

// finish makes results of the sums [token][plane][part] and stores them.
func (k int8Kernel) finish(acc [][2][]reg.VecVirtual) {
	dst, ldd, scale, inv := load("dst"), load("ldd"), load("scale"), load("inv")
	sums := [2]reg.Register{load("sumHi"), load("sumLo")}
	SHLQ(u8(2), ldd)
	t := k.s.vec()
	for i := range acc {
		for part, y := range acc[i][0] {
			for plane := range sums {
				a := acc[i][plane][part]
				VPBROADCASTD(at(sums[plane], 4*i), t)
				VPSLLD(u8(7), t, t)
				VPSUBD(t, a, a)
				VCVTDQ2PS(a, a)
			}
			VMULPS(constant(c256), y, y)
			VADDPS(acc[i][1][part], y, y)
			VMULPS(at(scale, k.s.bytes*part), y, y)
			VBROADCASTSS(at(inv, 4*i), t)
			VMULPS(t, y, y)
		}
	}
	out, add := newRows(dst, ldd, len(acc)), load("add")
	TESTQ(add, add)
	JZ(label("store"))
	for i := range acc {
		for part, y := range acc[i][0] {
			VADDPS(out.at(i, k.s.bytes*part), y, y)
		}
	}
	Label("store")
	for i := range acc {
		for part, y := range acc[i][0] {
			VMOVUPS(y, out.at(i, k.s.bytes*part))
		}
	}
	done()
}

// denseIntFinish makes results of the sums that the AMX kernel leaves: for each 16 tokens [plane][token][two panels].
func denseIntFinish() {
	s := avx512
	TEXT("denseIntFinishAVX512", NOSPLIT, "func(dst *float32, ldd int, acc *int32, scale *float32, sumHi, sumLo *int32, inv *float32, add, tokens int)")
	Doc("denseIntFinishAVX512: with accHi and accLo the sums of 32 rows for 16 tokens, and 128 times sumHi and sumLo taken off,",
		"dst[t*ldd+r] = ((float32(accHi)*256 + float32(accLo)) * scale[r]) * inv[t] for t < tokens, a multiple of 16 > 0; add: dst += that.")
	Pragma("noescape")
	dst, ldd, acc, scale := load("dst"), load("ldd"), load("acc"), load("scale")
	sums := [2]reg.Register{load("sumHi"), load("sumLo")}
	inv, add, n := load("inv"), load("add"), load("tokens")
	SHLQ(u8(2), ldd)
	sc := s.regs(2)
	for p := range sc {
		VMOVUPS(at(scale, 64*p), sc[p])
	}
	count, off, f := GP64(), s.regs(2), ZMM()
	Label("group")
	MOVQ(u32(16), count)
	Label("token")
	for plane := range sums {
		VPBROADCASTD(at(sums[plane], 0), off[plane])
		VPSLLD(u8(7), off[plane], off[plane])
	}
	VBROADCASTSS(at(inv, 0), f)
	y, lo := s.regs(2), s.regs(2)
	for p := range y {
		VMOVDQU32(at(acc, 64*p), y[p])
		VMOVDQU32(at(acc, 2048+64*p), lo[p])
		VPSUBD(off[0], y[p], y[p])
		VPSUBD(off[1], lo[p], lo[p])
		VCVTDQ2PS(y[p], y[p])
		VCVTDQ2PS(lo[p], lo[p])
		VMULPS(constant(c256), y[p], y[p])
		VADDPS(lo[p], y[p], y[p])
		VMULPS(sc[p], y[p], y[p])
		VMULPS(f, y[p], y[p])
	}
	TESTQ(add, add)
	JZ(label("store"))
	for p := range y {
		VADDPS(at(dst, 64*p), y[p], y[p])
	}
	Label("store")
	for p := range y {
		VMOVUPS(y[p], at(dst, 64*p))
	}
	ADDQ(ldd, dst)
	ADDQ(u32(128), acc)
	for _, p := range append(sums[:], inv) {
		ADDQ(u8(4), p)
	}
	DECQ(count)
	JNZ(label("token"))
	ADDQ(u32(2048), acc)
	SUBQ(u8(16), n)
	JNZ(label("group"))
	done()
}

// int8Gemv512 multiplies one panel with one token. Two blocks are in flight, as one alone would wait for its own sums.
func int8Gemv512() {
	k := newInt8Kernel(avx512, 1, 1)
	acc := [2][2]reg.VecVirtual{} // [block][plane]
	for b := range acc {
		for p := range acc[b] {
			acc[b][p] = ZMM()
			avx512.zero(acc[b][p])
		}
	}
	v := ZMM()
	block := func(b int) {
		VMOVDQU32(at(k.w, 64*b), v)
		prefetch(k.w, 64*b, 64)
		for p := range k.planes {
			VPDPBUSD_BCST(k.planes[p].at(0, 4*b), v, acc[b][p])
		}
	}
	TESTQ(u32(1), k.n) // an odd block first
	JZ(label("loop"))
	block(0)
	k.advance(1)
	DECQ(k.n)
	JZ(label("end"))
	Label("loop")
	block(0)
	block(1)
	k.advance(2)
	SUBQ(u8(2), k.n)
	JNZ(label("loop"))
	Label("end")
	var sums [2][]reg.VecVirtual
	for p, a := range acc[0] {
		VPADDD(acc[1][p], a, a)
		sums[p] = []reg.VecVirtual{a}
	}
	k.finish([][2][]reg.VecVirtual{sums})
}

// int8Side512 multiplies panels side by side with one token: they are the parts of its sums.
func int8Side512() {
	k := newInt8Kernel(avx512, 1, sides)
	one := GP64()
	MOVQ(u32(1), one)
	acc, panel := k.accumulators(sides), sideBySide(k.w, k.n, one)
	x, v := avx512.regs(2), ZMM()
	Label("loop")
	for p := range x {
		VPBROADCASTD(k.planes[p].at(0, 0), x[p])
	}
	for i := range sides {
		panel.load(i, v)
		for p := range x {
			VPDPBUSD(x[p], v, acc[0][p][i])
		}
	}
	panel.next()
	for _, p := range k.planes {
		p.advance(4)
	}
	DECQ(k.n)
	JNZ(label("loop"))
	k.finish(acc)
}

// accumulators gives zero sums [token][plane][part].
func (k int8Kernel) accumulators(parts int) [][2][]reg.VecVirtual {
	acc := make([][2][]reg.VecVirtual, k.tokens)
	for i := range acc {
		for p := range acc[i] {
			acc[i][p] = k.s.regs(parts)
			k.s.zero(acc[i][p]...)
		}
	}
	return acc
}

// int8Gemm512 multiplies one panel with several tokens.
func int8Gemm512(tokens int) {
	k := newInt8Kernel(avx512, tokens, 1)
	acc, v := k.accumulators(1), ZMM()
	Label("loop")
	VMOVDQU32(at(k.w, 0), v)
	prefetchTwice(k.w, 0, 64)
	for i := range acc {
		for p := range k.planes {
			VPDPBUSD_BCST(k.planes[p].at(i, 0), v, acc[i][p][0])
		}
	}
	k.advance(1)
	DECQ(k.n)
	JNZ(label("loop"))
	k.finish(acc)
}

// int8x256 multiplies a panel with one token, or half a panel with several. Products of bytes do not fit int16, so weights and
// activations are widened to it; a sum then has two parts in neighbouring lanes.
func int8x256(tokens int) {
	k := newInt8Kernel(avx2, tokens, 1)
	parts := 1
	if tokens == 1 {
		parts = 2
	}
	acc := k.accumulators(2 * parts) // of the rows 0 1 4 5 and 2 3 6 7 of each part
	x, v, m := avx2.regs(2), avx2.regs(2), YMM()
	weights := func(part int) {
		VMOVDQU(at(k.w, 32*part), v[1])
		avx2.zero(m)
		VPUNPCKLBW(m, v[1], v[0])
		VPUNPCKHBW(m, v[1], v[1])
	}
	broadcast := func(token, plane int, x reg.VecVirtual) {
		VPBROADCASTD(k.planes[plane].at(token, 0), x.AsX())
		VPMOVSXBW(x.AsX(), x)
	}
	add := func(x, w, m, sum reg.VecVirtual) {
		VPMADDWD(x, w, m)
		VPADDD(m, sum, sum)
	}
	Label("loop")
	if tokens == 1 {
		prefetch(k.w, 0, 64)
		for p := range k.planes {
			broadcast(0, p, x[p])
		}
		for part := range parts {
			weights(part)
			for g, w := range v {
				add(x[0], w, m, acc[0][0][2*part+g])
				add(x[1], w, w, acc[0][1][2*part+g])
			}
		}
	} else {
		prefetchTwice(k.w, 0, 64)
		weights(0)
		for i := range acc {
			for p := range k.planes {
				broadcast(i, p, x[0])
				add(x[0], v[0], m, acc[i][p][0])
				add(x[0], v[1], x[0], acc[i][p][1])
			}
		}
	}
	k.advance(1)
	DECQ(k.n)
	JNZ(label("loop"))
	for i := range acc {
		for p, a := range acc[i] {
			for part := range parts {
				VPHADDD(a[2*part+1], a[2*part], a[part])
			}
			acc[i][p] = a[:parts]
		}
	}
	k.finish(acc)
}
