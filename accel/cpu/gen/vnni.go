package main

import (
	"fmt"
	"strconv"
	"strings"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// avxvnni is AVX2 with VPDPBUSD, which processors without AVX-512 have in an encoding of its own. Only products of integers gain from it.
var avxvnni = simd{suffix: "AVXVNNI", bytes: 32, parts: 2, vec: YMM}

func vnni() {
	ternaryBytes(avxvnni)
	ternaryGemvVNNI()
	for tokens := 2; tokens <= 4; tokens++ {
		ternaryGemmVNNI(tokens)
	}
	for tokens := 1; tokens <= 3; tokens++ {
		int8VNNI(tokens)
	}
	int4(avxvnni)
}

// dpbusd adds, for each 32-bit lane, the four products of the signed bytes of x with the unsigned ones of w. The assembler of Go writes the
// encoding of AVX-512 only, so that this instruction becomes bytes when its registers are known.
func dpbusd(x, w, sum reg.VecVirtual) {
	i := &ir.Instruction{Opcode: "BYTE", Inputs: []operand.Op{x, w, sum}, Outputs: []operand.Op{sum}, ISA: []string{"AVX_VNNI"}}
	i.Operands = []operand.Op{vex{i: i}}
	Instruction(i)
}

// vex prints as the bytes of an instruction. It passes for a constant.
type vex struct {
	operand.U32
	i *ir.Instruction
}

func (v vex) Asm() string {
	x, w, sum := number(v.i.Inputs[0]), number(v.i.Inputs[1]), number(v.i.Outputs[0])
	bytes := []int{
		0xc4,
		(sum>>3^1)<<7 | 1<<6 | (x>>3^1)<<5 | 2, // map 0F38
		(w^15)<<3 | 1<<2 | 1,                   // 256 bits, prefix 66
		0x50,
		3<<6 | sum&7<<3 | x&7,
	}
	var text []string
	for _, b := range bytes {
		text = append(text, fmt.Sprintf("$0x%02x", b))
	}
	return fmt.Sprintf("%s // VPDPBUSD Y%d, Y%d, Y%d", strings.Join(text, "; BYTE "), x, w, sum)
}

// number is that of a YMM register that the encoding reaches.
func number(r operand.Op) int {
	n, err := strconv.Atoi(strings.TrimPrefix(r.Asm(), "Y"))
	if err != nil || n > 15 {
		panic("no register of AVX2: " + r.Asm())
	}
	return n
}

// ternaryGemvVNNI multiplies one panel with one token as ternaryGemv512 does, one half after the other.
func ternaryGemvVNNI() {
	s := avxvnni
	TEXT("ternaryGemvAVXVNNI", NOSPLIT, gemvSignature)
	Doc("ternaryGemvAVXVNNI: dst[r] = sum_k w[r,k]*x[k] for the 16 rows r of a panel; blocks > 0.")
	Pragma("noescape")
	dst, w, x, xsum, n := load("dst"), load("w"), load("x"), load("xsum"), load("blocks")
	var mask, acc [4][]reg.VecVirtual // [field][part]
	for f := range mask {
		mask[f] = []reg.VecVirtual{s.splat(0x03030303 << (2 * f))}
		acc[f] = s.regs(s.parts)
		s.zero(acc[f]...)
	}
	v, t, xb := s.regs(s.parts), s.vec(), s.vec()
	Label("loop")
	prefetch(w, 0, 64)
	for p := range v {
		VMOVDQU(at(w, 32*p), v[p])
	}
	for f := range mask {
		VPBROADCASTD(at(x, 4*f), xb)
		for p := range v {
			VPAND(mask[f][0], v[p], t)
			dpbusd(xb, t, acc[f][p])
		}
	}
	ADDQ(u8(64), w)
	ADDQ(u8(16), x)
	DECQ(n)
	JNZ(label("loop"))
	VPBROADCASTD(at(xsum, 0), xb)
	for p, sum := range acc[0] {
		for f := 1; f < 4; f++ {
			VPSRAD(u8(2*f), acc[f][p], acc[f][p])
			VPADDD(acc[f][p], sum, sum)
		}
		VPSUBD(xb, sum, sum)
		VMOVDQU(sum, at(dst, 32*p))
	}
	done()
}

// ternaryGemmVNNI multiplies a panel with several tokens, which share the decoded weights. Two tokens get two sums each, so that eight are in
// flight.
func ternaryGemmVNNI(tokens int) {
	s, parts := avxvnni, avxvnni.parts
	name := fmt.Sprintf("ternaryGemmAVXVNNIt%d", tokens)
	TEXT(name, NOSPLIT, gemmSignature)
	gemmDoc(name, "the 16 rows r of a panel", tokens)
	dst, ldd, w, x, ldx, xsum, n := load("dst"), load("ldd"), load("w"), load("x"), load("ldx"), load("xsum"), load("blocks")
	SHLQ(u8(2), ldd)
	mask, tok := s.splat(0x03030303), newRows(x, ldx, tokens)
	split := 1
	if tokens == 2 {
		split = 2
	}
	acc := make([][][]reg.VecVirtual, tokens) // [token][field mod split][part]
	for i := range acc {
		for range split {
			sums := s.regs(parts)
			s.zero(sums...)
			acc[i] = append(acc[i], sums)
		}
	}
	v, t, xb := s.regs(parts), s.regs(parts), s.vec()
	Label("loop")
	prefetch(w, 0, 64)
	for p := range v {
		VMOVDQU(at(w, 32*p), v[p])
	}
	for f := range 4 {
		for p := range v {
			VPAND(mask, v[p], t[p])
			if f < 3 {
				VPSRLW(u8(2), v[p], v[p])
			}
		}
		for i := range acc {
			VPBROADCASTD(tok.at(i, 4*f), xb)
			for p := range t {
				dpbusd(xb, t[p], acc[i][f%split][p])
			}
		}
	}
	ADDQ(u8(64), w)
	tok.advance(16)
	DECQ(n)
	JNZ(label("loop"))
	for i := range acc {
		VPBROADCASTD(at(xsum, 4*i), xb)
		for p, sum := range acc[i][0] {
			if split == 2 {
				VPADDD(acc[i][1][p], sum, sum)
			}
			VPSUBD(xb, sum, sum)
			VMOVDQU(sum, at(dst, 32*p))
		}
		if i < tokens-1 {
			ADDQ(ldd, dst)
		}
	}
	done()
}

// int8VNNI multiplies a panel with some tokens. With one, two blocks are in flight, as one alone would wait for its own sums.
func int8VNNI(tokens int) {
	k := newInt8Kernel(avxvnni, tokens, 1)
	acc := [2][][2][]reg.VecVirtual{k.accumulators(k.s.parts)}
	if tokens == 1 {
		acc[1] = k.accumulators(k.s.parts)
	}
	x, v := k.s.vec(), k.s.vec()
	block := func(b int) {
		if tokens == 1 {
			prefetch(k.w, 64*b, 64)
		} else {
			prefetchTwice(k.w, 0, 64)
		}
		for part := range k.s.parts {
			VMOVDQU(at(k.w, 64*b+32*part), v)
			for i := range acc[b] {
				for p := range k.planes {
					VPBROADCASTD(k.planes[p].at(i, 4*b), x)
					dpbusd(x, v, acc[b][i][p][part])
				}
			}
		}
	}
	blocks := 1
	if tokens == 1 {
		blocks = 2
		TESTQ(u32(1), k.n) // an odd block first
		JZ(label("loop"))
		block(0)
		k.advance(1)
		DECQ(k.n)
		JZ(label("end"))
	}
	Label("loop")
	for b := range blocks {
		block(b)
	}
	k.advance(blocks)
	SUBQ(u8(blocks), k.n)
	JNZ(label("loop"))
	Label("end")
	for i := range acc[1] {
		for p := range k.planes {
			for part, sum := range acc[0][i][p] {
				VPADDD(acc[1][i][p][part], sum, sum)
			}
		}
	}
	k.finish(acc[0])
}
