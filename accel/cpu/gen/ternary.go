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
	ternaryDecode(s)
	ternaryBytes(s)
	ternaryFinish(s)
	if s.wide() {
		ternaryGemv512()
		ternaryGemv512Side()
		for tokens := 2; tokens <= 12; tokens++ {
			ternaryGemm512(tokens)
		}
		return
	}
	ternaryGemv256()
	ternaryGemv256Pairs()
	for tokens := 2; tokens <= 4; tokens++ {
		ternaryGemm256(tokens)
	}
}

const gemvSignature = "func(dst *int32, w *byte, x *int8, xsum *int32, blocks int)"

// ternaryGemv512 multiplies one panel with one token. The four fields of a byte are masked in place and accumulated scaled by 1,
// 4, 16 and 64, so that the loop has no shifts; the scale is shifted out at the end. Two blocks are in flight, as one alone
// would wait for its own sums. Panels are read one after the other, which suits the prefetchers of Zen 4 best; see ternaryGemv512Side for others.
func ternaryGemv512() {
	TEXT("ternaryGemvAVX512", NOSPLIT, gemvSignature)
	Doc("ternaryGemvAVX512: dst[r] = sum_k w[r,k]*x[k] for the 16 rows r of a panel; blocks > 0.")
	Pragma("noescape")
	dst, w, x, xsum, n := load("dst"), load("w"), load("x"), load("xsum"), load("blocks")
	k := newGemv512()
	block := func(i int) { k.block(at(w, 64*i), at(x, 16*i), i) }
	TESTQ(u32(1), n) // an odd block first
	JZ(label("loop"))
	block(0)
	ADDQ(u8(64), w)
	ADDQ(u8(16), x)
	DECQ(n)
	JZ(label("end"))
	Label("loop")
	block(0)
	block(1)
	ADDQ(u32(128), w)
	ADDQ(u8(32), x)
	SUBQ(u8(2), n)
	JNZ(label("loop"))
	Label("end")
	for f, sum := range k.acc[0] {
		VPADDD(k.acc[1][f], sum, sum)
	}
	k.store(0, xsum, at(dst, 0))
	done()
}

// ternaryGemv512Side multiplies panels side by side with one token. Registers do not suffice for a sum for each field of each panel: the
// upper two of a byte are shifted down to the lower two.
func ternaryGemv512Side() {
	TEXT("ternaryGemvAVX512Side", NOSPLIT, "func(dst *int32, w *byte, x *int8, xsum *int32, blocks, step int)")
	Doc(fmt.Sprintf("ternaryGemvAVX512Side: dst[16*step*p+r] = sum_k w[r,k]*x[k] for the 16 rows r of each panel step*p, p < %d; blocks > 0.", sides))
	Pragma("noescape")
	dst, w, x, xsum, n, step := load("dst"), load("w"), load("x"), load("xsum"), load("blocks"), load("step")
	panel, k := sideBySide(w, n, step), newGemv512Side()
	v := avx512.regs(2)
	Label("loop")
	k.inputs(x)
	for i := range sides {
		panel.load(i, v[i%2])
		k.multiply(i, v[i%2])
	}
	panel.next()
	ADDQ(u8(16), x)
	DECQ(n)
	JNZ(label("loop"))
	k.store(xsum, dst, step)
	done()
}

// gemv512Side holds the sums of panels that are read side by side, of fields 0 and 2, and of fields 1 and 3, which are scaled by 4.
type gemv512Side struct {
	mask  []reg.VecVirtual
	xb, t []reg.VecVirtual
	acc   [sides][]reg.VecVirtual
}

func newGemv512Side() *gemv512Side {
	k := &gemv512Side{mask: []reg.VecVirtual{avx512.splat(0x03030303), avx512.splat(0x0c0c0c0c)}, xb: avx512.regs(4), t: avx512.regs(4)}
	for i := range k.acc {
		k.acc[i] = avx512.regs(2)
		avx512.zero(k.acc[i]...)
	}
	return k
}

// inputs reads the 16 that blocks of all panels are multiplied with.
func (k *gemv512Side) inputs(x reg.Register) {
	for f, xb := range k.xb {
		VPBROADCASTD(at(x, 4*f), xb)
	}
}

// multiply adds the products of v, a block of panel i, to its sums; v is lost.
func (k *gemv512Side) multiply(i int, v reg.VecVirtual) {
	VPANDD(k.mask[0], v, k.t[0])
	VPANDD(k.mask[1], v, k.t[1])
	VPSRLW(u8(4), v, v)
	VPANDD(k.mask[0], v, k.t[2])
	VPANDD(k.mask[1], v, k.t[3])
	for f, t := range k.t {
		VPDPBUSD(k.xb[f], t, k.acc[i][f%2])
	}
}

