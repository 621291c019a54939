package quant

import (
	"fmt"
	"math"
)

// Metrics says how far a quantized matrix is from the original.
type Metrics struct {
	MSE    float64 // mean squared error
	SQNR   float64 // signal-to-quantization-noise ratio in dB: 10*log10(sum w^2 / sum (w-w')^2); +Inf without error
	Cosine float64 // cosine of the angle between both; 1 when both are zero, 0 when one is
	MaxAbs float64 // largest absolute error
}

// Compare measures approx against want; both have the same length.
func Compare(want, approx []float32) (Metrics, error) {
	if len(want) != len(approx) {
		return Metrics{}, fmt.Errorf("%w: found %d and %d weights to compare", ErrShape, len(want), len(approx))
	}
	var m Meter
	m.Add(want, approx)
	return m.Metrics(), nil
}

// String is a line for reports.
func (m Metrics) String() string {
	return fmt.Sprintf("mse %.4g, sqnr %.2f dB, cosine %.6f, max %.4g", m.MSE, m.SQNR, m.Cosine, m.MaxAbs)
}

// Meter accumulates Metrics over pieces of a matrix, in float64. The zero value
// is ready.
type Meter struct {
	n                              int
	signal, approx, dot, noise, mx float64
}

// Add takes a piece; both slices have the same length.
func (m *Meter) Add(want, approx []float32) {
	m.n += len(want)
	for i, v := range want {
		w, a := float64(v), float64(approx[i])
		d := w - a
		m.signal += float64(w * w)
		m.approx += float64(a * a)
		m.dot += float64(w * a)
		m.noise += float64(d * d)
		m.mx = max(m.mx, math.Abs(d))
	}
}

// Metrics gives the result so far.
func (m *Meter) Metrics() Metrics {
	out := Metrics{SQNR: math.Inf(1), Cosine: 1, MaxAbs: m.mx}
	if m.noise > 0 {
		out.MSE = m.noise / float64(m.n)
		out.SQNR = 10 * math.Log10(m.signal/m.noise)
		out.Cosine = 0
	}
	if norm := math.Sqrt(m.signal) * math.Sqrt(m.approx); norm > 0 {
		out.Cosine = m.dot / norm
	}
	return out
}
