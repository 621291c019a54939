package cpu

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
)

// Environment variables read when the package starts.
const (
	EnvISA        = "BITNET_ISA"
	EnvNumThreads = "BITNET_NUM_THREADS"
	EnvSkipZeros  = "BITNET_SKIP_ZEROS"
)

// EnvError reports an environment variable that cannot be honoured.
type EnvError struct {
	Variable string // name of the variable
	Value    string // what it holds
	Accepted string // what it may hold on this machine
	Err      error  // the cause, or nil
}

// Error has the variable, its value and what is accepted.
func (e *EnvError) Error() string {
	return fmt.Sprintf("cpu: environment variable %s=%q cannot be used: accepted are %s", e.Variable, e.Value, e.Accepted)
}

// Unwrap gives the reason.
func (e *EnvError) Unwrap() error { return e.Err }

// InitError is nil, or joins one [*EnvError] for each environment variable that was set to something the package
// cannot honour. Callers that can report an error (model loading) should return it; kernels work regardless.
func InitError() error { return errors.Join(isaErr, threadsFromEnv().err, skipErr) }

// isaErr and skipErr are set once, while the package starts.
var isaErr, skipErr error

func init() {
	isa, err := isaFromEnv(os.Getenv(EnvISA), Supported())
	isaErr = err
	active.Store(uint32(isa))
	skip, err := skipFromEnv(os.Getenv(EnvSkipZeros))
	skipErr = err
	SetSkipZeros(skip)
}

// skipFromEnv is whether zeros are skipped: so they are when value is empty or unusable.
func skipFromEnv(value string) (bool, error) {
	switch value {
	case "", "1":
		return true, nil
	case "0":
		return false, nil
	}
	return true, &EnvError{Variable: EnvSkipZeros, Value: value, Accepted: "0 and 1"}
}

// isaFromEnv picks the instruction set: the fastest when value is empty or unusable.
func isaFromEnv(value string, supported []ISA) (ISA, error) {
	best := supported[len(supported)-1]
	if value == "" {
		return best, nil
	}
	fail := func(err error) (ISA, error) {
		return best, &EnvError{Variable: EnvISA, Value: value, Accepted: joinISAs(supported), Err: err}
	}
	isa, err := ParseISA(value)
	if err != nil {
		return fail(err)
	}
	for _, s := range supported {
		if s == isa {
			return isa, nil
		}
	}
	return fail(&UnsupportedISAError{ISA: isa, Supported: supported})
}

type threadSetting struct {
	n   int
	err error
}

// threadsFromEnv is the number of threads to start with. It is computed on first use, as it reads /sys.
var threadsFromEnv = sync.OnceValue(func() threadSetting {
	n, err := numThreadsFromEnv(os.Getenv(EnvNumThreads), PhysicalCores)
	return threadSetting{n, err}
})

// numThreadsFromEnv: the value of BITNET_NUM_THREADS, or cores() when it is empty or unusable.
func numThreadsFromEnv(value string, cores func() int) (int, error) {
	if value == "" {
		return clampThreads(cores()), nil
	}
	n, err := strconv.Atoi(value)
	if err == nil {
		err = checkThreads(n)
	}
	if err != nil {
		return clampThreads(cores()), &EnvError{
			Variable: EnvNumThreads, Value: value, Accepted: fmt.Sprintf("whole numbers from 1 to %d", MaxThreads), Err: err,
		}
	}
	return n, nil
}

func clampThreads(n int) int { return max(1, min(n, MaxThreads)) }
