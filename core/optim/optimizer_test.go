package optim

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// train makes steps from first to last with gradients that depend on the step's number.
func train(t testing.TB, o *Optimizer, params []*Param, first, last int) {
	t.Helper()
	for step := first; step <= last; step++ {
		fillGrads(params, uint64(step))
		require.NoError(t, o.Step())
	}
}

func TestResultsDoNotDependOnTheNumberOfThreads(t *testing.T) {
	for name, c := range everyKind() {
		var want [][]float32
		var wantNorm float64
		for _, threads := range []int{1, 2, 5} {
			withThreads(t, threads, func() {
				params := manyChunks()
				o := optimizerFor(t, c, params)
				train(t, o, params, 1, 3)
				norm, err := o.Grads().ClipNorm(1)
				require.NoError(t, err)
				require.NoError(t, o.Step())
				if want == nil {
					want, wantNorm = weightsOf(params), norm
				}
				assert.Equal(t, want, weightsOf(params), "%s with %d threads", name, threads)
				assert.Equal(t, wantNorm, norm)
			})
		}
	}
}

func TestStepsAllocateNothingAfterTheFirst(t *testing.T) {
	for name, c := range everyKind() {
		params := manyChunks()
		o := optimizerFor(t, c, params)
		sched, err := NewScheduler(o, ScheduleConfig{Name: "two_stage", TotalSteps: 20, WarmupSteps: 2})
		require.NoError(t, err)
		scaler, err := NewGradScaler(ScalerConfig{})
		require.NoError(t, err)
		step := func() {
			factor, _, err := o.Grads().ClipFactor(1)
			require.NoError(t, err)
			_, err = scaler.StepScaled(o, factor)
			require.NoError(t, err)
			require.NoError(t, scaler.Update())
			sched.Step()
			require.NoError(t, o.ZeroGrad())
		}
		step()
		assert.Zero(t, testing.AllocsPerRun(20, step), name)
	}
}

func TestScalingOnTheWayIsScalingBefore(t *testing.T) {
	for name, c := range everyKind() {
		ours, theirs := manyChunks(), manyChunks()
		a, b := optimizerFor(t, c, ours), optimizerFor(t, c, theirs)
		for range 3 {
			require.NoError(t, a.StepScaled(0.3))
			require.NoError(t, b.Grads().Scale(0.3))
			require.NoError(t, b.Step())
			fillGrads(theirs, 3)
		}
		assert.Equal(t, weightsOf(theirs), weightsOf(ours), name)
		assert.Equal(t, manyChunks()[0].Grad, ours[0].Grad, "gradients stay")
	}
}

func TestAParameterWithoutAGradientIsLeftAlone(t *testing.T) {
	params := testParams(1, []int{4, 4}, []int{4})
	c := DefaultConfig("adamw")
	o := optimizerFor(t, c, params)
	before := append([]float32(nil), params[1].Data...)
	params[1].Grad = nil
	require.NoError(t, o.Step())
	assert.Equal(t, before, params[1].Data)
	_, remembered := o.StateDict().State[1]
	assert.False(t, remembered, "nothing is kept for a parameter that was never updated")
	norm, err := o.Grads().Norm()
	require.NoError(t, err)
	assert.InEpsilon(t, math.Sqrt(sumSquares(params[0].Grad)), norm, 1e-12)
}

func TestNormsAndBiasesAreNotDecayed(t *testing.T) {
	params := testParams(1, []int{3, 2}, []int{2}, []int{4, 2}, []int{})
	params[2].Name = "model.embed_tokens.weight"
	c := DefaultConfig("sgd")
	c.LR, c.WeightDecay = 0.5, 0.5
	groups := DecayGroups(params, c.Hyper, "embed_tokens")
	require.Len(t, groups, 2)
	assert.Equal(t, []*Param{params[0]}, groups[0].Params)
	assert.Equal(t, []*Param{params[1], params[2], params[3]}, groups[1].Params)
	assert.Len(t, DecayGroups(params[:1], c.Hyper), 1, "no empty group")

	o, err := New(nil, c, groups...)
	require.NoError(t, err)
	defer o.Close()
	require.NoError(t, o.ZeroGrad())
	before := clones(params)
	require.NoError(t, o.Step())
	assert.Equal(t, before[0].Data[0]*0.75, params[0].Data[0])
	for i := 1; i < 4; i++ {
		assert.Equal(t, before[i].Data, params[i].Data)
	}
}

