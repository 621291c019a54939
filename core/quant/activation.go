package quant

import (
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// ActivationStride is the distance between the int8 rows that
// QuantizeActivations writes: dim, padded to whole blocks of columns.
func ActivationStride(dim int) int {
	return (dim + cpu.BlockCols - 1) / cpu.BlockCols * cpu.BlockCols
}

// ActivationScale is s = 127 / max(max|x|, 1e-5), what a token's activations
// are multiplied by before rounding.
func ActivationScale(x []float32) float32 {
	return 127 / max(cpu.AbsMax(x), minScale)
}

// QuantizeActivations quantizes tokens rows of dim float32 activations, each
// with its own scale:
//
//	q[t, k] = clamp(roundHalfEven(x[t, k]*scale[t]), -128, 127)
//	sum[t]  = sum_k q[t, k]
//
// q has rows of ActivationStride(dim), padded with zeros: the form that
// cpu.TernaryMatMul takes, together with sum. The buffers' sizes are the
// caller's contract; a short one panics.
func QuantizeActivations(q []int8, scale []float32, sum []int32, x []float32, tokens, dim int) {
	stride := ActivationStride(dim)
	if len(x) < tokens*dim || len(q) < tokens*stride || len(scale) < tokens || len(sum) < tokens {
		panic(fmt.Sprintf("quant: QuantizeActivations: buffers of %d, %d, %d, %d elements for %d tokens of %d",
			len(q), len(scale), len(sum), len(x), tokens, dim))
	}
	for t := range tokens {
		row := x[t*dim : (t+1)*dim]
		out := q[t*stride : (t+1)*stride]
		scale[t] = ActivationScale(row)
		sum[t] = cpu.QuantizeInt8(out[:dim], row, scale[t])
		clear(out[dim:])
	}
}

// Activation16Floor is the magnitude below which 16-bit rows lose precision. It
// only keeps the scale finite: there is no reason to flatten small rows, as the
// layers that use them have no activation quantizer to imitate.
const Activation16Floor = tiny

// Activation16Stride is the distance between the rows of planes that
// QuantizeActivations16 writes: dim, padded to what integer kernels read.
func Activation16Stride(dim int) int {
	return (dim + cpu.Int16Cols - 1) / cpu.Int16Cols * cpu.Int16Cols
}

// QuantizeActivations16 quantizes tokens rows of dim float32 activations to 16
// bits, each with its own scale, for the int8 and int4 forms of Dense:
//
//	s = 32512 / max(max|x|, 2^-100)    v = clamp(roundHalfEven(x*s), -32512, 32512)    dst.Inv[t] = 1/s
//
// The rounding error of a value is at most 2^-16 of the row's largest: without
// outliers a logit is off by a two-hundredth of what int8 weights cost. Rows of dst lie
// Activation16Stride(dim) apart at least; the columns up to that are zeroed. The
// buffers' sizes are the caller's contract; a short one panics. dst.Eights may be
// nil, for products with int8.
func QuantizeActivations16(dst cpu.Int16Rows, x []float32, tokens, dim int) {
	width := Activation16Stride(dim)
	for t := range tokens {
		row := x[t*dim : (t+1)*dim]
		hi, lo := dst.Hi[t*dst.Stride:][:width], dst.Lo[t*dst.Stride:][:width]
		s := cpu.Int16Max / max(cpu.AbsMax(row), Activation16Floor)
		if dst.Eights == nil {
			dst.SumHi[t], dst.SumLo[t] = cpu.QuantizeInt16(hi, lo, row, s)
		} else {
			quantizeGroups16(dst, t, hi, lo, row, s)
		}
		dst.Inv[t] = 1 / s
		clear(hi[dim:])
		clear(lo[dim:])
	}
}

// quantizeGroups16 does row t group by group, for their sums.
func quantizeGroups16(dst cpu.Int16Rows, t int, hi, lo []int8, row []float32, s float32) {
	eights := dst.Eights[t*dst.Groups():][:dst.Groups()]
	clear(eights)
	dst.SumHi[t], dst.SumLo[t] = 0, 0
	for g, k := 0, 0; k < len(row); g, k = g+1, k+cpu.Int4Group {
		sumHi, sumLo := cpu.QuantizeInt16(hi[k:], lo[k:], row[k:min(k+cpu.Int4Group, len(row))], s)
		eights[g] = -8 * (256*sumHi + sumLo)
		dst.SumHi[t] += sumHi
		dst.SumLo[t] += sumLo
	}
}
