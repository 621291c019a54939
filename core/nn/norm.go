package nn

import (
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// Norm is root-mean-square normalization (RMSNorm, Zhang & Sennrich 2019): x / sqrt(mean(x^2) + eps) * weight, in float32. With
// Center it is LayerNorm (Ba et al. 2016): (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, the variance that of the row itself
// (divided by dim); mean and variance are float64 sums in ascending order.
type Norm struct {
	Center    bool
	Weight    []float32       // [dim], nil: one
	Bias      []float32       // [dim], nil: zero; only with Center
	Eps       float32         // added under the root
	Param     *autograd.Param // Weight as a trainable parameter, or nil
	BiasParam *autograd.Param // Bias as one, or nil
}

// inverse is 1/sqrt(mean(x^2) + eps).
func (n *Norm) inverse(x []float32) float32 {
	ms := cpu.SumSquares(x) / float32(len(x))
	return 1 / float32(math.Sqrt(float64(ms+n.Eps)))
}

// moments are the row's mean and 1/sqrt(var + eps).
func (n *Norm) moments(x []float32) (mean, inv float32) {
	sum := 0.0
	for _, v := range x {
		sum += float64(v)
	}
	m := sum / float64(len(x))
	sum = 0
	for _, v := range x {
		d := float64(v) - m
		sum += float64(d * d)
	}
	return float32(m), float32(1 / math.Sqrt(sum/float64(len(x))+float64(n.Eps)))
}

// apply writes the normalized row to dst, which may be x.
func (n *Norm) apply(dst, x []float32) {
	if !n.Center {
		cpu.ScaleMul(dst, x, n.Weight, n.inverse(x))
		return
	}
	mean, inv := n.moments(x)
	for i, v := range x {
		dst[i] = (v - mean) * inv
	}
	if n.Weight != nil {
		cpu.Mul(dst, dst, n.Weight)
	}
	if n.Bias != nil {
		cpu.Add(dst, dst, n.Bias)
	}
}

// Forward returns the normalized rows of x [rows, dim].
func (n *Norm) Forward(c *Ctx, x *tensor.Tensor) *tensor.Tensor {
	y := n.normalize(c, x)
	if c.tape != nil {
		c.keep(x)
		c.tape.Record(&normOp{c: c, norm: n, x: x, y: y})
	}
	return y
}

// normalize is Forward that is not recorded, for operations that record the norm as a part of themselves.
func (n *Norm) normalize(c *Ctx, x *tensor.Tensor) *tensor.Tensor {
	y := c.New(x.Dim(0), x.Dim(1))
	c.prepareRows(prepareTask{x: x.Float32s(), rows: x.Dim(0), dim: x.Dim(1), norm: n}, y)
	return y
}