func TestGroupsFollowTheLearningRateByTheirFactor(t *testing.T) {
	params := testParams(1, []int{2}, []int{3})
	own := DefaultConfig("adam").Hyper
	own.LR, own.WeightDecay = 0.5, 0.25
	o, err := New(nil, DefaultConfig("adam"), Group{Name: "slow", Params: params[:1], LRFactor: 0.25}, Group{Params: params[1:], Hyper: &own})
	require.NoError(t, err)
	defer o.Close()
	assert.Equal(t, "adam", o.Name())
	assert.Equal(t, 2, o.NumGroups())
	assert.Equal(t, "slow", o.GroupName(0))
	assert.Equal(t, []float64{0.25e-3, 0.5}, o.LearningRates(nil))
	require.NoError(t, o.SetLR(0.2))
	assert.Equal(t, []float64{0.05, 0.2}, o.LearningRates(nil))
	o.SetRates(Rates{LR: 0.5, WeightDecay: 2, Momentum: 0.7})
	assert.Equal(t, []float64{0.025, 0.1}, o.LearningRates(nil))
	assert.Equal(t, 0.5, o.Group(1).WeightDecay)
	assert.Equal(t, [2]float64{0.7, 0.999}, o.Group(1).Betas)
	assert.Equal(t, 0.25, own.WeightDecay, "the caller's copy is the caller's")
}

func TestTheOwnerMayMoveTheMemory(t *testing.T) {
	params, moved := manyChunks(), manyChunks()
	a, b := optimizerFor(t, everyKind()["adamw"], params), optimizerFor(t, everyKind()["adamw"], moved)
	for step := range 3 {
		train(t, a, params, step, step)
		for i, c := range clones(moved) {
			moved[i].Data, moved[i].Grad = c.Data, c.Grad
		}
		train(t, b, moved, step, step)
	}
	assert.Equal(t, weightsOf(params), weightsOf(moved))
}

func TestAFailedStepChangesNothing(t *testing.T) {
	mem := smallPool(t, 1<<20)
	params := testParams(1, []int{8}, []int{400, 400})
	o, err := New(mem, DefaultConfig("adam"), Group{Params: params})
	require.NoError(t, err)
	defer o.Close()
	before := clones(params)
	err = o.Step()
	var budget *pool.BudgetError
	require.ErrorAs(t, err, &budget)
	assert.ErrorContains(t, err, "layer1.weight")
	assert.Equal(t, weightsOf(before), weightsOf(params))
	assert.Empty(t, o.StateDict().State)

	params[1].Grad = nil
	require.NoError(t, o.Step(), "what fits is trained")
	params[1].Grad = make([]float32, 3)
	for _, f := range []func() error{o.Step, o.ZeroGrad, func() error { _, err := o.Grads().ClipNorm(1); return err }, func() error { return o.Grads().Average(1) }} {
		assert.EqualError(t, f(), "optim: layer1.weight.grad = 3: expected 160000 values or none")
	}
	params[0].Data = params[0].Data[:4]
	assert.EqualError(t, o.Step(), "optim: layer0.weight.data = 4: expected 8 values as at the start")
}

func TestMemoryComesFromThePoolAndGoesBack(t *testing.T) {
	mem := smallPool(t, 1<<30)
	for name, c := range everyKind() {
		params := manyChunks()
		o, err := New(mem, c, Group{Params: params})
		require.NoError(t, err)
		require.NoError(t, o.Step())
		if name != "sgd" {
			assert.Positive(t, mem.Stats().LiveBlocks, name)
		}
		require.NoError(t, o.LoadStateDict(o.StateDict()))
		o.Close()
		o.Close()
		assert.Zero(t, mem.Stats().LiveBlocks, name)
		assert.ErrorIs(t, o.Step(), ErrClosed)
		assert.ErrorIs(t, o.LoadStateDict(&StateDict{}), ErrClosed)
	}
}

