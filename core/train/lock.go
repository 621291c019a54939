package train

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrLocked is a directory of checkpoints that another run is writing to.
var ErrLocked = errors.New("train: checkpoint directory in use")

// LockedError says which directory is in use, and by whom. It matches ErrLocked.
type LockedError struct {
	Dir string // of the checkpoints
	PID int    // of the process that has it; 0 when unknown
}

// Error has the directory and the process that writes to it, if that is known.
func (e *LockedError) Error() string {
	by := "another run"
	switch e.PID {
	case 0:
	case os.Getpid():
		by = "another run of this process"
	default:
		by = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("%v: %s is written to by %s: wait for its end, or choose another directory", ErrLocked, e.Dir, by)
}

// Unwrap gives the sentinel.
func (e *LockedError) Unwrap() error { return ErrLocked }

// lockName is the file in the directory that is locked; it holds the process's number and stays.
const lockName = ".lock"

// lockDirectory keeps other runs that ask for it out of a directory until the file is closed, or the process has ended. Where there are no
// such locks the file is nil.
func lockDirectory(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	locked, supported := tryLock(f)
	if !locked {
		defer f.Close()
		if !supported {
			return nil, nil
		}
		text := make([]byte, 20)
		n, _ := f.ReadAt(text, 0) // what is not there is not known
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
		return nil, &LockedError{dir, pid}
	}
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // for a message only
	}
	return f, nil
}
