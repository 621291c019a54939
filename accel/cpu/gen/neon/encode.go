package main

import (
	"fmt"
	"math"
)

// Instructions of AArch64's Advanced SIMD, with the destination first, as ARM writes them. Go's assembler has few of them, so that they
// all are written as words.

func three(name, shape string, bits uint32) func(d, n, m vec) {
	return func(d, n, m vec) {
		word(bits|uint32(m)<<16|uint32(n)<<5|uint32(d), "%s V%d.%s, V%d.%s, V%d.%s", name, d, shape, n, shape, m, shape)
	}
}

func two(name, to, from string, bits uint32) func(d, n vec) {
	return func(d, n vec) {
		word(bits|uint32(n)<<5|uint32(d), "%s V%d.%s, V%d.%s", name, d, to, n, from)
	}
}

// long is an instruction whose destination's elements are wider than its operands'.
func long(name, to, from string, bits uint32) func(d, n, m vec) {
	return func(d, n, m vec) {
		word(bits|uint32(m)<<16|uint32(n)<<5|uint32(d), "%s V%d.%s, V%d.%s, V%d.%s", name, d, to, n, from, m, from)
	}
}

// shift takes the number of bits; code is what stands in the instruction for 0 bits, sign how it moves.
func shift(name, shape string, bits uint32, code, sign int) func(d, n vec, by int) {
	return func(d, n vec, by int) {
		word(bits|uint32(code+sign*by)<<16|uint32(n)<<5|uint32(d), "%s V%d.%s, V%d.%s, #%d", name, d, shape, n, shape, by)
	}
}

var (
	fadd   = three("FADD", "4S", 0x4e20d400)
	fsub   = three("FSUB", "4S", 0x4ea0d400)
	fmul   = three("FMUL", "4S", 0x6e20dc00)
	fmla   = three("FMLA", "4S", 0x4e20cc00) // adds the product, rounded once
	fmls   = three("FMLS", "4S", 0x4ea0cc00) // takes off the product, rounded once
	fdiv   = three("FDIV", "4S", 0x6e20fc00)
	fmaxnm = three("FMAXNM", "4S", 0x4e20c400) // a number beside NaN wins
	fminnm = three("FMINNM", "4S", 0x4ea0c400)
	fcmgt  = three("FCMGT", "4S", 0x6ea0e400)
	fcmge  = three("FCMGE", "4S", 0x6e20e400)
	fcmeq  = three("FCMEQ", "4S", 0x4e20e400)
	fcmlt0 = func(d, n vec) { word(0x4ea0e800|uint32(n)<<5|uint32(d), "FCMLT V%d.4S, V%d.4S, #0.0", d, n) }
	fabs   = two("FABS", "4S", "4S", 0x4ea0f800)
	fneg   = two("FNEG", "4S", "4S", 0x6ea0f800)
	fsqrt  = two("FSQRT", "4S", "4S", 0x6ea1f800)
	fcvtns = two("FCVTNS", "4S", "4S", 0x4e21a800) // rounds half to even
	scvtf  = two("SCVTF", "4S", "4S", 0x4e21d800)

	fadd64     = three("FADD", "2D", 0x4e60d400)
	fmul64     = three("FMUL", "2D", 0x6e60dc00)
	fabs64     = two("FABS", "2D", "2D", 0x4ee0f800)
	fcvtl      = two("FCVTL", "2D", "2S", 0x0e617800)
	fcvtl2     = two("FCVTL2", "2D", "4S", 0x4e617800)
	halves     = two("FCVTL", "4S", "4H", 0x0e217800)
	halves2    = two("FCVTL2", "4S", "8H", 0x4e217800)
	shll       = two("SHLL", "4S", "4H", 0x2e613800) // to the upper half of 32 bits
	shll2      = two("SHLL2", "4S", "8H", 0x6e613800)
	fcvtn      = two("FCVTN", "4H", "4S", 0x0e216800)
	fcvtn2     = two("FCVTN2", "8H", "4S", 0x4e216800)
	addWords   = three("ADD", "4S", 0x4ea08400)
	subWords   = three("SUB", "4S", 0x6ea08400)
	addPairs   = three("ADDP", "4S", 0x4ea0bc00)
	addPairs16 = three("ADDP", "8H", 0x4e60bc00)
	ushl       = three("USHL", "4S", 0x6ea04400)
	subBytes   = three("SUB", "16B", 0x6e208400)
	umax       = three("UMAX", "4S", 0x6ea06400)

	and = three("AND", "16B", 0x4e201c00)
	bic = three("BIC", "16B", 0x4e601c00)
	orr = three("ORR", "16B", 0x4ea01c00)
	eor = three("EOR", "16B", 0x6e201c00)
	bit = three("BIT", "16B", 0x6ea01c00) // d takes n where m is set
	bif = three("BIF", "16B", 0x6ee01c00) // d takes n where m is clear

	uzp1Halves = three("UZP1", "8H", 0x4e401800)
	uzp2Halves = three("UZP2", "8H", 0x4e405800)
	uzp1Bytes  = three("UZP1", "16B", 0x4e001800)
	zip1       = three("ZIP1", "4S", 0x4e803800)
	zip2       = three("ZIP2", "4S", 0x4e807800)
	zip1Bytes  = three("ZIP1", "16B", 0x4e003800)
	zip2Bytes  = three("ZIP2", "16B", 0x4e007800)
	zip1Halves = three("ZIP1", "8H", 0x4e403800)
	zip2Halves = three("ZIP2", "8H", 0x4e407800)

	ushrBytes = shift("USHR", "16B", 0x6f000400, 16, -1)
	shl       = shift("SHL", "4S", 0x4f005400, 32, 1)
	sshr      = shift("SSHR", "4S", 0x4f000400, 64, -1)

	ushr = shift("USHR", "4S", 0x6f000400, 64, -1)

	smull        = long("SMULL", "8H", "8B", 0x0e20c000)
	smull2       = long("SMULL2", "8H", "16B", 0x4e20c000)
	smlal        = long("SMLAL", "8H", "8B", 0x0e208000)
	smlal2       = long("SMLAL2", "8H", "16B", 0x4e208000)
	smlalHalves  = long("SMLAL", "4S", "4H", 0x0e608000)
	smlalHalves2 = long("SMLAL2", "4S", "8H", 0x4e608000)

	saddlp = two("SADDLP", "4S", "8H", 0x4e602800) // sums of pairs
	sadalp = two("SADALP", "4S", "8H", 0x4e606800) // adds sums of pairs
	sdot   = long("SDOT", "4S", "16B", 0x4e809400)
)

