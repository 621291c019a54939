package atomicfile

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// withDescriptors does work while the process may open n more files.
func withDescriptors(t *testing.T, n int, work func()) {
	t.Helper()
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	free := uint64(f.Fd()) // the lowest
	require.NoError(t, f.Close())
	few := limit
	few.Cur = free + uint64(n)
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few))
	defer func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)) }()
	work()
}

func TestWhatCannotBeLockedForWantOfDescriptorsIsAnErrorAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	var file, directory error
	withDescriptors(t, 1, func() { file = Write(filepath.Join(dir, "f"), func(io.Writer) error { return nil }) })
	withDescriptors(t, 0, func() { directory = WriteDir(filepath.Join(dir, "d"), func(string) error { return nil }) })
	require.ErrorIs(t, file, syscall.EMFILE)
	require.ErrorIs(t, directory, syscall.EMFILE)
	require.Empty(t, names(t, dir))
}
