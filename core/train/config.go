package train

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
)

// Config says how a model is trained. In JSON it has the names that Python uses.
type Config struct {
	Steps        int     `json:"max_steps"`    // updates of the weights; 0: as many as Epochs need
	Epochs       float64 `json:"epochs"`       // times that the dataset is seen, instead of Steps
	BatchSize    int     `json:"batch_size"`   // examples a forward pass
	Accumulation int     `json:"accumulation"` // forward passes an update; 0 means 1
	Order        Order   `json:"order"`        // of the examples; "": the dataset's own
	DropLast     bool    `json:"drop_last"`    // see Sampling
	Seed         uint64  `json:"seed"`         // of the order of the data and of dropout

	Optimizer optim.Config         `json:"optimizer"`        // its name and hyperparameters
	NoDecay   []string             `json:"no_decay"`         // parts of names of matrices without weight decay, as "embed_tokens"; vectors never have it
	Groups    []ParamGroup         `json:"groups,omitempty"` // of the optimizer; parameters in none are not trained. Empty: all, by NoDecay
	Schedule  optim.ScheduleConfig `json:"scheduler"`        // total_steps is by default that of the run

	GradientClip          float64             `json:"gradient_clip"`          // largest norm of the gradient; 0: not clipped
	GradientClipValue     float64             `json:"gradient_clip_value"`    // largest element of the gradient; 0: not clipped
	GradientNormalization string              `json:"gradient_normalization"` // "all": the gradient has norm 1; "each": that of every parameter; "": as it is
	LossScale             *optim.ScalerConfig `json:"loss_scale"`             // nil: not scaled, and a gradient that is not finite ends the run

	EvalEvery     int              `json:"eval_every"`          // updates between evaluations; 0: at the end only
	Monitor       string           `json:"monitor"`             // what an evaluation is judged by: "eval_loss" (default) or the name of one of its metrics
	MonitorMode   string           `json:"monitor_mode"`        // "min" (default) or "max"
	EarlyStopping *EarlyStopping   `json:"early_stopping"`      // nil: the run ends with its last update
	LogEvery      int              `json:"log_every"`           // updates between records; 0 means 1. Evaluations and the last update always have one
	WeightChanges bool             `json:"weight_changes"`      // count what happened to ternary weights between records
	PeakFLOPS     float64          `json:"peak_flops"`          // what Record.MFU is a share of; 0: measured
	Checkpoint    CheckpointConfig `json:"checkpoint,omitzero"` // where and when they are written

	EngineOptions
}

// ParamGroup is parameters that share hyperparameters.
type ParamGroup struct {
	Name   string      `json:"name"`   // of the group, for the state
	Hyper  optim.Hyper `json:"hyper"`  // that they share
	Params []string    `json:"params"` // their names
}

// What evaluations are judged by.
const (
	monitorLoss = "eval_loss"
	modeMin     = "min"
	modeMax     = "max"
)

// Ways to normalize gradients.
const (
	normalizeAll  = "all"
	normalizeEach = "each"
)

// Validate checks everything that needs neither the model nor the data; NewTrainer checks the rest.
func (c Config) Validate() error {
	c, err := c.normalize()
	if err != nil {
		return err
	}
	schedule := c.Schedule
	schedule.TotalSteps = cmp.Or(schedule.TotalSteps, c.Steps, math.MaxInt32) // only the data can tell how many updates some epochs are
	wrong := schedule.Validate()
	if c.Schedule.TotalSteps == 0 {
		wrong = c.ofLength(wrong)
	}
	err = errors.Join(c.Optimizer.Validate(), wrong, c.EngineOptions.Validate())
	if c.LossScale != nil {
		_, scale := optim.NewGradScaler(*c.LossScale)
		err = errors.Join(err, scale)
	}
	return err
}

// ofLength names in an error of the schedule, whose total_steps are those of the run, what said how long the run is.
func (c Config) ofLength(err error) error {
	wrong := (*optim.ArgumentError)(nil)
	if !errors.As(err, &wrong) || wrong.Field != "total_steps" {
		return err
	}
	if c.Epochs > 0 {
		return fmt.Errorf("%w: epochs = %v (updates: %d): %s", ErrConfig, c.Epochs, c.Steps, wrong.Reason)
	}
	return fmt.Errorf("%w: max_steps = %d: %s", ErrConfig, c.Steps, wrong.Reason)
}

