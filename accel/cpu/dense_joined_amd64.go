package cpu

import "math/bits"

// AVX2 has no sums of four products of bytes, and pairs of products of a weight with a byte of an activation do not fit int16. But weights can be
// multiplied with whole activations of 16 bits, in half as many instructions as with two planes. That gives the exact sum
//
//	acc = 256*accHi + accLo
//
// where [DenseIntMatMul] rounds accHi and accLo to float32, and their sum again. Up to 2^24 float32 holds them exactly: then what is rounded is acc.
// Whether they are that small is shown for each sum. From |accLo| <= 2^24 and |acc| <= 2^32-2^24 follows |accHi| <= 2^24, and |accLo| is at most the sum of
// 128*|Lo| of the columns. Where that says too little, the kernel also multiplies with what five bits less leave of Lo, for as many columns as it takes:
// their part in accLo is no further from 32 times that than 16*128 for each. Panels with a sum for which all that is not enough, which takes extreme weights
// and activations, are multiplied plane by plane.

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
	c, ok := s.join(x.Hi[:4*blocks], x.Lo[:4*blocks])
	if !ok {
		return 0
	}
	sum := float64(128 * (256*int64(x.SumHi[0]) + int64(x.SumLo[0])))
	for p := 0; p < n; {
		s.sums = [sides][PanelRows + PanelRows/2]float64{}
		d, w, sc, left, count := &dst[p*PanelRows], &panels[p*stride], &scale[p*PanelRows], 0, 1
		if manyStreams && n-p >= joinedGroup {
			count = min(n-p, sides) &^ (joinedGroup - 1)
			left = denseInt8AVX2Joined4(d, &s.sums[0][0], w, sc, &s.x[0], &s.coarse[0], c.blocks, blocks, count/joinedGroup, sum, c.sum, c.most, x.Inv[0], asInt(add))
		} else {
			left = denseInt8AVX2Joined(d, &s.sums[0][0], w, sc, &s.x[0], &s.coarse[0], c.blocks, blocks, count, sum, c.sum, c.most, x.Inv[0], asInt(add))
		}
		for ; left != 0; left &= left - 1 {
			q := p + bits.TrailingZeros(uint(left))
			int8Panel(dst[q*PanelRows:], 0, panels[q*stride:(q+1)*stride], (*[PanelRows]float32)(scale[q*PanelRows:]), x, 1, add)
		}
		p += count
	}
	return n
}

// joinedGroup is how many panels denseInt8AVX2Joined4 multiplies side by side.
const joinedGroup = 4

// joinedCheck is what is known of the sums with Lo.
type joinedCheck struct {
	blocks int // how many of a panel are multiplied with coarse columns
	sum    int // 32*128 times the sum of these columns
	most   int // if 32 times the rest is within it, so are all sums with Lo within 2^24
}

// join makes 16-bit columns of the planes, and coarse ones of lo. It is false if a column is below what 16 bits hold.
func (s *joinedSpace) join(hi, lo []int8) (c joinedCheck, ok bool) {
	const (
		limit  = 1 << 24
		usual  = 1 << 19     // sums of coarse columns are seldom above
		weight = 128         // of a weight, the most
		rest   = 16 * weight // of a column, what its coarse one leaves
	)
	n := len(hi)
	s.x, s.coarse = room(s.x, n), room(s.coarse, n)
	_, size, ok := s.columns(hi, lo)
	if !ok {
		return c, false
	}
	if over := weight*size + usual - limit; over > 0 { // columns have more or less the same share of size: check as many as bring it down
		cols := n
		if gain := weight*size - rest*n; gain > 0 {
			cols = min(n, (over*n/gain+63)&^63)
		}
		sum, checked, _ := s.columns(hi[:cols], lo[:cols])
		if weight*(size-checked)+rest*cols > limit-usual {
			cols = n
			sum, checked, _ = s.columns(hi, lo)
		}
		c.blocks, c.sum = cols/4, 32*weight*sum
		size -= checked
	}
	c.most = limit - rest*4*c.blocks - weight*size
	return c, true
}

// columns makes the columns hi and lo, and returns the sum of the coarse ones and that of |lo|.
func (s *joinedSpace) columns(hi, lo []int8) (sum, size int, ok bool) {
	n := len(hi)
	body := n &^ 15
	if body > 0 {
		var lowest int
		if sum, size, lowest = joinColumnsAVX2(&s.x[0], &s.coarse[0], &hi[0], &lo[0], body); lowest != 0 {
			return 0, 0, false
		}
	}
	for k := body; k < n; k++ {
		if hi[k] == -128 {
			return 0, 0, false
		}
		c := (int(lo[k]) + 16) >> 5
		s.x[k&^3+[4]int{0, 2, 1, 3}[k&3]], s.coarse[k] = 256*int16(hi[k])+int16(lo[k]), int8(c)
		sum += c
		size += max(int(lo[k]), -int(lo[k]))
	}
	return sum, size, true
}
