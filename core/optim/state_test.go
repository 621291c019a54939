package optim

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// roundTrip sends a state through its file form.
func roundTrip(t *testing.T, d *StateDict) *StateDict {
	t.Helper()
	text, err := json.Marshal(d)
	require.NoError(t, err)
	back, err := ParseStateDict(text, d.Tensors())
	require.NoError(t, err)
	return back
}

func TestResumingContinuesBitForBit(t *testing.T) {
	schedules := []ScheduleConfig{
		{Name: "two_stage", TotalSteps: 20, WarmupSteps: 4},
		{Name: "one_cycle", TotalSteps: 20, CycleMomentum: true},
		{Name: "plateau", Patience: new(int), Factor: 0.5},
	}
	for name, c := range everyKind() {
		for _, schedule := range schedules {
			straight, resumed := manyChunks(), manyChunks()
			run := func(o *Optimizer, s *Scheduler, params []*Param, first, last int) {
				for step := first; step <= last; step++ {
					train(t, o, params, step, step)
					s.Step()
					s.Observe(math.Abs(float64(10 - step)))
				}
			}
			a, b := optimizerFor(t, c, straight), optimizerFor(t, c, resumed)
			sa, err := NewScheduler(a, schedule)
			require.NoError(t, err)
			run(a, sa, straight, 1, 20)

			sb, err := NewScheduler(b, schedule)
			require.NoError(t, err)
			run(b, sb, resumed, 1, 12)
			state := roundTrip(t, b.StateDict().Clone())
			text, err := json.Marshal(sb.StateDict())
			require.NoError(t, err)

			// Another process: a new optimizer over the saved weights.
			weights := clones(resumed)
			again := optimizerFor(t, c, weights)
			sAgain, err := NewScheduler(again, schedule)
			require.NoError(t, err)
			require.NoError(t, again.LoadStateDict(state))
			var schedulerState SchedulerState
			require.NoError(t, json.Unmarshal(text, &schedulerState))
			require.NoError(t, sAgain.LoadStateDict(schedulerState))
			run(again, sAgain, weights, 13, 20)

			assert.Equal(t, weightsOf(straight), weightsOf(weights), "%s with %s", name, schedule.Name)
			assert.Equal(t, a.StateDict(), again.StateDict())
			assert.Equal(t, sa.StateDict(), sAgain.StateDict())
		}
	}
}

func TestAStateSurvivesItsFileForm(t *testing.T) {
	for name, c := range everyKind() {
		params := manyChunks()
		o := optimizerFor(t, c, params)
		train(t, o, params, 1, 2)
		assert.Equal(t, o.StateDict(), roundTrip(t, o.StateDict()), name)
	}
}

func TestTensorsAreNamedByIndexAndKind(t *testing.T) {
	o := newTestOptimizer(t, everyKind()["adamw amsgrad"])
	require.NoError(t, o.Step())
	var names []string
	for _, tensor := range o.StateDict().Tensors() {
		names = append(names, tensor.Name)
	}
	assert.Equal(t, []string{
		"state.0.exp_avg", "state.0.exp_avg_sq", "state.0.max_exp_avg_sq", "state.1.exp_avg", "state.1.exp_avg_sq", "state.1.max_exp_avg_sq",
	}, names)
}

func TestACloneIsNotChangedByLaterSteps(t *testing.T) {
	o := newTestOptimizer(t, DefaultConfig("adam"))
	require.NoError(t, o.Step())
	view, clone := o.StateDict(), o.StateDict().Clone()
	assert.Equal(t, view, clone)
	require.NoError(t, o.Step())
	assert.NotEqual(t, view.State[0].Tensors["exp_avg"], clone.State[0].Tensors["exp_avg"])
	assert.Equal(t, 1.0, *clone.State[0].Step)
}

