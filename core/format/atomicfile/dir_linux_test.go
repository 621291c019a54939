package atomicfile

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// put makes a write of WriteDir that writes one file, and notes where.
func put(name string, where *string) func(dir string) error {
	return func(dir string) error {
		*where = dir
		return os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644)
	}
}

func TestTheWorkingDirectoryIsFilledInPlace(t *testing.T) {
	var where string
	dir := t.TempDir()
	t.Chdir(dir)
	for _, path := range []string{".", dir} {
		require.NoError(t, WriteDir(path, put("f", &where)))
		require.Equal(t, []string{"f"}, names(t, "."))
		require.NoError(t, os.Remove("f"))
	}
	require.Equal(t, []string{filepath.Base(dir)}, names(t, filepath.Dir(dir)))
}

func TestADirectoryIsReplacedWhereALinkLeads(t *testing.T) {
	var where string
	parent := t.TempDir()
	real, link := filepath.Join(parent, "real"), filepath.Join(parent, "link")
	require.NoError(t, os.Mkdir(real, 0o755))
	require.NoError(t, os.Symlink("real", link))
	require.NoError(t, WriteDir(link, put("f", &where)))
	require.Equal(t, []string{"f"}, names(t, real))
	to, err := os.Readlink(link)
	require.NoError(t, err)
	require.Equal(t, "real", to)
	require.NoError(t, os.RemoveAll(real))
	require.ErrorContains(t, WriteDir(link, put("f", &where)), "link leads nowhere")
	require.NoError(t, os.WriteFile(real, nil, 0o644))
	require.ErrorIs(t, WriteDir(link, put("f", &where)), syscall.ENOTDIR)
	require.Equal(t, []string{"link", "real"}, names(t, parent))
}

func TestAReplacedDirectoryKeepsItsMode(t *testing.T) {
	var where string
	path := filepath.Join(t.TempDir(), "d")
	require.NoError(t, os.Mkdir(path, 0o700))
	for _, mode := range []os.FileMode{0o700, 0o770 | os.ModeSetgid} {
		require.NoError(t, os.Chmod(path, mode))
		require.NoError(t, WriteDir(path, put("f", &where)))
		require.NotEqual(t, path, where)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode|os.ModeDir, info.Mode())
	}
}

// otherUser is one who may not do everything; a test that is root's becomes them for a while.
const otherUser = 65534

// skipUnlessOthersReach skips where root cannot become another user, as in a namespace that has one only, or where they would not get to a directory,
// as below a TMPDIR that was made with mktemp.
func skipUnlessOthersReach(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Seteuid(otherUser); err != nil {
		t.Skipf("there is no other user here: %v", err)
	}
	_, err := os.Stat(dir)
	require.NoError(t, syscall.Seteuid(0))
	if err != nil {
		t.Skipf("other users do not get to the directory for temporary files: %v", err)
	}
}

func TestADirectoryThatCannotBeReplacedIsFilledInPlace(t *testing.T) {
	parent := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(parent), 0o755)) // of every user
	if os.Geteuid() == 0 {
		skipUnlessOthersReach(t, parent)
	}
	path := filepath.Join(parent, "d")
	require.NoError(t, os.Mkdir(path, 0o777))
	require.NoError(t, os.Chmod(path, 0o777))
	modes := []os.FileMode{0o555} // nothing can be made beside it
	if os.Geteuid() == 0 {
		modes = append(modes, 0o777|os.ModeSticky) // beside it, but it belongs to another
	}
	for _, mode := range modes {
		require.NoError(t, os.Chmod(parent, mode))
		if os.Geteuid() == 0 { // who may do anything
			require.NoError(t, syscall.Seteuid(otherUser))
		}
		var where string
		err := WriteDir(path, put("f", &where))
		missing := WriteDir(filepath.Join(parent, "absent", "d"), put("f", new(string)))
		if os.Getuid() == 0 {
			require.NoError(t, syscall.Seteuid(0))
		}
		require.NoError(t, os.Chmod(parent, 0o755))
		require.NoError(t, err)
		assert.Equal(t, path, where)
		assert.Error(t, missing)
		assert.Equal(t, []string{"d"}, names(t, parent))
		assert.Equal(t, []string{"f"}, names(t, path))
		require.NoError(t, os.Remove(filepath.Join(path, "f")))
	}
}
