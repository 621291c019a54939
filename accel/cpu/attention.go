package cpu

import "fmt"

// Lanes is the number of partial sums of every float32 reduction over a vector: element i belongs to lane i mod 16, each
// lane adds in ascending i, and the lanes are added as a tree: lane i + lane i+8, then 4, 2, 1.
const Lanes = 16

// sumLanes adds the lanes as a tree.
func sumLanes(l *[Lanes]float32) float32 {
	for half := Lanes / 2; half > 0; half /= 2 {
		for i := range half {
			l[i] += l[i+half]
		}
	}
	return l[0]
}

// DotRows is the score of one query against n keys, which lie stride elements apart:
//
//	dst[j] = sum_d q[d] * k[j*stride+d]    for j < n, d < dim
//
// dim is a multiple of 16. The order of the sum is that of [Lanes]; products and sums are rounded separately.
func DotRows(dst, q, k []float32, n, dim, stride int) {
	checkRows("DotRows", n, dim, stride)
	if n == 0 {
		return
	}
	need("DotRows", "dst", len(dst), n)
	need("DotRows", "q", len(q), dim)
	need("DotRows", "k", len(k), (n-1)*stride+dim)
	if dim == 0 {
		clear(dst[:n])
		return
	}
	dotRows(dst[:n], q[:dim], k, stride)
}

// AccumRows adds n weighted values, which lie stride elements apart, to acc:
//
//	acc[d] += p[j] * v[j*stride+d]    for j = 0..n-1 in ascending order, d < dim
//
// dim is a multiple of 16. Products and sums are rounded separately.
func AccumRows(acc, p, v []float32, n, dim, stride int) {
	checkRows("AccumRows", n, dim, stride)
	if n == 0 || dim == 0 {
		return
	}
	need("AccumRows", "acc", len(acc), dim)
	need("AccumRows", "p", len(p), n)
	need("AccumRows", "v", len(v), (n-1)*stride+dim)
	accumRows(acc[:dim], p[:n], v, stride)
}

func checkRows(op string, n, dim, stride int) {
	if n < 0 || dim < 0 || dim%Lanes != 0 || n > 1 && stride < 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d rows of %d elements (want a multiple of %d), stride %d", op, n, dim, Lanes, stride))
	}
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
	for half := Lanes / 2; half > 0; half /= 2 {
		maxLanesRef((*[Lanes]float32)(lanes[:]), lanes[half:2*half])
	}
	return lanes[0]
}
