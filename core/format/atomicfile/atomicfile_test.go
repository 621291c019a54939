package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteCreatesAndReplacesLeavingNothingBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, content := range []string{"first", "second, longer"} {
		require.NoError(t, Write(path, func(w io.Writer) error {
			_, err := io.WriteString(w, content)
			return err
		}))
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, content, string(got))
	}
	require.Equal(t, []string{"f"}, names(t, dir))
}

func TestAFailedOrPanickingWriteKeepsTheOldContent(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o644))
	boom := errors.New("boom")
	require.ErrorIs(t, Write(path, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return boom
	}), boom)
	require.Panics(t, func() { _ = Write(path, func(io.Writer) error { panic("boom") }) })
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(got))
	require.Equal(t, []string{"f"}, names(t, dir))
}

func TestWriteReportsAMissingDirectoryAndATargetThatIsADirectory(t *testing.T) {
	dir := t.TempDir()
	nothing := func(io.Writer) error { return nil }
	require.ErrorIs(t, Write(filepath.Join(dir, "absent", "f"), nothing), os.ErrNotExist)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "d", "full"), 0o755))
	require.Error(t, Write(filepath.Join(dir, "d"), nothing))
	require.Equal(t, []string{"d"}, names(t, dir))
}

func TestWriteTakesARelativeNameWithoutDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, Write("plain", func(io.Writer) error { return nil }))
	require.Equal(t, []string{"plain"}, names(t, "."))
}

func TestContentWrittenPieceByPieceAppearsWhenItIsCommitted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	f, err := Create(path)
	require.NoError(t, err)
	_, err = io.WriteString(f, "______ world")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("hello,"), 0) // a writer may go back
	require.NoError(t, err)
	require.NotContains(t, names(t, dir), "f")
	require.NoError(t, f.Commit())
	f.Abort()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "hello, world", string(got))
	require.Error(t, f.Commit())

	f, err = Create(path)
	require.NoError(t, err)
	f.Abort()
	f.Abort()
	require.Error(t, f.Commit())
	require.Equal(t, []string{"f"}, names(t, dir))
	_, err = Create(filepath.Join(dir, "absent", "f"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestWhatAKilledWriterLeftGoesWithTheNextWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, left := range []string{".f.0123456789ab.tmp", ".g.0123456789ab.tmp", ".f.user.tmp"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, left), nil, 0o644))
	}
	require.NoError(t, os.MkdirAll(filepath.Join(dir, ".f.aaaaaaaaaaaa.tmp", "sub"), 0o755))
	alive, err := Create(path)
	require.NoError(t, err)
	other, err := Create(path) // leaves alone what is being written
	require.NoError(t, err)
	require.FileExists(t, alive.Name())
	require.NoError(t, other.Commit())
	require.NoError(t, alive.Commit())
	require.Equal(t, []string{".f.user.tmp", ".g.0123456789ab.tmp", "f"}, names(t, dir))
}

func TestADirectoryIsReplacedInOneStep(t *testing.T) {
	parent := t.TempDir()
	path := filepath.Join(parent, "d")
	for _, content := range []string{"first", "second"} {
		require.NoError(t, WriteDir(path, func(dir string) error {
			return os.WriteFile(filepath.Join(dir, content), []byte(content), 0o644)
		}))
		require.Equal(t, []string{content}, names(t, path))
	}
	boom := errors.New("boom")
	require.ErrorIs(t, WriteDir(path, func(dir string) error { return boom }), boom)
	require.Panics(t, func() { _ = WriteDir(path, func(dir string) error { panic("boom") }) })
	require.Equal(t, []string{"second"}, names(t, path))
	require.Equal(t, []string{"d"}, names(t, parent))
	require.ErrorIs(t, WriteDir(filepath.Join(parent, "absent", "d"), func(string) error { return nil }), os.ErrNotExist)
}
