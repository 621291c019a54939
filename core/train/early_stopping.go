package train

import (
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// EarlyStopping ends a run whose evaluations have stopped getting better.
type EarlyStopping struct {
	Patience    int     `json:"patience"`     // evaluations without improvement that end the run
	MinDelta    float64 `json:"min_delta"`    // a change of less is no improvement
	RestoreBest bool    `json:"restore_best"` // leave the model with the weights of the best evaluation, also when the run ends otherwise
}

// Best is the update with the best evaluation.
type Best struct {
	Step  int     `json:"step"`  // its number, from 1
	Value float64 `json:"value"` // of what Config.Monitor names
}

// progress is what a run remembers of its evaluations.
type progress struct {
	Best      *Best    `json:"best"`      // nil: not evaluated yet
	Reference *float64 `json:"reference"` // the last value that was an improvement by min_delta
	Waited    int      `json:"waited"`    // evaluations since then
}

// Best returns the update with the best evaluation so far, nil before the first.
func (t *Trainer) Best() *Best { return t.progress.Best }

// observe takes a record with an evaluation: the schedule, the best, and the patience hear of it. A value that is no number is not
// the best and no improvement.
func (t *Trainer) observe(r *Record) error {
	value, ok := r.metric(t.config.Monitor)
	if !ok {
		return fmt.Errorf("%w: monitor = %q: the evaluation of step %d has no metric of this name", ErrConfig, t.config.Monitor, r.Step)
	}
	t.schedule.Observe(value)
	p := &t.progress
	if isFinite(value) && (p.Best == nil || t.better(value, p.Best.Value, 0)) {
		if t.restoresBest() {
			if err := t.keepBest(); err != nil {
				return err
			}
		}
		p.Best = &Best{r.Step, value}
	}
	minDelta := 0.0
	if s := t.config.EarlyStopping; s != nil {
		minDelta = s.MinDelta
	}
	if isFinite(value) && (p.Reference == nil || t.better(value, *p.Reference, minDelta)) {
		p.Reference, p.Waited = &value, 0
	} else {
		p.Waited++
	}
	return nil
}

// better says whether value improves on another by more than delta.
func (t *Trainer) better(value, other, delta float64) bool {
	if t.config.MonitorMode == modeMax {
		return value > other+delta
	}
	return value < other-delta
}

// StoppedEarly says whether patience is at its end.
func (t *Trainer) StoppedEarly() bool {
	s := t.config.EarlyStopping
	return s != nil && t.progress.Waited >= s.Patience
}

// restoresBest says whether the run ends with its best weights.
func (t *Trainer) restoresBest() bool {
	return t.config.EarlyStopping != nil && t.config.EarlyStopping.RestoreBest
}

// keepBest copies the master weights, which are the best so far.
func (t *Trainer) keepBest() (err error) {
	if t.best == nil {
		if t.best, err = newWeightCopy(t.engine.params); err != nil {
			return err
		}
	}
	for i, p := range t.engine.params {
		copy(t.best.values[i], p.Data)
	}
	return nil
}

// swapBest exchanges the model's weights with the best: for those of the best evaluation at the end of a run, and for those of the last
// update before it goes on.
func (t *Trainer) swapBest() error {
	for k, p := range t.engine.params {
		other := t.best.values[k]
		for i, w := range p.Data {
			p.Data[i], other[i] = other[i], w
		}
	}
	t.restored = !t.restored
	return t.engine.model.Refresh()
}

// weightCopy is room for the values of all parameters, in their order.
type weightCopy struct {
	blocks []*pool.Block
	values [][]float32
}

func newWeightCopy(params []*autograd.Param) (*weightCopy, error) {
	c := &weightCopy{}
	for _, p := range params {
		b, err := pool.Default().AllocUninit(4*len(p.Data), "best weights")
		if err != nil {
			c.free()
			return nil, fmt.Errorf("train: weights of the best evaluation: %w", err)
		}
		c.blocks, c.values = append(c.blocks, b), append(c.values, pool.View[float32](b.Bytes()))
	}
	return c, nil
}

func (c *weightCopy) free() {
	if c == nil {
		return
	}
	for _, b := range c.blocks {
		b.Release()
	}
}
