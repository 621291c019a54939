package container

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAFileThatIsReadGivesWhatAMappedOneDoes(t *testing.T) {
	content := []byte("0123456789abcdef")
	f, err := OpenReader("somewhere", bytes.NewReader(content), int64(len(content)))
	require.NoError(t, err)
	assert.False(t, f.Mapped())
	assert.Equal(t, len(content), f.Size())
	part, err := f.Part(3, 7)
	require.NoError(t, err)
	assert.Equal(t, "3456", string(part))

	for _, file := range []*File{f, OpenBytes("memory", content)} {
		x := Index(file, []Info{{Name: "a", DType: "U8", Shape: []int{4}, Offset: 2, Size: 4}}, 8)
		v, err := x.Tensor("a")
		require.NoError(t, err)
		assert.Equal(t, 4, v.Size())
		assert.Equal(t, file.Mapped(), v.Data != nil)
		read, err := io.ReadAll(v.Open())
		require.NoError(t, err)
		assert.Equal(t, "abcd", string(read))
		require.NoError(t, v.ReleasePages())
	}

	require.NoError(t, f.Close())
	_, err = f.Part(0, 1)
	require.ErrorIs(t, err, ErrClosed)
}

type unreadable struct{ err error }

func (u unreadable) ReadAt([]byte, int64) (int, error) { return 0, u.err }

func TestAReaderThatEndsEarlyOrFailsIsAnErrorThatNamesTheFile(t *testing.T) {
	f, err := OpenReader("somewhere", strings.NewReader("0123"), 10)
	require.NoError(t, err)
	_, err = f.Part(2, 8)
	require.ErrorIs(t, err, ErrUnreadable)
	require.ErrorContains(t, err, "somewhere: found an end at byte 4, expected 10 bytes")

	gone := errors.New("gone")
	f, err = OpenReader("somewhere", unreadable{gone}, 10)
	require.NoError(t, err)
	_, err = f.Part(0, 1)
	require.ErrorIs(t, err, gone)
	require.ErrorContains(t, err, "somewhere")

	_, err = OpenReader("somewhere", unreadable{gone}, -1)
	require.ErrorIs(t, err, ErrFormat)
}