// lane is how lane i of m, of four 32-bit ones, stands in an instruction.
func lane(m vec, i int) uint32 { return uint32(i&1)<<21 | uint32(i>>1)<<11 | uint32(m)<<16 }

// sdotLane adds, for each 32-bit lane, the four products of n's bytes with those of lane i of m.
func sdotLane(d, n, m vec, i int) {
	word(0x4f80e000|lane(m, i)|uint32(n)<<5|uint32(d), "SDOT V%d.4S, V%d.16B, V%d.4B[%d]", d, n, m, i)
}

// fmulLane multiplies with lane i of m.
func fmulLane(d, n, m vec, i int) {
	word(0x4f809000|lane(m, i)|uint32(n)<<5|uint32(d), "FMUL V%d.4S, V%d.4S, V%d.S[%d]", d, n, m, i)
}

// fmlaLane adds the product with lane i of m, rounded once.
func fmlaLane(d, n, m vec, i int) {
	word(0x4f801000|lane(m, i)|uint32(n)<<5|uint32(d), "FMLA V%d.4S, V%d.4S, V%d.S[%d]", d, n, m, i)
}

// Sign extension.
var (
	sxtlBytes  = two("SXTL", "8H", "8B", 0x0f08a400)
	sxtlBytes2 = two("SXTL2", "8H", "16B", 0x4f08a400)
)

// dup copies lane i of n to all lanes.
func dup(d, n vec, i int) {
	word(0x4e000400|uint32(i<<3|4)<<16|uint32(n)<<5|uint32(d), "DUP V%d.4S, V%d.S[%d]", d, n, i)
}

// ext takes the four lanes from lane i of n on, followed by those of m.
func ext(d, n, m vec, i int) {
	word(0x6e000000|uint32(4*i)<<11|uint32(m)<<16|uint32(n)<<5|uint32(d), "EXT V%d.16B, V%d.16B, V%d.16B, #%d", d, n, m, 4*i)
}

// bytesOf fills a vector with a byte.
func bytesOf(b uint8) vec {
	v := newVec()
	setBytes(v, b)
	return v
}

func setBytes(v vec, b uint8) {
	word(0x4f00e400|uint32(b>>5)<<16|uint32(b&31)<<5|uint32(v), "MOVI V%d.16B, #%d", v, b)
}

// words fills a vector with a 32-bit number.
func words(bits uint32) vec {
	v, r := newVec(), newReg()
	line("MOVD $0x%x, %v", bits, r)
	dupReg(v, r)
	freeRegs = append(freeRegs, r)
	return v
}

// dupReg fills a vector with the lower half of a register.
func dupReg(v vec, r reg) { word(0x4e040c00|uint32(r)<<5|uint32(v), "DUP V%d.4S, W%d", v, r) }

func zero(v ...vec) {
	for _, r := range v {
		setBytes(r, 0)
	}
}

// Loads and stores of whole vectors, from p+disp on.

func ldr(v vec, p reg, disp int) {
	word(0x3dc00000|offset12(disp)<<10|uint32(p)<<5|uint32(v), "LDR Q%d, [X%d, #%d]", v, p, disp)
}

func str(v vec, p reg, disp int) {
	word(0x3d800000|offset12(disp)<<10|uint32(p)<<5|uint32(v), "STR Q%d, [X%d, #%d]", v, p, disp)
}

func offset12(disp int) uint32 {
	if disp < 0 || disp%16 != 0 || disp/16 > 4095 {
		panic(fmt.Sprintf("neon: offset %d of a vector", disp))
	}
	return uint32(disp / 16)
}

