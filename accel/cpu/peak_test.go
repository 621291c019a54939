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
	require.Positive(t, PeakTernary())
	t.Logf("%.1f GFLOP/s, %.1f G ternary multiplications/s", PeakFLOPS()/1e9, PeakTernary()/1e9)
}
