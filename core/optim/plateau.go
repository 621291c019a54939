package optim

import "math"

// Plateau multiplies the learning rate by a factor when a metric has stopped improving (torch.optim.lr_scheduler.ReduceLROnPlateau).
// Its Rates are those of the moment; it is the one schedule with a state.
type Plateau struct {
	warm                      warmup // its then is not used
	factor, threshold, lowest float64
	relative, maximize        bool
	patience, cooldown        int

	state PlateauState
}

// PlateauState is what a Plateau remembers, under PyTorch's names where it has them.
type PlateauState struct {
	Best            *float64 `json:"best"`             // nil: nothing observed yet
	NumBadEpochs    int      `json:"num_bad_epochs"`   // observations without improvement, in a row
	CooldownCounter int      `json:"cooldown_counter"` // observations that still do not count as bad
	Scale           float64  `json:"scale"`            // product of the factors so far
}

func newPlateau(c *ScheduleConfig) (Schedule, error) {
	patience, threshold := 10, 1e-4
	if c.Patience != nil {
		patience = *c.Patience
	}
	if c.Threshold != nil {
		threshold = *c.Threshold
	}
	c.Factor = orDefault(c.Factor, 0.1)
	err := first(oneOf("mode", &c.Mode, "min", "max"), oneOf("threshold_mode", &c.ThresholdMode, "rel", "abs"),
		positive("factor", c.Factor), within("factor", c.Factor, 0, 1), atLeast("patience", patience, 0), atLeast("cooldown", c.Cooldown, 0))
	if err != nil {
		return nil, err
	}
	if c.Factor == 1 {
		return nil, &ArgumentError{"factor", c.Factor, "expected a number < 1"}
	}
	if !finiteFrom(threshold, 0) {
		return nil, &ArgumentError{"threshold", threshold, "expected a finite number >= 0"}
	}
	return &Plateau{
		factor: c.Factor, threshold: threshold, lowest: c.MinRatio, relative: c.ThresholdMode == "rel", maximize: c.Mode == "max",
		patience: patience, cooldown: c.Cooldown, state: PlateauState{Scale: 1},
	}, nil
}

// Rates implements [Schedule].
func (p *Plateau) Rates(step int) Rates {
	return Rates{LR: p.warm.factor(step) * p.state.Scale, WeightDecay: 1}
}

// Observe takes a new value of the metric; values that are not finite count as no improvement.
func (p *Plateau) Observe(metric float64) {
	s := &p.state
	if p.better(metric) {
		s.Best, s.NumBadEpochs = &metric, 0
	} else {
		s.NumBadEpochs++
	}
	if s.CooldownCounter > 0 {
		s.CooldownCounter--
		s.NumBadEpochs = 0
	}
	if s.NumBadEpochs > p.patience {
		s.Scale = max(s.Scale*p.factor, p.lowest)
		s.CooldownCounter, s.NumBadEpochs = p.cooldown, 0
	}
}

func (p *Plateau) better(metric float64) bool {
	if math.IsNaN(metric) || math.IsInf(metric, 0) {
		return false
	}
	if p.state.Best == nil {
		return true
	}
	best, sign := *p.state.Best, -1.0
	if p.maximize {
		sign = 1
	}
	target := best + float64(sign*p.threshold)
	if p.relative {
		target = best * (1 + float64(sign*p.threshold))
	}
	if p.maximize {
		return metric > target
	}
	return metric < target
}

// check says which field of a saved state is out of bounds.
func (p *Plateau) check(s PlateauState) error {
	switch {
	case s.Best != nil && (math.IsNaN(*s.Best) || math.IsInf(*s.Best, 0)):
		return &StateError{"plateau.best", *s.Best, "a finite number"}
	case s.NumBadEpochs < 0:
		return &StateError{"plateau.num_bad_epochs", s.NumBadEpochs, "a whole number >= 0"}
	case s.CooldownCounter < 0:
		return &StateError{"plateau.cooldown_counter", s.CooldownCounter, "a whole number >= 0"}
	case !(s.Scale >= 0 && s.Scale <= 1):
		return &StateError{"plateau.scale", s.Scale, "a number in [0, 1]"}
	}
	return nil
}