func ldrs(v []vec, p reg, disp int) {
	for i := 0; i < len(v); i += 2 {
		if i+1 < len(v) && disp+16*i < 1024 {
			word(0xad400000|offset12(disp+16*i)<<15|uint32(v[i+1])<<10|uint32(p)<<5|uint32(v[i]), "LDP Q%d, Q%d, [X%d, #%d]", v[i], v[i+1], p, disp+16*i)
			continue
		}
		ldr(v[i], p, disp+16*i)
	}
}

func strs(v []vec, p reg, disp int) {
	for i := 0; i < len(v); i += 2 {
		if i+1 < len(v) && disp+16*i < 1024 {
			word(0xad000000|offset12(disp+16*i)<<15|uint32(v[i+1])<<10|uint32(p)<<5|uint32(v[i]), "STP Q%d, Q%d, [X%d, #%d]", v[i], v[i+1], p, disp+16*i)
			continue
		}
		str(v[i], p, disp+16*i)
	}
}

// ldrPost loads a vector and moves p on by bytes.
func ldrPost(v vec, p reg, bytes int) {
	word(0x3cc00400|uint32(bytes)<<12|uint32(p)<<5|uint32(v), "LDR Q%d, [X%d], #%d", v, p, bytes)
}

// ldr32 and ldr64 fill a vector with 4 or 8 bytes of memory, again and again.

func ldr32(v vec, p reg) { word(0x4d40c800|uint32(p)<<5|uint32(v), "LD1R {V%d.4S}, [X%d]", v, p) }

func ldr64(v vec, p reg) { word(0x4d40cc00|uint32(p)<<5|uint32(v), "LD1R {V%d.2D}, [X%d]", v, p) }

// ldr32Post and ldr64Post move p on behind these.

func ldr32Post(v vec, p reg) {
	word(0x4ddfc800|uint32(p)<<5|uint32(v), "LD1R {V%d.4S}, [X%d], #4", v, p)
}

func ldr64Post(v vec, p reg) {
	word(0x4ddfcc00|uint32(p)<<5|uint32(v), "LD1R {V%d.2D}, [X%d], #8", v, p)
}

// str32 stores lane 0.
func str32(v vec, p reg) { word(0xbd000000|uint32(p)<<5|uint32(v), "STR S%d, [X%d]", v, p) }

// prefetch asks for what lies at p+off.
func prefetch(p, off reg) {
	word(0xf8a06800|uint32(off)<<16|uint32(p)<<5, "PRFM PLDL1KEEP, [X%d, X%d]", p, off)
}

// Constants, each filling a vector.
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
	cInf
	cExpLow
	cExpHigh
	cSign
	cAbs
	cMin8
	cMax8
	cMin16
	cMax16
	c256
	c128
	cUpper
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
	cFields // the places of the fields: 0, 2, 4, 6
)

var constants = func() map[int]uint32 {
	f := math.Float32bits
	return map[int]uint32{
		cLog2e: f(1.44269504088896341), cMagic: f(12582912), cLn2Hi: f(0.693359375), cLn2Lo: f(-2.12194440e-4),
		cC0: f(1.9875691500e-4), cC1: f(1.3981999507e-3), cC2: f(8.3334519073e-3),
		cC3: f(4.1665795894e-2), cC4: f(1.6666665459e-1), cC5: f(5.0000001201e-1),
		cOne: f(1), cInf: 0x7f800000, cExpLow: f(-87.33654), cExpHigh: f(88.72283), cSign: 1 << 31, cAbs: 1<<31 - 1,
		cMin8: f(-128), cMax8: f(127), cMin16: f(-32512), cMax16: f(32512), c256: f(256), c128: 128, cUpper: 0xffff0000,
		cTwo: f(2), cHalf: f(0.5), cTanhSmall: f(0.625), cTanh0: f(-5.70498872745e-3), cTanh1: f(2.06390887954e-2),
		cTanh2: f(-5.37397155531e-2), cTanh3: f(1.33314422036e-1), cTanh4: f(-3.33332819422e-1),
		cSqrtHalf: f(0.70710678118654752440), cErfcP: f(0.3275911), cErfc5: f(1.061405429), cErfc4: f(-1.453152027),
		cErfc3: f(1.421413741), cErfc2: f(-0.284496736), cErfc1: f(0.254829592), cFields: 0,
	}
}()

// writeConstants writes their table.
func writeConstants() {
	for c := range len(constants) {
		for lane := range 4 {
			v := constants[c]
			if c == cFields {
				v = uint32(2 * lane)
			}
			fmt.Fprintf(&out, "DATA constants<>+%d(SB)/4, $0x%08x\n", 16*c+4*lane, v)
		}
	}
	fmt.Fprintf(&out, "GLOBL constants<>(SB), RODATA|NOPTR, $%d\n", 16*len(constants))
}

// table gives a register that points to the constants.
func table() reg {
	r := newReg()
	line("MOVD $constants<>(SB), %v", r)
	return r
}

// constant loads a constant.
func constant(t reg, c int) vec {
	v := newVec()
	ldr(v, t, 16*c)
	return v
}
