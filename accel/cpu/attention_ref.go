package cpu

import "math"

// dotRowsRef defines [DotRows].
func dotRowsRef(dst, q, k []float32, stride int) {
	for j := range dst {
		var lanes [Lanes]float32
		row := k[j*stride:][:len(q)]
		for d, v := range q {
			lanes[d%Lanes] += float32(v * row[d])
		}
		dst[j] = sumLanes(&lanes)
	}
}

// accumRowsRef defines [AccumRows].
func accumRowsRef(acc, p, v []float32, stride int) {
	for j, w := range p {
		row := v[j*stride:][:len(acc)]
		for d := range acc {
			acc[d] += float32(w * row[d])
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

// expRef defines the exponential of [ExpSum] and [Silu]. The conversions keep the compiler from fusing a product with the
// sum behind it.
func expRef(x float32) float32 {
	switch {
	case x != x:
		return x
	case x < expLow:
		return 0
	case x > expHigh:
		return float32(math.Inf(1))
	}
	t := float32(x*expLog2e) + expMagic
	n := t - expMagic
	r := x - float32(n*expLn2Hi)
	r -= float32(n * expLn2Lo)
	p := float32(expC0)
	p = float32(p*r) + expC1
	p = float32(p*r) + expC2
	p = float32(p*r) + expC3
	p = float32(p*r) + expC4
	p = float32(p*r) + expC5
	p = float32(p*float32(r*r)) + r
	p++
	return math.Float32frombits(math.Float32bits(p) + math.Float32bits(t)<<23)
}
