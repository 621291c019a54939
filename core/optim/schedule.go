package optim

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
)

// Rates are what a schedule says about one update.
type Rates struct {
	LR          float64 // multiplies the initial learning rate
	WeightDecay float64 // multiplies the initial weight decay; 1 in most schedules
	Momentum    float64 // the momentum, Adam's first beta; 0: leave it
}

// Schedule says by Rates those of update number step, counted from 0. Schedules without a memory are pure functions.
type Schedule interface{ Rates(step int) Rates }

// ScheduleFunc is a Schedule of the learning rate alone: it returns the factor for a step.
type ScheduleFunc func(step int) float64

// Rates implements [Schedule].
func (f ScheduleFunc) Rates(step int) Rates { return Rates{LR: f(step), WeightDecay: 1} }

// ScheduleConfig describes a schedule by name. Factors and ratios are relative to the optimizer's learning rate, which is
// the highest of the run. Fields that a schedule does not use must stay zero; zero of a used field is the default given here.
//
//	constant      1
//	linear        1 -> min_ratio at total_steps
//	cosine        min_ratio + (1-min_ratio)/2 * (1 + cos(2 pi cycles x)), x = the share of steps after warm-up
//	polynomial    min_ratio + (1-min_ratio) * (1-x)^power
//	inverse_sqrt  1/sqrt(1 + steps after warm-up / timescale)
//	step          gamma^(steps after warm-up / step_size, rounded down)
//	multi_step    gamma^(milestones passed)
//	exponential   gamma^(steps after warm-up)
//	one_cycle     1/div_factor -> 1 -> 1/(div_factor*final_div_factor) (Smith and Topin 2019)
//	wsd           warm-up, stable at 1, in the last decay_steps down to min_ratio (Hu et al. 2024, MiniCPM)
//	two_stage     BitNet's recipe: a decay to min_ratio, times stage_ratio from stage_at on, where weight decay becomes 0
//	plateau       times factor when a metric has not improved for more than patience observations
//
// All but one_cycle begin with a linear warm-up when warmup_steps is set, and all stay at their last value after total_steps.
// Formulas are those of PyTorch's and Hugging Face's schedules of the same names.
type ScheduleConfig struct {
	Name        string  `json:"name"`                   // one of those above
	TotalSteps  int     `json:"total_steps,omitempty"`  // updates of the whole run, warm-up included
	WarmupSteps int     `json:"warmup_steps,omitempty"` // the factor grows linearly over these updates and is 1 at the one after
	WarmupStart float64 `json:"warmup_start,omitempty"` // factor of the first update; 1/(warmup_steps+1) wastes no update
	MinRatio    float64 `json:"min_ratio,omitempty"`    // lowest factor

	Power      float64 `json:"power,omitempty"`      // polynomial: 1
	Cycles     float64 `json:"cycles,omitempty"`     // cosine: 0.5, half a wave
	Timescale  int     `json:"timescale,omitempty"`  // inverse_sqrt: warmup_steps, 10000 without warm-up
	StepSize   int     `json:"step_size,omitempty"`  // step: required
	Milestones []int   `json:"milestones,omitempty"` // multi_step: required, updates counted from 0, ascending
	Gamma      float64 `json:"gamma,omitempty"`      // step, multi_step: 0.1; exponential: required

	DecaySteps int    `json:"decay_steps,omitempty"` // wsd: a tenth of total_steps
	Decay      string `json:"decay,omitempty"`       // wsd: "cosine", "linear", "1-sqrt"; two_stage: "linear", "cosine"; one_cycle: "cosine", "linear"; the first is the default

	StageAt    float64 `json:"stage_at,omitempty"`    // two_stage: 0.5, share of total_steps at which the second stage begins
	StageRatio float64 `json:"stage_ratio,omitempty"` // two_stage: 2/3, drop of the learning rate at the second stage

	PeakAt         float64 `json:"peak_at,omitempty"`          // one_cycle: 0.3, share of total_steps that the rise takes (PyTorch's pct_start)
	DivFactor      float64 `json:"div_factor,omitempty"`       // one_cycle: 25
	FinalDivFactor float64 `json:"final_div_factor,omitempty"` // one_cycle: 10000
	ThreePhase     bool    `json:"three_phase,omitempty"`      // one_cycle: fall to the start as long as the rise took, then to the end
	CycleMomentum  bool    `json:"cycle_momentum,omitempty"`   // one_cycle: momentum goes the other way
	BaseMomentum   float64 `json:"base_momentum,omitempty"`    // one_cycle: 0.85, at the peak of the learning rate
	MaxMomentum    float64 `json:"max_momentum,omitempty"`     // one_cycle: 0.95

	Factor        float64  `json:"factor,omitempty"`         // plateau: 0.1
	Patience      *int     `json:"patience,omitempty"`       // plateau: 10
	Threshold     *float64 `json:"threshold,omitempty"`      // plateau: 1e-4, improvements below it do not count
	ThresholdMode string   `json:"threshold_mode,omitempty"` // plateau: "rel" (of the best so far), "abs"
	Mode          string   `json:"mode,omitempty"`           // plateau: "min" (the metric is a loss), "max"
	Cooldown      int      `json:"cooldown,omitempty"`       // plateau: 0, observations after a drop that do not count as bad
}

// scheduleKind is a schedule's constructor and the fields it reads, beside those of the warm-up.
type scheduleKind struct {
	fields []string
	warmup bool
	build  func(c *ScheduleConfig) (Schedule, error) // c is checked for warm-up and unused fields
}

