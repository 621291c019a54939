package cpu

import (
	"fmt"
	"math"
	"unsafe"
)

// Keys and values may be stored in 16 bits or as int8. Halves become float32 in the products of attention, which are otherwise those
// of [AddProduct]: the same sums in the same order. Products of int8 are sums of integers.

// Half is a float of 16 bits.
type Half uint8

// The formats of halves.
const (
	Float16  Half = iota // IEEE half precision: five bits of exponent and ten of fraction, up to 65504
	BFloat16             // the upper half of a float32: eight bits of exponent and seven of fraction
)

// AddProductHalf is [AddProduct] with a right factor of halves.
func AddProductHalf(c []float32, ldc int, a []float32, row, step int, f Half, b []uint16, ldb, rows, cols, n int, ahead Ahead) {
	if checkProduct("AddProductHalf", c, ldc, a, row, step, len(b), ldb, rows, cols, n) {
		addProductHalf(c, ldc, a, row, step, f, b, ldb, rows, cols, n, orItself(ahead, b))
	}
}

// AddPairs adds a product of int16 and int8, times a scale for each row, of which two terms of a sum lie side by side:
//
//	sum          = a[i*lda+2*k]*b[k*ldb+2*j] + a[i*lda+2*k+1]*b[k*ldb+2*j+1] + ...    for k = 0..n-1, an int32 that may wrap
//	c[i*ldc+j] += scale[i] * float32(sum)                                             fused, for i < rows, j < cols
//
// cols is a multiple of 16.
func AddPairs(c []float32, ldc int, a []int16, lda int, scale []float32, b []int8, ldb, rows, cols, n int, ahead Ahead) {
	const op = "AddPairs"
	if rows < 0 || n < 0 || cols < 0 || cols%Lanes != 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d rows, %d columns (want a multiple of %d), %d pairs", op, rows, cols, Lanes, n))
	}
	if rows == 0 || cols == 0 || n == 0 {
		return
	}
	needRows(op, "c", len(c), rows, cols, ldc)
	needRows(op, "a", len(a), rows, 2*n, lda)
	need(op, "scale", len(scale), rows)
	needRows(op, "b", len(b), n, 2*cols, ldb)
	addPairs(c, ldc, a, lda, scale, b, ldb, rows, cols, n, orItself(ahead, b))
}

// QuantizeRows makes int16 of rows of x [rows, cols], each with a scale of its own:
//
//	top[i]       = max_j |x[i*ldx+j]|                 NaN if the row holds one
//	scale[i]     = top[i]/limit
//	dst[i*ldd+j] = roundHalfEven(x[i*ldx+j] * s)      s = limit/top[i], or 0 if that is not finite
//
// limited to -limit..limit; NaN becomes -limit. limit is an integer from 1 to 32767, and cols a multiple of 16. dst may be the memory of x,
// with ldd = 2*ldx.
func QuantizeRows(dst []int16, ldd int, x []float32, ldx, rows, cols, limit int, scale []float32) {
	const op = "QuantizeRows"
	if rows < 0 || cols < 0 || cols%Lanes != 0 || limit < 1 || limit > math.MaxInt16 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d rows, %d columns (want a multiple of %d), limit %d (want 1 to %d)", op, rows, cols, Lanes, limit, math.MaxInt16))
	}
	if rows == 0 || cols == 0 {
		return
	}
	needRows(op, "dst", len(dst), rows, cols, ldd)
	needRows(op, "x", len(x), rows, cols, ldx)
	need(op, "scale", len(scale), rows)
	quantizeRows(dst, ldd, x, ldx, rows, cols, scale, float32(limit))
}

