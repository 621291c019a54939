package tensor

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRebindReusesTheHeader(t *testing.T) {
	var h Tensor
	data := make([]float32, 24)
	h.Rebind(data, 2, 3, 4)
	require.Equal(t, []int{2, 3, 4}, h.Shape())
	require.Zero(t, testing.AllocsPerRun(100, func() {
		h.Rebind(data[:12], 3, 4)
		h.Rebind(data, 4, 3, 2)
	}))
	require.Equal(t, []int{6, 2, 1}, h.Strides())
	h.Float32s()[23] = 7
	require.Equal(t, float32(7), data[23])
	require.Panics(t, func() { h.Rebind(data, 5) })
}