// store adds up the fields, takes off the sum of the inputs, and writes the results of panels, every step-th. step is lost.
func (k *gemv512Side) store(xsum, dst, step reg.Register) {
	SHLQ(u8(6), step)
	for _, a := range k.acc {
		VPSRAD(u8(2), a[1], a[1])
		VPADDD(a[1], a[0], a[0])
		VPSUBD_BCST(at(xsum, 0), a[0], a[0])
		VMOVDQU32(a[0], at(dst, 0))
		ADDQ(step, dst)
	}
}

// gemv512 holds the sums of two blocks in flight, for each field.
type gemv512 struct {
	mask, t [4]reg.VecVirtual
	acc     [2][4]reg.VecVirtual
	v       reg.VecVirtual
}

func newGemv512() *gemv512 {
	k := &gemv512{v: ZMM()}
	for f := range k.mask {
		k.mask[f], k.t[f] = avx512.splat(0x03030303<<(2*f)), ZMM()
		for i := range k.acc {
			k.acc[i][f] = ZMM()
		}
	}
	for _, a := range k.acc {
		avx512.zero(a[:]...)
	}
	return k
}

// block adds the products of a block of w with 16 inputs to sums i.
func (k *gemv512) block(w, x operand.Mem, i int) {
	VMOVDQU32(w, k.v)
	w.Disp += prefetchOnce
	PREFETCHT0(w)
	for f, mask := range k.mask {
		VPANDD(mask, k.v, k.t[f])
		VPDPBUSD_BCST(x.Offset(4*f), k.t[f], k.acc[i][f])
	}
}

// store adds up the fields of sums i and takes off the sum of the inputs.
func (k *gemv512) store(i int, xsum reg.Register, dst operand.Mem) {
	a := k.acc[i]
	for f := 1; f < 4; f++ {
		VPSRAD(u8(2*f), a[f], a[f])
		VPADDD(a[f], a[0], a[0])
	}
	VPSUBD_BCST(at(xsum, 0), a[0], a[0])
	VMOVDQU32(a[0], dst)
}

// ternaryGemv256 multiplies one panel, as two halves of eight rows, with one token. Pairs of products are int16; the fields 1
// and 3 stay scaled by 4, so that a block adds at most 2*2*8*127 to, and at most 2*2*8*128 takes off, their sum: eight blocks
// are within -32768..32512 and are then widened to int32.
func ternaryGemv256() {
	TEXT("ternaryGemvAVX2", NOSPLIT, gemvSignature)
	Doc("ternaryGemvAVX2: dst[r] = sum_k w[r,k]*x[k] for the 16 rows r of a panel; blocks > 0.")
	Pragma("noescape")
	dst, w, x, xsum, n := load("dst"), load("w"), load("x"), load("xsum"), load("blocks")
	lo32, hi32, k := avx2.regs(2), avx2.regs(2), gemv256{avx2.regs(2), avx2.regs(2)}
	lo, hi := k.lo, k.hi
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
	k.block(w, x)
	DECQ(count)
	JNZ(label("inner"))
	for i := range lo {
		widen(lo[i], lo32[i])
		widen(hi[i], hi32[i])
	}
	TESTQ(n, n)
	JNZ(label("outer"))
	sum := YMM()
	VPBROADCASTD(at(xsum, 0), sum)
	for i := range lo {
		VPSRAD(u8(2), hi32[i], hi32[i])
		VPADDD(hi32[i], lo32[i], lo32[i])
		VPSUBD(sum, lo32[i], lo32[i])
		VMOVDQU(lo32[i], at(dst, 32*i))
	}
	done()
}

// sideRun is how many blocks of a panel are read before the next panel's turn: as many as int16 sums hold.
const sideRun = 8

