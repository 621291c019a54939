package tests_go

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// countdown is a context that is canceled when it has been asked so many times.
type countdown struct {
	context.Context
	left atomic.Int64
}

func newCountdown(n int64) *countdown {
	c := &countdown{Context: context.Background()}
	c.left.Store(n)
	return c
}

func (c *countdown) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// anyConfig draws from what a run may be made of.
func anyConfig(r *rand.Rand) train.Config {
	some := func() bool { return r.IntN(2) == 0 }
	c := runConfig([]string{"sgd", "adam", "adamw"}[r.IntN(3)], []string{"constant", "plateau", "wsd", "cosine", "two_stage", "one_cycle"}[r.IntN(6)])
	c.Steps, c.EvalEvery, c.BatchSize, c.Accumulation, c.LogEvery = 4+r.IntN(9), 1+r.IntN(4), 1+r.IntN(3), 1+r.IntN(3), 1+r.IntN(3)
	c.Order, c.DropLast = train.Orders()[r.IntN(3)], some()
	c.Schedule.TotalSteps, c.Schedule.WarmupSteps = c.Steps, 0
	switch patience := r.IntN(2); c.Schedule.Name {
	case "plateau":
		c.Schedule.Patience = &patience
	case "wsd":
		c.Schedule.DecaySteps = 2
	case "one_cycle":
		c.Schedule.CycleMomentum = c.Optimizer.Name != "sgd"
	}
	if c.Optimizer.Name == "sgd" && some() {
		c.Optimizer.Momentum = 0.9
	}
	if some() {
		c.EarlyStopping = &train.EarlyStopping{Patience: 1 + r.IntN(3), MinDelta: 0.01, RestoreBest: some()}
	}
	c.LossScale = []*optim.ScalerConfig{
		nil, {Mode: "static", InitScale: 8}, {InitScale: math.Ldexp(1, 127), BackoffFactor: math.Ldexp(1, -40), GrowthInterval: 2},
	}[r.IntN(3)]
	c.GradientClip, c.GradientClipValue = float64(r.IntN(2)), float64(r.IntN(2))/100
	c.GradientNormalization = []string{"", "all", "each"}[r.IntN(3)]
	c.EngineOptions = []train.EngineOptions{
		{}, {STE: "clipped"}, {STE: "soft", STETemperatureEnd: 0.1, STETemperatureSteps: 5}, {STE: "learned_scale"},
	}[r.IntN(4)]
	switch r.IntN(3) {
	case 0:
		c.QuantizationSchedule, c.QuantizationStart, c.QuantizationEnd = "cosine", 1, 3+r.IntN(4)
	case 1:
		c.QuantizationSchedule, c.QuantizationStart = "step", 3
	}
	if some() {
		c.Dropout, c.AttentionDropout = 0.1, 0.2
	}
	c.GradientCheckpointing = some()
	return c
}

// Whatever a run is made of: interrupted anywhere, again and again, saved or not, and gone on with on any number of threads and with or
// without gradient checkpointing, it has the records and the weights of one that was never interrupted.
func TestRunsOfAnyKindContinueFromAnywhereToTheSameBits(t *testing.T) {
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(1)) })
	lines := func(records []train.Record) (all []string) {
		for _, r := range records {
			line, err := json.Marshal(r)
			require.NoError(t, err)
			all = append(all, string(line))
		}
		return all
	}
	for seed := range uint64(16) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := anyConfig(r)
		start := func(c train.Config) *run {
			require.NoError(t, cpu.SetNumThreads(1+r.IntN(4)))
			return newRun(t, c)
		}
		whole, ctx := start(c), newCountdown(math.MaxInt64)
		require.NoError(t, whole.Train(ctx), "seed %d", seed)
		asked := math.MaxInt64 - ctx.left.Load()

		var records []train.Record
		at := start(c)
		for n := range 21 {
			ctx = newCountdown(r.Int64N(asked/3 + 2))
			if n == 20 {
				ctx = newCountdown(math.MaxInt64)
			}
			err := at.Train(ctx)
			records, at.records = append(records, at.records...), nil
			if err == nil {
				break
			}
			require.ErrorIs(t, err, context.Canceled, "seed %d", seed)
			if r.IntN(3) == 0 {
				continue
			}
			path := filepath.Join(t.TempDir(), "x")
			require.NoError(t, at.WriteCheckpoint(path))
			at.Close()
			other := c
			other.GradientCheckpointing = r.IntN(2) == 0
			at = start(other)
			_, err = at.Resume(path)
			require.NoError(t, err, "seed %d", seed)
		}
		require.Equal(t, lines(whole.records), lines(records), "seed %d", seed)
		require.Equal(t, whole.weights(), at.weights(), "seed %d", seed)
		require.Equal(t, whole.Best(), at.Best(), "seed %d", seed)
		require.Equal(t, whole.StoppedEarly(), at.StoppedEarly(), "seed %d", seed)
	}
}