func TestGroupsKeepTheirNamesAndFactors(t *testing.T) {
	make := func() *Optimizer {
		params := testParams(1, []int{2}, []int{3})
		params[1].Name = ""
		o, err := New(nil, DefaultConfig("adamw"), Group{Name: "a", Params: params[:1], LRFactor: 0.5}, Group{Params: params[1:]})
		require.NoError(t, err)
		t.Cleanup(o.Close)
		return o
	}
	o := make()
	o.SetRates(Rates{LR: 0.1, WeightDecay: 0.5})
	d := roundTrip(t, o.StateDict())
	assert.Equal(t, []string{"layer0.weight"}, d.ParamGroups[0].ParamNames)
	assert.Nil(t, d.ParamGroups[1].ParamNames, "nameless as PyTorch's")

	other := make()
	require.NoError(t, other.SetLR(77))
	require.NoError(t, other.LoadStateDict(d))
	assert.Equal(t, o.LearningRates(nil), other.LearningRates(nil))
	other.SetRates(Rates{LR: 1, WeightDecay: 1})
	assert.Equal(t, []float64{0.5e-3, 1e-3}, other.LearningRates(nil))
	assert.Equal(t, 1e-2, other.Group(0).WeightDecay)
	require.NoError(t, other.SetLR(2))
	assert.Equal(t, []float64{1, 2}, other.LearningRates(nil))
}

func TestAPyTorchStateWithoutOurKeysIsRead(t *testing.T) {
	// As torch 2.0 wrote it for AdamW: no decoupled_weight_decay, no names.
	d, err := ParseStateDict([]byte(`{"state": {"0": {"step": 3.0}}, "param_groups": [
		{"lr": 0.01, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "amsgrad": false, "foreach": null, "maximize": false, "capturable": false, "params": [0]}]}`),
		[]NamedTensor{{"state.0.exp_avg", Tensor{[]int{2}, []float32{1, 2}}}, {"state.0.exp_avg_sq", Tensor{[]int{2}, []float32{3, 4}}}})
	require.NoError(t, err)
	for _, name := range []string{"adam", "adamw"} {
		o, err := New(nil, DefaultConfig(name), Group{Params: testParams(1, []int{2})})
		require.NoError(t, err)
		require.NoError(t, o.LoadStateDict(d))
		assert.Equal(t, 0.01, o.Group(0).LR)
		o.SetRates(Rates{LR: 0.5, WeightDecay: 1})
		assert.Equal(t, 0.005, o.Group(0).LR, "the loaded rate is the initial one")
		assert.Equal(t, []float32{1, 2}, o.StateDict().State[0].Tensors["exp_avg"].Data)
		o.Close()
	}

	text, err := json.Marshal(d)
	require.NoError(t, err)
	assert.NotContains(t, string(text), "decoupled_weight_decay", "what was not known stays so")

	// SGD with momentum whose buffers are not made yet.
	d, err = ParseStateDict([]byte(`{"state": {"0": {"momentum_buffer": null}}, "param_groups": [
		{"lr": 0.01, "momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": false, "params": [0]}]}`), nil)
	require.NoError(t, err)
	o, err := New(nil, DefaultConfig("sgd"), Group{Params: testParams(1, []int{2})})
	require.NoError(t, err)
	defer o.Close()
	require.NoError(t, o.LoadStateDict(d))
	assert.Equal(t, 0.9, o.Group(0).Momentum)
	assert.Empty(t, o.StateDict().State)
}

