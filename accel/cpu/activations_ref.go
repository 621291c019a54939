package cpu

import "math"

func sigmoidRef(dst, x []float32) {
	for i, v := range x {
		dst[i] = 1 / (1 + expRef(-v))
	}
}

// Constants of tanh near zero: x + x*z*P(z) for z = x^2 (the coefficients are those of Cephes' tanhf).
const (
	tanhSmall = 0.625
	tanhC0    = -5.70498872745e-3
	tanhC1    = 2.06390887954e-2
	tanhC2    = -5.37397155531e-2
	tanhC3    = 1.33314422036e-1
	tanhC4    = -3.33332819422e-1
)

// tanhRef: away from zero 1 - 2/(1+exp(2|x|)) with the sign of x.
func tanhRef(dst, x []float32) {
	for i, v := range x {
		a := math.Float32frombits(math.Float32bits(v) &^ (1 << 31))
		if a < tanhSmall {
			z := float32(v * v)
			p := float32(tanhC0 * z)
			p = float32((p + tanhC1) * z)
			p = float32((p + tanhC2) * z)
			p = float32((p + tanhC3) * z)
			p = float32((p + tanhC4) * z)
			dst[i] = float32(p*v) + v
			continue
		}
		y := 1 - float32(2/(1+expRef(a+a)))
		dst[i] = math.Float32frombits(math.Float32bits(y) | math.Float32bits(v)&(1<<31))
	}
}

// Constants of erfc(z) = exp(-z^2) t (a1 + t (a2 + t (a3 + t (a4 + t a5)))), t = 1/(1 + p z) (Abramowitz & Stegun 7.1.26).
const (
	erfcP  = 0.3275911
	erfcA1 = 0.254829592
	erfcA2 = -0.284496736
	erfcA3 = 1.421413741
	erfcA4 = -1.453152027
	erfcA5 = 1.061405429

	sqrtHalf = 0.70710678118654752440
)

// normalCDFRef: half of erfc(|x|/sqrt 2), or 1 less that for x >= 0.
func normalCDFRef(dst, x []float32) {
	for i, v := range x {
		z := float32(math.Float32frombits(math.Float32bits(v)&^(1<<31)) * sqrtHalf)
		t := 1 / (1 + float32(z*erfcP))
		p := float32(t * erfcA5)
		p = float32((p + erfcA4) * t)
		p = float32((p + erfcA3) * t)
		p = float32((p + erfcA2) * t)
		p = float32((p + erfcA1) * t)
		q := float32(float32(p*expRef(-float32(z*z))) * 0.5)
		if v >= 0 {
			q = 1 - q
		}
		dst[i] = q
	}
}
