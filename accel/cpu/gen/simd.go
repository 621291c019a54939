package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// simd is a vector width. Most float instructions have one name for both widths, so a kernel is written once: it treats 16
// floats (one per lane of the package's reductions) as 16/floats registers.
type simd struct {
	suffix string // of the kernel's name
	bytes  int    // of a register
	parts  int    // registers for 16 floats
	vec    func() reg.VecVirtual
}

var (
	avx2   = simd{suffix: "AVX2", bytes: 32, parts: 2, vec: YMM}
	avx512 = simd{suffix: "AVX512", bytes: 64, parts: 1, vec: ZMM}
)

func (s simd) wide() bool { return s.bytes == 64 }

func (s simd) regs(n int) []reg.VecVirtual {
	r := make([]reg.VecVirtual, n)
	for i := range r {
		r[i] = s.vec()
	}
	return r
}

func (s simd) zero(regs ...reg.VecVirtual) {
	for _, r := range regs {
		VXORPS(r, r, r)
	}
}

// splat fills a new register with a 32-bit constant.
func (s simd) splat(bits uint32) reg.VecVirtual {
	t, r := GP32(), s.vec()
	MOVL(operand.U32(bits), t)
	VMOVD(t, r.AsX())
	VPBROADCASTD(r.AsX(), r)
	return r
}

// splatParam fills a new register with a float32 parameter.
func (s simd) splatParam(name string) reg.VecVirtual {
	addr, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	r := s.vec()
	VBROADCASTSS(addr.Addr, r)
	return r
}

// How many bytes before its use memory is asked for; all reach into the next panel, which is what comes next. A kernel that only
// waits for memory asks once, a page ahead, as the hardware's own prefetchers stop at page borders. One that computes about as
// long as it waits asks twice: early into the second-level cache, late into the first. Measured on Zen 4: asking twice makes
// small batches a tenth faster, and plain streams a fifth slower.
const (
	prefetchOnce = 4096
	prefetchL1   = 1536
	prefetchL2   = 12288
)

// prefetch asks once for what the code will read later, when at p+off..p+off+n it reads now.
func prefetch(p reg.Register, off, n int) {
	for i := 0; i < n; i += 64 {
		PREFETCHT0(at(p, off+i+prefetchOnce))
	}
}

// prefetchTwice is prefetch for kernels that compute as long as they wait.
func prefetchTwice(p reg.Register, off, n int) {
	for i := 0; i < n; i += 64 {
		PREFETCHT1(at(p, off+i+prefetchL2))
		PREFETCHT0(at(p, off+i+prefetchL1))
	}
}

func load(name string) reg.Register { return Load(Param(name), GP64()) }

func at(p reg.Register, disp int) operand.Mem { return operand.Mem{Base: p, Disp: disp} }

func u8(n int) operand.U8             { return operand.U8(n) }
func u32(n int) operand.U32           { return operand.U32(n) }
func label(s string) operand.LabelRef { return operand.LabelRef(s) }

func done() {
	VZEROUPPER()
	RET()
}

// rows addresses up to 12 rows that lie stride bytes apart with few registers: one base for each three rows.
type rows struct {
	bases  []reg.Register
	stride reg.Register
}

// newRows takes over the register base.
func newRows(base, stride reg.Register, n int) rows {
	r := rows{bases: []reg.Register{base}, stride: stride}
	for i := 3; i < n; i += 3 {
		next := GP64()
		LEAQ(operand.Mem{Base: r.bases[len(r.bases)-1], Index: stride, Scale: 2}, next)
		ADDQ(stride, next)
		r.bases = append(r.bases, next)
	}
	return r
}

func (r rows) at(i, disp int) operand.Mem {
	m := operand.Mem{Base: r.bases[i/3], Disp: disp}
	if i%3 > 0 {
		m.Index, m.Scale = r.stride, uint8(i%3)
	}
	return m
}

func (r rows) advance(bytes int) {
	for _, b := range r.bases {
		ADDQ(u32(bytes), b)
	}
}

// table holds float constants, each sixteen times, as memory operands for both widths.
var table operand.Mem