// ternaryGemv256Pairs multiplies panels two by two with one token: those of a pair share the inputs, and pairs are taken in turns, for as many
// blocks as a panel's int16 sums hold, while the int32 sums wait in dst. It is written for few instructions: another hardware thread on the core
// leaves this one every second cycle to issue in. So weights are operands in memory (the high half of a product with 2^12 is a shift by four),
// which wants addresses without an index.
func ternaryGemv256Pairs() {
	TEXT("ternaryGemvAVX2Pairs", NOSPLIT, "func(dst *int32, w *byte, x *int8, xsum *int32, blocks, step, pairs, ahead int)")
	Doc("ternaryGemvAVX2Pairs: dst[16*step*p+r] = sum_k w[r,k]*x[k] for the 16 rows r of each panel step*p, p < 2*pairs; reads ahead; blocks, pairs > 0.")
	Pragma("noescape")
	dst, w, x, n, step, ahead := load("dst"), load("w"), load("x"), load("blocks"), load("step"), load("ahead")
	stride, turn := GP64(), GP64()
	SHLQ(u8(6), step) // bytes from a panel's sums to the next one's
	MOVQ(n, stride)
	IMULQ(step, stride)
	k := gemv256Pair{mask: avx2.regs(2), high: YMM(), acc: [2]gemv256{newGemv256(), newGemv256()}}
	t := avx2.regs(2)
	VPXOR(t[0], t[0], t[0])
	VPBROADCASTD(at(load("xsum"), 0), t[1])
	VPSUBD(t[1], t[0], t[0])
	to := GP64()
	MOVQ(dst, to)
	Load(Param("pairs"), turn)
	Label("begin")
	for range 2 {
		for i := range 2 {
			VMOVDQU(t[0], at(to, 32*i))
		}
		ADDQ(step, to)
	}
	DECQ(turn)
	JNZ(label("begin"))
	for i, mask := range k.mask {
		VMOVDQU(constant([]int{cMask0, cMask1}[i]), mask)
	}
	VMOVDQU(constant(cShift4), k.high)
	count, rest, panel, xp := GP64(), GP64(), GP64(), GP64()
	from := [2]reg.Register{GP64(), GP64()}
	Label("outer")
	takeAtMost(sideRun, n, count)
	MOVQ(w, panel)
	MOVQ(dst, to)
	Load(Param("pairs"), turn)
	Label("pair")
	MOVQ(panel, from[0])
	ADDQ(stride, panel)
	MOVQ(panel, from[1])
	ADDQ(stride, panel)
	CMPQ(count, u8(sideRun))
	JNE(label("part"))
	for i := range sideRun {
		k.block(from, x, ahead, i, i == 0)
	}
	Label("end")
	for _, a := range k.acc {
		for i, lo := range a.lo {
			VPSRAW(u8(2), a.hi[i], a.hi[i])
			VPADDW(a.hi[i], lo, lo)
			VPMADDWD(constant(cOnes16), lo, lo)
			VPADDD(at(to, 32*i), lo, lo)
			VMOVDQU(lo, at(to, 32*i))
		}
		ADDQ(step, to)
	}
	DECQ(turn)
	JNZ(label("pair"))
	SHLQ(u8(4), count)
	ADDQ(count, x)
	SHLQ(u8(2), count)
	ADDQ(count, w)
	TESTQ(n, n)
	JNZ(label("outer"))
	done()

	Label("part") // the last blocks, fewer than a run
	MOVQ(x, xp)
	MOVQ(count, rest)
	for _, a := range k.acc {
		avx2.zero(a.lo...)
		avx2.zero(a.hi...)
	}
	Label("block")
	k.block(from, xp, ahead, 0, false)
	for _, p := range from {
		ADDQ(u8(64), p)
	}
	ADDQ(u8(16), xp)
	DECQ(rest)
	JNZ(label("block"))
	JMP(label("end"))
}

// gemv256Pair holds the sums of two panels.
type gemv256Pair struct {
	mask []reg.VecVirtual // of the fields 0 and 1
	high reg.VecVirtual   // 2^12
	acc  [2]gemv256
}

// block adds the products of block i from w on with inputs from x on to the sums, or begins them.
func (k gemv256Pair) block(w [2]reg.Register, x, ahead reg.Register, i int, begin bool) {
	for _, p := range w {
		PREFETCHT0(indexed(p, ahead, 64*i))
	}
	for f := 0; f < 4; f += 2 {
		xb := avx2.regs(2)
		for j, v := range xb {
			VPBROADCASTD(at(x, 16*i+4*(f+j)), v)
		}
		for panel, a := range k.acc {
			for half := range 2 {
				t, v := avx2.regs(2), at(w[panel], 64*i+32*half)
				if f == 0 {
					VPAND(v, k.mask[0], t[0])
					VPAND(v, k.mask[1], t[1])
				} else {
					VPMULHUW(v, k.high, t[1])
					VPAND(k.mask[0], t[1], t[0])
					VPAND(k.mask[1], t[1], t[1])
				}
				for j, sum := range [][]reg.VecVirtual{a.lo, a.hi} {
					if begin && f == 0 {
						VPMADDUBSW(xb[j], t[j], sum[half])
						continue
					}
					VPMADDUBSW(xb[j], t[j], t[j])
					VPADDW(t[j], sum[half], sum[half])
				}
			}
		}
	}
}

