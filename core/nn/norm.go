package nn

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// RMSNorm is root-mean-square normalization (Zhang & Sennrich 2019): x / sqrt(mean(x^2) + eps) * weight, in float32.
type RMSNorm struct {
	Weight []float32 // [dim]
	Eps    float32
	Param  *autograd.Param // the weight as a trainable parameter, or nil
}

// inverse is 1/sqrt(mean(x^2) + eps).
func (n *RMSNorm) inverse(x []float32) float32 {
	ms := cpu.SumSquares(x) / float32(len(x))
	return 1 / float32(math.Sqrt(float64(ms+n.Eps)))
}

// apply writes the normalized row.
func (n *RMSNorm) apply(dst, x []float32) {
	cpu.ScaleMul(dst, x, n.Weight, n.inverse(x))
}

// Forward returns the normalized rows of x [rows, dim].
func (n *RMSNorm) Forward(c *Ctx, x *tensor.Tensor) *tensor.Tensor {
	y := n.normalize(c, x)
	if c.tape != nil {
		c.keep(x)
		c.tape.Record(&rmsNormOp{c: c, norm: n, x: x, y: y})
	}
	return y
}

// normalize is Forward that is not recorded, for operations that record the norm as a part of themselves.
func (n *RMSNorm) normalize(c *Ctx, x *tensor.Tensor) *tensor.Tensor {
	y := c.New(x.Dim(0), x.Dim(1))
	c.prepareRows(prepareTask{x: x.Float32s(), rows: x.Dim(0), dim: x.Dim(1), norm: n}, y)
	return y
}
