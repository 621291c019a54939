package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// lines emits what works on ternary matrices that lie line by line.
func lines(s simd) {
	if s.wide() {
		lineDot512()
		lineAdd512()
		choose("positive", "bits of x[i] > 0, as an integer", "x *float32", func(at func(scale int) operand.Mem, v, zero reg.VecVirtual, k reg.Register) {
			VMOVDQU32(at(4), v)
			VPCMPGTD(zero, v, k)
		})
		choose("nonzero", "x[i] != 0", "x *int8", func(at func(scale int) operand.Mem, v, zero reg.VecVirtual, k reg.Register) {
			VPMOVSXBD(at(1), v)
			VPTESTMD(v, v, k)
		})
	} else {
		lineDot256()
		lineAdd256()
		lineAddEnd256()
		lineSums()
		addInts()
	}
	flip(s, false)
	flip(s, true)
}

// lineBases gives the addresses of the four lines that are worked on, and of the four that come next.
func lineBases() (now, next []reg.Register) {
	src, stride, ids := load("src"), load("stride"), load("ids")
	for i := range 8 {
		p := GP64()
		MOVLQSX(at(ids, 4*i), p)
		IMULQ(stride, p)
		ADDQ(src, p)
		if i < 4 {
			now = append(now, p)
		} else {
			next = append(next, p)
		}
	}
	return now, next
}

// lineBasesEight is lineBases for eight lines and the next eight, for which there are not as many registers.
func lineBasesEight() (now []reg.Register, next operand.Mem) {
	next = AllocLocal(64)
	src, stride, ids := load("src"), load("stride"), load("ids")
	for i := range 16 {
		p := GP64()
		MOVLQSX(at(ids, 4*i), p)
		IMULQ(stride, p)
		ADDQ(src, p)
		if i < 8 {
			now = append(now, p)
		} else {
			MOVQ(p, next.Offset(8*(i-8)))
		}
	}
	return now, next
}

func indexed(base, index reg.Register, disp int) operand.Mem {
	return operand.Mem{Base: base, Index: index, Scale: 1, Disp: disp}
}

const lineDotSignature = "func(dst *int32, src *byte, stride int, ids *int32, x *int8, xsum int, blocks int)"

// lineDot512 takes eight lines at a time and reads, and asks for, a block of each in turns: prefetchers that work within a page see less of a
// sequence then, and read less of what lies between the lines. Fields are added up as in ternaryGemv512Side.
func lineDot512() {
	TEXT("lineDotAVX512", NOSPLIT, lineDotSignature)
	Doc("lineDotAVX512: dst[i] = the line ids[i] times x, for i < 8; ids[8:16] are read ahead; blocks > 0.")
	Pragma("noescape")
	now, ahead := lineBasesEight()
	x, n, off, next := load("x"), load("blocks"), GP64(), GP64()
	XORQ(off, off)
	k, v := newGemv512Side(), avx512.regs(2)
	Label("loop")
	for f, xf := range k.xb {
		VMOVDQU32(at(x, 64*f), xf)
	}
	for i, p := range now {
		VMOVDQU32(indexed(p, off, 0), v[i%2])
		MOVQ(ahead.Offset(8*i), next)
		PREFETCHT0(indexed(next, off, 0))
		k.multiply(i, v[i%2])
	}
	ADDQ(u32(64), off)
	ADDQ(u32(256), x)
	DECQ(n)
	JNZ(label("loop"))
	var sum [8]reg.VecVirtual
	for i, a := range k.acc {
		VPSRAD(u8(2), a[1], a[1])
		VPADDD(a[1], a[0], a[0])
		sum[i] = a[0]
	}
	low, high := addLanes([4]reg.VecVirtual(sum[:4])), addLanes([4]reg.VecVirtual(sum[4:]))
	all, xsum := YMM(), YMM()
	VINSERTI32X4(u8(1), high, low.AsY(), all)
	VPBROADCASTD(paramMem("xsum"), xsum)
	VPSUBD(xsum, all, all)
	VMOVDQU(all, at(load("dst"), 0))
	done()
}

