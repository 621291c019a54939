package optim

import "fmt"

// Scheduler applies a schedule to an optimizer: it holds the number of the next update and sets the optimizer's rates for it.
type Scheduler struct {
	name     string
	schedule Schedule
	opt      *Optimizer
	step     int
}

// SchedulerState is a scheduler's state: the schedule itself is made anew from its configuration, which may be longer than it was.
type SchedulerState struct {
	Name    string        `json:"name"`              // of the schedule
	Step    int           `json:"step"`              // updates made
	Plateau *PlateauState `json:"plateau,omitempty"` // of "plateau" only
}

// NewScheduler builds c's schedule and sets the optimizer's rates for the first update. Errors are *ArgumentError.
func NewScheduler(o *Optimizer, c ScheduleConfig) (*Scheduler, error) {
	s, err := NewSchedule(c)
	if err != nil {
		return nil, err
	}
	return NewCustomScheduler(o, c.Name, s), nil
}

// NewCustomScheduler applies a schedule of the caller's own; the name goes into the state.
func NewCustomScheduler(o *Optimizer, name string, s Schedule) *Scheduler {
	out := &Scheduler{name: name, schedule: s, opt: o}
	out.apply()
	return out
}

// Step counts an update and sets the rates of the next. Call it after the optimizer's Step, also when a GradScaler skipped it.
func (s *Scheduler) Step() {
	s.step++
	s.apply()
}

// Observe gives a metric to a schedule that listens ("plateau"), and sets the rates anew; other schedules ignore it.
func (s *Scheduler) Observe(metric float64) {
	if p, ok := s.schedule.(*Plateau); ok {
		p.Observe(metric)
		s.apply()
	}
}

// Rates are those of the next update.
func (s *Scheduler) Rates() Rates { return s.schedule.Rates(s.step) }

func (s *Scheduler) apply() { s.opt.SetRates(s.Rates()) }

// StateDict returns the state.
func (s *Scheduler) StateDict() SchedulerState {
	state := SchedulerState{Name: s.name, Step: s.step}
	if p, ok := s.schedule.(*Plateau); ok {
		saved := p.state
		state.Plateau = &saved
	}
	return state
}

// LoadStateDict continues from a saved state and sets the optimizer's rates; call it after the optimizer's. What does not fit is a
// *StateError, and then nothing has changed.
func (s *Scheduler) LoadStateDict(state SchedulerState) error {
	p, listens := s.schedule.(*Plateau)
	switch {
	case state.Name != s.name:
		return &StateError{"name", fmt.Sprintf("%q", state.Name), fmt.Sprintf("%q", s.name)}
	case state.Step < 0:
		return &StateError{"step", state.Step, "a whole number >= 0"}
	case listens && state.Plateau == nil:
		return &StateError{"plateau", "none", "the state of a plateau schedule"}
	case listens:
		if err := p.check(*state.Plateau); err != nil {
			return err
		}
		p.state = *state.Plateau
	}
	s.step = state.Step
	s.apply()
	return nil
}
