//go:build unix

package atomicfile

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// claim locks a file or directory until the result is closed. It is errTaken if
// somebody else has, or the name is gone or no longer that of what was locked.
// Where there are no locks, as on some network file systems, it gives unlocked.
func claim(name string) (io.Closer, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errTaken
	}
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		_ = f.Close()
		return nil, errTaken
	}
	if err != nil {
		_ = f.Close()
		return unlocked, nil
	}
	there, err := os.Stat(name)
	locked, err2 := f.Stat()
	if errors.Is(err, fs.ErrNotExist) || err == nil && err2 == nil && !os.SameFile(there, locked) {
		err = errTaken
	}
	if err := errors.Join(err, err2); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
