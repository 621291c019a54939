package optim

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// anySchedule draws a valid configuration of every kind.
func anySchedule(t *rapid.T) ScheduleConfig {
	c := ScheduleConfig{Name: rapid.SampledFrom(ScheduleNames()).Draw(t, "name")}
	ratio := func(label string) float64 { return rapid.Float64Range(0.01, 1).Draw(t, label) }
	if c.Name != "one_cycle" {
		if c.WarmupSteps = rapid.IntRange(0, 30).Draw(t, "warmup"); c.WarmupSteps > 0 {
			c.WarmupStart = rapid.Float64Range(0, 1).Draw(t, "start")
		}
	}
	c.TotalSteps = c.WarmupSteps + rapid.IntRange(20, 200).Draw(t, "rest")
	switch c.Name {
	case "linear", "plateau":
		c.MinRatio = ratio("min")
	case "cosine":
		c.MinRatio, c.Cycles = ratio("min"), rapid.Float64Range(0.1, 3).Draw(t, "cycles")
	case "polynomial":
		c.MinRatio, c.Power = ratio("min"), rapid.Float64Range(0.5, 4).Draw(t, "power")
	case "inverse_sqrt":
		c.Timescale = rapid.IntRange(0, 100).Draw(t, "timescale")
	case "step":
		c.StepSize, c.Gamma = rapid.IntRange(1, 50).Draw(t, "size"), ratio("gamma")
	case "multi_step":
		c.Milestones, c.Gamma = []int{5, 40, 41}, ratio("gamma")
	case "exponential":
		c.Gamma = ratio("gamma")
	case "one_cycle":
		c.ThreePhase = rapid.Bool().Draw(t, "three phases")
		c.PeakAt = rapid.Float64Range(0.1, 0.5).Draw(t, "peak")
		c.Decay = rapid.SampledFrom([]string{"", "cosine", "linear"}).Draw(t, "decay")
		c.CycleMomentum = true
	case "wsd":
		c.MinRatio, c.DecaySteps = ratio("min"), rapid.IntRange(0, 20).Draw(t, "decay steps")
		c.Decay = rapid.SampledFrom([]string{"", "linear", "1-sqrt"}).Draw(t, "decay")
	case "two_stage":
		c.MinRatio, c.StageRatio = ratio("min"), ratio("stage ratio")
		c.StageAt = rapid.Float64Range(float64(c.WarmupSteps+1)/float64(c.TotalSteps), 1).Draw(t, "stage at")
		c.Decay = rapid.SampledFrom([]string{"", "cosine"}).Draw(t, "decay")
	}
	return c
}

func TestSchedulesStayWithinTheirBoundsAndEndWhereTheySay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anySchedule(t)
		s, err := NewSchedule(c)
		require.NoError(t, err)
		lowest := c.MinRatio
		if c.Name == "two_stage" {
			lowest *= c.StageRatio
		}
		for step := range c.TotalSteps + 20 {
			r := s.Rates(step)
			assert.LessOrEqual(t, r.LR, 1+1e-12)
			assert.GreaterOrEqual(t, r.LR, 0.0)
			if step >= c.WarmupSteps {
				assert.GreaterOrEqual(t, r.LR, lowest-1e-12)
			}
			assert.Contains(t, []float64{0, 1}, r.WeightDecay)
			assert.Equal(t, r, s.Rates(step), "a function of the step")
		}
		assert.Equal(t, s.Rates(0), s.Rates(-5))
		switch c.Name {
		case "linear", "polynomial", "wsd", "two_stage", "one_cycle", "cosine":
			assert.Equal(t, s.Rates(c.TotalSteps), s.Rates(c.TotalSteps+1000), "the end is kept")
		}
		switch c.Name {
		case "linear", "polynomial", "wsd", "two_stage":
			assert.InDelta(t, lowest, s.Rates(c.TotalSteps).LR, 1e-12)
		}
	})
}

func TestWarmUpRisesToThePeakAndTheRestOnlyFalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anySchedule(t)
		if c.Name == "one_cycle" || c.Cycles > 0.5 {
			return
		}
		s, err := NewSchedule(c)
		require.NoError(t, err)
		if c.WarmupSteps > 0 {
			assert.Equal(t, c.WarmupStart, s.Rates(0).LR)
		}
		for step := 1; step < c.TotalSteps+20; step++ {
			before, now := s.Rates(step-1), s.Rates(step)
			if step <= c.WarmupSteps && c.Name != "multi_step" {
				assert.GreaterOrEqual(t, now.LR, before.LR)
			} else if step > c.WarmupSteps {
				assert.LessOrEqual(t, now.LR, before.LR+1e-15)
			}
			assert.LessOrEqual(t, now.WeightDecay, before.WeightDecay)
		}
		if c.Name != "multi_step" {
			assert.Equal(t, 1.0, s.Rates(c.WarmupSteps).LR, "the update after warm-up is the peak")
		}
	})
}

