package safetensors

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
	path := filepath.Join(t.TempDir(), "m.safetensors")
	big := u8("big", 8<<20)
	write(t, path, []Tensor{u8("before", 100), big, u8("after", 100)}, nil)
	f, err := Open(path)
	require.NoError(t, err)
	defer f.Close()
	v, err := f.Tensor("big")
	require.NoError(t, err)
	require.NoError(t, v.Advise(WillNeed))
	require.Equal(t, big.Data, v.Data)
	require.Greater(t, resident(t, path), 8<<10-64)
	require.NoError(t, v.ReleasePages())
	require.Less(t, resident(t, path), 64)
	require.Equal(t, big.Data, v.Data)

	small, err := f.Tensor("before")
	require.NoError(t, err)
	require.NoError(t, small.ReleasePages(), "a tensor without a page of its own releases none")
}
