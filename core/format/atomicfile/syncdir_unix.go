//go:build unix

package atomicfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// syncDir flushes a directory, which makes a rename inside it durable. Some
// network file systems refuse to flush directories (EINVAL, ENOTSUP); the
// replacement has happened there all the same.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("atomicfile: %w", err)
	}
	err = d.Sync()
	_ = d.Close()
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("atomicfile: %w", err)
	}
	return nil
}
