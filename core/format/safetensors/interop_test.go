package safetensors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
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

const writtenFile = "../../../tests_go/testdata/safetensors/written.safetensors"

// written.safetensors is read by tests_py/test_safetensors_interop.py with the
// Python package, which knows the same content. Run with -update to rewrite it.
func TestTheFileThatPythonReadsIsWhatTheWriterWrites(t *testing.T) {
	tensors := []container.Tensor{
		{Name: "int64", DType: I64, Shape: []int{2}, Data: []byte{255, 255, 255, 255, 255, 255, 255, 255, 7, 0, 0, 0, 0, 0, 0, 0}},
		{Name: "float32", DType: F32, Shape: []int{2, 2}, Data: []byte{0, 0, 128, 63, 0, 0, 0, 192, 0, 0, 0, 63, 0, 0, 0, 0}}, // 1, -2, 0.5, 0
		{Name: "float16", DType: F16, Shape: []int{3, 1}, Data: []byte{0, 60, 0, 192, 0, 56}},
		{Name: "scalar", DType: F32, Data: []byte{0, 0, 128, 63}},
		{Name: "empty", DType: F32, Shape: []int{0, 4}},
		{Name: "größe/<&>", DType: U8, Shape: []int{3}, Data: []byte{1, 2, 255}},
		{Name: "bool", DType: Bool, Shape: []int{2}, Data: []byte{1, 0}},
	}
	var b bytes.Buffer
	require.NoError(t, WriteTo(&b, tensors, map[string]string{"format": "np", "line": "a\nb \"c\""}))
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(writtenFile), 0o755))
		require.NoError(t, os.WriteFile(writtenFile, b.Bytes(), 0o644))
	}
	committed, err := os.ReadFile(writtenFile)
	require.NoError(t, err)
	require.Equal(t, b.Bytes(), committed)
}
