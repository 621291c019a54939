package tensor

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type nobody struct{}

func (nobody) Release() {}

func TestForeignMemoryIsSharedWhateverItsStrides(t *testing.T) {
	memory := []float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	x, err := FromForeign(Float32, unsafe.Pointer(&memory[11]), nobody{}, []int{2, 3}, []int{-6, -1}) // [3, 4] turned about, two columns of each half
	require.NoError(t, err)
	flat, err := x.Contiguous()
	require.NoError(t, err)
	assert.Equal(t, []float32{11, 10, 9, 5, 4, 3}, flat.Float32s())

	memory[9] = 90
	flat, err = x.Contiguous()
	require.NoError(t, err)
	assert.Equal(t, []float32{11, 10, 90, 5, 4, 3}, flat.Float32s())

	first, err := x.First()
	require.NoError(t, err)
	assert.Equal(t, unsafe.Pointer(&memory[11]), first)

	column, err := FromForeign(Float32, unsafe.Pointer(&memory[0]), nobody{}, []int{3, 1}, []int{4, 77})
	require.NoError(t, err)
	flat, err = column.Contiguous()
	require.NoError(t, err)
	assert.Equal(t, []float32{0, 4, 8}, flat.Float32s())
}

func TestForeignMemoryThatCannotBeATensorIsRefused(t *testing.T) {
	memory := []byte{0, 1, 2, 0}
	at := unsafe.Pointer(&memory[0])
	_, err := FromForeign(Bool, at, nobody{}, []int{4}, []int{1})
	require.ErrorIs(t, err, ErrValue)
	_, err = FromForeign(Ternary, at, nobody{}, []int{4}, []int{1})
	require.ErrorIs(t, err, ErrDType)
	_, err = FromForeign(Int8, at, nobody{}, []int{4}, nil)
	require.ErrorIs(t, err, ErrShape)
	_, err = FromForeign(Int8, at, nobody{}, []int{2, 2}, []int{1 << 60, 1})
	require.ErrorIs(t, err, ErrShape)
	_, err = FromForeign(Int8, at, nobody{}, []int{-1}, []int{1})
	require.ErrorIs(t, err, ErrShape)

	empty, err := FromForeign(Int8, nil, nobody{}, []int{0, 3}, []int{3, 1})
	require.NoError(t, err)
	first, err := empty.First()
	require.NoError(t, err)
	assert.Nil(t, first)
	codes, err := New(Ternary, 4)
	require.NoError(t, err)
	_, err = codes.First()
	require.ErrorIs(t, err, ErrDType)
}