// normalize checks the configuration and fills in defaults, all but the number of steps of a run of epochs.
func (c Config) normalize() (Config, error) {
	c.Accumulation, c.LogEvery = max(c.Accumulation, 1), cmp.Or(c.LogEvery, 1)
	if c.Monitor == "" {
		c.Monitor = monitorLoss
	}
	if c.MonitorMode == "" {
		c.MonitorMode = modeMin
	}
	patience := 1
	minDelta := 0.0
	if s := c.EarlyStopping; s != nil {
		patience, minDelta = s.Patience, s.MinDelta
	}
	if c.EarlyStopping != nil && c.EvalEvery == 0 {
		return c, fmt.Errorf("%w: eval_every = 0: expected at least 1 with early_stopping, which judges by evaluations", ErrConfig)
	}
	if c.Steps == 0 && c.Epochs == 0 {
		return c, fmt.Errorf("%w: max_steps = 0 and epochs = 0: expected one of them", ErrConfig)
	}
	if c.Steps != 0 && c.Epochs != 0 {
		return c, fmt.Errorf("%w: max_steps = %d and epochs = %v: expected one of them", ErrConfig, c.Steps, c.Epochs)
	}
	return c, errors.Join(
		atLeast("max_steps", c.Steps, 0), atLeast("batch_size", c.BatchSize, 1), atLeast("eval_every", c.EvalEvery, 0),
		atLeast("log_every", c.LogEvery, 1),
		atLeast("checkpoint_every", c.Checkpoint.Every, 0), atLeast("checkpoint_keep", c.Checkpoint.Keep, 0), atLeast("early_stopping.patience", patience, 1),
		fromZero("epochs", c.Epochs), fromZero("gradient_clip", c.GradientClip), fromZero("gradient_clip_value", c.GradientClipValue),
		fromZero("early_stopping.min_delta", minDelta), fromZero("peak_flops", c.PeakFLOPS),
		oneOf("order", c.Order, append(Orders(), "")...),
		oneOf("gradient_normalization", c.GradientNormalization, "", normalizeAll, normalizeEach), oneOf("monitor_mode", c.MonitorMode, modeMin, modeMax),
	)
}

func atLeast(field string, value, low int) error {
	if value < low {
		return fmt.Errorf("%w: %s = %d: expected at least %d", ErrConfig, field, value, low)
	}
	return nil
}

func fromZero(field string, value float64) error {
	if !(value >= 0) || math.IsInf(value, 0) {
		return fmt.Errorf("%w: %s = %v: expected a finite number >= 0", ErrConfig, field, value)
	}
	return nil
}

func oneOf[T ~string](field string, value T, names ...T) error {
	if !slices.Contains(names, value) {
		return fmt.Errorf("%w: %s = %q: expected one of %q", ErrConfig, field, value, slices.DeleteFunc(names, func(name T) bool { return name == "" }))
	}
	return nil
}

// groups sorts the parameters as the configuration says, and lists those that are not trained.
func (c *Config) groups(params []*autograd.Param) (groups []optim.Group, frozen []*autograd.Param, err error) {
	if len(c.Groups) == 0 {
		return optim.DecayGroups(params, c.Optimizer.Hyper, c.NoDecay...), nil, nil
	}
	left := make(map[string]*autograd.Param, len(params))
	for _, p := range params {
		left[p.Name] = p
	}
	for i, g := range c.Groups {
		hyper := g.Hyper
		group := optim.Group{Name: g.Name, Hyper: &hyper}
		for _, name := range g.Params {
			p := left[name]
			if p == nil {
				return nil, nil, fmt.Errorf("%w: groups[%d]: %q: expected a parameter of the model that no other group has", ErrConfig, i, name)
			}
			delete(left, name)
			group.Params = append(group.Params, p)
		}
		groups = append(groups, group)
	}
	for _, p := range params {
		if left[p.Name] != nil {
			frozen = append(frozen, p)
		}
	}
	return groups, frozen, nil
}
