package tensor

import "math"

// bit is the compute type of Bool: 0 or 1.
type bit uint8

// number lists the compute types: each stored dtype is read as one of them.
type number interface {
	float32 | int8 | uint8 | int32 | int64 | bit
}

// elems sees the whole storage of t as elements of T.
func elems[T any](t *Tensor) []T { return cast[T](t.data) }

// isNative reports whether dtype dt is stored as T.
func isNative[T number](dt DType) bool {
	var z T
	switch any(z).(type) {
	case float32:
		return dt == Float32
	case int8:
		return dt == Int8
	case uint8:
		return dt == UInt8
	case int32:
		return dt == Int32
	case int64:
		return dt == Int64
	}
	return dt == Bool
}

// fillFrom returns a function that reads elements pos, pos+stride, ... of t
// into dst, converted to T.
func fillFrom[T number](t *Tensor) func(dst []T, pos, stride int) {
	switch t.dtype {
	case Float32:
		return fromFloats[T](elems[float32](t), func(f float32) float32 { return f })
	case Float16:
		return fromFloats[T](elems[Float16Bits](t), Float16Bits.Float32)
	case BFloat16:
		return fromFloats[T](elems[BFloat16Bits](t), BFloat16Bits.Float32)
	case Int8:
		return fromInts[T](elems[int8](t))
	case UInt8:
		return fromInts[T](elems[uint8](t))
	case Int32:
		return fromInts[T](elems[int32](t))
	case Int64:
		return fromInts[T](elems[int64](t))
	case Bool:
		return fromInts[T](elems[bit](t))
	}
	return fromTernary[T](t.data)
}

// fromInts converts integers: to a narrower integer modulo 2^bits, to float32
// rounded to nearest even, to bool by "is not zero".
func fromInts[T number, S number](src []S) func(dst []T, pos, stride int) {
	if isNative[T](Bool) {
		return func(dst []T, pos, stride int) {
			for i := range dst {
				dst[i] = truth[T](src[pos] != 0)
				pos += stride
			}
		}
	}
	return func(dst []T, pos, stride int) {
		for i := range dst {
			dst[i] = T(src[pos])
			pos += stride
		}
	}
}

// fromFloats converts stored floats. To an integer they truncate toward zero
// and saturate, and NaN becomes 0: C and NumPy leave those cases to the
// machine, here they are the same everywhere.
func fromFloats[T number, S float32 | Float16Bits | BFloat16Bits](src []S, widen func(S) float32) func(dst []T, pos, stride int) {
	if isNative[T](Float32) {
		return func(dst []T, pos, stride int) {
			for i := range dst {
				dst[i] = T(widen(src[pos]))
				pos += stride
			}
		}
	}
	if isNative[T](Bool) {
		return func(dst []T, pos, stride int) {
			for i := range dst {
				dst[i] = truth[T](widen(src[pos]) != 0)
				pos += stride
			}
		}
	}
	low, high := intRange[T]()
	return func(dst []T, pos, stride int) {
		for i := range dst {
			dst[i] = saturate(float64(widen(src[pos])), low, high)
			pos += stride
		}
	}
}

func fromTernary[T number](src []byte) func(dst []T, pos, stride int) {
	return func(dst []T, pos, stride int) {
		for i := range dst {
			v := int8(src[pos>>2]>>(pos&3*2)&3) - 1
			dst[i] = T(v)
			if isNative[T](Bool) {
				dst[i] = truth[T](v != 0)
			}
			pos += stride
		}
	}
}

func truth[T number](b bool) T {
	if b {
		return 1
	}
	return 0
}

// intRange gives the smallest and the largest value of an integer type.
func intRange[T number]() (low, high T) {
	var z T
	l, h := int64(0), int64(math.MaxUint8)
	switch any(z).(type) {
	case int8:
		l, h = math.MinInt8, math.MaxInt8
	case int32:
		l, h = math.MinInt32, math.MaxInt32
	case int64:
		l, h = math.MinInt64, math.MaxInt64
	}
	return T(l), T(h)
}

func saturate[T number](f float64, low, high T) T {
	switch {
	case f != f:
		return 0
	case f <= float64(low):
		return low
	case f >= float64(high): // for int64 this is 2^63, one past the largest
		return high
	}
	return T(f)
}
