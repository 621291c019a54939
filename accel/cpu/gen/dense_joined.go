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
	TEXT("joinColumnsAVX2", NOSPLIT, "func(x *int16, coarse *int8, hi, lo *int8, n int) (sum, size, lowest int)")
	Doc("joinColumnsAVX2: x[4b..4b+3] = 256*hi+lo of the columns 4b, 4b+2, 4b+1, 4b+3; coarse = (lo+16)>>5; for n columns, a multiple of 16 > 0.",
		"It returns the sum of coarse, that of |lo|, and not 0 if a value of hi is -128.")
	Pragma("noescape")
	x, coarse, hi, lo, n := load("x"), load("coarse"), load("hi"), load("lo"), load("n")
	s := avx2
	v, low, t := s.vec(), s.vec(), s.vec()
	sums, lowest, least, half := s.vec(), s.vec(), s.splat(0xff80ff80), s.splat(0x00100010)
	sizes, zero, size := XMM(), XMM(), XMM()
	s.zero(sums, lowest)
	VPXOR(sizes, sizes, sizes)
	VPXOR(zero, zero, zero)
	Label("loop")
	VPABSB(at(lo, 0), size)
	VPSADBW(zero, size, size)
	VPADDQ(size, sizes, sizes)
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
	VPUNPCKHQDQ(sizes, sizes, size)
	VPADDQ(size, sizes, sizes)
	VMOVQ(sizes, sum)
	Store(sum, ReturnIndex(1))
	VPMOVMSKB(lowest, any.As32())
	Store(any, ReturnIndex(2))
	done()
}

// joinedRun is how many blocks of a panel are read before the next panel's turn: as many as the int16 sums of coarse products hold, of which a
// block adds at most 2*255*4 to each.
const joinedRun = 16

// joinedPlain is that for whole columns alone: int32 sums would hold 64.
const joinedPlain = 32

// joinedLimit is the magnitude up to which a whole sum is below 2^24 without its last byte, if that byte's own sum is.
const joinedLimit = 1<<32 - 1<<24

// joinedSums is the size of a panel's sums: 16 float64, 16 int32.
const joinedSums = 192

// int8Joined256 multiplies groups of panels with one token, in turns, as there are no registers for the sums of all: the first blocks with coarse
// columns too, panel by panel, and the others block by block of a group.
func int8Joined256(group int) {
	name := "denseInt8AVX2Joined"
	if group > 1 {
		name += fmt.Sprint(group)
	}
	TEXT(name, NOSPLIT, "func(dst *float32, sums *float64, w *byte, scale *float32, x *int16, coarse *int8, checked, blocks, groups int, sum float64, coarseSum, most int, inv float32, add int) int")
	Doc(name+": with acc = sum_k u[r,k]*x[k] - sum and rough = 32*sum_k u[r,k]*coarse[k] - coarseSum, the latter of checked blocks, u the bytes of w and x as",
		fmt.Sprintf("joinColumnsAVX2 leaves them, dst[r] = (float32(acc) * scale[r]) * inv for the 16 rows r of each of %d*groups panels; add: dst += that. sums are %d", group, joinedSums),
		fmt.Sprintf("bytes of 0 for each panel; 0 < panels < 64, blocks > 0. It returns a bit for each panel that it left alone, as for a row of it |acc| > %d or |rough| > most.", joinedLimit))
	Pragma("noescape")
	j := joined256{w: load("w"), x: load("x"), n: load("checked"), stride: GP64(), panel: GP64(), to: GP64(), turn: GP64(), count: GP64(), even: avx2.splat(0x00ff00ff), ahead: prefetchOnce}
	if group > 1 {
		j.ahead = sideAhead
	}
	Load(Param("blocks"), j.stride)
	SHLQ(u8(6), j.stride)
	coarse := load("coarse")
	TESTQ(j.n, j.n)
	JZ(label("rest"))
	j.turns("checked", joinedRun, func() {
		if group > 1 {
			IMUL3Q(u8(group), j.turn, j.turn)
		}
	}, func() { j.checked(coarse) }, func() {
		SHLQ(u8(2), j.count) // columns
		ADDQ(j.count, coarse)
		SHRQ(u8(2), j.count)
	})
	Label("rest")
	Load(Param("blocks"), j.n)
	SUBQ(load("checked"), j.n)
	JZ(label("results"))
	j.turns("plain", joinedPlain, func() {}, func() { j.plain(group) }, func() {})
	Label("results")
	joinedResults(group)
}

// joined256 holds where a kernel is.
type joined256 struct {
	w, x, n         reg.Register // the blocks to come: of the first panel, their columns, their number
	stride          reg.Register // from panel to panel
	count           reg.Register // blocks of a turn
	panel, to, turn reg.Register // the panels to come: their blocks, sums, number
	even            reg.VecVirtual
	ahead           int // how far in front memory is asked for
}

