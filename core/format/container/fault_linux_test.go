package container

import (
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// reader adds up the pages of a mapping, a page a chunk.
type reader []byte

func (r reader) Run(chunk int) {
	if r[chunk*os.Getpagesize()] != 1 {
		panic("another byte")
	}
}

func TestAFileThatIsCutShortWhileItIsMappedIsAnErrorThatNamesIt(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	path := filepath.Join(t.TempDir(), "model")
	data := make([]byte, 64*os.Getpagesize())
	for i := range data {
		data[i] = 1
	}
	require.NoError(t, os.WriteFile(path, data, 0o600))
	f, err := Open(path)
	require.NoError(t, err)
	part, err := f.Part(0, f.Size())
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, int64(len(data)/2)))

	var recovered any
	func() {
		defer func() { recovered = recover() }()
		cpu.Parallel(len(data)/os.Getpagesize(), reader(part))
	}()
	require.NotNil(t, recovered)
	fault := FaultError(recovered)
	require.ErrorIs(t, fault, ErrUnreadable)
	assert.ErrorContains(t, fault, path)

	require.NoError(t, f.Close())
	assert.NoError(t, FaultError(recovered), "the mapping is gone")
	assert.NoError(t, FaultError("text"))
	assert.NoError(t, FaultError(errors.New("some error")))
}

func TestAFaultIsTheErrorOfTheFunctionThatReads(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	path := filepath.Join(t.TempDir(), "model")
	require.NoError(t, os.WriteFile(path, make([]byte, 2*os.Getpagesize()), 0o600))
	read := func(cut bool) (sum byte, err error) {
		f, err := Open(path)
		if err != nil {
			return 0, err
		}
		defer func() { _ = f.Close() }()
		defer CatchFault(&err)
		err = f.Parse(func(content []byte) error {
			if cut {
				require.NoError(t, os.Truncate(path, 0))
			}
			for _, b := range content {
				sum += b
			}
			return nil
		})
		return sum, err
	}
	_, err := read(false)
	require.NoError(t, err)
	_, err = read(true)
	require.ErrorIs(t, err, ErrUnreadable)
	require.ErrorContains(t, err, path)
	require.PanicsWithValue(t, "another", func() {
		defer CatchFault(&err)
		panic("another")
	})
}
