package container

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestViewsInMemoryHaveTheSizeOfTheirData(t *testing.T) {
	v, err := NewMemory("test", []View{{Name: "w", DType: "U8", Shape: []int{3}, Data: []byte{1, 2, 3}}}).Tensor("w")
	require.NoError(t, err)
	require.Equal(t, 3, v.Size())
	data, err := io.ReadAll(v.Open())
	require.NoError(t, err)
	require.Len(t, data, v.Size())
}
