//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package train

import (
	"errors"
	"os"
	"syscall"
)

// tryLock locks a file unless another has it locked. Some file systems of networks have no locks.
func tryLock(f *os.File) (locked, supported bool) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err == nil, err == nil || errors.Is(err, syscall.EWOULDBLOCK)
		}
	}
}
