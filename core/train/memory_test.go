package train_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Activations are kept as int8 where they can be, and the wide values of the feed-forward network are made again: beside weights,
// gradients and optimizer state a step needs at most three times what the loss of its batch needs without gradients. Every step
// after the first two uses the same memory again, and at least 98 % of it.
func TestAStepNeedsAtMostThreeTimesTheMemoryOfItsForwardPass(t *testing.T) {
	for _, w := range workloads[1:] { // the benchmark prints the figures of the others
		r := w.start(t)
		forward, training := r.peaks(t)
		t.Logf("%s: %.2f MB, %.2f times the forward pass", w.name, float64(training)/1e6, float64(training)/float64(forward))
		require.LessOrEqual(t, training, 3*forward)

		first, caches := r.engine.Scratch(), r.engine.CacheBytes()
		for range 3 {
			r.step(t)
		}
		s := r.engine.Scratch()
		require.Zero(t, s.Fallbacks)
		require.Equal(t, first.Planned+3, s.Planned)
		require.Equal(t, first.Arena, s.Arena)
		require.Equal(t, caches, r.engine.CacheBytes())
		require.GreaterOrEqual(t, float64(s.PeakLive), 0.98*float64(s.Reserved), "live bytes of what the plan reserves")
	}
}