// A schedule without steps in its definition moves by no more than its steepest slope allows.
func TestSmoothSchedulesDoNotJump(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anySchedule(t)
		rest := float64(c.TotalSteps - c.WarmupSteps)
		var slope float64
		switch c.Name {
		case "linear":
			slope = 1 / rest
		case "cosine":
			slope = math.Pi * c.Cycles / rest
		case "polynomial":
			if c.Power < 1 {
				return // infinitely steep at the end
			}
			slope = c.Power / rest
		case "inverse_sqrt":
			slope = 0.5 / float64(orDefault(c.Timescale, orDefault(c.WarmupSteps, 10000)))
		default:
			return
		}
		s, err := NewSchedule(c)
		require.NoError(t, err)
		if c.WarmupSteps > 0 {
			slope = max(slope, 1/float64(c.WarmupSteps))
		}
		for step := range c.TotalSteps + 5 {
			assert.LessOrEqual(t, math.Abs(s.Rates(step+1).LR-s.Rates(step).LR), slope*(1+1e-9)+1e-15, "step %d", step)
		}
	})
}

func TestTheTwoStageRecipeOfBitNet(t *testing.T) {
	s, err := NewSchedule(ScheduleConfig{Name: "two_stage", TotalSteps: 1000, StageRatio: 2.0 / 3})
	require.NoError(t, err)
	const peak = 1.5e-3 // and 1e-3 in the second stage
	for step, want := range map[int]Rates{
		0:    {LR: peak, WeightDecay: 1},
		250:  {LR: peak * 0.75, WeightDecay: 1},
		499:  {LR: peak * 0.501, WeightDecay: 1},
		500:  {LR: 1e-3 * 0.5, WeightDecay: 0},
		750:  {LR: 1e-3 * 0.25, WeightDecay: 0},
		1000: {LR: 0, WeightDecay: 0},
	} {
		got := s.Rates(step)
		assert.InDelta(t, want.LR, peak*got.LR, 1e-15, "step %d", step)
		assert.Equal(t, want.WeightDecay, got.WeightDecay, "step %d", step)
	}

	c := DefaultConfig("adamw")
	c.LR, c.WeightDecay = peak, 0.1
	o := newTestOptimizer(t, c)
	sched, err := NewScheduler(o, ScheduleConfig{Name: "two_stage", TotalSteps: 4})
	require.NoError(t, err)
	var decays []float64
	for range 4 {
		decays = append(decays, o.Group(0).WeightDecay)
		assert.Zero(t, o.Group(1).WeightDecay)
		sched.Step()
	}
	assert.Equal(t, []float64{0.1, 0.1, 0, 0}, decays)
}

// A warm-up may begin above zero, so that the first update is not wasted: (i+1)/(n+1).
func TestWarmUpMayBeginAboveZero(t *testing.T) {
	s, err := NewSchedule(ScheduleConfig{Name: "cosine", TotalSteps: 2000, WarmupSteps: 100, WarmupStart: 1.0 / 101, MinRatio: 0.1})
	require.NoError(t, err)
	for i := range 2001 {
		want := float64(i+1) / 101
		if i >= 100 {
			want = 0.1 + 0.45*(1+math.Cos(math.Pi*min(1, float64(i-100)/1900)))
		}
		assert.InDelta(t, want, s.Rates(i).LR, 1e-12)
	}
}

func TestPlateauForgetsNothingAndIgnoresWhatIsNotANumber(t *testing.T) {
	patience := 1
	s, err := NewSchedule(ScheduleConfig{Name: "plateau", Patience: &patience, Factor: 0.5, MinRatio: 0.2, WarmupSteps: 4})
	require.NoError(t, err)
	p := s.(*Plateau)
	assert.Equal(t, 0.5, p.Rates(2).LR)
	for _, metric := range []float64{math.NaN(), math.Inf(-1)} {
		p.Observe(metric)
	}
	assert.Nil(t, p.state.Best)
	assert.Equal(t, 0.5, p.state.Scale, "two bad ones are more than patience")
	for range 10 {
		p.Observe(3)
	}
	assert.Equal(t, 0.2, p.Rates(4).LR, "never below min_ratio")
	assert.Equal(t, 0.1, p.Rates(2).LR, "warm-up goes to where the plateau is")
	assert.Equal(t, 3.0, *p.state.Best)
}

