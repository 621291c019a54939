package optim

import (
	"fmt"
	"math"
)

// smallestScale is the smallest loss scale: below it a float32 has no reciprocal to speak of.
const smallestScale = 1.0 / (1 << 126)

// ScalerConfig describes loss scaling (Micikevicius et al. 2018). A zero field takes PyTorch's default.
type ScalerConfig struct {
	Mode           string  `json:"mode,omitempty"`            // "dynamic" (default) or "static": the scale stays as it is
	InitScale      float64 `json:"init_scale,omitempty"`      // 65536
	GrowthFactor   float64 `json:"growth_factor,omitempty"`   // 2: multiplies the scale after growth_interval good steps
	BackoffFactor  float64 `json:"backoff_factor,omitempty"`  // 0.5: multiplies the scale after an overflow
	GrowthInterval int     `json:"growth_interval,omitempty"` // 2000
}

// ScalerState is the state_dict of torch.amp.GradScaler.
type ScalerState struct {
	Scale          float64 `json:"scale"`           // that losses are multiplied by
	GrowthFactor   float64 `json:"growth_factor"`   // of Scale after GrowthInterval good steps
	BackoffFactor  float64 `json:"backoff_factor"`  // of Scale after a step that was skipped
	GrowthInterval int     `json:"growth_interval"` // good steps in a row
	GrowthTracker  int     `json:"_growth_tracker"` // good steps since the scale last changed
}

// GradScaler multiplies the loss, so that small gradients survive half precision, and takes the factor out again before the update.
// A step whose gradients overflowed is skipped. Each step calls Scale, optionally Unscale (to clip), Step, and Update.
type GradScaler struct {
	static   bool
	state    ScalerState
	stage    scalerStage
	overflow bool // in the step under way
	skipped  int
}

type scalerStage uint8

const (
	scaled scalerStage = iota
	unscaled
	stepped
)

// NewGradScaler makes a scaler; errors are *ArgumentError.
func NewGradScaler(c ScalerConfig) (*GradScaler, error) {
	if c.Mode != "" && c.Mode != "dynamic" && c.Mode != "static" {
		return nil, &ArgumentError{"mode", fmt.Sprintf("%q", c.Mode), `expected "dynamic" or "static"`}
	}
	s := ScalerState{orDefault(c.InitScale, 65536), orDefault(c.GrowthFactor, 2), orDefault(c.BackoffFactor, 0.5), orDefault(c.GrowthInterval, 2000), 0}
	if field, value, expected := s.fault(); field != "" {
		if field == "scale" {
			field = "init_scale"
		}
		return nil, &ArgumentError{field, value, "expected " + expected}
	}
	return &GradScaler{static: c.Mode == "static", state: s}, nil
}

// fault finds a field out of bounds, "" if there is none.
func (s *ScalerState) fault() (field string, value any, expected string) {
	switch {
	case !(s.Scale >= smallestScale && s.Scale <= math.MaxFloat32):
		return "scale", s.Scale, "a finite number > 0 that float32 can hold"
	case !(s.GrowthFactor > 1) || math.IsInf(s.GrowthFactor, 0):
		return "growth_factor", s.GrowthFactor, "a finite number > 1"
	case !(s.BackoffFactor > 0 && s.BackoffFactor < 1):
		return "backoff_factor", s.BackoffFactor, "a number in (0, 1)"
	case s.GrowthInterval < 1:
		return "growth_interval", s.GrowthInterval, "a whole number >= 1"
	case s.GrowthTracker < 0 || s.GrowthTracker >= s.GrowthInterval:
		return "_growth_tracker", s.GrowthTracker, fmt.Sprintf("a whole number in [0, %d)", s.GrowthInterval)
	}
	return "", nil, ""
}

// Scale is the number to multiply the loss by.
func (s *GradScaler) Scale() float32 { return float32(s.state.Scale) }

// Overflow says whether a gradient of the step under way was found not finite.
func (s *GradScaler) Overflow() bool { return s.overflow }

// Skipped counts the steps that an overflow has cost since the scaler was made.
func (s *GradScaler) Skipped() int { return s.skipped }

// Unscale divides the gradients by the scale and looks for overflow. It is needed before clipping; Step does it otherwise. With an
// overflow the gradients are left as they are, and Step will skip.
func (s *GradScaler) Unscale(g *Gradients) error {
	if s.stage != scaled {
		return fmt.Errorf("%w: Unscale after Unscale or Step, expected Update between", ErrOrder)
	}
	if err := s.inspect(g); err != nil {
		return err
	}
	s.stage = unscaled
	if s.overflow {
		return nil
	}
	return g.Scale(s.inverse())
}

// Step updates the optimizer's parameters, unless a gradient is not finite; stepped says whether it did.
func (s *GradScaler) Step(o *Optimizer) (stepped bool, err error) { return s.StepScaled(o, 1) }

// StepScaled is Step with the unscaled gradients multiplied by factor, which is that of [Gradients.ClipFactor].
func (s *GradScaler) StepScaled(o *Optimizer, factor float32) (done bool, err error) {
	switch s.stage {
	case stepped:
		return false, fmt.Errorf("%w: Step after Step, expected Update between", ErrOrder)
	case scaled:
		if err := s.inspect(o.Grads()); err != nil {
			return false, err
		}
		factor *= s.inverse()
	}
	if !s.overflow {
		if err := o.StepScaled(factor); err != nil {
			return false, err
		}
	}
	s.stage = stepped
	return !s.overflow, nil
}

// Update ends a step: a dynamic scale shrinks after an overflow and grows after growth_interval steps without one. The error matches
// ErrNonFinite when overflows have brought the scale to nothing.
func (s *GradScaler) Update() error {
	if s.stage == scaled {
		return fmt.Errorf("%w: Update before Step", ErrOrder)
	}
	overflow := s.overflow
	s.stage, s.overflow = scaled, false
	if overflow {
		s.skipped++
	}
	switch {
	case s.static:
	case overflow:
		// The scale is a float32 in PyTorch; products are rounded as there.
		next := float64(float32(s.state.Scale * s.state.BackoffFactor))
		s.state.GrowthTracker = 0
		if next < smallestScale {
			return fmt.Errorf("%w: every loss scale down to %g overflows", ErrNonFinite, s.state.Scale)
		}
		s.state.Scale = next
	default:
		s.state.GrowthTracker++
		if s.state.GrowthTracker == s.state.GrowthInterval {
			s.state.GrowthTracker = 0
			if next := s.state.Scale * s.state.GrowthFactor; next <= math.MaxFloat32 {
				s.state.Scale = float64(float32(next))
			}
		}
	}
	return nil
}

// StateDict returns the state under PyTorch's names.
func (s *GradScaler) StateDict() ScalerState { return s.state }

// LoadStateDict continues from a saved state, also from PyTorch's, at the start of a step. A field out of bounds is a *StateError.
func (s *GradScaler) LoadStateDict(state ScalerState) error {
	if field, value, expected := state.fault(); field != "" {
		return &StateError{field, value, expected}
	}
	s.state, s.stage, s.overflow = state, scaled, false
	return nil
}

// inspect looks for gradients that are not finite.
func (s *GradScaler) inspect(g *Gradients) error {
	norm, err := g.Norm()
	if err != nil {
		return err
	}
	s.overflow = !finiteFrom(norm, 0)
	return nil
}

func (s *GradScaler) inverse() float32 { return float32(1 / float64(s.Scale())) }

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
