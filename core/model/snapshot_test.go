package model_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
)

func TestSnapshotsComeBackAsTheyWere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, s := range []model.Snapshot{
		{State: []byte(`{"step":1,"text":"<é\u0000>"}`), Tensors: []model.SnapshotTensor{
			{Name: "a", Shape: []int{2, 2}, Data: []float32{1, -2, 3e-45, 4}}, {Name: "none", Shape: []int{0}, Data: []float32{}}, {Name: "b", Shape: []int{1}, Data: []float32{5}},
		}},
		{State: []byte("{}")},
	} {
		require.NoError(t, model.WriteSnapshot(path, s))
		got, err := model.ReadSnapshot(path)
		require.NoError(t, err)
		require.Equal(t, string(s.State), string(got.State))
		require.Len(t, got.Tensors, len(s.Tensors))
		for i, want := range s.Tensors {
			require.Equal(t, want.Name, got.Tensors[i].Name)
			require.Equal(t, want.Shape, got.Tensors[i].Shape)
			require.Equal(t, want.Data, append([]float32{}, got.Tensors[i].Data...))
		}
	}
	_, err := model.ReadSnapshot(path + "x")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = model.ReadSnapshot(filepath.Dir(path))
	require.ErrorIs(t, err, container.ErrNotRegular)
	require.ErrorIs(t, model.WriteSnapshot(path, model.Snapshot{Tensors: []model.SnapshotTensor{{Name: "a", Shape: []int{2}, Data: []float32{1}}}}), container.ErrSize)
}

func TestNoFlippedBitAndNoCutOfASnapshotPasses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	require.NoError(t, model.WriteSnapshot(path, model.Snapshot{State: []byte(`{"a":1}`), Tensors: []model.SnapshotTensor{
		{Name: "w", Shape: []int{2, 3}, Data: make([]float32, 6)}, {Name: "v", Shape: []int{3, 2}, Data: make([]float32, 6)},
	}}))
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	refused := func(b []byte, what string, args ...any) {
		require.NoError(t, os.WriteFile(path, b, 0o666))
		_, err := model.ReadSnapshot(path)
		require.ErrorIs(t, err, container.ErrFormat, what, args)
	}
	for i := range good {
		refused(good[:i], "cut to %d bytes", i)
		for bit := range 8 {
			good[i] ^= 1 << bit
			refused(good, "bit %d of byte %d", bit, i)
			good[i] ^= 1 << bit
		}
	}
}

func TestSnapshotsOfOtherWritersAreHeldToTheFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	one := []byte{0, 0, 128, 63}
	sum := fmt.Sprintf("%08x", model.CRC32C(one))
	write := func(dtype, table string, tensors ...container.Tensor) error {
		tensors = append(tensors, container.Tensor{Name: "a", DType: dtype, Shape: []int{1}, Data: one})
		require.NoError(t, safetensors.Write(path, tensors, map[string]string{"format": "bitnet-checkpoint", "format_version": "1", "state": "{}", "tensors": table,
			"crc32c": fmt.Sprintf("%08x", model.CRC32C([]byte("{}"+table)))}))
		_, err := model.ReadSnapshot(path)
		return err
	}
	require.NoError(t, write("F32", `{"a":"`+sum+`"}`))
	require.ErrorIs(t, write("I32", `{"a":"`+sum+`"}`), container.ErrMismatch)
	require.ErrorIs(t, write("F32", `{"b":"`+sum+`"}`), model.ErrUnexpected)
	require.ErrorIs(t, write("F32", `{}`), safetensors.ErrMetadata)
	require.ErrorIs(t, write("F32", `[]`), safetensors.ErrMetadata)
	require.ErrorIs(t, write("F32", `{"a":"00000000"}`), model.ErrChecksum)
	odd := container.Tensor{Name: "odd", DType: "U8", Shape: []int{1}, Data: []byte{0}}
	require.ErrorIs(t, write("F32", `{"a":"`+sum+`","odd":"`+sum+`"}`, odd), container.ErrMismatch)

	require.NoError(t, write("F32", `{"a":"`+sum+`"}`)) // the same, its data at an address that is no multiple of four
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	head := int(b[0]) | int(b[1])<<8
	moved := append(append(append([]byte{}, b[:8+head]...), ' '), one...)
	moved[0]++
	require.NoError(t, os.WriteFile(path, moved, 0o666))
	s, err := model.ReadSnapshot(path)
	require.NoError(t, err)
	require.Equal(t, []float32{1}, s.Tensors[0].Data)
}
