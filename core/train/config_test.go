package train

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
)

func validConfig() Config {
	return Config{Steps: 4, BatchSize: 2, Optimizer: optim.DefaultConfig("adamw"), Schedule: optim.ScheduleConfig{Name: "cosine"}}
}

// Each message names the field as Python knows it, what was found, and what was expected.
func TestConfigurationsAreCheckedByField(t *testing.T) {
	require.NoError(t, validConfig().Validate())
	epochs := validConfig()
	epochs.Steps, epochs.Epochs = 0, 1.5
	require.NoError(t, epochs.Validate(), "only the data can tell how many updates these are")
	for says, change := range map[string]func(c *Config){
		"max_steps = 0 and epochs = 0: expected one of them":      func(c *Config) { c.Steps = 0 },
		"max_steps = 4 and epochs = 2: expected one of them":      func(c *Config) { c.Epochs = 2 },
		"max_steps = -1: expected at least 0":                     func(c *Config) { c.Steps = -1 },
		"batch_size = 0: expected at least 1":                     func(c *Config) { c.BatchSize = 0 },
		"eval_every = -1: expected at least 0":                    func(c *Config) { c.EvalEvery = -1 },
		"log_every = -1: expected at least 1":                     func(c *Config) { c.LogEvery = -1 },
		"checkpoint_every = -2: expected at least 0":              func(c *Config) { c.Checkpoint.Every = -2 },
		"checkpoint_keep = -2: expected at least 0":               func(c *Config) { c.Checkpoint.Keep = -2 },
		"early_stopping.patience = 0: expected at least 1":        func(c *Config) { c.EvalEvery, c.EarlyStopping = 1, &EarlyStopping{} },
		"early_stopping.min_delta = -1: expected a finite":        func(c *Config) { c.EvalEvery, c.EarlyStopping = 1, &EarlyStopping{Patience: 1, MinDelta: -1} },
		"eval_every = 0: expected at least 1 with early_stopping": func(c *Config) { c.EarlyStopping = &EarlyStopping{Patience: 1} },
		"gradient_clip = NaN: expected a finite number >= 0":      func(c *Config) { c.GradientClip = math.NaN() },
		"gradient_clip_value = +Inf: expected a finite":           func(c *Config) { c.GradientClipValue = math.Inf(1) },
		"peak_flops = -1: expected a finite":                      func(c *Config) { c.PeakFLOPS = -1 },
		`order = "sideways": expected one of`:                     func(c *Config) { c.Order = "sideways" },
		`gradient_normalization = "some": expected one of`:        func(c *Config) { c.GradientNormalization = "some" },
		`monitor_mode = "least": expected one of`:                 func(c *Config) { c.MonitorMode = "least" },
	} {
		c := validConfig()
		change(&c)
		err := c.Validate()
		require.ErrorIs(t, err, ErrConfig, says)
		require.ErrorContains(t, err, says)
	}
	for field, change := range map[string]func(c *Config){
		"lr":      func(c *Config) { c.Optimizer.LR = -1 },
		"dropout": func(c *Config) { c.Dropout = 1 },
		"mode":    func(c *Config) { c.LossScale = &optim.ScalerConfig{Mode: "sometimes"} },
		"name":    func(c *Config) { c.Schedule.Name = "zigzag" },
	} {
		c := validConfig()
		change(&c)
		require.ErrorContains(t, c.Validate(), field)
	}
}

// A parameter is in one group at most; those in none are not trained.
func TestGroupsOfParametersAreByName(t *testing.T) {
	params := []*autograd.Param{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	c := validConfig()
	c.Groups = []ParamGroup{{Name: "first", Hyper: optim.Hyper{LR: 1}, Params: []string{"c"}}, {Name: "second", Hyper: optim.Hyper{LR: 2}, Params: []string{"a"}}}
	groups, frozen, err := c.groups(params)
	require.NoError(t, err)
	require.Len(t, groups, 2)
	require.Equal(t, []*autograd.Param{params[2]}, groups[0].Params)
	require.Equal(t, 2.0, groups[1].Hyper.LR)
	require.Equal(t, []*autograd.Param{params[1]}, frozen)
	for _, again := range []string{"c", "nobody"} {
		c.Groups[1].Params = []string{again}
		_, _, err := c.groups(params)
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, `groups[1]: "`+again+`"`)
	}
}
