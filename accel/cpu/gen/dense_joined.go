package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Products of int8 weights with one token whose planes are joined: a multiplication of 16-bit integers takes the place of two, and nothing is
// widened, as the even and the odd bytes of a word are had with one instruction each. See dense_joined_amd64.go in the parent package for why the
// result is the same.

// joinPlanes16 joins the planes of a token and makes what bounds its sums.
func joinPlanes16() {
	TEXT("joinColumnsAVX2", NOSPLIT, "func(x *int16, coarse *int8, hi, lo *int8, n int) (sum, lowest int)")
	Doc("joinColumnsAVX2: x[4b..4b+3] = 256*hi+lo of the columns 4b, 4b+2, 4b+1, 4b+3; coarse = (lo+16)>>5; for n columns, a multiple of 16 > 0.",
		"It returns the sum of coarse, and not 0 if a value of hi is -128.")
	Pragma("noescape")
	x, coarse, hi, lo, n := load("x"), load("coarse"), load("hi"), load("lo"), load("n")
	s := avx2
	v, low, t := s.vec(), s.vec(), s.vec()
	sums, lowest, least, half := s.vec(), s.vec(), s.splat(0xff80ff80), s.splat(0x00100010)
	s.zero(sums, lowest)
	Label("loop")
	VPMOVSXBW(at(hi, 0), v)
	VPMOVSXBW(at(lo, 0), low)
	VPCMPEQW(least, v, t)
	VPOR(t, lowest, lowest)
	VPSLLW(u8(8), v, v)
	VPADDW(low, v, v)
	VPSHUFLW(u8(0xd8), v, v)
	VPSHUFHW(u8(0xd8), v, v)
	VMOVDQU(v, at(x, 0))
	VPADDW(half, low, low)
	VPSRAW(u8(5), low, low)
	VPADDW(low, sums, sums)
	VPACKSSWB(low, low, low)
	VPERMQ(u8(0x08), low, low)
	VMOVDQU(low.AsX(), at(coarse, 0))
	ADDQ(u8(32), x)
	for _, p := range []reg.Register{coarse, hi, lo} {
		ADDQ(u8(16), p)
	}
	SUBQ(u8(16), n)
	JNZ(label("loop"))
	VPMADDWD(constant(cOnes16), sums, sums)
	VEXTRACTI128(u8(1), sums, t.AsX())
	VPADDD(t.AsX(), sums.AsX(), sums.AsX())
	for _, order := range []int{0x4e, 0xb1} {
		VPSHUFD(u8(order), sums.AsX(), t.AsX())
		VPADDD(t.AsX(), sums.AsX(), sums.AsX())
	}
	sum, any := GP64(), GP64()
	VMOVD(sums.AsX(), sum.As32())
	MOVLQSX(sum.As32(), sum)
	Store(sum, ReturnIndex(0))
	VPMOVMSKB(lowest, any.As32())
	Store(any, ReturnIndex(1))
	done()
}

// joinedRun is how many blocks of a panel are read before the next panel's turn: as many as the int16 sums of coarse products hold, of which a
// block adds at most 2*255*4 to each.
const joinedRun = 16

// joinedLimit is the magnitude up to which a whole sum is below 2^24 without its last byte, if that byte's own sum is.
const joinedLimit = 1<<32 - 1<<24

