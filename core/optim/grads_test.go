package optim

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func gradientsOf(t testing.TB, params []*Param) *Gradients {
	t.Helper()
	g, err := NewGradients(params)
	require.NoError(t, err)
	return g
}

func naiveNorm(params []*Param) float64 {
	sum := 0.0
	for _, p := range params {
		for _, x := range p.Grad {
			sum += float64(x) * float64(x)
		}
	}
	return math.Sqrt(sum)
}

func TestTheNormIsThatOfAllGradientsTogether(t *testing.T) {
	params := manyChunks()
	g := gradientsOf(t, params)
	norm, err := g.Norm()
	require.NoError(t, err)
	assert.InEpsilon(t, naiveNorm(params), norm, 1e-12)
	for i, n := range g.Norms(nil) {
		assert.InEpsilon(t, naiveNorm(params[i:i+1]), n, 1e-12)
	}
}

func TestTheLargestFloatsDoNotOverflowTheNorm(t *testing.T) {
	p := &Param{Shape: []int{3}, Data: make([]float32, 3), Grad: []float32{math.MaxFloat32, -math.MaxFloat32, 1}}
	norm, err := gradientsOf(t, []*Param{p}).Norm()
	require.NoError(t, err)
	assert.InEpsilon(t, math.Sqrt2*math.MaxFloat32, norm, 1e-12)
}

func TestAClippedGradientHasTheNormThatWasAskedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float32Range(-1e6, 1e6), 1, 40).Draw(t, "gradient")
		limit := rapid.Float64Range(1e-3, 1e3).Draw(t, "limit")
		p := &Param{Shape: []int{len(values)}, Data: make([]float32, len(values)), Grad: append([]float32(nil), values...)}
		g, err := NewGradients([]*Param{p})
		require.NoError(t, err)
		before, err := g.ClipNorm(limit)
		require.NoError(t, err)
		after, err := g.Norm()
		require.NoError(t, err)
		assert.LessOrEqual(t, after, limit*(1+1e-6))
		if before+tiny <= limit {
			assert.Equal(t, values, p.Grad, "a small gradient stays as it is")
		} else {
			assert.InDelta(t, limit*before/(before+tiny), after, 1e-6*limit)
		}
	})
}

func TestValuesAreClippedToTheLimit(t *testing.T) {
	nan := float32(math.NaN())
	p := &Param{Shape: []int{5}, Data: make([]float32, 5), Grad: []float32{-3, -0.5, 0, 2, nan}}
	require.NoError(t, gradientsOf(t, []*Param{p}).ClipValue(1))
	assert.Equal(t, []float32{-1, -0.5, 0, 1}, p.Grad[:4])
	assert.True(t, p.Grad[4] != p.Grad[4])
}

func TestNormalizedGradientsKeepTheirDirection(t *testing.T) {
	params := manyChunks()
	before := clones(params)
	g := gradientsOf(t, params)
	norm, err := g.Normalize()
	require.NoError(t, err)
	assert.InEpsilon(t, naiveNorm(before), norm, 1e-12)
	assert.InEpsilon(t, 1, naiveNorm(params), 1e-6)
	assert.InEpsilon(t, before[0].Grad[17]/float32(norm), params[0].Grad[17], 1e-6)

	clear(params[1].Grad)
	_, err = g.NormalizeEach()
	require.NoError(t, err)
	assert.InEpsilon(t, 1, naiveNorm(params[:1]), 1e-5)
	assert.Zero(t, naiveNorm(params[1:2]))
	assert.InEpsilon(t, 1, naiveNorm(params[2:3]), 1e-5)
}

func TestMicroBatchesAreAveraged(t *testing.T) {
	p := &Param{Shape: []int{2}, Data: make([]float32, 2), Grad: []float32{4, -8}}
	g := gradientsOf(t, []*Param{p})
	require.NoError(t, g.Average(4))
	assert.Equal(t, []float32{1, -2}, p.Grad)
	require.NoError(t, g.Average(1))
	assert.Equal(t, []float32{1, -2}, p.Grad)
	require.NoError(t, g.Zero())
	assert.Equal(t, []float32{0, 0}, p.Grad)
}

func TestTheFirstBadGradientIsNamedAndNothingIsChanged(t *testing.T) {
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1))} {
		params := manyChunks()
		params[2].Grad[16384], params[2].Grad[16000] = bad, bad
		g := gradientsOf(t, params)
		before := clones(params)
		for name, f := range map[string]func() (float64, error){
			"clip": func() (float64, error) { return g.ClipNorm(1) }, "normalize": g.Normalize, "normalize each": g.NormalizeEach,
		} {
			norm, err := f()
			var found *NonFiniteError
			require.ErrorAs(t, err, &found, name)
			assert.ErrorIs(t, err, ErrNonFinite)
			assert.Equal(t, "layer2.weight", found.Param)
			assert.Equal(t, 16000, found.Index)
			assert.False(t, finiteFrom(norm, 0))
			assert.Equal(t, before[0].Grad, params[0].Grad)
		}
	}
	assert.Nil(t, gradientsOf(t, manyChunks()).FirstNonFinite())
}

func TestUnusableLimitsAreRefused(t *testing.T) {
	g := gradientsOf(t, manyChunks())
	nan := math.NaN()
	for want, err := range map[string]error{
		"max_norm = 0: expected a number > 0":                     second(g.ClipNorm(0)),
		"max_norm = NaN: expected a number > 0":                   second(g.ClipNorm(nan)),
		"clip_value = -1: expected a number > 0":                  g.ClipValue(-1),
		"clip_value = NaN: expected a number > 0":                 g.ClipValue(float32(nan)),
		"factor = +Inf: expected a finite number":                 g.Scale(float32(math.Inf(1))),
		"micro_batches = 0: expected a whole number >= 1":         g.Average(0),
		"params = 0: expected at least one parameter":             second(NewGradients(nil)),
		"params[1] = <nil>: expected a parameter":                 second(NewGradients([]*Param{{Shape: []int{0}}, nil})),
		"params[0].data = 0: expected 1 values for shape []":      second(NewGradients([]*Param{{}})),
		"params[0].grad = 2: expected 0 values or none":           second(NewGradients([]*Param{{Shape: []int{0}, Grad: make([]float32, 2)}})),
		"params[0].data = 2: expected 1 values for shape [1 1 1]": second(NewGradients([]*Param{{Shape: []int{1, 1, 1}, Data: make([]float32, 2)}})),
	} {
		assert.EqualError(t, err, "optim: "+want)
	}
	factor, _, err := g.ClipFactor(math.Inf(1))
	require.NoError(t, err)
	assert.Equal(t, float32(1), factor)
}

func second[T any](_ T, err error) error { return err }

func TestSumsOfSquaresTakeEveryElementOnce(t *testing.T) {
	for n := range 20 {
		x := make([]float32, n)
		want := 0.0
		for i := range x {
			x[i] = float32(i + 1)
			want += float64((i + 1) * (i + 1))
		}
		assert.Equal(t, want, sumSquares(x), fmt.Sprint(n))
	}
}
