//go:build unix

package atomicfile

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever is root could rename a file to /dev/null.
func TestWhatIsNoRegularFileIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	err := Write(path, func(io.Writer) error { return nil })
	require.ErrorIs(t, err, errIrregular)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, fs.ModeNamedPipe, info.Mode().Type())
	require.Equal(t, []string{"f"}, names(t, dir))
}
