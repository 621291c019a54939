package cpu

import (
	"errors"
	"fmt"
)

// MaxThreads is the largest number of threads that [SetNumThreads] accepts.
const MaxThreads = 1024

// ErrThreads is wrapped by the error of [SetNumThreads].
var ErrThreads = errors.New("number of threads out of range")

func checkThreads(n int) error {
	if n < 1 || n > MaxThreads {
		return fmt.Errorf("cpu: %w: got %d, want 1 to %d", ErrThreads, n, MaxThreads)
	}
	return nil
}

// NumThreads is how many threads [Parallel] uses, the calling one included. It starts as BITNET_NUM_THREADS or else
// [PhysicalCores].
func NumThreads() int { return shared.threads() }

// SetNumThreads changes the number of threads, 1 to [MaxThreads]. It waits for the running job, stops the workers it no
// longer needs and returns when they are gone; with n = 1 none is left. Do not call it from within a [Task].
func SetNumThreads(n int) error {
	if err := checkThreads(n); err != nil {
		return err
	}
	shared.resize(n)
	return nil
}
