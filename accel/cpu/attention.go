package cpu

import "fmt"

// Lanes is the number of partial sums of every float32 reduction over a vector: element i belongs to lane i mod 16, each
// lane adds in ascending i, and the lanes are added as a tree: lane i + lane i+8, then 4, 2, 1.
const Lanes = 16

// Ahead is memory that is read after the right factor of a product. A product of up to 4 rows, which would wait for it, asks for as many bytes
// of it as its right factor has, in several places at once: one that begins with First and those [AheadPlaces]-1 that lie Apart bytes behind
// each other. Without First it asks for nothing new.
type Ahead struct {
	First []byte // of the first place
	Apart int
}

// AheadPlaces is how many places a product asks for at once.
const AheadPlaces = 8

// Ask asks memory for rows rows of n bytes of b, which begin stride bytes apart: they come to the outer of a core's own caches while it goes on. It
// changes nothing, and does nothing where a processor would have to be told in another way.
func Ask(b []byte, rows, stride, n int) {
	const line = 64
	if rows > 0 && n > 0 {
		needRows("Ask", "b", len(b), rows, n, stride)
		ask(b, rows, stride, ceilDiv(n, line))
	}
}

// AddProduct adds a product of matrices in which every element has its sum in one order:
//
//	c[i*ldc+j] += a[i*row+k*step] * b[k*ldb+j]    for k = 0..n-1 in ascending order, i < rows, j < cols
//
// cols is a multiple of 16. A row of a is row elements from the next one, and its elements lie step apart: with row 1 that is
// the transpose of a matrix. A product and its sum are rounded once (fused multiply-add).
func AddProduct(c []float32, ldc int, a []float32, row, step int, b []float32, ldb, rows, cols, n int, ahead Ahead) {
	if checkProduct("AddProduct", c, ldc, a, row, step, len(b), ldb, rows, cols, n) {
		addProduct(c, ldc, a, row, step, b, ldb, rows, cols, n, orItself(ahead, b))
	}
}

// Dot is sum_i a[i]*b[i] in the order of [Lanes], with fused multiply-add.
func Dot(a, b []float32) float32 {
	n := len(a)
	need("Dot", "b", len(b), n)
	var lanes [Lanes]float32
	body := n &^ (Lanes - 1)
	if body > 0 {
		dot(&lanes, a[:body], b[:body])
	}
	dotRef(&lanes, a[body:], b[body:n])
	return sumLanes(&lanes)
}

// Transpose is dst[c*ldd+r] = x[r*ldx+c] for r < rows and c < cols.
func Transpose(dst []float32, ldd int, x []float32, ldx, rows, cols int) {
	const op = "Transpose"
	if rows < 0 || cols < 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d rows, %d columns", op, rows, cols))
	}
	if rows == 0 || cols == 0 {
		return
	}
	needRows(op, "dst", len(dst), cols, rows, ldd)
	needRows(op, "x", len(x), rows, cols, ldx)
	r, c := rows&^7, cols&^7
	if r > 0 && c > 0 {
		transpose(dst, ldd, x, ldx, r, c)
	} else {
		r, c = 0, 0
	}
	transposeRef(dst, ldd, x, ldx, 0, r, c, cols)
	transposeRef(dst, ldd, x, ldx, r, rows, 0, cols)
}

// ExpSum replaces x[j] by exp(x[j]-shift) and returns the sum of the results in the order of [Lanes]. The exponential is
// the package's own: relative error at most 2e-7; 0 below the smallest normal float32 (exp(-87.3)) and for -Inf, +Inf past
// the largest, NaN for NaN.
func ExpSum(x []float32, shift float32) float32 {
	var lanes [Lanes]float32
	body := len(x) &^ (Lanes - 1)
	if body > 0 {
		expSum(&lanes, x[:body], shift)
	}
	expSumRef(&lanes, x[body:], shift)
	return sumLanes(&lanes)
}

// MaxF32 is the largest element of x; NaN is passed over, and an empty x gives -Inf.
func MaxF32(x []float32) float32 {
	lanes := negInfLanes
	body := len(x) &^ (Lanes - 1)
	if body > 0 {
		maxLanes(&lanes, x[:body])
	}
	maxLanesRef(&lanes, x[body:])
	return topLane(&lanes)
}

// ExpRows is a step of online softmax (Milakov & Gimelshein 2018) for rows of scores, ldx apart:
//
//	x[i,j] *= scale[j]
//	top[i]  = max(top[i], x[i,0], ..., x[i,cols-1])    NaN is passed over
//	x[i,j]  = exp(x[i,j] - top[i])
//	sum[i]  = x[i,0] + ... + x[i,cols-1]               in the order of [Lanes]
//	x[i,j] *= weight[j]
//
// cols is a multiple of 16; scale and weight may be nil. The exponential is that of [ExpSum].
func ExpRows(x []float32, ldx, rows, cols int, scale, weight, top, sum []float32) {
	const op = "ExpRows"
	if rows < 0 || cols <= 0 || cols%Lanes != 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d rows, %d columns (want a multiple of %d)", op, rows, cols, Lanes))
	}
	if rows == 0 {
		return
	}
	needRows(op, "x", len(x), rows, cols, ldx)
	if scale != nil {
		need(op, "scale", len(scale), cols)
	}
	if weight != nil {
		need(op, "weight", len(weight), cols)
	}
	need(op, "top", len(top), rows)
	need(op, "sum", len(sum), rows)
	expRows(x, ldx, rows, cols, scale, weight, top, sum)
}