func TestAStateThatDoesNotFitIsNamedAndNotLoaded(t *testing.T) {
	state := func(d *StateDict, f func(*ParamState)) {
		s := d.State[0]
		f(&s)
		d.State[0] = s
	}
	number := func(x float64) *float64 { return &x }
	for want, change := range map[string]func(*StateDict){
		"param_groups: found 1, expected 2 groups":                                                            func(d *StateDict) { d.ParamGroups = d.ParamGroups[:1] },
		"param_groups[0].algorithm: found adam, expected adamw":                                               func(d *StateDict) { d.ParamGroups[0].Algorithm = "adam" },
		"param_groups[0].lr: found -1, expected a finite number >= 0":                                         func(d *StateDict) { d.ParamGroups[0].LR = -1 },
		"param_groups[1].momentum: found 0.5, expected 0: not used by adamw":                                  func(d *StateDict) { d.ParamGroups[1].Momentum = 0.5 },
		"param_groups[0].lr_factor: found -1, expected a finite number > 0":                                   func(d *StateDict) { d.ParamGroups[0].LRFactor = -1 },
		"param_groups[0].initial_lr: found NaN, expected a finite number >= 0":                                func(d *StateDict) { d.ParamGroups[0].InitialLR = number(math.NaN()) },
		"param_groups[0].initial_weight_decay: found -1, expected a finite number >= 0":                       func(d *StateDict) { d.ParamGroups[0].InitialWeightDecay = number(-1) },
		"param_groups[0].params: found 2, expected 1 parameters":                                              func(d *StateDict) { d.ParamGroups[0].Params = []int{0, 1} },
		"param_groups[0].param_names: found 0, expected 1 names":                                              func(d *StateDict) { d.ParamGroups[0].ParamNames = []string{} },
		"param_groups[0].param_names[0]: found other, expected layer0.weight":                                 func(d *StateDict) { d.ParamGroups[0].ParamNames = []string{"other"} },
		"param_groups[1].params[0]: found 0, expected an index that was not listed before":                    func(d *StateDict) { d.ParamGroups[1].Params = []int{0} },
		"state[9]: found 9, expected an index that param_groups lists":                                        func(d *StateDict) { d.State[9] = ParamState{} },
		"state[0].step: found none, expected the number of updates":                                           func(d *StateDict) { state(d, func(s *ParamState) { s.Step = nil }) },
		"state[0].step: found 0.5, expected a whole number >= 1":                                              func(d *StateDict) { state(d, func(s *ParamState) { s.Step = number(0.5) }) },
		"state[0].exp_avg_sq: found none, expected a tensor of shape [3 2]":                                   func(d *StateDict) { delete(d.State[0].Tensors, "exp_avg_sq") },
		"state[0].exp_avg.shape: found [2 3], expected [3 2]":                                                 func(d *StateDict) { d.State[0].Tensors["exp_avg"] = Tensor{[]int{2, 3}, make([]float32, 6)} },
		"state[0].exp_avg.data: found 5, expected 6 values":                                                   func(d *StateDict) { d.State[0].Tensors["exp_avg"] = Tensor{[]int{3, 2}, make([]float32, 5)} },
		`state[0].momentum_buffer: found a tensor, expected one of ["exp_avg" "exp_avg_sq" "max_exp_avg_sq"]`: func(d *StateDict) { d.State[0].Tensors["momentum_buffer"] = Tensor{} },
		"state[0].max_exp_avg_sq: found none, expected a tensor, as param_groups[0].amsgrad is true":          func(d *StateDict) { d.ParamGroups[0].AMSGrad = true },
	} {
		o := newTestOptimizer(t, DefaultConfig("adamw"))
		require.NoError(t, o.Step())
		before := o.StateDict().Clone()
		d := o.StateDict().Clone()
		change(d)
		err := o.LoadStateDict(d)
		assert.EqualError(t, err, "optim: saved state: "+want)
		assert.ErrorIs(t, err, ErrState)
		assert.Equal(t, before, o.StateDict(), want)
	}

	o := newTestOptimizer(t, everyKind()["sgd momentum"])
	require.NoError(t, o.Step())
	d := o.StateDict().Clone()
	state(d, func(s *ParamState) { s.Step = number(1) })
	assert.EqualError(t, o.LoadStateDict(d), "optim: saved state: state[0].step: found 1, expected none: sgd counts no steps")
}