var scheduleKinds = map[string]scheduleKind{
	"constant":     {[]string{"total_steps"}, true, newConstant},
	"linear":       {[]string{"total_steps", "min_ratio"}, true, newLinear},
	"cosine":       {[]string{"total_steps", "min_ratio", "cycles"}, true, newCosine},
	"polynomial":   {[]string{"total_steps", "min_ratio", "power"}, true, newPolynomial},
	"inverse_sqrt": {[]string{"total_steps", "timescale"}, true, newInverseSqrt},
	"step":         {[]string{"total_steps", "step_size", "gamma"}, true, newStep},
	"multi_step":   {[]string{"total_steps", "milestones", "gamma"}, true, newMultiStep},
	"exponential":  {[]string{"total_steps", "gamma"}, true, newExponential},
	"one_cycle": {[]string{"total_steps", "peak_at", "div_factor", "final_div_factor", "three_phase", "decay", "cycle_momentum", "base_momentum", "max_momentum"},
		false, newOneCycle},
	"wsd":       {[]string{"total_steps", "min_ratio", "decay_steps", "decay"}, true, newWSD},
	"two_stage": {[]string{"total_steps", "min_ratio", "decay", "stage_at", "stage_ratio"}, true, newTwoStage},
	"plateau":   {[]string{"total_steps", "min_ratio", "factor", "patience", "threshold", "threshold_mode", "mode", "cooldown"}, true, newPlateau},
}

// ScheduleNames lists the schedules that [NewSchedule] knows.
func ScheduleNames() []string { return sortedKeys(scheduleKinds) }

// NewSchedule builds a schedule by name. Errors are *ArgumentError.
func NewSchedule(c ScheduleConfig) (Schedule, error) {
	kind, ok := scheduleKinds[c.Name]
	if !ok {
		return nil, &ArgumentError{"name", fmt.Sprintf("%q", c.Name), fmt.Sprintf("expected one of %q", ScheduleNames())}
	}
	if err := c.checkUnused(kind); err != nil {
		return nil, err
	}
	checks := []error{
		atLeast("total_steps", c.TotalSteps, 0), atLeast("warmup_steps", c.WarmupSteps, 0),
		within("warmup_start", c.WarmupStart, 0, 1), within("min_ratio", c.MinRatio, 0, 1),
	}
	if err := first(checks...); err != nil {
		return nil, err
	}
	if c.WarmupStart != 0 && c.WarmupSteps == 0 {
		return nil, &ArgumentError{"warmup_start", c.WarmupStart, "expected warmup_steps with it"}
	}
	s, err := kind.build(&c)
	if err != nil || c.WarmupSteps == 0 {
		return s, err
	}
	if p, ok := s.(*Plateau); ok { // stays visible, as it listens
		p.warm = warmup{c.WarmupSteps, c.WarmupStart, nil}
		return p, nil
	}
	return &warmup{c.WarmupSteps, c.WarmupStart, s}, nil
}

// Validate says whether NewSchedule would build the schedule.
func (c ScheduleConfig) Validate() error {
	_, err := NewSchedule(c)
	return err
}

// UnmarshalJSON refuses fields that it does not know.
func (c *ScheduleConfig) UnmarshalJSON(data []byte) error {
	type plain ScheduleConfig
	var out plain
	if err := strictJSON(data, &out); err != nil {
		return fmt.Errorf("schedule: %w: %v", ErrArgument, err)
	}
	*c = ScheduleConfig(out)
	return nil
}

var _ json.Unmarshaler = (*ScheduleConfig)(nil)

// checkUnused refuses fields that are set and would not be read: a misspelt schedule should not pass silently.
func (c *ScheduleConfig) checkUnused(kind scheduleKind) error {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		used := name == "name" || slices.Contains(kind.fields, name) || kind.warmup && strings.HasPrefix(name, "warmup_")
		if !used && !v.Field(i).IsZero() {
			return &ArgumentError{name, reflect.Indirect(v.Field(i)).Interface(), fmt.Sprintf("expected none: not used by schedule %q", c.Name)}
		}
	}
	return nil
}

// warmup grows linearly from start to 1 over steps updates and then hands over to a schedule that counts from the run's beginning.
type warmup struct {
	steps int
	start float64
	then  Schedule
}

func (w *warmup) Rates(step int) Rates {
	if step >= w.steps {
		return w.then.Rates(step)
	}
	return Rates{LR: w.factor(step), WeightDecay: 1}
}

func (w *warmup) factor(step int) float64 {
	if step = max(step, 0); step >= w.steps {
		return 1
	}
	return w.start + (1-w.start)*float64(step)/float64(w.steps)
}

func atLeast(field string, v, low int) error {
	if v < low {
		return &ArgumentError{field, v, fmt.Sprintf("expected a whole number >= %d", low)}
	}
	return nil
}

func within(field string, v, low, high float64) error {
	if !(v >= low && v <= high) {
		return &ArgumentError{field, v, fmt.Sprintf("expected a number in [%v, %v]", low, high)}
	}
	return nil
}

// positive wants a finite number above 0.
func positive(field string, v float64) error {
	if !(v > 0) || math.IsInf(v, 0) {
		return &ArgumentError{field, v, "expected a finite number > 0"}
	}
	return nil
}

// oneOf wants one of the names; the first stands for "".
func oneOf(field string, v *string, names ...string) error {
	if *v == "" {
		*v = names[0]
	}
	if !slices.Contains(names, *v) {
		return &ArgumentError{field, fmt.Sprintf("%q", *v), fmt.Sprintf("expected one of %q", names)}
	}
	return nil
}

// afterWarmup wants total_steps with room for more than the warm-up.
func (c *ScheduleConfig) afterWarmup() error {
	if c.TotalSteps <= c.WarmupSteps {
		return &ArgumentError{"total_steps", c.TotalSteps, fmt.Sprintf("expected a whole number > warmup_steps = %d", c.WarmupSteps)}
	}
	return nil
}

// first returns the first error.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
