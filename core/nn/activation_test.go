package nn

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// Slopes by central differences with the formula in float64.
func TestSlopesOfActivationsAreTheirDerivatives(t *testing.T) {
	formulas := map[string]func(x float64) float64{
		"relu2":     func(x float64) float64 { return max(x, 0) * max(x, 0) },
		"silu":      func(x float64) float64 { return x / (1 + math.Exp(-x)) },
		"relu":      func(x float64) float64 { return max(x, 0) },
		"gelu":      func(x float64) float64 { return x * math.Erfc(-x/math.Sqrt2) / 2 },
		"gelu_tanh": func(x float64) float64 { return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))) },
		"tanh":      math.Tanh,
		"sigmoid":   func(x float64) float64 { return 1 / (1 + math.Exp(-x)) },
	}
	r := rand.New(rand.NewPCG(1, 1))
	x := randomFloats(r, 611)
	for i := range x {
		x[i] *= 3
	}
	for name, act := range Activations {
		f := formulas[name]
		y, again, slope := make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))
		act.apply(y, x)
		act.slopes(again, slope, x)
		for i, v := range x {
			const h = 1e-5
			at := float64(v)
			scale := max(1, math.Abs(at))
			require.InDelta(t, f(at), y[i], 1e-6*scale*scale, "%s(%v)", name, v)
			require.InDelta(t, y[i], again[i], 1e-6*scale*scale, "%s(%v)", name, v)
			require.InDelta(t, (f(at+h)-f(at-h))/(2*h), slope[i], 3e-6*scale, "slope of %s at %v", name, v)
		}
		inPlace := append([]float32(nil), x...)
		act.apply(inPlace, inPlace)
		require.Equal(t, y, inPlace, name)
	}
}

func TestActivationsHaveTheSameBitsOnEveryISA(t *testing.T) {
	isa := cpu.Active()
	t.Cleanup(func() { require.NoError(t, cpu.SetISA(isa)) })
	x := randomFloats(rand.New(rand.NewPCG(2, 2)), 523)
	x[0], x[1], x[2] = float32(math.Inf(1)), 0, -100
	for name, act := range Activations {
		var want [3][]float32
		for i, isa := range cpu.Supported() {
			require.NoError(t, cpu.SetISA(isa))
			got := [3][]float32{make([]float32, len(x)), make([]float32, len(x)), make([]float32, len(x))}
			act.apply(got[0], x)
			act.slopes(got[1], got[2], x)
			if i == 0 {
				want = got
				continue
			}
			for k := range got {
				for j := range x {
					require.Equal(t, math.Float32bits(want[k][j]), math.Float32bits(got[k][j]), "%s %v, element %d", name, isa, j)
				}
			}
		}
	}
}

// A whole model with each activation, biases of float layers and all.
func TestGradientsWithEveryGateAreSlopes(t *testing.T) {
	for _, act := range []Activation{GELU, GELUTanh} {
		newToy(t, act, false).checkSlopes(t)
	}
}

func TestActivateWorksInPlaceWithoutATape(t *testing.T) {
	c := testCtx(t)
	c.Begin(context.Background(), 1, nil, nil)
	defer c.End()
	x := c.New(3, 5)
	require.Same(t, x, Activate(c, Tanh, x))
}