func TestASchedulerIsResumedByItsState(t *testing.T) {
	o := newTestOptimizer(t, DefaultConfig("adamw"))
	s, err := NewScheduler(o, ScheduleConfig{Name: "linear", TotalSteps: 10})
	require.NoError(t, err)
	for range 4 {
		s.Step()
	}
	s.Observe(1) // nobody listens
	text, err := json.Marshal(s.StateDict())
	require.NoError(t, err)
	assert.JSONEq(t, `{"name": "linear", "step": 4}`, string(text))
	assert.Equal(t, 0.6, s.Rates().LR)

	longer, err := NewScheduler(o, ScheduleConfig{Name: "linear", TotalSteps: 40})
	require.NoError(t, err)
	require.NoError(t, longer.LoadStateDict(s.StateDict()))
	assert.Equal(t, 0.9, longer.Rates().LR)
	assert.InEpsilon(t, 0.9e-3, o.Group(0).LR, 1e-15)

	custom := NewCustomScheduler(o, "mine", ScheduleFunc(func(step int) float64 { return 1 / float64(1+step) }))
	custom.Step()
	assert.Equal(t, 0.5e-3, o.Group(0).LR)
	assert.Equal(t, 1e-2, o.Group(0).WeightDecay)
	assert.Equal(t, SchedulerState{Name: "mine", Step: 1}, custom.StateDict())

	_, err = NewScheduler(o, ScheduleConfig{Name: "cosine"})
	assert.ErrorIs(t, err, ErrArgument)
}

func TestASchedulerRefusesAStateThatIsNotItsOwn(t *testing.T) {
	o := newTestOptimizer(t, DefaultConfig("sgd"))
	s, err := NewScheduler(o, ScheduleConfig{Name: "plateau"})
	require.NoError(t, err)
	nan := math.NaN()
	for want, state := range map[string]SchedulerState{
		`name: found "cosine", expected "plateau"`:                         {Name: "cosine"},
		"step: found -1, expected a whole number >= 0":                     {Name: "plateau", Step: -1},
		"plateau: found none, expected the state of a plateau schedule":    {Name: "plateau"},
		"plateau.scale: found 2, expected a number in [0, 1]":              {Name: "plateau", Plateau: &PlateauState{Scale: 2}},
		"plateau.best: found NaN, expected a finite number":                {Name: "plateau", Plateau: &PlateauState{Best: &nan}},
		"plateau.num_bad_epochs: found -1, expected a whole number >= 0":   {Name: "plateau", Plateau: &PlateauState{NumBadEpochs: -1}},
		"plateau.cooldown_counter: found -1, expected a whole number >= 0": {Name: "plateau", Plateau: &PlateauState{CooldownCounter: -1}},
	} {
		before := s.StateDict()
		assert.EqualError(t, s.LoadStateDict(state), "optim: saved state: "+want)
		assert.Equal(t, before, s.StateDict())
	}
}

