package optim

import (
	"fmt"
	"math"
	"slices"
)

// The pure schedules. Each constructor fills defaults into its private copy of the configuration, checks it, and returns the
// formula; step counts from the beginning of the run, warm-up included.

// progress is the share of the steps after warm-up that are over, in [0, 1].
func (c *ScheduleConfig) progress(step int) float64 {
	return share(step-c.WarmupSteps, c.TotalSteps-c.WarmupSteps)
}

func share(done, of int) float64 {
	return min(1, max(0, float64(done)/float64(of)))
}

// above lifts a curve from 1 to 0 to one from 1 to min_ratio.
func (c *ScheduleConfig) above(curve float64) float64 {
	return float64(curve*(1-c.MinRatio)) + c.MinRatio
}

// halfCosine falls from 1 to 0 as x goes from 0 to 1.
func halfCosine(x float64) float64 { return 0.5 * (1 + math.Cos(math.Pi*x)) }

func newConstant(*ScheduleConfig) (Schedule, error) {
	return ScheduleFunc(func(int) float64 { return 1 }), nil
}

func newLinear(c *ScheduleConfig) (Schedule, error) {
	return ScheduleFunc(func(step int) float64 { return c.above(1 - c.progress(step)) }), c.afterWarmup()
}

func newCosine(c *ScheduleConfig) (Schedule, error) {
	c.Cycles = orDefault(c.Cycles, 0.5)
	f := func(step int) float64 { return c.above(max(0, halfCosine(2*c.Cycles*c.progress(step)))) }
	return ScheduleFunc(f), first(c.afterWarmup(), positive("cycles", c.Cycles))
}

func newPolynomial(c *ScheduleConfig) (Schedule, error) {
	c.Power = orDefault(c.Power, 1)
	f := func(step int) float64 { return c.above(math.Pow(1-c.progress(step), c.Power)) }
	return ScheduleFunc(f), first(c.afterWarmup(), positive("power", c.Power))
}

func newInverseSqrt(c *ScheduleConfig) (Schedule, error) {
	c.Timescale = orDefault(c.Timescale, orDefault(c.WarmupSteps, 10000))
	f := func(step int) float64 {
		return 1 / math.Sqrt(1+float64(max(0, step-c.WarmupSteps))/float64(c.Timescale))
	}
	return ScheduleFunc(f), atLeast("timescale", c.Timescale, 1)
}

func newStep(c *ScheduleConfig) (Schedule, error) {
	c.Gamma = orDefault(c.Gamma, 0.1)
	f := func(step int) float64 {
		return math.Pow(c.Gamma, float64(max(0, step-c.WarmupSteps)/c.StepSize))
	}
	return ScheduleFunc(f), first(atLeast("step_size", c.StepSize, 1), c.checkGamma())
}

func newMultiStep(c *ScheduleConfig) (Schedule, error) {
	c.Gamma = orDefault(c.Gamma, 0.1)
	c.Milestones = slices.Clone(c.Milestones)
	f := func(step int) float64 {
		passed, _ := slices.BinarySearch(c.Milestones, step+1)
		return math.Pow(c.Gamma, float64(passed))
	}
	if len(c.Milestones) == 0 {
		return nil, &ArgumentError{"milestones", c.Milestones, "expected at least one update number"}
	}
	for i, m := range c.Milestones {
		if m < 1 || i > 0 && m <= c.Milestones[i-1] {
			return nil, &ArgumentError{fmt.Sprintf("milestones[%d]", i), m, "expected update numbers >= 1 in ascending order"}
		}
	}
	return ScheduleFunc(f), c.checkGamma()
}

func newExponential(c *ScheduleConfig) (Schedule, error) {
	f := func(step int) float64 { return math.Pow(c.Gamma, float64(max(0, step-c.WarmupSteps))) }
	return ScheduleFunc(f), c.checkGamma()
}

func (c *ScheduleConfig) checkGamma() error {
	return first(positive("gamma", c.Gamma), within("gamma", c.Gamma, 0, 1))
}

func newWSD(c *ScheduleConfig) (Schedule, error) {
	c.DecaySteps = orDefault(c.DecaySteps, max(1, c.TotalSteps/10))
	if err := first(c.afterWarmup(), atLeast("decay_steps", c.DecaySteps, 1), oneOf("decay", &c.Decay, "cosine", "linear", "1-sqrt")); err != nil {
		return nil, err
	}
	begin := c.TotalSteps - c.DecaySteps
	if begin < c.WarmupSteps {
		return nil, &ArgumentError{"decay_steps", c.DecaySteps, fmt.Sprintf("expected at most the %d steps after warm-up", c.TotalSteps-c.WarmupSteps)}
	}
	fall := map[string]func(x float64) float64{
		"cosine": halfCosine,
		"linear": func(x float64) float64 { return 1 - x },
		"1-sqrt": func(x float64) float64 { return 1 - math.Sqrt(x) },
	}[c.Decay]
	return ScheduleFunc(func(step int) float64 { return c.above(fall(share(step-begin, c.DecaySteps))) }), nil
}

