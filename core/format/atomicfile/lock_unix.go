//go:build unix

package atomicfile

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// claim locks a file or directory until the result is closed, and says whether
// nobody else has and the name is still that of what was locked. Where there
// are no locks, as on some network file systems, it gives unlocked.
func claim(name string) (io.Closer, bool) {
	f, err := os.Open(name)
	if err != nil {
		return nil, false
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return unlocked, !errors.Is(err, unix.EWOULDBLOCK)
	}
	there, err := os.Stat(name)
	locked, err2 := f.Stat()
	if err != nil || err2 != nil || !os.SameFile(there, locked) {
		_ = f.Close()
		return nil, false
	}
	return f, true
}