func TestScheduleConfigurationsAreChecked(t *testing.T) {
	negative := -1
	threshold := math.Inf(1)
	for want, c := range map[string]ScheduleConfig{
		`name = "sine": expected one of ["constant" "cosine" "exponential" "inverse_sqrt" "linear" "multi_step" "one_cycle" "plateau" "polynomial" "step" "two_stage" "wsd"]`: {Name: "sine"},
		`gamma = 0.5: expected none: not used by schedule "cosine"`:                       {Name: "cosine", TotalSteps: 3, Gamma: 0.5},
		`patience = -1: expected none: not used by schedule "constant"`:                   {Name: "constant", Patience: &negative},
		`warmup_steps = 3: expected none: not used by schedule "one_cycle"`:               {Name: "one_cycle", WarmupSteps: 3},
		"total_steps = 0: expected a whole number > warmup_steps = 0":                     {Name: "linear"},
		"total_steps = 5: expected a whole number > warmup_steps = 5":                     {Name: "polynomial", TotalSteps: 5, WarmupSteps: 5},
		"total_steps = -1: expected a whole number >= 0":                                  {Name: "constant", TotalSteps: -1},
		"warmup_steps = -1: expected a whole number >= 0":                                 {Name: "constant", WarmupSteps: -1},
		"warmup_start = 1.5: expected a number in [0, 1]":                                 {Name: "constant", WarmupSteps: 1, WarmupStart: 1.5},
		"warmup_start = 0.5: expected warmup_steps with it":                               {Name: "constant", WarmupStart: 0.5},
		"min_ratio = 2: expected a number in [0, 1]":                                      {Name: "linear", TotalSteps: 5, MinRatio: 2},
		"cycles = -1: expected a finite number > 0":                                       {Name: "cosine", TotalSteps: 5, Cycles: -1},
		"power = NaN: expected a finite number > 0":                                       {Name: "polynomial", TotalSteps: 5, Power: math.NaN()},
		"timescale = -2: expected a whole number >= 1":                                    {Name: "inverse_sqrt", Timescale: -2},
		"step_size = 0: expected a whole number >= 1":                                     {Name: "step"},
		"gamma = 0: expected a finite number > 0":                                         {Name: "exponential"},
		"gamma = 1.1: expected a number in [0, 1]":                                        {Name: "exponential", Gamma: 1.1},
		"milestones = []: expected at least one update number":                            {Name: "multi_step"},
		"milestones[1] = 3: expected update numbers >= 1 in ascending order":              {Name: "multi_step", Milestones: []int{3, 3}},
		"decay_steps = 9: expected at most the 8 steps after warm-up":                     {Name: "wsd", TotalSteps: 10, WarmupSteps: 2, DecaySteps: 9},
		"decay_steps = -9: expected a whole number >= 1":                                  {Name: "wsd", TotalSteps: 10, DecaySteps: -9},
		`decay = "sqrt": expected one of ["cosine" "linear" "1-sqrt"]`:                    {Name: "wsd", TotalSteps: 10, Decay: "sqrt"},
		`decay = "1-sqrt": expected one of ["linear" "cosine"]`:                           {Name: "two_stage", TotalSteps: 10, Decay: "1-sqrt"},
		"stage_at = 0.1: expected the second stage (update 1) after 5 updates of warm-up": {Name: "two_stage", TotalSteps: 10, WarmupSteps: 5, StageAt: 0.1},
		"stage_ratio = 2: expected a number in [0, 1]":                                    {Name: "two_stage", TotalSteps: 10, StageRatio: 2},
		"total_steps = 1: expected a whole number >= 2":                                   {Name: "one_cycle", TotalSteps: 1},
		"peak_at = 0.3: expected a share that leaves updates for each of 2 phases of 3":   {Name: "one_cycle", TotalSteps: 3},
		"peak_at = 0.8: expected a share that leaves updates for each of 3 phases of 50":  {Name: "one_cycle", TotalSteps: 50, ThreePhase: true, PeakAt: 0.8},
		"div_factor = 0.5: expected a finite number >= 1":                                 {Name: "one_cycle", TotalSteps: 50, DivFactor: 0.5},
		"cycle_momentum = false: expected true with base_momentum or max_momentum":        {Name: "one_cycle", TotalSteps: 50, BaseMomentum: 0.8},
		"base_momentum = 0.97: expected a number in [0, 0.95]":                            {Name: "one_cycle", TotalSteps: 50, CycleMomentum: true, BaseMomentum: 0.97},
		"patience = -1: expected a whole number >= 0":                                     {Name: "plateau", Patience: &negative},
		"threshold = +Inf: expected a finite number >= 0":                                 {Name: "plateau", Threshold: &threshold},
		"factor = 1: expected a number < 1":                                               {Name: "plateau", Factor: 1},
		`mode = "best": expected one of ["min" "max"]`:                                    {Name: "plateau", Mode: "best"},
	} {
		err := c.Validate()
		assert.EqualError(t, err, "optim: "+want)
		assert.ErrorIs(t, err, ErrArgument)
	}
	var c ScheduleConfig
	require.NoError(t, json.Unmarshal([]byte(`{"name": "wsd", "total_steps": 100, "warmup_steps": 5, "decay": "linear"}`), &c))
	require.NoError(t, c.Validate())
	assert.Equal(t, ScheduleConfig{Name: "wsd", TotalSteps: 100, WarmupSteps: 5, Decay: "linear"}, c)
	assert.ErrorIs(t, json.Unmarshal([]byte(`{"name": "wsd", "warmup": 5}`), &c), ErrArgument)
}