// int8Joined256 multiplies panels with one token, in turns, as there are no registers for the sums of all.
func int8Joined256() {
	const panelSums = 192 // bytes: 16 float64, 16 int32
	TEXT("denseInt8AVX2Joined", NOSPLIT, "func(dst *float32, sums *float64, w *byte, scale *float32, x *int16, coarse *int8, blocks, panels, ahead int, sum float64, coarseSum, most int, inv float32, add int) int")
	Doc("denseInt8AVX2Joined: with acc = sum_k u[r,k]*x[k] - sum and rough = 32*sum_k u[r,k]*coarse[k] - coarseSum, u the bytes of w and x as joinColumnsAVX2",
		fmt.Sprintf("leaves them, dst[r] = (float32(acc) * scale[r]) * inv for the 16 rows r of each panel; add: dst += that. sums are %d bytes of 0 for each panel; 0 < panels < 64,", panelSums),
		fmt.Sprintf("blocks > 0; reads ahead. It returns a bit for each panel that it left alone, as for a row of it |acc| > %d or |rough| > most.", joinedLimit))
	Pragma("noescape")
	w, x, coarse, n, ahead := load("w"), load("x"), load("coarse"), load("blocks"), load("ahead")
	stride, turn, count := GP64(), GP64(), GP64()
	to, from, panel, i := GP64(), GP64(), GP64(), GP64()
	MOVQ(n, stride)
	SHLQ(u8(6), stride)
	even := avx2.splat(0x00ff00ff)
	Label("outer")
	takeAtMost(joinedRun, n, count)
	MOVQ(w, panel)
	Load(Param("sums"), to)
	Load(Param("panels"), turn)
	Label("panel")
	MOVQ(panel, from)
	XORQ(i, i)
	acc, rough := avx2.regs(2), avx2.regs(2)
	avx2.zero(acc...)
	avx2.zero(rough...)
	xe, xo, xc := YMM(), YMM(), YMM()
	Label("inner")
	PREFETCHT0(indexed(from, ahead, 0))
	VPBROADCASTD(at(x, 0).Idx(i, 8), xe)
	VPBROADCASTD(at(x, 4).Idx(i, 8), xo)
	VPBROADCASTD(at(coarse, 0).Idx(i, 4), xc)
	for half := range 2 {
		v, e, o := YMM(), YMM(), YMM()
		VMOVDQU(at(from, 32*half), v)
		VPAND(even, v, e)
		VPSRLW(u8(8), v, o)
		VPMADDWD(xe, e, e)
		VPMADDWD(xo, o, o)
		VPMADDUBSW(xc, v, v)
		VPADDD(e, acc[half], acc[half])
		VPADDD(o, acc[half], acc[half])
		VPADDW(v, rough[half], rough[half])
	}
	ADDQ(u8(64), from)
	INCQ(i)
	CMPQ(i, count)
	JNE(label("inner"))
	for half, a := range acc {
		d := YMM()
		for quarter := range 2 {
			if quarter > 0 {
				VEXTRACTI128(u8(1), a, a.AsX())
			}
			VCVTDQ2PD(a.AsX(), d)
			sum := at(to, 64*half+32*quarter)
			VADDPD(sum, d, d)
			VMOVUPD(d, sum)
		}
		sum := at(to, 128+32*half)
		VPMADDWD(constant(cOnes16), rough[half], rough[half])
		VPADDD(sum, rough[half], rough[half])
		VMOVDQU(rough[half], sum)
	}
	ADDQ(stride, panel)
	ADDQ(u32(panelSums), to)
	DECQ(turn)
	JNZ(label("panel"))
	SHLQ(u8(2), count) // columns
	ADDQ(count, coarse)
	LEAQ(at(x, 0).Idx(count, 2), x)
	SHLQ(u8(4), count)
	ADDQ(count, w)
	TESTQ(n, n)
	JNZ(label("outer"))
	joinedResults(panelSums)
}

// joinedResults makes results of sums and stores them, those of panels whose sums are in doubt excepted.
func joinedResults(panelSums int) {
	dst, scale, sums, turn, add := load("dst"), load("scale"), load("sums"), load("panels"), load("add")
	left, bit, t, doubtful := GP64(), GP64(), GP64(), GP64()
	XORQ(left, left)
	MOVQ(u32(1), bit)
	sum, limit, coarseSum, most, inv := YMM(), YMM(), YMM(), YMM(), YMM()
	VBROADCASTSD(paramMem("sum"), sum)
	MOVQ(operand.U64(math.Float64bits(joinedLimit)), t)
	VMOVQ(t, limit.AsX())
	VPBROADCASTQ(limit.AsX(), limit)
	VPBROADCASTD(paramMem("coarseSum"), coarseSum)
	VPBROADCASTD(paramMem("most"), most)
	VBROADCASTSS(paramMem("inv"), inv)
	Label("result")
	doubt, y := YMM(), avx2.regs(2)
	avx2.zero(doubt)
	for half := range y {
		part := avx2.regs(2)
		for quarter, d := range part {
			VMOVUPD(at(sums, 64*half+32*quarter), d)
			VSUBPD(sum, d, d)
			above := YMM()
			VANDPD(constant(cAbs64), d, above)
			VCMPPD(u8(0x1e), limit, above, above) // greater
			VORPS(above, doubt, doubt)
			VCVTPD2PSY(d, d.AsX())
		}
		VINSERTF128(u8(1), part[1].AsX(), part[0], y[half])
		rough := YMM()
		VMOVDQU(at(sums, 128+32*half), rough)
		VPSLLD(u8(5), rough, rough)
		VPSUBD(coarseSum, rough, rough)
		VPABSD(rough, rough)
		VPCMPGTD(most, rough, rough)
		VORPS(rough, doubt, doubt)
	}
	VPMOVMSKB(doubt, doubtful.As32())
	TESTL(doubtful.As32(), doubtful.As32())
	JZ(label("whole"))
	ORQ(bit, left)
	JMP(label("next"))
	Label("whole")
	for half, y := range y {
		VMULPS(at(scale, 32*half), y, y)
		VMULPS(inv, y, y)
	}
	TESTQ(add, add)
	JZ(label("store"))
	for half, y := range y {
		VADDPS(at(dst, 32*half), y, y)
	}
	Label("store")
	for half, y := range y {
		VMOVUPS(y, at(dst, 32*half))
	}
	Label("next")
	SHLQ(u8(1), bit)
	ADDQ(u32(panelSums), sums)
	ADDQ(u8(64), dst)
	ADDQ(u8(64), scale)
	DECQ(turn)
	JNZ(label("result"))
	Store(left, ReturnIndex(0))
	done()
}