const (
	cLog2e = iota
	cMagic
	cLn2Hi
	cLn2Lo
	cC0
	cC1
	cC2
	cC3
	cC4
	cC5
	cOne
	cZero
	cInf
	cExpLow
	cExpHigh
	cSign
	cAbs
	cMin8
	cMax8
	cOnes16 // pairs of int16
	cMask0  // field 0 of four bytes of two-bit codes
	cMask1  // field 1
	cField2
	cField3
	cMask4 // the low four bits of bytes
	cUpper // the upper half of 32 bits
	cMin16
	cMax16
	c256
	cSignBytes
	c128
	cOnes8   // bytes
	cAbs64   // the magnitude of float64
	cFields  // the places of the fields: 0, 2, 4, 6
	cEvenOdd // a shuffle: of the four bytes of each lane the even ones, then the odd ones
	cIota    // 0, 1, 2, ...
	cTwo
	cHalf
	cTanhSmall
	cTanh0
	cTanh1
	cTanh2
	cTanh3
	cTanh4
	cSqrtHalf
	cErfcP
	cErfc5
	cErfc4
	cErfc3
	cErfc2
	cErfc1
	cQuarters // the places of the fields, one for each quarter of 64 bytes
	c256s     // pairs of int16
	cShift4   // words: 2^12
)

const (
	lowNibbles  = 0x0f0f0f0f
	highNibbles = 0xf0f0f0f0
	upperHalf   = 0xffff0000
)

func constants() {
	f := math.Float32bits
	values := [...]uint32{
		cLog2e: f(1.44269504088896341), cMagic: f(12582912), cLn2Hi: f(0.693359375), cLn2Lo: f(-2.12194440e-4),
		cC0: f(1.9875691500e-4), cC1: f(1.3981999507e-3), cC2: f(8.3334519073e-3),
		cC3: f(4.1665795894e-2), cC4: f(1.6666665459e-1), cC5: f(5.0000001201e-1),
		cOne: f(1), cZero: 0, cInf: 0x7f800000, cExpLow: f(-87.33654), cExpHigh: f(88.72283),
		cSign: 1 << 31, cAbs: 1<<31 - 1, cMin8: f(-128), cMax8: f(127),
		cOnes16: 0x00010001, cMask0: 0x03030303, cMask1: 0x0c0c0c0c, cField2: 0x30303030, cField3: 0xc0c0c0c0,
		cMask4: lowNibbles, cUpper: upperHalf, cMin16: f(-32512), cMax16: f(32512), c256: f(256), cSignBytes: 0x80808080, c128: 128, cOnes8: 0x01010101, cAbs64: 0, cFields: 0,
		cEvenOdd: 0, cIota: 0,
		cTwo: f(2), cHalf: f(0.5), cTanhSmall: f(0.625), cTanh0: f(-5.70498872745e-3), cTanh1: f(2.06390887954e-2),
		cTanh2: f(-5.37397155531e-2), cTanh3: f(1.33314422036e-1), cTanh4: f(-3.33332819422e-1),
		cSqrtHalf: f(0.70710678118654752440), cErfcP: f(0.3275911), cErfc5: f(1.061405429), cErfc4: f(-1.453152027),
		cErfc3: f(1.421413741), cErfc2: f(-0.284496736), cErfc1: f(0.254829592), cQuarters: 0, c256s: 0x01000100, cShift4: 0x10001000,
	}
	table = GLOBL("constants", RODATA|NOPTR)
	for i, v := range values {
		for j := range 16 {
			switch i {
			case cEvenOdd: // bytes of lane j of 128 bits
				v = 0x03010200 + 0x04040404*uint32(j%4)
			case cIota:
				v = uint32(j)
			case cAbs64:
				v = []uint32{1<<32 - 1, 1<<31 - 1}[j%2]
			case cFields:
				v = 2 * uint32(j%4)
			case cQuarters:
				v = 2 * uint32(j/4)
			}
			DATA(64*i+4*j, operand.U32(v))
		}
	}
}

func constant(c int) operand.Mem { return table.Offset(64 * c) }
