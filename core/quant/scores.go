package quant

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// Scores is a matrix in int8 beside a float matrix, with a proven bound of how far the products of the two lie apart: of row r with x, at most
//
//	Slack[r]*|x| + Spread[r]*step
//
// where |x| is the Euclidean length, and step what one step of x's 16-bit integers is worth. So the few rows whose float product may be among
// the largest are found by reading half of the bytes, or a quarter.
type Scores struct {
	Dense
	Slack, Spread []float32
}

// Bytes is the memory of the panels, their scales and bounds.
func (s *Scores) Bytes() int { return s.Dense.Bytes() + 4*(len(s.Slack)+len(s.Spread)) }

// NewScores quantizes a float matrix to int8 for Scores. The panels are memory of cpu.DenseBytes(cpu.DenseInt8, ...).
func NewScores(w *Dense, panels []byte) (*Scores, error) {
	if err := CheckDense(cpu.DenseInt8, w.Rows, w.Cols); err != nil {
		return nil, err
	}
	s := &Scores{
		Dense: Dense{Rows: w.Rows, Cols: w.Cols, Format: cpu.DenseInt8, Panels: panels, RowScale: make([]float32, w.Rows)},
		Slack: make([]float32, w.Rows), Spread: make([]float32, w.Rows),
	}
	stride := cpu.DenseBytes(cpu.DenseInt8, cpu.PanelRows, w.Cols)
	return s, inChunks(len(panels)/stride, func(from, to int) error {
		values, codes := make([]float32, w.Cols), make([]int8, w.Cols)
		for p := from; p < to; p++ {
			panel := panels[p*stride : (p+1)*stride]
			cpu.ClearDense(cpu.DenseInt8, panel, w.Cols)
			for row := p * cpu.PanelRows; row < min((p+1)*cpu.PanelRows, w.Rows); row++ {
				w.Row(values, row)
				s.RowScale[row] = quantizeGroup(codes, values, Options{Bits: 8})
				packInt8Row(panel[4*(row%cpu.PanelRows):], codes)
				s.Slack[row], s.Spread[row] = scoreBound(values, codes, s.RowScale[row])
			}
		}
		return nil
	})
}

// scoreBound bounds what separates the float product of w and x (cpu.DenseMatMul) from the integer product of q*scale and x (cpu.DenseIntMatMul).
// With u = 2^-24, n columns, d = w - q*scale and v = q*scale, in exact arithmetic:
//
//   - the float product adds n products to four sums, with one rounding each, then two more: it is within (n/4+4)u * sum|w x| of the exact one,
//     and sum|w x| <= |w| |x| (Cauchy-Schwarz);
//   - the exact products of w and v with x differ by d x, at most |d| |x|;
//   - x becomes integers: each element is within half a step, and three roundings of its own, 3u|x|, so that v x moves by at most
//     sum|v| * step/2 + 3u |v| |x|;
//   - the integer product is exact, and then rounded six times, relative to at most sum|v|(|x| + 257 step).
//
// All constants are rounded up, and so are the results; what underflows is below any step.
func scoreBound(w []float32, q []int8, scale float32) (slack, spread float32) {
	const u = 1.0 / (1 << 24)
	var ww, vv, dd, v1 float64
	for k, x := range w {
		v := float64(float64(q[k]) * float64(scale))
		d := float64(x) - v
		ww += float64(float64(x) * float64(x))
		vv += float64(v * v)
		dd += float64(d * d)
		v1 += math.Abs(v)
	}
	const up = 1 + 1e-6 // the sums above, the float32 results, and the caller's float32 arithmetic with them
	n := float64(len(w))
	slack64 := math.Sqrt(dd) + float64((float64(n/4)+4)*u*1.001*math.Sqrt(ww)) + float64(12*u*math.Sqrt(vv))
	return float32(slack64 * up), float32(v1 * (0.5 + 6*258*u) * up)
}
