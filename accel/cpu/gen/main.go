// Command gen writes the amd64 kernels of package cpu with avo; those for arm64 are written by neon, below it. Run it by `go generate` in
// the parent folder.
//
// Every function here emits one kernel for one vector width. The kernel's Doc line, which lands in the stubs file, is the
// formula; the scalar reference of the same name in the parent package is its definition, and the property tests there
// hold the two to the same bits.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	constants()
	for _, s := range []simd{avx2, avx512} {
		ternary(s)
		base3(s)
		lines(s)
		dense(s)
		int8Dense(s)
		int4(s)
		int4Errors(s)
		attention(s)
		elementwise(s)
		activations(s)
		backward(s)
		readSum(s)
		readSumSide(s)
	}
	vnni()
	pause()
	askLines()
	Generate()
}

// pause tells the core that this is a polling loop.
func pause() {
	TEXT("pause", NOSPLIT, "func()")
	Doc("pause gives the other hardware thread of the core a few cycles; for polling loops.")
	PAUSE()
	RET()
}

// askLines asks memory for lines.
func askLines() {
	TEXT("askLines", NOSPLIT, "func(p *byte, rows, stride, lines int)")
	Doc("askLines asks for lines lines of 64 bytes of each of rows rows that begin stride bytes apart, from p on; both numbers > 0.")
	Pragma("noescape")
	p, rows, stride, lines := load("p"), load("rows"), load("stride"), load("lines")
	from, left := GP64(), GP64()
	Label("row")
	MOVQ(p, from)
	MOVQ(lines, left)
	Label("line")
	PREFETCHT1(at(from, 0))
	ADDQ(u32(64), from)
	DECQ(left)
	JNZ(label("line"))
	ADDQ(stride, p)
	DECQ(rows)
	JNZ(label("row"))
	RET()
}

// readSum reads memory at full speed.
func readSum(s simd) {
	TEXT("readSum"+s.suffix, NOSPLIT, "func(p *byte, n int) uint64")
	Doc("readSum" + s.suffix + " reads the n bytes at p, n > 0 and a multiple of 256; its result means nothing.")
	Pragma("noescape")
	p, n := load("p"), load("n")
	acc := s.regs(4)
	s.zero(acc...)
	Label("loop")
	for off := 0; off < 256; off += s.bytes {
		VORPS(at(p, off), acc[off/s.bytes%4], acc[off/s.bytes%4])
	}
	prefetch(p, 0, 256)
	ADDQ(u32(256), p)
	SUBQ(u32(256), n)
	JNZ(label("loop"))
	storeAny(acc)
}

// readSumSide reads memory as the kernels do that take panels side by side.
func readSumSide(s simd) {
	TEXT("readSum"+s.suffix+"Side", NOSPLIT, "func(p *byte, blocks int) uint64")
	Doc(fmt.Sprintf("readSum%sSide reads %d pieces of blocks blocks of 64 bytes side by side, blocks > 0; its result means nothing.", s.suffix, sides))
	Pragma("noescape")
	p, n, one := load("p"), load("blocks"), GP64()
	MOVQ(u32(1), one)
	piece := sideBySide(p, n, one)
	acc := s.regs(4)
	s.zero(acc...)
	Label("loop")
	for i := range sides {
		for off := 0; off < 64; off += s.bytes {
			VORPS(piece.at(i, off), acc[i%4], acc[i%4])
		}
		PREFETCHT0(piece.at(i, sideAhead))
	}
	piece.next()
	DECQ(n)
	JNZ(label("loop"))
	storeAny(acc)
}

// storeAny makes a result that depends on everything that was read.
func storeAny(acc []reg.VecVirtual) {
	VORPS(acc[0], acc[1], acc[1])
	VORPS(acc[2], acc[3], acc[3])
	VORPS(acc[1], acc[3], acc[3])
	r := GP64()
	VMOVQ(acc[3].AsX(), r)
	Store(r, ReturnIndex(0))
	done()
}
