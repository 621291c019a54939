package optim

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newScaler(t *testing.T, c ScalerConfig) *GradScaler {
	t.Helper()
	s, err := NewGradScaler(c)
	require.NoError(t, err)
	return s
}

func TestAnOverflowSkipsTheStep(t *testing.T) {
	for name, unscaleFirst := range map[string]bool{"unscaled by step": false, "unscaled before": true} {
		params := testParams(1, []int{4, 4}, []int{4})
		o := optimizerFor(t, DefaultConfig("adamw"), params)
		s := newScaler(t, ScalerConfig{InitScale: 8})
		require.NoError(t, o.Step())
		before, state := clones(params), o.StateDict().Clone()

		params[1].Grad[2] = float32(math.Inf(1))
		if unscaleFirst {
			require.NoError(t, s.Unscale(o.Grads()))
			assert.True(t, s.Overflow())
		}
		stepped, err := s.Step(o)
		require.NoError(t, err)
		assert.False(t, stepped, name)
		assert.Equal(t, weightsOf(before), weightsOf(params))
		assert.Equal(t, state, o.StateDict(), "the optimizer has not counted the step")
		require.NoError(t, s.Update())
		assert.Equal(t, float32(4), s.Scale())
		assert.Equal(t, 1, s.Skipped())
		assert.False(t, s.Overflow())
	}
}

func TestScalingComesOutAgain(t *testing.T) {
	plain, scaled, fused := manyChunks(), manyChunks(), manyChunks()
	c := everyKind()["adamw"]
	a, b, f := optimizerFor(t, c, plain), optimizerFor(t, c, scaled), optimizerFor(t, c, fused)
	s, sf := newScaler(t, ScalerConfig{Mode: "static", InitScale: 1024}), newScaler(t, ScalerConfig{Mode: "static", InitScale: 1024})
	for step := range 3 {
		for _, params := range [][]*Param{plain, scaled, fused} {
			fillGrads(params, uint64(step))
		}
		require.NoError(t, b.Grads().Scale(s.Scale()))
		require.NoError(t, f.Grads().Scale(sf.Scale()))

		_, err := a.Grads().ClipNorm(0.5)
		require.NoError(t, err)
		require.NoError(t, a.Step())

		require.NoError(t, s.Unscale(b.Grads()))
		factor, _, err := b.Grads().ClipFactor(0.5)
		require.NoError(t, err)
		stepped, err := s.StepScaled(b, factor)
		require.NoError(t, err)
		assert.True(t, stepped)
		require.NoError(t, s.Update())

		_, err = sf.StepScaled(f, factor)
		require.NoError(t, err)
		require.NoError(t, sf.Update())
	}
	assert.Equal(t, weightsOf(plain), weightsOf(scaled), "a power of two costs no bit")
	assert.Equal(t, weightsOf(plain), weightsOf(fused))
}

func TestAStaticScaleStays(t *testing.T) {
	params := testParams(1, []int{2})
	o := optimizerFor(t, DefaultConfig("sgd"), params)
	s := newScaler(t, ScalerConfig{Mode: "static", InitScale: 128, GrowthInterval: 1})
	for i := range 6 {
		params[0].Grad[0] = 1
		if i%2 == 0 {
			params[0].Grad[0] = float32(math.NaN())
		}
		_, err := s.Step(o)
		require.NoError(t, err)
		require.NoError(t, s.Update())
		assert.Equal(t, float32(128), s.Scale())
	}
	assert.Equal(t, 3, s.Skipped())
}

func TestTheScaleStaysAFloat32(t *testing.T) {
	params := testParams(1, []int{2})
	o := optimizerFor(t, DefaultConfig("sgd"), params)
	s := newScaler(t, ScalerConfig{InitScale: math.MaxFloat32 / 2, GrowthInterval: 1, GrowthFactor: 1.9})
	for range 3 {
		_, err := s.Step(o)
		require.NoError(t, err)
		require.NoError(t, s.Update())
	}
	assert.InEpsilon(t, math.MaxFloat32*0.95, float64(s.Scale()), 1e-6, "it grew once and had no room for more")

	s = newScaler(t, ScalerConfig{InitScale: smallestScale * 3})
	params[0].Grad[0] = float32(math.NaN())
	_, err := s.Step(o)
	require.NoError(t, err)
	require.NoError(t, s.Update())
	_, err = s.Step(o)
	require.NoError(t, err)
	assert.ErrorIs(t, s.Update(), ErrNonFinite, "a scale that never helps is a diverged run")
	assert.Positive(t, s.Scale())
}

func TestTheOrderOfCallsIsHeld(t *testing.T) {
	o := newTestOptimizer(t, DefaultConfig("sgd"))
	s := newScaler(t, ScalerConfig{})
	assert.ErrorIs(t, s.Update(), ErrOrder)
	require.NoError(t, s.Unscale(o.Grads()))
	assert.ErrorIs(t, s.Unscale(o.Grads()), ErrOrder)
	_, err := s.Step(o)
	require.NoError(t, err)
	_, err = s.Step(o)
	assert.ErrorIs(t, err, ErrOrder)
	assert.ErrorIs(t, s.Unscale(o.Grads()), ErrOrder)
	require.NoError(t, s.Update())
}

func TestScalerErrorsPassThrough(t *testing.T) {
	params := testParams(1, []int{2})
	o := optimizerFor(t, DefaultConfig("sgd"), params)
	s := newScaler(t, ScalerConfig{})
	params[0].Grad = make([]float32, 3)
	assert.ErrorIs(t, s.Unscale(o.Grads()), ErrArgument)
	_, err := s.Step(o)
	assert.ErrorIs(t, err, ErrArgument)
	params[0].Grad = nil
	o.Group(0).LR = -1
	_, err = s.Step(o)
	assert.ErrorIs(t, err, ErrArgument)
	assert.ErrorIs(t, s.Update(), ErrOrder, "the step was not made")
}

func TestScalerConfigurationsAndStatesAreChecked(t *testing.T) {
	for want, c := range map[string]ScalerConfig{
		`mode = "auto": expected "dynamic" or "static"`:                          {Mode: "auto"},
		`init_scale = -1: expected a finite number > 0 that float32 can hold`:    {InitScale: -1},
		`init_scale = 1e+39: expected a finite number > 0 that float32 can hold`: {InitScale: 1e39},
		`growth_factor = 1: expected a finite number > 1`:                        {GrowthFactor: 1},
		`backoff_factor = 1: expected a number in (0, 1)`:                        {BackoffFactor: 1},
		`growth_interval = -2: expected a whole number >= 1`:                     {GrowthInterval: -2},
	} {
		_, err := NewGradScaler(c)
		assert.EqualError(t, err, "optim: "+want)
	}
	s := newScaler(t, ScalerConfig{})
	text, err := json.Marshal(s.StateDict())
	require.NoError(t, err)
	assert.JSONEq(t, `{"scale": 65536, "growth_factor": 2, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0}`, string(text))
	state := s.StateDict()
	state.Scale, state.GrowthTracker = 32, 7
	require.NoError(t, s.LoadStateDict(state))
	assert.Equal(t, state, s.StateDict())
	state.GrowthTracker = 2000
	assert.EqualError(t, s.LoadStateDict(state), "optim: saved state: _growth_tracker: found 2000, expected a whole number in [0, 2000)")
	state.Scale = math.NaN()
	assert.ErrorIs(t, s.LoadStateDict(state), ErrState)
}