// gemv256 holds int16 sums of the two halves of a panel, of fields 0 and 2, and of fields 1 and 3, which are scaled by 4.
type gemv256 struct{ lo, hi []reg.VecVirtual }

func newGemv256() gemv256 {
	k := gemv256{avx2.regs(2), avx2.regs(2)}
	avx2.zero(k.lo...)
	avx2.zero(k.hi...)
	return k
}

// block adds the products of the block at w with the 16 inputs at x, and goes on to the next ones.
func (k gemv256) block(w, x reg.Register) {
	v, t, xb := avx2.regs(2), avx2.regs(2), YMM()
	for i := range v {
		VMOVDQU(at(w, 32*i), v[i])
	}
	for f := range 4 {
		if f == 2 {
			for i := range v {
				VPSRLW(u8(4), v[i], v[i])
			}
		}
		mask, sum := constant(cMask0), k.lo
		if f%2 == 1 {
			mask, sum = constant(cMask1), k.hi
		}
		VPBROADCASTD(at(x, 4*f), xb)
		for i := range v {
			VPAND(mask, v[i], t[i])
			VPMADDUBSW(xb, t[i], t[i])
			VPADDW(t[i], sum[i], sum[i])
		}
	}
	ADDQ(u8(64), w)
	ADDQ(u8(16), x)
}

// takeUpTo moves min(most, n) from n to count.
func takeUpTo(most, n, count reg.Register) {
	MOVQ(n, count)
	CMPQ(count, most)
	CMOVQGT(most, count)
	SUBQ(count, n)
}

// takeAtMost is takeUpTo without a register for the most.
func takeAtMost(most int, n, count reg.Register) {
	MOVQ(u32(most), count)
	CMPQ(n, count)
	CMOVQLT(n, count)
	SUBQ(count, n)
}

// widen adds pairs of int16 to int32 sums.
func widen(sum16, sum32 reg.VecVirtual) {
	VPMADDWD(constant(cOnes16), sum16, sum16)
	VPADDD(sum16, sum32, sum32)
}

const gemmSignature = "func(dst *int32, ldd int, w *byte, x *int8, ldx int, xsum *int32, blocks int)"

func gemmDoc(name, rows string, tokens int) {
	Doc(fmt.Sprintf("%s: dst[t*ldd+r] = sum_k w[r,k]*x[t*ldx+k] for %s and t < %d; blocks > 0.", name, rows, tokens))
	Pragma("noescape")
}

// ternaryGemm512 multiplies a panel with several tokens, which share the decoded weights. Few tokens get several sums each, so that at
// least ten are in flight.
func ternaryGemm512(tokens int) {
	name := fmt.Sprintf("ternaryGemmAVX512t%d", tokens)
	TEXT(name, NOSPLIT, gemmSignature)
	gemmDoc(name, "the 16 rows r of a panel", tokens)
	dst, ldd, w, x, ldx, xsum, n := load("dst"), load("ldd"), load("w"), load("x"), load("ldx"), load("xsum"), load("blocks")
	SHLQ(u8(2), ldd)
	mask, tok := avx512.splat(0x03030303), newRows(x, ldx, tokens)
	split := 1
	for tokens*split < 10 && split < 4 {
		split *= 2
	}
	acc := make([][]reg.VecVirtual, tokens) // [token][field mod split]
	for i := range acc {
		acc[i] = avx512.regs(split)
		avx512.zero(acc[i]...)
	}
	v, t := ZMM(), ZMM()
	Label("loop")
	VMOVDQU32(at(w, 0), v)
	prefetch(w, 0, 64)
	for f := range 4 {
		VPANDD(mask, v, t)
		if f < 3 {
			VPSRLW(u8(2), v, v)
		}
		for i := range acc {
			VPDPBUSD_BCST(tok.at(i, 4*f), t, acc[i][f%split])
		}
	}
	ADDQ(u8(64), w)
	tok.advance(16)
	DECQ(n)
	JNZ(label("loop"))
	for i, a := range acc {
		for half := split / 2; half > 0; half /= 2 {
			for j := range half {
				VPADDD(a[j+half], a[j], a[j])
			}
		}
		VPSUBD_BCST(at(xsum, 4*i), a[0], a[0])
		VMOVDQU32(a[0], at(dst, 0))
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
	mask := avx2.splat(0x03030303)
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
		widen(sum16[i], sum32[i])
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
