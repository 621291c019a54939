package cpu

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReadBandwidthMeasuresSomething(t *testing.T) {
	for _, isa := range Supported() {
		onISA(isa, func() {
			require.Positive(t, ReadBandwidth(1, 1, time.Nanosecond))
			require.Positive(t, ReadBandwidth(2, 8<<20, time.Nanosecond))
		})
	}
}