// addLanes gives the sum of the lanes of each of four registers, which are lost.
func addLanes(sum [4]reg.VecVirtual) reg.VecVirtual {
	all := pairLanes(avx512, sum)
	half, quarter := YMM(), XMM()
	VEXTRACTI64X4(u8(1), all, half)
	VPADDD(half, all.AsY(), half)
	VEXTRACTI32X4(u8(1), half, quarter)
	VPADDD(quarter, half.AsX(), quarter)
	return quarter
}

// pairLanes gives sums of lanes of four registers, which are lost, those of each 128 bits side by side.
func pairLanes(s simd, sum [4]reg.VecVirtual) reg.VecVirtual {
	pair := func(a, b reg.VecVirtual) reg.VecVirtual { // a and b side by side, half as many of each
		lo := s.vec()
		VPUNPCKLDQ(b, a, lo)
		VPUNPCKHDQ(b, a, a)
		VPADDD(a, lo, lo)
		return lo
	}
	ab, cd, all := pair(sum[0], sum[1]), pair(sum[2], sum[3]), s.vec()
	VPUNPCKLQDQ(cd, ab, all)
	VPUNPCKHQDQ(cd, ab, ab)
	VPADDD(ab, all, all)
	return all
}

// lineDot256 takes four lines, a block of each in turns, with inputs as operands in memory, see ternaryGemv256Pairs. Sums of pairs are int16, widened
// every four blocks, see ternaryGemv256.
func lineDot256() {
	s := avx2
	TEXT("lineDotAVX2", NOSPLIT, lineDotSignature)
	Doc("lineDotAVX2: dst[i] = the line ids[i] times x, for i < 4; ids[4:8] are read ahead; blocks > 0.")
	Pragma("noescape")
	now, next := lineBases()
	x, n, off, count := load("x"), load("blocks"), GP64(), GP64()
	XORQ(off, off)
	sum, lo, hi, mask := s.regs(4), s.regs(4), s.regs(4), s.regs(2)
	for f, m := range mask {
		VMOVDQU(constant([]int{cMask0, cMask1}[f]), m)
	}
	s.zero(sum...)
	Label("outer")
	takeAtMost(4, n, count)
	s.zero(lo...)
	s.zero(hi...)
	Label("inner")
	for part := range 2 {
		for i := range now {
			v, t := YMM(), YMM()
			VMOVDQU(indexed(now[i], off, 32*part), v)
			if part == 0 {
				PREFETCHT0(indexed(next[i], off, 0))
			}
			for f := range 4 {
				if f == 2 {
					VPSRLW(u8(4), v, v)
				}
				to := []reg.VecVirtual{lo[i], hi[i]}[f%2]
				VPAND(mask[f%2], v, t)
				VPMADDUBSW(at(x, 64*f+32*part), t, t)
				VPADDW(t, to, to)
			}
		}
	}
	ADDQ(u32(64), off)
	ADDQ(u32(256), x)
	DECQ(count)
	JNZ(label("inner"))
	for i := range sum {
		VPSRAW(u8(2), hi[i], hi[i])
		VPADDW(hi[i], lo[i], lo[i])
		widen(lo[i], sum[i])
	}
	TESTQ(n, n)
	JNZ(label("outer"))
	all := pairLanes(s, [4]reg.VecVirtual(sum))
	half, xsum := XMM(), XMM()
	VEXTRACTI128(u8(1), all, half)
	VPADDD(all.AsX(), half, half)
	VPBROADCASTD(paramMem("xsum"), xsum)
	VPSUBD(xsum, half, half)
	VMOVDQU(half, at(load("dst"), 0))
	done()
}

func paramMem(name string) operand.Mem {
	addr, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return addr.Addr
}

