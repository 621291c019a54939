package cpu

import "math"

// sumLanesRef adds the lanes as a tree.
func sumLanesRef(l *[Lanes]float32) float32 {
	for half := Lanes / 2; half > 0; half /= 2 {
		for i := range half {
			l[i] += l[i+half]
		}
	}
	return l[0]
}

// topLaneRef finds the largest lane by the same tree.
func topLaneRef(l *[Lanes]float32) float32 {
	for half := Lanes / 2; half > 0; half /= 2 {
		maxLanesRef(l, l[half:2*half])
	}
	return l[0]
}

// addProductRef defines [AddProduct].
func addProductRef(c []float32, ldc int, a []float32, row, step int, b []float32, ldb, rows, cols, n int) {
	for i := range rows {
		to := c[i*ldc:][:cols]
		for k := range n {
			addScaled(to, a[i*row+k*step], b[k*ldb:])
		}
	}
}

func dotRef(lanes *[Lanes]float32, a, b []float32) {
	for i, v := range a {
		lanes[i%Lanes] = FMA(v, b[i], lanes[i%Lanes])
	}
}

// transposeRef moves rows [r0, r1) and columns [c0, c1) of x.
func transposeRef(dst []float32, ldd int, x []float32, ldx, r0, r1, c0, c1 int) {
	for r := r0; r < r1; r++ {
		for c := c0; c < c1; c++ {
			dst[c*ldd+r] = x[r*ldx+c]
		}
	}
}

// expSumRef: x[j] = exp(x[j]-shift), lanes[j mod 16] += x[j].
func expSumRef(lanes *[Lanes]float32, x []float32, shift float32) {
	for j, v := range x {
		e := expRef(v - shift)
		x[j] = e
		lanes[j%Lanes] += e
	}
}

var negInfLanes = func() (l [Lanes]float32) {
	for i := range l {
		l[i] = float32(math.Inf(-1))
	}
	return l
}()

// maxLanesRef: lanes[j mod 16] = x[j] if that is larger.
func maxLanesRef(lanes *[Lanes]float32, x []float32) {
	for j, v := range x {
		if l := &lanes[j%Lanes]; v > *l {
			*l = v
		}
	}
}

// expRowsRef defines [ExpRows], by what else there is for a row.
func expRowsRef(x []float32, ldx, rows, cols int, scale, weight, top, sum []float32) {
	for i := range rows {
		row := x[i*ldx:][:cols]
		if scale != nil {
			Mul(row, row, scale[:cols])
		}
		if m := MaxF32(row); m > top[i] {
			top[i] = m
		}
		sum[i] = ExpSum(row, top[i])
		if weight != nil {
			Mul(row, row, weight[:cols])
		}
	}
}

// Constants of the exponential: exp(x) = 2^n * exp(r), n = round(x/ln 2), r = x - n*ln 2 in two parts, and a polynomial
// of degree 7 for exp(r), |r| <= ln(2)/2 (the coefficients are those of Cephes' expf).
const (
	expLow   = -87.33654 // exp is still a normal number; less gives 0
	expHigh  = 88.72283  // exp is still finite; more gives +Inf
	expLog2e = 1.44269504088896341
	expLn2Hi = 0.693359375 // few bits: n*expLn2Hi is exact
	expLn2Lo = -2.12194440e-4
	expMagic = 12582912 // 1.5 * 2^23: adding it rounds to the nearest whole number, ties to even
	expC0    = 1.9875691500e-4
	expC1    = 1.3981999507e-3
	expC2    = 8.3334519073e-3
	expC3    = 4.1665795894e-2
	expC4    = 1.6666665459e-1
	expC5    = 5.0000001201e-1
)

// expRef defines the exponential of [ExpSum] and [Silu], with fused multiply-add.
func expRef(x float32) float32 {
	switch {
	case x != x:
		return x
	case x < expLow:
		return 0
	case x > expHigh:
		return float32(math.Inf(1))
	}
	t := FMA(x, expLog2e, expMagic)
	n := t - expMagic
	r := FMA(n, -expLn2Lo, FMA(n, -expLn2Hi, x))
	p := FMA(expC0, r, expC1)
	p = FMA(p, r, expC2)
	p = FMA(p, r, expC3)
	p = FMA(p, r, expC4)
	p = FMA(p, r, expC5)
	p = FMA(p, float32(r*r), r)
	p++
	return math.Float32frombits(math.Float32bits(p) + math.Float32bits(t)<<23)
}
