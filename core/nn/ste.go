package nn

import (
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// STE is how the gradient of the ternary weights W' = m clamp(round(W/m), -1, 1) becomes that of the master weights W. The
// quantizer's own derivative is zero almost everywhere; a straight-through estimator (Bengio et al. 2013) puts another in its
// place. Activations always pass their gradient on: their scale comes from the row's largest value, so that none is clipped.
type STE uint8

// The estimators. u = W/m, m the layer's scale.
const (
	// STEIdentity passes the gradient unchanged, which is BitNet's (https://arxiv.org/abs/2310.11453).
	STEIdentity STE = iota
	// STEClipped passes it where |u| <= Clip and not beyond (Hubara et al. 2016).
	STEClipped
	// STESoft multiplies it by the derivative of a smooth ternary quantizer with temperature T (Gong et al. 2019):
	//
	//	s(u) = (tanh((u-1/2)/T) + tanh((u+1/2)/T)) / 2
	STESoft
	// STELearnedScale makes m a parameter (LSQ, Esser et al. 2020, https://arxiv.org/abs/1902.08153): the gradient passes where
	// |u| < 1, and that of m is, with 1/sqrt(number of weights) as its factor, the sum of dW' times
	//
	//	round(u) - u where |u| < 1, else the sign of u
	STELearnedScale
)

// Estimators are the estimators by name.
var Estimators = map[string]STE{
	"identity": STEIdentity, "clipped": STEClipped, "soft": STESoft, "learned_scale": STELearnedScale,
}

// What estimators take unless told otherwise: the border of what rounds to -1, 0 or 1 without being clamped, and a temperature.
const (
	DefaultClip        = 1.5
	DefaultTemperature = 0.5
)

// addWeightGrad adds the gradient of the ternary weights of l, dw [Out, In], to that of its master weights. It may write
// over dw.
func (c *Ctx) addWeightGrad(l *Linear, dw []float32) {
	t := &c.estimate
	*t = estimateTask{ste: c.training.STE, clip: c.training.Clip, temperature: c.training.Temperature, l: l, dw: dw}
	t.float = c.training.Float
	switch t.ste {
	case STEIdentity:
		cpu.Add(l.Weight.Grad, l.Weight.Grad, dw)
		return
	case STELearnedScale:
		mem := c.scratch.Alloc(8 * l.Out)
		defer c.scratch.Free(mem)
		t.sums = pool.View[float64](mem)
	}
	c.eachRow(l.Out, t)
	if t.sums != nil {
		sum := 0.0
		for _, v := range t.sums {
			sum += v
		}
		l.Scale.Grad[0] += float32(sum * float64(1-t.float) / math.Sqrt(float64(len(dw))))
	}
}

// estimateTask does a row of the weights.
type estimateTask struct {
	ste               STE
	clip, temperature float32
	float             float32 // share of the gradient that passes no quantizer
	l                 *Linear
	dw                []float32
	sums              []float64 // of each row: the gradient of the scale
}

func (t *estimateTask) row(r int) {
	n, m := t.l.In, t.l.Ternary.Scale
	w, dw := t.l.Weight.Data[r*n:(r+1)*n], t.dw[r*n:(r+1)*n]
	g := t.l.Weight.Grad[r*n : (r+1)*n]
	if t.float > 0 {
		for i, v := range dw {
			g[i] += float32(t.float * v)
		}
	}
	switch t.ste {
	case STEClipped:
		limit := t.clip * m
		for i, v := range w {
			if v > limit || v < -limit {
				dw[i] = 0
			}
		}
	case STESoft:
		softRow(w, dw, m, t.temperature)
	case STELearnedScale:
		t.sums[r] = learnedRow(w, dw, m)
	}
	if t.float > 0 {
		cpu.ScaleMul(dw, dw, nil, 1-t.float)
	}
	cpu.Add(g, g, dw)
}

// softRow: the derivative of tanh(v)/2 is 2 s (1-s) for s = sigmoid(2v).
func softRow(w, dw []float32, m, temperature float32) {
	const piece = 256
	var lower, upper [piece]float32
	for to := 2 / temperature; len(w) > 0; {
		n := min(piece, len(w))
		for i, v := range w[:n] {
			u := v / m
			lower[i], upper[i] = (u-0.5)*to, (u+0.5)*to
		}
		cpu.Sigmoid(lower[:n], lower[:n])
		cpu.Sigmoid(upper[:n], upper[:n])
		for i := range n {
			a, b := lower[i], upper[i]
			dw[i] *= to * (float32(a*(1-a)) + float32(b*(1-b)))
		}
		w, dw = w[n:], dw[n:]
	}
}

func learnedRow(w, dw []float32, m float32) (sum float64) {
	for i, v := range w {
		u := v / m
		switch {
		case u >= 1:
			sum += float64(dw[i])
			dw[i] = 0
		case u <= -1:
			sum -= float64(dw[i])
			dw[i] = 0
		default:
			sum += float64(float64(dw[i]) * (math.RoundToEven(float64(u)) - float64(u)))
		}
	}
	return sum
}

// LearnScale makes the layer's weight scale a parameter, which begins as what it is now. The layer must be ternary and trainable.
func (l *Linear) LearnScale(name string) {
	if l.Scale == nil {
		l.Scale = autograd.NewParam(name, []float32{l.Ternary.Scale}, 1)
	}
}

// minScale is the least scale of weights (1e-5 in BitNet b1.58), also of one that is learned.
const minScale = 1e-5

// learnedScale is the scale to quantize with.
func (l *Linear) learnedScale() (float32, error) {
	s := l.Scale.Data[0]
	if math.IsNaN(float64(s)) || math.IsInf(float64(s), 0) {
		return 0, fmt.Errorf("%s is %v: expected a finite number", l.Scale.Name, s)
	}
	return max(s, minScale), nil
}
