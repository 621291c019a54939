package safetensors

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// testdata/python.safetensors was written by the Python package safetensors
// 0.8 (save of safetensors.numpy); python.json holds what went into it.
func TestAFileWrittenByPythonReadsWithTheSameContent(t *testing.T) {
	text, err := os.ReadFile("testdata/python.json")
	require.NoError(t, err)
	var want map[string]struct {
		DType string
		Shape []int
		Hex   string
	}
	require.NoError(t, json.Unmarshal(text, &want))
	f, err := Open("testdata/python.safetensors")
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, map[string]string{"format": "np", "title": "written by Python ü"}, f.Metadata())
	require.Len(t, f.Tensors(), len(want))
	for name, w := range want {
		v, err := f.Tensor(name)
		require.NoError(t, err)
		require.Equal(t, w.DType, v.DType, name)
		require.Equal(t, w.Shape, v.Shape, name)
		require.Equal(t, w.Hex, hex.EncodeToString(v.Data), name)
	}
}
