package quant

import "github.com/bitnet-rust/bitnet_rust/accel/cpu"

// minScale is the smallest weight scale and the smallest activation maximum.
const minScale = 1e-5

// sumBlock is the number of elements summed by one float64 chain. Block sums
// are added in order, so the mean does not depend on the thread count, nor on
// how the matrix is cut into rows.
const sumBlock = 1 << 16

// AbsMeanTernary quantizes float master weights by the absmean rule: codes gets
// t = clamp(roundHalfEven(w/scale), -1, 1) and the result is scale =
// max(mean|w|, 1e-5), the mean taken in float64. codes and w have the same
// length, which is not 0.
//
// A NaN or infinity in w makes the scale NaN or infinite; training checks the
// scale, loaders use Ternarize, which names the position.
func AbsMeanTernary(codes []int8, w []float32) (scale float32) {
	blocks := (len(w) + sumBlock - 1) / sumBlock
	sums := make([]float64, blocks)
	cpu.Parallel(blocks, task(func(b int) {
		var s absSum
		s.add(w[b*sumBlock : min((b+1)*sumBlock, len(w))])
		sums[b] = s.total()
	}))
	scale = meanScale(sums, len(w))
	half := scale / 2
	cpu.Parallel(blocks, task(func(b int) {
		for i := b * sumBlock; i < min((b+1)*sumBlock, len(w)); i++ {
			codes[i] = ternary(w[i], half)
		}
	}))
	return scale
}

// ternary is clamp(roundHalfEven(w/m), -1, 1) for half = m/2 without a division
// or a rounding. m/2 is exact; a quotient of exactly 0.5 rounds to the even 0;
// and the next float32 above m/2 divided by m lies more than half a unit in
// the last place above 0.5, so the rounded quotient exceeds 0.5 as well.
func ternary(w, half float32) int8 {
	switch {
	case w > half:
		return 1
	case w < -half:
		return -1
	}
	return 0
}

// meanScale turns block sums of |w| into max(mean|w|, 1e-5).
func meanScale(sums []float64, n int) float32 {
	total := 0.0
	for _, s := range sums {
		total += s
	}
	mean := float32(total / float64(n))
	if mean < minScale {
		return minScale
	}
	return mean
}

// absSum adds magnitudes in float64, in four chains by position modulo 4 so
// that additions overlap.
type absSum struct {
	lane [4]float64
}

// add takes the next values; all calls but the last get a multiple of four.
func (s *absSum) add(w []float32) {
	cpu.AddAbs64(&s.lane, w)
}

func (s *absSum) total() float64 { return (s.lane[0] + s.lane[1]) + (s.lane[2] + s.lane[3]) }
