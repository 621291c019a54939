package tensor

import "math"

// Full returns a tensor of one value, which must be in the range of the dtype:
// 300 for an int8 is an [ErrValue]. A fraction truncates in an integer dtype.
func Full[V float64 | int64](dt DType, value V, shape ...int) (*Tensor, error) {
	out, err := New(dt, shape...)
	if err != nil {
		return nil, err
	}
	if err := checkRange(dt, float64(value)); err != nil {
		return nil, err
	}
	switch dt {
	case Int8, Ternary:
		fill(out, int8(value))
	case UInt8:
		fill(out, uint8(value))
	case Int32:
		fill(out, int32(value))
	case Int64:
		fill(out, int64(value))
	case Bool:
		fill(out, truth[bit](value != 0))
	default:
		fill(out, float32(value))
	}
	return out, nil
}

// Scalar returns a tensor without axes.
func Scalar[V float64 | int64](dt DType, value V) (*Tensor, error) { return Full(dt, value) }

// Ones returns a tensor of ones.
func Ones(dt DType, shape ...int) (*Tensor, error) { return Full(dt, int64(1), shape...) }

// Arange returns start, start+step, ... up to but without stop, computed as
// start + i*step in float64.
func Arange(dt DType, start, stop, step float64) (*Tensor, error) {
	n := math.Ceil((stop - start) / step)
	if step == 0 || math.IsNaN(n) || math.IsInf(n, 0) {
		return nil, valueErrorf("arange: start %v, stop %v, step %v do not make a finite range", start, stop, step)
	}
	if n > math.MaxInt32*1024.0 {
		return nil, shapeErrorf("arange: start %v, stop %v, step %v make too many elements", start, stop, step)
	}
	n = max(n, 0)
	out, err := New(dt, int(n))
	if err != nil || n == 0 {
		return out, err
	}
	for _, v := range []float64{start, start + float64((n-1)*step)} {
		if err := checkRange(dt, v); err != nil {
			return nil, err
		}
	}
	switch dt {
	case Int8, Ternary:
		count[int8](out, start, step)
	case UInt8:
		count[uint8](out, start, step)
	case Int32:
		count[int32](out, start, step)
	case Int64:
		count[int64](out, start, step)
	case Bool:
		count[bit](out, start, step)
	default:
		count[float32](out, start, step)
	}
	return out, nil
}

// Eye returns the n x n identity matrix.
func Eye(dt DType, n int) (*Tensor, error) {
	out, err := New(dt, n, n)
	if err != nil {
		return nil, err
	}
	one, err := Ones(dt)
	if err != nil {
		return nil, err
	}
	return out, Copy(out.view([]int{n}, []int{out.strides[0] + 1}, 0), one)
}

func fill[T number](out *Tensor, v T) {
	w := write[T](out)
	for n := range chunks(out.Len()) {
		dst := w.next(n)
		for i := range dst {
			dst[i] = v
		}
		w.done()
	}
}

func count[T number](out *Tensor, start, step float64) {
	w, i := write[T](out), 0
	for n := range chunks(out.Len()) {
		for j, dst := 0, w.next(n); j < n; j++ {
			dst[j] = T(start + float64(float64(i)*step))
			i++
		}
		w.done()
	}
}

// checkRange refuses a value that an integer dtype cannot hold.
func checkRange(dt DType, v float64) error {
	var low, high float64
	switch dt {
	case Int8:
		low, high = math.MinInt8, math.MaxInt8
	case UInt8:
		low, high = 0, math.MaxUint8
	case Int32:
		low, high = math.MinInt32, math.MaxInt32
	case Int64:
		low, high = math.MinInt64, math.MaxInt64
	case Bool:
		low, high = math.Inf(-1), math.Inf(1)
	case Ternary:
		low, high = -1, 1
	default:
		return nil
	}
	if v = math.Trunc(v); !(v >= low && v <= high) {
		return valueErrorf("%v is out of range for %s, expected %v to %v", v, dt, low, high)
	}
	return nil
}

// elementAt reads a tensor of one element.
func elementAt(t *Tensor) float64 {
	if t.dtype == Int64 {
		return float64(read[int64](t).next(1)[0])
	}
	return float64(read[float32](t).next(1)[0])
}