func TestUnusableArgumentsAreNamed(t *testing.T) {
	adam, sgd := DefaultConfig("adam"), DefaultConfig("sgd")
	change := func(c Config, f func(*Config)) Config {
		f(&c)
		return c
	}
	for _, c := range []struct {
		config Config
		want   string
	}{
		{DefaultConfig("lion"), `name = "lion": expected one of ["adam" "adamw" "sgd"]`},
		{change(adam, func(c *Config) { c.LR = -1 }), "lr = -1: expected a finite number >= 0"},
		{change(adam, func(c *Config) { c.LR = math.NaN() }), "lr = NaN: expected a finite number >= 0"},
		{change(adam, func(c *Config) { c.WeightDecay = math.Inf(1) }), "weight_decay = +Inf: expected a finite number >= 0"},
		{change(adam, func(c *Config) { c.Betas[1] = 1 }), "betas[1] = 1: expected a number in [0, 1)"},
		{change(adam, func(c *Config) { c.Eps = -1e-8 }), "eps = -1e-08: expected a finite number >= 0"},
		{change(adam, func(c *Config) { c.Momentum = 0.9 }), "momentum = 0.9: expected 0: not used by adam"},
		{change(adam, func(c *Config) { c.Dampening = 0.9 }), "dampening = 0.9: expected 0: not used by adam"},
		{change(adam, func(c *Config) { c.Nesterov = true }), "nesterov = true: expected false: not used by adam"},
		{change(sgd, func(c *Config) { c.Momentum = 1.5 }), "momentum = 1.5: expected a number in [0, 1]"},
		{change(sgd, func(c *Config) { c.Dampening = -0.5 }), "dampening = -0.5: expected a number in [0, 1]"},
		{change(sgd, func(c *Config) { c.Nesterov = true }), "nesterov = true: expected momentum > 0 and dampening 0 with it, found 0 and 0"},
		{change(sgd, func(c *Config) { c.Betas[0] = 0.9 }), "betas = [0.9 0]: expected none: not used by sgd"},
		{change(sgd, func(c *Config) { c.Eps = 1e-8 }), "eps = 1e-08: expected 0: not used by sgd"},
		{change(sgd, func(c *Config) { c.AMSGrad = true }), "amsgrad = true: expected false: not used by sgd"},
	} {
		_, err := New(nil, c.config, Group{Params: testParams(1, []int{1})})
		assert.EqualError(t, err, "optim: "+c.want)
		assert.ErrorIs(t, err, ErrArgument)
	}

	good := testParams(1, []int{2})[0]
	for _, c := range []struct {
		params []*Param
		want   string
	}{
		{nil, "params = 0: expected at least one parameter"},
		{[]*Param{nil}, "params[0] = <nil>: expected a parameter"},
		{[]*Param{{Shape: []int{2, 2}, Data: make([]float32, 3)}}, "params[0].data = 3: expected 4 values for shape [2 2]"},
		{[]*Param{{Name: "w", Shape: []int{-1}}}, "w.shape = [-1]: expected sizes >= 0 with a product that fits"},
		{[]*Param{{Name: "w", Shape: []int{1 << 40, 1 << 40}}}, "w.shape = [1099511627776 1099511627776]: expected sizes >= 0 with a product that fits"},
		{[]*Param{{Name: "w", Shape: []int{1}, Data: []float32{1}, Grad: []float32{1, 2}}}, "w.grad = 2: expected 1 values or none"},
		{[]*Param{good, {Name: good.Name, Shape: []int{0}}}, "layer0.weight = 1: the name is already that of params[0]"},
		{[]*Param{good, {Name: "tied", Shape: []int{1}, Data: good.Data[:1]}}, "tied = 1: its memory is already trained as layer0.weight"},
	} {
		_, err := New(nil, adam, Group{Params: c.params})
		assert.EqualError(t, err, "optim: "+c.want)
	}

	bad := adam.Hyper
	bad.Eps = math.NaN()
	_, err := New(nil, adam, Group{Params: []*Param{good}}, Group{Hyper: &bad})
	assert.EqualError(t, err, "optim: groups[1].eps = NaN: expected a finite number >= 0")
	_, err = New(nil, adam, Group{Params: []*Param{good}, LRFactor: -1})
	assert.EqualError(t, err, "optim: groups[0].lr_factor = -1: expected a finite number > 0")

	o := newTestOptimizer(t, adam)
	assert.EqualError(t, o.SetLR(math.Inf(1)), "optim: lr = +Inf: expected a finite number >= 0")
	assert.EqualError(t, o.StepScaled(float32(math.NaN())), "optim: factor = NaN: expected a finite number")
	o.Group(1).LR = -2
	assert.EqualError(t, o.Step(), "optim: groups[1].lr = -2: expected a finite number >= 0")
}

func TestAConfigurationReadsOverItsDefaults(t *testing.T) {
	var c Config
	require.NoError(t, json.Unmarshal([]byte(`{"name": "adamw", "lr": 0.002, "betas": [0.9, 0.95]}`), &c))
	want := DefaultConfig("adamw")
	want.LR, want.Betas = 0.002, [2]float64{0.9, 0.95}
	assert.Equal(t, want, c)
	require.NoError(t, c.Validate())

	for _, name := range Names() {
		text, err := json.Marshal(DefaultConfig(name))
		require.NoError(t, err)
		var back Config
		require.NoError(t, json.Unmarshal(text, &back))
		assert.Equal(t, DefaultConfig(name), back)
	}
	for _, text := range []string{`{"name": "adamw", "learning_rate": 1}`, `{"name": 3}`, `{"name": "sgd", "lr": "fast"}`} {
		assert.ErrorIs(t, json.Unmarshal([]byte(text), &c), ErrArgument, text)
	}
}

func TestMomentumMayBeSwitchedOnLater(t *testing.T) {
	params := testParams(1, []int{3})
	o, err := New(nil, DefaultConfig("sgd"), Group{Params: params})
	require.NoError(t, err)
	defer o.Close()
	require.NoError(t, o.Step())
	assert.Empty(t, o.StateDict().State)
	o.Group(0).Momentum = 0.9
	require.NoError(t, o.Step())
	assert.Equal(t, params[0].Grad, o.StateDict().State[0].Tensors["momentum_buffer"].Data, "the first gradient is the momentum")
}

func TestEveryErrorSaysWhatItIsAbout(t *testing.T) {
	assert.Equal(t, "optim: gradient of w is +Inf at element 3, expected a finite number", (&NonFiniteError{"w", 3, float32(math.Inf(1))}).Error())
	assert.Equal(t, "optim: saved state: step: found -1, expected a whole number", (&StateError{"step", -1, "a whole number"}).Error())
	plain := fmt.Errorf("disk")
	assert.Equal(t, plain, inGroup("groups", 0, plain))
	assert.Equal(t, plain, asState(plain, nil))
}