func TestAStateThatFindsNoMemoryIsNotLoaded(t *testing.T) {
	params := testParams(1, []int{8}, []int{400, 400})
	full := optimizerFor(t, DefaultConfig("adam"), params)
	require.NoError(t, full.Step())
	mem := smallPool(t, 1<<20)
	o, err := New(mem, DefaultConfig("adam"), DecayGroups(clones(params), DefaultConfig("adam").Hyper)...)
	require.NoError(t, err)
	require.NoError(t, o.SetLR(3))
	require.Error(t, o.LoadStateDict(full.StateDict()))
	assert.Equal(t, []float64{3, 3}, o.LearningRates(nil))
	assert.Zero(t, mem.Stats().LiveBlocks)
}

func TestTextThatIsNoStateIsRefused(t *testing.T) {
	group := func(fields string) string { return `{"param_groups": [{` + fields + `, "params": []}]}` }
	for want, text := range map[string]string{
		"param_groups[0].lr: found none, expected a number":                                       group(`"weight_decay": 0`),
		"param_groups[0].weight_decay: found none, expected a number":                             group(`"lr": 0`),
		"param_groups[0].betas: found none, expected Adam's betas or SGD's momentum":              group(`"lr": 0, "weight_decay": 0`),
		"param_groups[0].betas: found [0.9], expected two numbers":                                group(`"lr": 0, "weight_decay": 0, "betas": [0.9]`),
		"param_groups[0].eps: found none, expected a number":                                      group(`"lr": 0, "weight_decay": 0, "betas": [0.9, 0.9]`),
		`state: found "first", expected the index of a parameter`:                                 `{"state": {"first": {}}}`,
		"state[0].exp_avg: found [1], expected no value in the JSON: tensors are given beside it": `{"state": {"0": {"exp_avg": [1]}}}`,
		`state[0].step: found "3", expected a number`:                                             `{"state": {"0": {"step": "3"}}}`,
	} {
		_, err := ParseStateDict([]byte(text), nil)
		assert.EqualError(t, err, "optim: saved state: "+want)
	}
	_, err := ParseStateDict([]byte(`[]`), nil)
	assert.ErrorIs(t, err, ErrState)

	for _, names := range [][]string{{"exp_avg"}, {"state.x.exp_avg"}, {"state.-1.exp_avg"}, {"weights.0.exp_avg"}, {"state.0.exp_avg", "state.0.exp_avg"}} {
		var tensors []NamedTensor
		for _, name := range names {
			tensors = append(tensors, NamedTensor{Name: name})
		}
		_, err := ParseStateDict([]byte(`{}`), tensors)
		assert.ErrorIs(t, err, ErrState, strings.Join(names, " "))
	}
}

func FuzzParseStateDict(f *testing.F) {
	o, err := New(nil, DefaultConfig("adamw"), Group{Params: testParams(1, []int{2})})
	require.NoError(f, err)
	require.NoError(f, o.Step())
	state := o.StateDict().Clone()
	text, err := json.Marshal(state)
	require.NoError(f, err)
	o.Close()
	f.Add(text, "state.0.exp_avg")
	f.Add([]byte(`{"state": {"0": {"momentum_buffer": null}}, "param_groups": [{"lr": 1, "weight_decay": 0, "momentum": 0, "params": [0]}]}`), "state.0.momentum_buffer")
	f.Add([]byte(`{"state": {"0": {"step": 1e300}}, "param_groups": [{"lr": 1, "weight_decay": 0, "betas": [0, 0], "eps": 0, "params": [0, 0]}]}`), "state.1.x")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		tensors := slices.Clone(state.Tensors())
		tensors[0].Name = name
		d, err := ParseStateDict(text, tensors)
		if err != nil {
			assert.ErrorIs(t, err, ErrState)
			return
		}
		for _, algorithm := range Names() {
			o, err := New(nil, DefaultConfig(algorithm), Group{Params: testParams(1, []int{2})})
			require.NoError(t, err)
			if err := o.LoadStateDict(d); err != nil {
				assert.ErrorIs(t, err, ErrState)
			} else {
				assert.NoError(t, o.Step())
			}
			o.Close()
		}
	})
}
