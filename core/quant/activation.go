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