// twoStage is the recipe of "The Era of 1-bit LLMs: Training Tips, Code and FAQ" (Ma et al. 2024): ternary weights bear a high
// learning rate, and half-way a drop of it lowers the loss at once. Weight decay holds the master weights close to where their ternary
// values flip; it ends with the first stage, so that they settle. The published runs fall linearly, with peaks such as 1.5e-3 and
// then 1e-3, and weight decay 0.1 and then 0.
type twoStage struct {
	curve func(step int) float64
	at    int // first update of the second stage
	ratio float64
}

func (s *twoStage) Rates(step int) Rates {
	if step < s.at {
		return Rates{LR: s.curve(step), WeightDecay: 1}
	}
	return Rates{LR: s.curve(step) * s.ratio, WeightDecay: 0}
}

func newTwoStage(c *ScheduleConfig) (Schedule, error) {
	c.StageAt, c.StageRatio = orDefault(c.StageAt, 0.5), orDefault(c.StageRatio, 2.0/3)
	err := first(c.afterWarmup(), oneOf("decay", &c.Decay, "linear", "cosine"), within("stage_at", c.StageAt, 0, 1),
		positive("stage_ratio", c.StageRatio), within("stage_ratio", c.StageRatio, 0, 1))
	if err != nil {
		return nil, err
	}
	at := int(math.Round(c.StageAt * float64(c.TotalSteps)))
	if at < c.WarmupSteps {
		return nil, &ArgumentError{"stage_at", c.StageAt, fmt.Sprintf("expected the second stage (update %d) after %d updates of warm-up", at, c.WarmupSteps)}
	}
	curve := func(step int) float64 { return c.above(1 - c.progress(step)) }
	if c.Decay == "cosine" {
		curve = func(step int) float64 { return c.above(halfCosine(c.progress(step))) }
	}
	return &twoStage{curve, at, c.StageRatio}, nil
}

// oneCycle is torch.optim.lr_scheduler.OneCycleLR: phases between corners, interpolated.
type oneCycle struct {
	last     int
	corners  []corner
	cosine   bool
	momentum bool
}

// corner is where a phase ends and the next begins.
type corner struct{ at, lr, momentum float64 }

func (s *oneCycle) Rates(step int) Rates {
	at := float64(min(max(step, 0), s.last))
	i := 1
	for i < len(s.corners)-1 && at > s.corners[i].at {
		i++
	}
	from, to := s.corners[i-1], s.corners[i]
	x := (at - from.at) / (to.at - from.at)
	r := Rates{LR: s.between(from.lr, to.lr, x), WeightDecay: 1}
	if s.momentum {
		r.Momentum = s.between(from.momentum, to.momentum, x)
	}
	return r
}

func (s *oneCycle) between(from, to, x float64) float64 {
	if s.cosine {
		return to + float64((from-to)*halfCosine(x))
	}
	return float64((to-from)*x) + from
}

func newOneCycle(c *ScheduleConfig) (Schedule, error) {
	c.PeakAt, c.DivFactor, c.FinalDivFactor = orDefault(c.PeakAt, 0.3), orDefault(c.DivFactor, 25), orDefault(c.FinalDivFactor, 1e4)
	if !c.CycleMomentum && (c.BaseMomentum != 0 || c.MaxMomentum != 0) {
		return nil, &ArgumentError{"cycle_momentum", false, "expected true with base_momentum or max_momentum"}
	}
	c.BaseMomentum, c.MaxMomentum = orDefault(c.BaseMomentum, 0.85), orDefault(c.MaxMomentum, 0.95)
	err := first(atLeast("total_steps", c.TotalSteps, 2), oneOf("decay", &c.Decay, "cosine", "linear"),
		c.atLeastOne("div_factor", c.DivFactor), c.atLeastOne("final_div_factor", c.FinalDivFactor),
		within("max_momentum", c.MaxMomentum, 0, 0.9999), within("base_momentum", c.BaseMomentum, 0, c.MaxMomentum))
	if err != nil {
		return nil, err
	}
	total, start := float64(c.TotalSteps), 1/c.DivFactor
	end := corner{total - 1, start / c.FinalDivFactor, c.MaxMomentum}
	corners := []corner{{0, start, c.MaxMomentum}, {float64(c.PeakAt*total) - 1, 1, c.BaseMomentum}, end}
	if c.ThreePhase {
		corners = slices.Insert(corners, 2, corner{float64(2*c.PeakAt*total) - 2, start, c.MaxMomentum})
	}
	for i := 1; i < len(corners); i++ {
		if !(corners[i].at > corners[i-1].at) {
			return nil, &ArgumentError{"peak_at", c.PeakAt, fmt.Sprintf("expected a share that leaves updates for each of %d phases of %d", len(corners)-1, c.TotalSteps)}
		}
	}
	return &oneCycle{c.TotalSteps - 1, corners, c.Decay == "cosine", c.CycleMomentum}, nil
}

func (c *ScheduleConfig) atLeastOne(field string, v float64) error {
	if !finiteFrom(v, 1) {
		return &ArgumentError{field, v, "expected a finite number >= 1"}
	}
	return nil
}