// turns goes through blocks by runs of at most so many, and through each run group by group.
func (j joined256) turns(name string, most int, begin, group, end func()) {
	Label(name)
	takeAtMost(most, j.n, j.count)
	MOVQ(j.w, j.panel)
	Load(Param("sums"), j.to)
	Load(Param("groups"), j.turn)
	begin()
	Label(name + "Group")
	group()
	DECQ(j.turn)
	JNZ(label(name + "Group"))
	end()
	LEAQ(at(j.x, 0).Idx(j.count, 8), j.x)
	SHLQ(u8(6), j.count)
	ADDQ(j.count, j.w)
	TESTQ(j.n, j.n)
	JNZ(label(name))
}

// checked multiplies a run of a panel with whole and with coarse columns.
func (j joined256) checked(coarse reg.Register) {
	from, i := GP64(), GP64()
	MOVQ(j.panel, from)
	XORQ(i, i)
	acc, rough := avx2.regs(2), avx2.regs(2)
	avx2.zero(acc...)
	avx2.zero(rough...)
	xe, xo, xc := YMM(), YMM(), YMM()
	Label("checkedBlock")
	PREFETCHT0(at(from, j.ahead))
	VPBROADCASTD(at(j.x, 0).Idx(i, 8), xe)
	VPBROADCASTD(at(j.x, 4).Idx(i, 8), xo)
	VPBROADCASTD(at(coarse, 0).Idx(i, 4), xc)
	for half := range 2 {
		v, e, o := YMM(), YMM(), YMM()
		VMOVDQU(at(from, 32*half), v)
		VPAND(j.even, v, e)
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
	CMPQ(i, j.count)
	JNE(label("checkedBlock"))
	for half, r := range rough {
		sum := at(j.to, 128+32*half)
		VPMADDWD(constant(cOnes16), r, r)
		VPADDD(sum, r, r)
		VMOVDQU(r, sum)
	}
	j.widen(acc)
}

// plain multiplies a run of the panels of a group.
func (j joined256) plain(group int) {
	from, x, rest := make([]reg.Register, group), GP64(), GP64()
	acc, x0, x1 := avx2.regs(2*group), YMM(), YMM()
	avx2.zero(acc...)
	next := GP64()
	MOVQ(j.panel, next)
	for i := range from {
		from[i] = GP64()
		MOVQ(next, from[i])
		if i < group-1 {
			ADDQ(j.stride, next)
		}
	}
	high := YMM()
	VMOVDQU(constant(c256s), high)
	MOVQ(j.x, x)
	MOVQ(j.count, rest)
	blocks := func(n int) {
		for b := range n {
			VPBROADCASTD(at(x, 8*b), x0)
			VPBROADCASTD(at(x, 8*b+4), x1)
			for i, p := range from {
				PREFETCHT0(at(p, 64*b+j.ahead))
				for half, a := range acc[2*i : 2*i+2] {
					v, e, o := at(p, 64*b+32*half), YMM(), YMM()
					VPAND(v, j.even, e)
					VPMULHUW(v, high, o)
					VPMADDWD(x0, e, e)
					VPMADDWD(x1, o, o)
					VPADDD(e, a, a)
					VPADDD(o, a, a)
				}
			}
		}
		for _, p := range from {
			ADDQ(u32(64*n), p)
		}
		ADDQ(u8(8*n), x)
	}
	const unroll = 4
	SUBQ(u8(unroll), rest)
	JL(label("few"))
	Label("plainBlocks")
	blocks(unroll)
	SUBQ(u8(unroll), rest)
	JGE(label("plainBlocks"))
	Label("few")
	ADDQ(u8(unroll), rest)
	JZ(label("plainEnd"))
	Label("plainBlock")
	blocks(1)
	DECQ(rest)
	JNZ(label("plainBlock"))
	Label("plainEnd")
	for i := range group {
		j.widen(acc[2*i : 2*i+2])
	}
}

// widen adds a run's sums to those of a panel, and goes on to the next panel.
func (j joined256) widen(acc []reg.VecVirtual) {
	for half, a := range acc {
		d := YMM()
		for quarter := range 2 {
			if quarter > 0 {
				VEXTRACTI128(u8(1), a, a.AsX())
			}
			VCVTDQ2PD(a.AsX(), d)
			sum := at(j.to, 64*half+32*quarter)
			VADDPD(sum, d, d)
			VMOVUPD(d, sum)
		}
	}
	ADDQ(j.stride, j.panel)
	ADDQ(u32(joinedSums), j.to)
}

// joinedResults makes results of sums and stores them, those of panels whose sums are in doubt excepted.
func joinedResults(group int) {
	dst, scale, sums, turn, add := load("dst"), load("scale"), load("sums"), load("groups"), load("add")
	if group > 1 {
		IMUL3Q(u8(group), turn, turn)
	}
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
	ADDQ(u32(joinedSums), sums)
	ADDQ(u8(64), dst)
	ADDQ(u8(64), scale)
	DECQ(turn)
	JNZ(label("result"))
	Store(left, ReturnIndex(0))
	done()
}
