package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// sides is how many panels the kernels for one token read side by side, see manyStreams in the parent package.
const sides = 8

// sideAhead is how far in front a panel that is read side by side with others is asked for: what comes after it would be another of them.
const sideAhead = 1024

// side addresses panels of the same size, at equal distances, that are read side by side.
type side struct {
	stride reg.Register
	bases  [3]reg.Register // where panels 0, 3 and 6 are read
	ahead  int             // sideAhead, unless it is changed
}

// sideBySide gives the panels of blocks blocks each that begin at p, of which every step-th is taken.
func sideBySide(p, blocks, step reg.Register) side {
	stride := GP64()
	MOVQ(blocks, stride)
	SHLQ(u8(6), stride)
	IMULQ(step, stride)
	return sideAt(p, stride, sideAhead)
}

// sideAt gives the panels that begin at p, stride bytes apart.
func sideAt(p, stride reg.Register, ahead int) side {
	s := side{stride: stride, bases: [3]reg.Register{p, GP64(), GP64()}, ahead: ahead}
	three := s.bases[1]
	LEAQ(operand.Mem{Base: s.stride, Index: s.stride, Scale: 2}, three)
	LEAQ(operand.Mem{Base: p, Index: three, Scale: 2}, s.bases[2])
	ADDQ(p, three)
	return s
}

// at is where panel i is read.
func (s side) at(i, disp int) operand.Mem {
	m := operand.Mem{Base: s.bases[[sides]int{0, 0, 0, 1, 0, 1, 2, 2}[i]], Disp: disp}
	if times := [sides]uint8{0, 1, 2, 0, 4, 2, 0, 1}[i]; times > 0 {
		m.Index, m.Scale = s.stride, times
	}
	return m
}

// load reads a block of panel i.
func (s side) load(i int, v reg.VecVirtual) {
	VMOVDQU32(s.at(i, 0), v)
	PREFETCHT0(s.at(i, s.ahead))
}

// next goes on by a block.
func (s side) next() {
	for _, b := range s.bases {
		ADDQ(u8(64), b)
	}
}
