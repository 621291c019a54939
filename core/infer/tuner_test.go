package infer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A machine on which a step takes two milliseconds and a tenth of one for each row.
func stepTime(rows int) time.Duration {
	return 2*time.Millisecond + time.Duration(rows)*100*time.Microsecond
}

func TestTheRowsOfAStepFollowTheTimeThatItMayTake(t *testing.T) {
	for _, c := range []struct {
		target          float64
		least, greatest int
	}{
		{0.01, 70, 80}, // (10 - 2) / 0.1
		{0.0035, 12, 16},
		{0.001, leastRows, leastRows}, // cannot be kept
		{1, 256, 256},
		{0, 20, 22}, // twice 2.1 ms
	} {
		tune := newTuner(SchedulerOptions{MaxBatchTokens: 256, TargetStep: c.target})
		for i := range 200 {
			if i%4 == 0 {
				tune.observe(1, 1, false, stepTime(1))
			} else {
				tune.observe(tune.limit(), 1, true, stepTime(tune.limit()))
			}
		}
		require.GreaterOrEqual(t, tune.limit(), c.least, "target %v", c.target)
		require.LessOrEqual(t, tune.limit(), c.greatest, "target %v", c.target)
	}
}

func TestStepsThatAreNotFullDoNotRaiseTheLimit(t *testing.T) {
	tune := newTuner(SchedulerOptions{MaxBatchTokens: 256, TargetStep: 1})
	for range 50 {
		tune.observe(5, 1, false, stepTime(5))
	}
	require.Equal(t, firstRows, tune.limit())
}

func TestRatesAreOfTheLastSeconds(t *testing.T) {
	var r rate
	start := time.Unix(1000, 0)
	require.Zero(t, r.perSecond(start))
	for i := range 30 {
		r.add(5, start.Add(time.Duration(i)*time.Second))
	}
	end := start.Add(29 * time.Second)
	require.InDelta(t, 5, r.perSecond(end), 1e-9)
	require.InDelta(t, 2.5, r.perSecond(end.Add(5*time.Second)), 1e-9)
	require.Zero(t, r.perSecond(end.Add(time.Minute)))
}
