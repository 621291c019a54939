package quant

import (
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// Granularity is what shares one scale.
type Granularity uint8

const (
	PerTensor Granularity = iota // one scale for the matrix
	PerRow                       // one per row (output channel)
	PerGroup                     // one per group of neighbouring columns of a row; a row's last group may be short
)

// String names the granularity.
func (g Granularity) String() string {
	if g > PerGroup {
		return fmt.Sprintf("Granularity(%d)", uint8(g))
	}
	return [...]string{"tensor", "row", "group"}[g]
}

// Options choose a symmetric quantizer. With s the scale of a weight's group:
//
//	8 bits   w = s*c       c in -127..127     s = max|w|/127
//	4 bits   w = s*c       c in -7..7         s = max|w|/7, and see FitClip
//	2 bits   w = s*(c+1/2) c in -2..1         s by least squares, alternating with the codes
//	1 bit    w = s*(2c+1)  c in -1..0         s = mean|w|, the least-squares scale of signs (XNOR-Net, arXiv:1603.05279)
//
// 8 and 4 bits have an exact zero and keep the largest weight; with few levels
// the largest weight is a poor guide, so 2 bits and 1 bit fit all of them.
type Options struct {
	Bits        int         // 8, 4, 2 or 1
	Granularity Granularity // which weights share a scale
	Group       int         // columns per group, for PerGroup
	// FitClip lets 8 and 4 bits clip outliers where that lowers the mean squared
	// error: the best scale of a grid. 8 bits cost about 20 times the time so. 4 bits
	// use code -8 too, for the largest weight, whose sign the scale takes over; their
	// scales are rounded to bfloat16.
	FitClip bool
}

// tiny is the magnitude below which a group counts as zero: far below anything
// a network holds, and far enough from float32's end that 127/max stays finite.
const tiny = 0x1p-100

// Quantized is a matrix in n-bit codes, packed: row-major, rows start on whole
// bytes, the lowest bits of a byte hold the leftmost column, codes are two's
// complement.
type Quantized struct {
	Options
	Rows, Cols int       // of the matrix
	Codes      []byte    // packed as above
	Scales     []float32 // 1, Rows, or Rows*ceil(Cols/Group) of them, row-major; 0 for an all-zero group
}

// Quantize quantizes a row-major rows x cols matrix.
//
// Errors: ErrOption, ErrShape, ErrNotFinite with the position.
func Quantize(w []float32, rows, cols int, o Options) (*Quantized, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if rows < 0 || cols < 0 || len(w) != rows*cols {
		return nil, fmt.Errorf("%w: found %d weights, expected %d x %d", ErrShape, len(w), rows, cols)
	}
	if err := notFinite(w, 0, max(cols, 1)); err != nil {
		return nil, err
	}
	q := &Quantized{Options: o, Rows: rows, Cols: cols}
	q.Codes = make([]byte, rows*q.rowBytes())
	if o.Granularity == PerTensor {
		codes := make([]int8, len(w))
		q.Scales = []float32{quantizeGroup(codes, w, o)}
		for r := range rows {
			q.packRow(r, codes[r*cols:(r+1)*cols])
		}
		return q, nil
	}
	group, perRow := q.groups()
	q.Scales = make([]float32, rows*perRow)
	return q, inChunks(rows, func(from, to int) error {
		codes := make([]int8, cols)
		for r := from; r < to; r++ {
			for g := range perRow {
				a, b := g*group, min((g+1)*group, cols)
				q.Scales[r*perRow+g] = quantizeGroup(codes[a:b], w[r*cols+a:r*cols+b], o)
			}
			q.packRow(r, codes)
		}
		return nil
	})
}

func (o Options) check() error {
	switch {
	case o.Bits != 8 && o.Bits != 4 && o.Bits != 2 && o.Bits != 1:
		return fmt.Errorf("%w: found %d bits, expected 8, 4, 2 or 1", ErrOption, o.Bits)
	case o.Granularity > PerGroup:
		return fmt.Errorf("%w: found %v, expected per tensor, row or group", ErrOption, o.Granularity)
	case o.Granularity == PerGroup && o.Group < 1:
		return fmt.Errorf("%w: found group size %d, expected at least 1", ErrOption, o.Group)
	}
	return nil
}

// groups gives the group size and the number of groups in a row.
func (q *Quantized) groups() (size, perRow int) {
	size = max(q.Cols, 1)
	if q.Granularity == PerGroup {
		size = q.Group
	}
	return size, (q.Cols + size - 1) / size
}

func (q *Quantized) rowBytes() int { return (q.Cols*q.Bits + 7) / 8 }

func (q *Quantized) packRow(r int, codes []int8) {
	row := q.Codes[r*q.rowBytes() : (r+1)*q.rowBytes()]
	perByte, mask := 8/q.Bits, byte(1<<q.Bits-1)
	for c, code := range codes {
		row[c/perByte] |= byte(code) & mask << (c % perByte * q.Bits)
	}
}

// Code returns the code of one weight.
func (q *Quantized) Code(row, col int) int8 {
	perByte := 8 / q.Bits
	b := q.Codes[row*q.rowBytes()+col/perByte]
	high := 8 - q.Bits
	return int8(b<<(high-col%perByte*q.Bits)) >> high
}

// Row writes the weights of one row to dst, which has Cols elements.
func (q *Quantized) Row(dst []float32, row int) {
	group, perRow := q.groups()
	for c := range dst[:q.Cols] {
		s := q.Scales[0]
		if q.Granularity != PerTensor {
			s = q.Scales[row*perRow+c/group]
		}
		dst[c] = dequantize(q.Code(row, c), s, q.Bits)
	}
}

// Dequantize writes all weights to dst, or to a new slice when dst is nil.
func (q *Quantized) Dequantize(dst []float32) []float32 {
	if dst == nil {
		dst = make([]float32, q.Rows*q.Cols)
	}
	for r := range q.Rows {
		q.Row(dst[r*q.Cols:(r+1)*q.Cols], r)
	}
	return dst
}

// Bytes is the memory of codes and scales.
func (q *Quantized) Bytes() int { return len(q.Codes) + 4*len(q.Scales) }

// Metrics measures the error against the weights that were quantized.
func (q *Quantized) Metrics(w []float32) (Metrics, error) {
	if len(w) != q.Rows*q.Cols {
		return Metrics{}, fmt.Errorf("%w: found %d weights, expected %d x %d", ErrShape, len(w), q.Rows, q.Cols)
	}
	var m Meter
	row := make([]float32, q.Cols)
	for r := range q.Rows {
		q.Row(row, r)
		m.Add(w[r*q.Cols:(r+1)*q.Cols], row)
	}
	return m.Metrics(), nil
}

// dequantize is the level of a code.
func dequantize(code int8, scale float32, bits int) float32 {
	switch {
	case scale == 0:
		return 0
	case bits == 2:
		return scale * (float32(code) + 0.5)
	case bits == 1:
		return scale * (2*float32(code) + 1)
	}
	return scale * float32(code)
}

// quantizeGroup writes the codes of finite weights that share a scale, and
// returns the scale.
func quantizeGroup(codes []int8, w []float32, o Options) float32 {
	largest := cpu.AbsMax(w)
	if largest < tiny {
		clear(codes)
		return 0
	}
	switch o.Bits {
	case 1:
		return quantizeSign(codes, w)
	case 2:
		return quantizeFit(codes, w)
	}
	top := float32(int(1)<<(o.Bits-1) - 1)
	switch {
	case o.FitClip && o.Bits == 4:
		return fitInt4(codes, w, largest)
	case o.FitClip:
		largest = fitClip(codes, w, largest, top)
	}
	return quantizeUniform(codes, w, largest, top)
}

// quantizeUniform maps -largest..largest to -top..top and clips what lies
// outside.
func quantizeUniform(codes []int8, w []float32, largest, top float32) float32 {
	cpu.QuantizeInt8(codes, w, top/largest)
	limit := int8(top)
	for i, c := range codes {
		if c > limit {
			codes[i] = limit
		} else if c < -limit {
			codes[i] = -limit
		}
	}
	return largest / top
}

// fitClip tries smaller ranges of 8 bits and returns the one with the least squared error.
func fitClip(codes []int8, w []float32, largest, top float32) float32 {
	const steps = 20
	best, bestError := largest, math.Inf(1)
	for i := range steps {
		clip := largest * (1 - float32(i)*0.7/steps)
		scale, sum := quantizeUniform(codes, w, clip, top), 0.0
		for j, v := range w {
			d := float64(v) - float64(dequantize(codes[j], scale, 8))
			sum += float64(d * d)
		}
		if sum < bestError {
			best, bestError = clip, sum
		}
	}
	return best
}

// int4Steps are how many steps of a scale the largest weight may be, of which 8 are left.
var int4Steps = func() (steps [cpu.Lanes]float32) {
	for i := range steps {
		steps[i] = 7.4 + float32(0.3*float32(i))
	}
	return steps
}()

// fitInt4 gives codes of -8 to 7 and a scale, a bfloat16, of the sign that makes the largest weight's code negative: of some scales the one with the
// least squared error.
func fitInt4(codes []int8, w []float32, largest float32) float32 {
	signed := -largest
	for _, v := range w {
		if v == -largest {
			signed = largest
			break
		}
		if v == largest {
			break
		}
	}
	var scale, inverse, errors [cpu.Lanes]float32
	for i, n := range int4Steps {
		scale[i] = math.Float32frombits(uint32(bfloat16(signed/n)) << 16)
		inverse[i] = 1 / scale[i]
	}
	cpu.Int4Errors(&errors, &inverse, w)
	best, least := 0, math.Inf(1)
	for i, e := range errors {
		if lost := float64(e) * float64(scale[i]) * float64(scale[i]); lost < least {
			best, least = i, lost
		}
	}
	cpu.QuantizeInt8(codes, w, inverse[best])
	for i, c := range codes {
		codes[i] = max(-8, min(c, 7))
	}
	return scale[best]
}

func quantizeSign(codes []int8, w []float32) float32 {
	var s absSum
	s.add(w)
	for i, v := range w {
		codes[i] = 0
		if v < 0 {
			codes[i] = -1
		}
	}
	return float32(s.total() / float64(len(w)))
}

// quantizeFit finds four levels -3s/2, -s/2, s/2, 3s/2. It starts at the best
// scale for normally distributed weights (Max 1960: 0.996 sigma = 1.248
// mean|w|) and alternates nearest codes with the least-squares scale; neither
// step can raise the error.
func quantizeFit(codes []int8, w []float32) float32 {
	const rounds = 6
	var a absSum
	a.add(w)
	scale := 1.248 * a.total() / float64(len(w))
	for range rounds {
		dot, norm := 0.0, 0.0
		for i, v := range w {
			c := min(max(math.Floor(float64(v)/scale), -2), 1)
			codes[i] = int8(c)
			dot += float64(float64(v) * (c + 0.5))
			norm += float64((c + 0.5) * (c + 0.5))
		}
		scale = dot / norm
	}
	return float32(scale)
}
