package cpu

import "math/bits"

// AVX2 has no sums of four products of bytes, and pairs of products of a weight with a byte of an activation do not fit int16. But weights can be
// multiplied with whole activations of 16 bits, in half as many instructions as with two planes. That gives the exact sum
//
//	acc = 256*accHi + accLo
//
// where [DenseIntMatMul] rounds accHi and accLo to float32, and their sum again. Up to 2^24 float32 holds them exactly: then what is rounded is acc.
// Whether they are that small is shown for each sum: the kernel also multiplies with what five bits less leave of Lo, and accLo is no further from 32 times
// that than 16*128 for each column. From |accLo| <= 2^24 and |acc| <= 2^32-2^24 follows |accHi| <= 2^24. Panels with a sum for which that does not
// hold, which takes extreme weights and activations, are multiplied plane by plane.

// joinedCols bounds the columns: with more, what five bits less leave of Lo says too little.
const joinedCols = 7168

// joinedSpace is memory of a running call.
type joinedSpace struct {
	x      []int16 // for each block of 4 columns 0, 2, 1, 3
	coarse []int8
	sums   [sides][PanelRows + PanelRows/2]float64 // of a panel: 16 whole ones, and as many int32 of coarse
}

// int8Joined multiplies panels with one token and returns how many, all or none.
func int8Joined(dst []float32, panels []byte, stride int, scale []float32, x *Int16Rows, add bool) int {
	blocks, n := stride/BlockBytes, len(panels)/stride
	if n == 0 || 4*blocks > joinedCols {
		return 0
	}
	space := newTileSpace()
	defer space.release()
	s := &space.joined
	coarse, ok := s.join(x.Hi[:4*blocks], x.Lo[:4*blocks])
	if !ok {
		return 0
	}
	sum := float64(128 * (256*int64(x.SumHi[0]) + int64(x.SumLo[0])))
	most := 1<<24 - 16*128*4*blocks
	side, ahead := 1, pageAhead
	if manyStreams {
		side, ahead = sides, turnAhead
	}
	for p := 0; p < n; p += side {
		side = min(side, n-p)
		s.sums = [sides][PanelRows + PanelRows/2]float64{}
		left := denseInt8AVX2Joined(&dst[p*PanelRows], &s.sums[0][0], &panels[p*stride], &scale[p*PanelRows], &s.x[0], &s.coarse[0], blocks, side, ahead,
			sum, 32*128*coarse, most, x.Inv[0], asInt(add))
		for ; left != 0; left &= left - 1 {
			q := p + bits.TrailingZeros(uint(left))
			int8Panel(dst[q*PanelRows:], 0, panels[q*stride:(q+1)*stride], (*[PanelRows]float32)(scale[q*PanelRows:]), x, 1, add)
		}
	}
	return n
}

// join makes 16-bit columns of the planes, and coarse ones of lo, whose sum it returns. It is false if a column is below what 16 bits hold.
func (s *joinedSpace) join(hi, lo []int8) (sum int, ok bool) {
	n := len(hi)
	s.x, s.coarse = room(s.x, n), room(s.coarse, n)
	body := n &^ 15
	if body > 0 {
		var lowest int
		if sum, lowest = joinColumnsAVX2(&s.x[0], &s.coarse[0], &hi[0], &lo[0], body); lowest != 0 {
			return 0, false
		}
	}
	for k := body; k < n; k++ {
		if hi[k] == -128 {
			return 0, false
		}
		c := (int(lo[k]) + 16) >> 5
		s.x[k&^3+[4]int{0, 2, 1, 3}[k&3]], s.coarse[k] = 256*int16(hi[k])+int16(lo[k]), int8(c)
		sum += c
	}
	return sum, true
}
