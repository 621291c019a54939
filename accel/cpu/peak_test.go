package cpu

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThePeakIsMeasuredOnceForAnISA(t *testing.T) {
	threadsFor(t, 2)
	onISA(Scalar, func() {
		slow := PeakFLOPS()
		require.Positive(t, slow)
		require.Equal(t, slow, PeakFLOPS())
	})
	require.Positive(t, PeakFLOPS())
	t.Logf("%.1f GFLOP/s", PeakFLOPS()/1e9)
}