// SoftmaxPairs gives the weights of values in a step of online softmax, ready for [AddPairs]: in each row of x
//
//	AddPairs(x, a, scale, b)           to zeros
//	ExpRows(x, keyScale, weight, top, sum)
//	QuantizeRows(x, limit, worth)
//
// with the arguments that these have. What x holds before is of no matter; then row i is cols int16 at &x[i*ldx].
func SoftmaxPairs(x []float32, ldx int, a []int16, lda int, scale []float32, b []int8, ldb, rows, cols, n int,
	keyScale, weight, top, sum []float32, limit int, worth []float32, ahead Ahead) {
	const op = "SoftmaxPairs"
	if rows < 0 || n <= 0 || cols <= 0 || cols%Lanes != 0 || limit < 1 || limit > math.MaxInt16 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d rows, %d columns (want a multiple of %d), %d pairs, limit %d (want 1 to %d)", op, rows, cols, Lanes, n, limit, math.MaxInt16))
	}
	if rows == 0 {
		return
	}
	needRows(op, "x", len(x), rows, cols, ldx)
	needRows(op, "a", len(a), rows, 2*n, lda)
	needRows(op, "b", len(b), n, 2*cols, ldb)
	need(op, "keyScale", len(keyScale), cols)
	need(op, "weight", len(weight), cols)
	need(op, "a scale, top, sum or worth", min(len(scale), len(top), len(sum), len(worth)), rows)
	ints := unsafe.Slice((*int16)(unsafe.Pointer(&x[0])), 2*len(x))
	if softmaxPairs(ints, 2*ldx, a, lda, scale, b, ldb, rows, cols, n, keyScale, weight, top, sum, float32(limit), worth, orItself(ahead, b)) {
		return
	}
	for i := range rows {
		clear(x[i*ldx:][:cols])
	}
	addPairs(x, ldx, a, lda, scale, b, ldb, rows, cols, n, orItself(ahead, b))
	expRows(x, ldx, rows, cols, keyScale, weight, top, sum)
	quantizeRows(ints, 2*ldx, x, ldx, rows, cols, worth, float32(limit))
}

// SoftmaxHalf gives the weights of values in a step of online softmax, ready for [AddProductHalf]: in each row of x
//
//	AddProductHalf(x, a, b)      to zeros
//	ExpRows(x, top, sum)
//
// with the arguments that these have. What x holds before is of no matter.
func SoftmaxHalf(x []float32, ldx int, a []float32, row, step int, f Half, b []uint16, ldb, rows, cols, n int, top, sum []float32, ahead Ahead) {
	const op = "SoftmaxHalf"
	if !checkProduct(op, x, ldx, a, row, step, len(b), ldb, rows, cols, n) {
		if rows > 0 {
			panic(fmt.Sprintf("cpu: %s: bad arguments: %d columns, %d terms (want some)", op, cols, n))
		}
		return
	}
	need(op, "top", len(top), rows)
	need(op, "sum", len(sum), rows)
	ahead = orItself(ahead, b)
	if softmaxHalf(x, ldx, a, row, step, f, b, ldb, rows, cols, n, top, sum, ahead) {
		return
	}
	for i := range rows {
		clear(x[i*ldx:][:cols])
	}
	addProductHalf(x, ldx, a, row, step, f, b, ldb, rows, cols, n, ahead)
	expRows(x, ldx, rows, cols, nil, nil, top, sum)
}

// checkProduct says whether there is anything to do.
func checkProduct(op string, c []float32, ldc int, a []float32, row, step, lenB, ldb, rows, cols, n int) bool {
	if rows < 0 || n < 0 || cols < 0 || cols%Lanes != 0 || row < 0 || step < 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d rows, %d columns (want a multiple of %d), %d terms, steps %d and %d", op, rows, cols, Lanes, n, row, step))
	}
	if rows == 0 || cols == 0 || n == 0 {
		return false
	}
	needRows(op, "c", len(c), rows, cols, ldc)
	need(op, "a", len(a), (rows-1)*row+(n-1)*step+1)
	needRows(op, "b", lenB, n, cols, ldb)
	return true
}

// orItself is ahead or, if that is nothing, the start of b.
func orItself[T any](ahead Ahead, b []T) Ahead {
	if len(ahead.First) > 0 {
		return ahead
	}
	return Ahead{First: unsafe.Slice((*byte)(unsafe.Pointer(&b[0])), 1)}
}

// ToHalves writes x to dst in a format, rounded half to even; what is too large becomes infinite, and NaN stays NaN.
func ToHalves(f Half, dst []uint16, x []float32) {
	n := len(x)
	need("ToHalves", "dst", len(dst), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		toHalves(f, dst[:body], x[:body])
	}
	toHalvesRef(f, dst[body:n], x[body:])
}

// Float32 is the value of h.
func (f Half) Float32(h uint16) float32 {
	if f == BFloat16 {
		return math.Float32frombits(uint32(h) << 16)
	}
	return FromHalf(h)
}

// FromHalf is the value of an IEEE half: its exponent is off by 112 when its bits are moved to their places in a float32, subnormals included.
func FromHalf(h uint16) float32 {
	bits := uint32(h&0x7fff) << 13
	if h&0x7c00 == 0x7c00 { // infinity and NaN
		bits |= 0xff << 23
	} else {
		bits = math.Float32bits(math.Float32frombits(bits) * 0x1p112)
	}
	return math.Float32frombits(bits | uint32(h&0x8000)<<16)
}
