package tensor

import "math"

// Softmax returns exp(x) / sum(exp(x)) along an axis. The maximum is taken off
// first, so large values do not overflow; a line of -Inf only gives NaN. The
// exponentials and their sum are computed in float64.
func Softmax(x *Tensor, axis int) (*Tensor, error) {
	return overLines("softmax", x, axis, func(dst, x []float32) {
		top := largest(x)
		sum := 0.0
		for i, v := range x {
			e := math.Exp(float64(v) - top)
			dst[i] = float32(e)
			sum += e
		}
		for i, e := range dst {
			dst[i] = float32(float64(e) / sum)
		}
	})
}

// LogSoftmax returns x - log(sum(exp(x))) along an axis, stable in the same way.
func LogSoftmax(x *Tensor, axis int) (*Tensor, error) {
	return overLines("log_softmax", x, axis, func(dst, x []float32) {
		top := largest(x)
		sum := 0.0
		for _, v := range x {
			sum += math.Exp(float64(v) - top)
		}
		log := math.Log(sum)
		for i, v := range x {
			dst[i] = float32(float64(v) - top - log)
		}
	})
}

// CumSum adds up along an axis: element i is the sum of elements 0..i. Floats
// accumulate in float64, integers and bools in int64.
func CumSum(x *Tensor, axis int) (*Tensor, error) {
	if x.dtype.IsFloat() {
		return overLines("cumsum", x, axis, func(dst, x []float32) {
			sum := 0.0
			for i, v := range x {
				sum += float64(v)
				dst[i] = float32(sum)
			}
		})
	}
	axis, err := axisOf("cumsum", axis, x.shape)
	if err != nil {
		return nil, err
	}
	out, err := New(Int64, x.shape...)
	if err != nil {
		return nil, err
	}
	mapLines(out, x, axis, func(dst, x []int64) {
		var sum int64
		for i, v := range x {
			sum += v
			dst[i] = sum
		}
	})
	return out, nil
}

// overLines is mapLines for functions from floats to floats of one length.
func overLines(op string, x *Tensor, axis int, kernel func(dst, x []float32)) (*Tensor, error) {
	axis, err := axisOf(op, axis, x.shape)
	if err != nil {
		return nil, err
	}
	out, err := New(x.dtype.floating(), x.shape...)
	if err != nil {
		return nil, err
	}
	mapLines(out, x, axis, kernel)
	return out, nil
}

func largest(x []float32) float64 {
	top := float32(math.Inf(-1))
	for _, v := range x {
		top = max(top, v)
	}
	return float64(top)
}
