package container

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// resident reads the resident KiB of a file's mapping from the kernel.
func resident(t *testing.T, path string) int {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	require.NoError(t, err)
	defer f.Close()
	inside, total := false, 0
	for s := bufio.NewScanner(f); s.Scan(); {
		line := s.Text()
		if strings.Contains(line, "-") && strings.Contains(line, " r") {
			inside = strings.HasSuffix(line, path)
		}
		var kib int
		if n, _ := fmt.Sscanf(line, "Rss: %d kB", &kib); inside && n == 1 {
			total += kib
		}
	}
	return total
}

func TestReleasedPagesLeaveTheResidentSetAndReadBackEqual(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model")
	content := make([]byte, 8<<20+200)
	for i := range content {
		content[i] = byte(i * 7)
	}
	require.NoError(t, os.WriteFile(path, content, 0o600))
	f, err := Open(path)
	require.NoError(t, err)
	defer f.Close()
	big, err := f.Part(100, 100+8<<20)
	require.NoError(t, err)
	v := View{Name: "big", Data: big, File: f}
	require.NoError(t, v.Advise(WillNeed))
	require.Equal(t, content[100:100+8<<20], v.Data)
	require.Greater(t, resident(t, path), 8<<10-64)
	require.NoError(t, v.ReleasePages())
	require.Less(t, resident(t, path), 64)
	require.Equal(t, content[100:100+8<<20], v.Data)

	small, err := f.Part(0, 100)
	require.NoError(t, err)
	require.NoError(t, f.ReleasePages(small), "a part without a page of its own releases none")
	require.ErrorIs(t, f.ReleasePages(content[:100]), ErrMismatch, "these bytes are not of the file")
}
