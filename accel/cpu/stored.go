package cpu

import (
	"fmt"
	"math"
	"unsafe"
)

// Keys and values may be stored in half precision or as int8. They become float32 in the products of attention, which are otherwise those
// of [AddProduct]: the same sums in the same order.

// AddProductHalf is [AddProduct] with a right factor in IEEE half precision.
func AddProductHalf(c []float32, ldc int, a []float32, row, step int, b []uint16, ldb, rows, cols, n int, ahead Ahead) {
	if checkProduct("AddProductHalf", c, ldc, a, row, step, len(b), ldb, rows, cols, n) {
		addProductHalf(c, ldc, a, row, step, b, ldb, rows, cols, n, orItself(ahead, b))
	}
}

// AddProductInt8 is [AddProduct] with a right factor of int8.
func AddProductInt8(c []float32, ldc int, a []float32, row, step int, b []int8, ldb, rows, cols, n int, ahead Ahead) {
	if checkProduct("AddProductInt8", c, ldc, a, row, step, len(b), ldb, rows, cols, n) {
		addProductInt8(c, ldc, a, row, step, b, ldb, rows, cols, n, orItself(ahead, b))
	}
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

// ToHalves writes x to dst in IEEE half precision, rounded half to even; what is too large becomes infinite.
func ToHalves(dst []uint16, x []float32) {
	n := len(x)
	need("ToHalves", "dst", len(dst), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		toHalves(dst[:body], x[:body])
	}
	toHalvesRef(dst[body:n], x[body:])
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