// lineAdd256 interleaves the bytes of two lines and multiplies them with both factors at once. Sums of a part of a block are made for four such pairs
// in registers and then added to those in memory: int16, of which lineAddEnd256 makes int32. Fields 1 and 3 stay scaled by 4.
func lineAdd256() {
	s := avx2
	TEXT("lineAddAVX2", NOSPLIT, "func(sums *int16, src *byte, stride int, ids *int32, q *int8, blocks int)")
	Doc("lineAddAVX2: sums += the codes of lines ids[i] times q[i], for i < 8, in the order of lineAddEndAVX2; ids[8:16] are read ahead; blocks > 0.")
	Pragma("noescape")
	now, ahead := lineBasesEight()
	factors, q := AllocLocal(4*s.bytes), load("q")
	for i := range 4 {
		v := s.vec()
		VPBROADCASTW(at(q, 2*i), v)
		s.move(v, factors.Offset(s.bytes*i))
	}
	sums, n, off, next := load("sums"), load("blocks"), GP64(), GP64()
	XORQ(off, off)
	mask := s.regs(2)
	for f, m := range mask {
		VMOVDQU(constant([]int{cMask0, cMask1}[f]), m)
	}
	Label("loop")
	for part := 0; part < 64; part += s.bytes {
		acc := s.regs(8)
		for pair := range 4 {
			v := s.regs(2)
			for i, r := range v {
				s.move(indexed(now[2*pair+i], off, part), r)
			}
			MOVQ(ahead.Offset(8*(2*pair+part/s.bytes)), next) // half of the lines beside each part
			PREFETCHT0(indexed(next, off, 0))
			k, factor := s.regs(2), s.vec()
			s.move(factors.Offset(s.bytes*pair), factor)
			VPUNPCKLBW(v[1], v[0], k[0])
			VPUNPCKHBW(v[1], v[0], k[1])
			for f := range 4 {
				for i, k := range k {
					if f == 2 {
						VPSRLW(u8(4), k, k)
					}
					t, a := s.vec(), acc[2*f+i]
					VPAND(mask[f%2], k, t)
					if pair == 0 {
						VPMADDUBSW(factor, t, a)
						continue
					}
					VPMADDUBSW(factor, t, t)
					VPADDW(t, a, a)
				}
			}
		}
		for i, a := range acc {
			sum := at(sums, 8*part+s.bytes*i)
			VPADDW(sum, a, a)
			VMOVDQU(a, sum)
		}
	}
	ADDQ(u32(64), off)
	ADDQ(u32(512), sums)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

// lineAddEnd256 makes int32 of int16 sums: for each part of a block, for each field, first those of the bytes that VPUNPCKLBW takes.
func lineAddEnd256() {
	s := avx2
	TEXT("lineAddEndAVX2", NOSPLIT, "func(acc *int32, sums *int16, blocks int)")
	Doc("lineAddEndAVX2: acc, in the order of lineSumsAVX2 and with field f scaled by 4^f, += sums, which become 0; blocks > 0.")
	Pragma("noescape")
	acc, sums, n := load("acc"), load("sums"), load("blocks")
	zero := s.vec()
	s.zero(zero)
	Label("loop")
	for part := range 2 {
		for f := range 4 {
			for i := range 2 {
				sum, v := at(sums, 256*part+64*f+32*i), s.regs(2)
				VPUNPCKLWD(sum, zero, v[0])
				VPUNPCKHWD(sum, zero, v[1])
				VMOVDQU(zero, sum)
				for j, v := range v {
					to := at(acc, 256*f+64*(2*i+j)+32*part)
					VPSRAD(u8([]int{16, 12}[f/2]), v, v)
					VPADDD(to, v, v)
					VMOVDQU(v, to)
				}
			}
		}
	}
	ADDQ(u32(512), sums)
	ADDQ(u32(1024), acc)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

// lineAdd512 interleaves the bytes of four lines, so that a 32-bit lane holds one element of each, and multiplies them with the four factors
// at once, for two such four. Fields stay where they are in their bytes: sums of field f are scaled by 4^f.
func lineAdd512() {
	s := avx512
	TEXT("lineAddAVX512", NOSPLIT, "func(acc *int32, src *byte, stride int, ids *int32, q *int8, blocks int)")
	Doc("lineAddAVX512: acc += the codes of lines ids[i] times q[i], for i < 8; ids[8:16] are read ahead; blocks > 0.")
	Pragma("noescape")
	now, ahead := lineBasesEight()
	acc, n, off, next := load("acc"), load("blocks"), GP64(), GP64()
	XORQ(off, off)
	factors, q := s.regs(2), load("q")
	for i, f := range factors {
		VPBROADCASTD(at(q, 4*i), f)
	}
	var mask [4]reg.VecVirtual
	for f := range mask {
		mask[f] = s.splat(0x03030303 << (2 * f))
	}
	Label("loop")
	var k [2][4]reg.VecVirtual
	for quad := range k {
		v := s.regs(4)
		for i := range v {
			VMOVDQU32(indexed(now[4*quad+i], off, 0), v[i])
			MOVQ(ahead.Offset(8*(4*quad+i)), next)
			PREFETCHT0(indexed(next, off, 0))
		}
		k[quad] = interleave(s, v)
	}
	for f := range mask {
		for i := range 4 {
			sum, a, t := at(acc, 256*f+64*i), s.vec(), s.regs(2)
			VMOVDQU32(sum, a)
			for quad := range t {
				VPANDD(mask[f], k[quad][i], t[quad])
				VPDPBUSD(factors[quad], t[quad], a)
			}
			VMOVDQU32(a, sum)
		}
	}
	ADDQ(u32(64), off)
	ADDQ(u32(1024), acc)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

// interleave gives the bytes of four lines side by side.
func interleave(s simd, v []reg.VecVirtual) (k [4]reg.VecVirtual) {
	ab, cd := s.regs(2), s.regs(2)
	VPUNPCKLBW(v[1], v[0], ab[0])
	VPUNPCKHBW(v[1], v[0], ab[1])
	VPUNPCKLBW(v[3], v[2], cd[0])
	VPUNPCKHBW(v[3], v[2], cd[1])
	for i := range k {
		k[i] = s.vec()
		if i%2 == 0 {
			VPUNPCKLWD(cd[i/2], ab[i/2], k[i])
		} else {
			VPUNPCKHWD(cd[i/2], ab[i/2], k[i])
		}
	}
	return k
}

// lineSums moves four sums at a time to where they belong.
func lineSums() {
	TEXT("lineSumsAVX2", NOSPLIT, "func(dst, acc *int32, blocks int, qsum int)")
	Doc("lineSumsAVX2: sum 64f+16m+4l+j of each 256 of acc becomes element 64l+16m+4f+j of dst, shifted right by 2f and less qsum; blocks > 0.")
	Pragma("noescape")
	dst, acc, n := load("dst"), load("acc"), load("blocks")
	qsum := XMM()
	VPBROADCASTD(paramMem("qsum"), qsum)
	part := GP64()
	Label("loop")
	MOVQ(u32(4), part)
	Label("part") // m
	for f := range 4 {
		for l := range 4 {
			v := XMM()
			VMOVDQU(at(acc, 256*f+16*l), v)
			if f > 0 {
				VPSRAD(u8(2*f), v, v)
			}
			VPSUBD(qsum, v, v)
			VMOVDQU(v, at(dst, 256*l+16*f))
		}
	}
	ADDQ(u32(64), acc)
	ADDQ(u32(64), dst)
	DECQ(part)
	JNZ(label("part"))
	ADDQ(u32(768), acc)
	ADDQ(u32(768), dst)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

// addInts adds integers.
func addInts() {
	TEXT("addIntsAVX2", NOSPLIT, "func(dst, x *int32, n int)")
	Doc("addIntsAVX2: dst += x for n elements, n > 0 and a multiple of 16.")
	Pragma("noescape")
	dst, x, n := load("dst"), load("x"), load("n")
	v := avx2.regs(2)
	Label("loop")
	for i := range v {
		VMOVDQU(at(x, 32*i), v[i])
		VPADDD(at(dst, 32*i), v[i], v[i])
		VMOVDQU(v[i], at(dst, 32*i))
	}
	ADDQ(u8(64), x)
	ADDQ(u8(64), dst)
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	done()
}

// choose emits a kernel that lists where a condition is true.
func choose(name, condition, x string, test func(at func(scale int) operand.Mem, v, zero reg.VecVirtual, k reg.Register)) {
	s := avx512
	TEXT(name+s.suffix, NOSPLIT, "func(ids *int32, "+x+", n int, first int) int")
	Doc(name + s.suffix + ": writes first+i to ids for each i < n with " + condition + ", and as many more as fill a vector, and returns how many; n > 0 and a multiple of 16.")
	Pragma("noescape")
	ids, src, n, first := load("ids"), load("x"), load("n"), load("first")
	id, sixteen, zero, v, chosen, k := ZMM(), s.splat(16), ZMM(), ZMM(), ZMM(), K()
	VPBROADCASTD(first.(reg.GPVirtual).As32(), id)
	VPADDD(constant(cIota), id, id)
	s.zero(zero)
	i, count, bits, out := GP64(), GP64(), GP32(), GP64()
	XORQ(i, i)
	MOVQ(ids, out)
	Label("loop")
	test(func(scale int) operand.Mem { return operand.Mem{Base: src, Index: i, Scale: uint8(scale)} }, v, zero, k)
	VPCOMPRESSD_Z(id, k, chosen)
	VMOVDQU32(chosen, at(out, 0))
	KMOVW(k, bits)
	POPCNTL(bits, bits)
	MOVL(bits, count.As32())
	LEAQ(operand.Mem{Base: out, Index: count, Scale: 4}, out)
	VPADDD(sixteen, id, id)
	ADDQ(u8(16), i)
	CMPQ(i, n)
	JL(label("loop"))
	SUBQ(ids, out)
	SHRQ(u8(2), out)
	Store(out, ReturnIndex(0))
	done()
}

// flip transposes 16 lines by 16 lanes: with codes, first the 16 lines and the 16 codes of each lane.
func flip(s simd, codes bool) {
	name, what := "flipLanes"+s.suffix, "lane c of line r becomes lane r of block c"
	if codes {
		name, what = "flipCodes"+s.suffix, "the code of element e of lane c of line k becomes that of column k in lane e of block c"
	}
	TEXT(name, NOSPLIT, "func(dst *byte, dstStride, dstStep int, src *byte, stride, srcStep, count int)")
	Doc(name + ": " + what + ", for 16 lines by 16 lanes, count times; count > 0.")
	Pragma("noescape")
	dst, dstStride, dstStep := load("dst"), load("dstStride"), load("dstStep")
	src, stride, srcStep, n := load("src"), load("stride"), load("srcStep"), load("count")
	t := transposer{s: s, masks: map[int]reg.VecVirtual{}}
	var spill operand.Mem
	if codes {
		for _, bit := range []int{8, 4, 2, 1} {
			t.masks[bit] = s.splat(codesWithout(bit))
		}
		if !s.wide() {
			spill = AllocLocal(16 * s.bytes)
		}
	}
	low, high := GP64(), GP64()
	read := func(p reg.Register, disp int) reg.VecVirtual {
		r := s.vec()
		s.move(at(p, disp), r)
		ADDQ(stride, p)
		return r
	}
	write := func(v []reg.VecVirtual, block, lane int) {
		to := GP64()
		MOVQ(dst, to)
		if block == 8 {
			LEAQ(operand.Mem{Base: dst, Index: dstStride, Scale: 8}, to)
		}
		for i, r := range v {
			s.move(r, at(to, 4*lane))
			if i < len(v)-1 {
				ADDQ(dstStride, to)
			}
		}
	}
	lanes := s.bytes / 4
	Label("loop")
	for from := 0; from < 16; from += lanes { // lanes of the lines, blocks of dst
		MOVQ(src, low)
		if codes && !s.wide() { // the first step needs 16 lines, the others two halves of them, which fit the registers
			LEAQ(operand.Mem{Base: src, Index: stride, Scale: 8}, high)
			for k := range 8 {
				a, b := read(low, 4*from), read(high, 4*from)
				t.exchange(a, b, 8)
				s.move(a, spill.Offset(32*k))
				s.move(b, spill.Offset(32*(k+8)))
			}
		}
		for row := 0; row < 16; row += lanes {
			v := make([]reg.VecVirtual, lanes)
			for i := range v {
				if codes && !s.wide() {
					v[i] = s.vec()
					s.move(spill.Offset(32*(row+i)), v[i])
				} else {
					v[i] = read(low, 4*from)
				}
			}
			if codes {
				t.codes(v)
			}
			write(t.lanes(v), from, row)
		}
	}
	ADDQ(dstStep, dst)
	ADDQ(srcStep, src)
	DECQ(n)
	JNZ(label("loop"))
	done()
}

type transposer struct {
	s     simd
	masks map[int]reg.VecVirtual // of the codes whose number is without a bit
}

// codesWithout are the bits of the codes of a lane whose number is without a bit. Code e has bits 8(e%4) + 2(e/4).
func codesWithout(bit int) (mask uint32) {
	for e := range 16 {
		if e&bit == 0 {
			mask |= 3 << (8*(e%4) + 2*(e/4))
		}
	}
	return mask
}

// exchange is a piece of the transpose of a matrix of 16 by 16 codes: of two lines whose numbers differ in one bit only, it swaps the codes of
// the first whose numbers have that bit with those of the second whose numbers do not.
func (t *transposer) exchange(a, b reg.VecVirtual, bit int) {
	shift := u8(map[int]int{8: 4, 4: 2, 2: 16, 1: 8}[bit])
	d := t.s.vec()
	VPSRLD(shift, a, d)
	t.s.xor(b, d)
	t.s.and(t.masks[bit], d)
	t.s.xor(d, b)
	VPSLLD(shift, d, d)
	t.s.xor(d, a)
}

// codes does what exchanges there are within v.
func (t *transposer) codes(v []reg.VecVirtual) {
	for bit := len(v) / 2; bit > 0; bit /= 2 {
		for k := range v {
			if k&bit == 0 {
				t.exchange(v[k], v[k+bit], bit)
			}
		}
	}
}

// lanes transposes as many registers as they have lanes of 32 bits.
func (t *transposer) lanes(v []reg.VecVirtual) []reg.VecVirtual {
	for k := 0; k < len(v); k += 4 { // 4 by 4 within quarters of a register
		lo01, hi01, lo23, hi23 := t.s.vec(), v[k+1], t.s.vec(), v[k+3]
		VPUNPCKLDQ(v[k+1], v[k], lo01)
		VPUNPCKHDQ(v[k+1], v[k], hi01)
		VPUNPCKLDQ(v[k+3], v[k+2], lo23)
		VPUNPCKHDQ(v[k+3], v[k+2], hi23)
		v0, v2 := t.s.vec(), t.s.vec()
		VPUNPCKLQDQ(lo23, lo01, v0)
		VPUNPCKHQDQ(lo23, lo01, lo23)
		VPUNPCKLQDQ(hi23, hi01, v2)
		VPUNPCKHQDQ(hi23, hi01, hi23)
		v[k], v[k+1], v[k+2], v[k+3] = v0, lo23, v2, hi23
	}
	out := make([]reg.VecVirtual, len(v))
	for c := range 4 { // the quarters
		if !t.s.wide() {
			a, b, lo := v[c], v[4+c], YMM()
			VPERM2I128(u8(0x20), b, a, lo)
			VPERM2I128(u8(0x31), b, a, b)
			out[c], out[4+c] = lo, b
			continue
		}
		pair := func(a, b reg.VecVirtual) (lo, hi reg.VecVirtual) { // quarters 0, 1 and 2, 3 of both
			lo = ZMM()
			VSHUFI32X4(u8(0x44), b, a, lo)
			VSHUFI32X4(u8(0xee), b, a, b)
			return lo, b
		}
		x, y := pair(v[c], v[4+c])
		z, w := pair(v[8+c], v[12+c])
		split := func(a, b reg.VecVirtual) (even, odd reg.VecVirtual) {
			even = ZMM()
			VSHUFI32X4(u8(0x88), b, a, even)
			VSHUFI32X4(u8(0xdd), b, a, b)
			return even, b
		}
		out[c], out[4+c] = split(x, z)
		out[8+c], out[12+c] = split(y, w)
	}
	return out
}

func (s simd) and(a operand.Op, to reg.VecVirtual) {
	if s.wide() {
		VPANDD(a, to, to)
	} else {
		VPAND(a, to, to)
	}
}
