package quant

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func float32s(values ...float32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	return b
}

func TestAMatrixOfOneMagnitudeIsFound(t *testing.T) {
	negativeZero := float32(math.Copysign(0, -1))
	value, same, err := Magnitude(F32, float32s(0, 0.5, -0.5, negativeZero, 0.5, 0), 2, 3)
	require.NoError(t, err)
	require.True(t, same)
	require.Equal(t, float32(0.5), value)

	_, same, err = Magnitude(F32, float32s(0, 0.5, -0.5, 0, 0.25, 0), 2, 3)
	require.NoError(t, err)
	require.False(t, same)
	_, same, err = Magnitude(F32, make([]byte, 24), 2, 3)
	require.NoError(t, err)
	require.False(t, same, "zeros have no magnitude")
	_, _, err = Magnitude(F32, float32s(0, 0.5, -0.5, 0, float32(math.NaN()), 0), 2, 3)
	require.ErrorIs(t, err, ErrNotFinite)
	require.ErrorContains(t, err, "row 1, column 1")
	_, _, err = Magnitude(F32, make([]byte, 23), 2, 3)
	require.ErrorIs(t, err, ErrShape)
}

// Many threads find the value at the same time; whoever comes second with it has not found another.
func TestThreadsThatFindTheSameMagnitudeTogetherAgree(t *testing.T) {
	src := make([]byte, 2*64*16)
	for i := 0; i < len(src); i += 2 {
		binary.LittleEndian.PutUint16(src[i:], 0x3c00)
	}
	for range 3000 {
		_, same, err := Magnitude(F16, src, 64, 16)
		require.NoError(t, err)
		require.True(t, same)
	}
}
