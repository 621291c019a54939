package pool

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Environment variables that configure the default pool.
const (
	EnvBudget = "BITNET_MEMORY_BUDGET" // bytes with a unit: "8GiB", "512MB", "50%"
	EnvDebug  = "BITNET_POOL_DEBUG"    // "1": Options.Debug
)

// Sentinels that the typed errors of this package match under errors.Is.
var (
	ErrOutOfMemory = errors.New("out of memory")          // BudgetError and SystemError
	ErrBudget      = errors.New("memory budget exceeded") // BudgetError
	ErrSize        = errors.New("impossible block size")  // SizeError
	ErrClosed      = errors.New("pool is closed")         // from Alloc after Close
	ErrInUse       = errors.New("blocks still in use")    // InUseError
	ErrEnv         = errors.New("invalid environment variable")
	ErrBudgetText  = errors.New("unreadable memory budget") // from ParseBudget
)

// BudgetError says that an allocation did not fit the budget, even after all free memory was given back.
// All numbers are bytes.
type BudgetError struct {
	Tag       string // the block's name
	Requested int64  // what Alloc asked for
	InUse     int64  // in live blocks
	Reserved  int64  // mapped from the operating system: in use, and free between blocks
	Budget    int64  // the most that may be reserved
}

// Error has what asked for memory, how much, what is in use and the budget.
func (e *BudgetError) Error() string {
	return fmt.Sprintf("pool: %q asks for %s: %v: %s in use, %s reserved, budget %s (see %s)", e.Tag, formatSize(e.Requested), ErrBudget,
		formatSize(e.InUse), formatSize(e.Reserved), formatSize(e.Budget), EnvBudget)
}

// Is reports ErrBudget and ErrOutOfMemory.
func (e *BudgetError) Is(target error) bool { return target == ErrBudget || target == ErrOutOfMemory }

// SystemError says that the operating system refused memory within the budget.
type SystemError struct {
	Tag       string // the block's name
	Requested int64  // bytes
	Err       error  // of the system call
}

// Error has what asked for memory, how much, and the words of the system.
func (e *SystemError) Error() string {
	return fmt.Sprintf("pool: %q asks for %s: %v", e.Tag, formatSize(e.Requested), e.Err)
}

// Unwrap returns the system call's error.
func (e *SystemError) Unwrap() error { return e.Err }

// Is reports ErrOutOfMemory.
func (e *SystemError) Is(target error) bool { return target == ErrOutOfMemory }

// SizeError says that no block can have this size: it is negative, or rounding it up would overflow.
type SizeError struct {
	Tag       string // the block's name
	Requested int64  // bytes
}

// Error has the size and those that are accepted.
func (e *SizeError) Error() string {
	return fmt.Sprintf("pool: %q asks for %d bytes: %v (accepted: 0 to %d)", e.Tag, e.Requested, ErrSize, maxBlock)
}

// Unwrap returns ErrSize.
func (e *SizeError) Unwrap() error { return ErrSize }

// InUseError says that a pool could not be closed because blocks are live.
type InUseError struct {
	Blocks, Bytes int64  // that are live, and their bytes
	Leaks         []Leak // in debug mode: which
}

// Error has the number of live blocks and their bytes; in debug mode also who allocated each.
func (e *InUseError) Error() string {
	s := fmt.Sprintf("pool: cannot close: %d %v (%s)", e.Blocks, ErrInUse, formatSize(e.Bytes))
	for _, l := range e.Leaks {
		s += "\n" + l.String()
	}
	return s
}

// Unwrap returns ErrInUse.
func (e *InUseError) Unwrap() error { return ErrInUse }

// EnvError is the Name of an environment variable whose Value cannot be used, and what is Accepted. A default pool with one fails every Alloc
// with it.
type EnvError struct{ Name, Value, Accepted string }

// Error has the variable, its value and what is accepted.
func (e *EnvError) Error() string {
	return fmt.Sprintf("pool: %v %s=%q (accepted: %s)", ErrEnv, e.Name, e.Value, e.Accepted)
}

// Unwrap returns ErrEnv.
func (e *EnvError) Unwrap() error { return ErrEnv }

// DetectBudget returns the bytes that a pool without a configured budget may map: the smaller of the machine's memory and the
// limit of the control group (v1 or v2) that the process runs in.
func DetectBudget() int64 {
	if n := systemMemory(); n > 0 {
		return n
	}
	return math.MaxInt64
}

const budgetForm = `a positive number with B, KiB, MiB, GiB, TiB, KB, MB, GB, TB or % behind it, as in "8GiB"`

// ParseBudget reads a budget as BITNET_MEMORY_BUDGET has it, "8GiB" or "50%" of DetectBudget, in bytes. The error wraps ErrBudgetText.
func ParseBudget(text string) (int64, error) {
	n, ok := parseSize(text, DetectBudget())
	if !ok {
		return 0, fmt.Errorf("pool: %w %q: expected %s", ErrBudgetText, text, budgetForm)
	}
	return n, nil
}

// optionsFromEnv reads the default pool's configuration through getenv.
func optionsFromEnv(getenv func(string) string) (Options, error) {
	o := Options{HugePages: true}
	if v := getenv(EnvBudget); v != "" {
		n, ok := parseSize(v, DetectBudget())
		if !ok {
			return o, &EnvError{EnvBudget, v, budgetForm}
		}
		o.Budget = n
	}
	if v := getenv(EnvDebug); v != "" {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return o, &EnvError{EnvDebug, v, "0 or 1"}
		}
		o.Debug = on
	}
	return o, nil
}

var units = []struct {
	suffix string
	bytes  float64
}{
	// Longer suffixes before those they end with.
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
	{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40},
	{"b", 1},
}

// parseSize reads "8GiB", "1.5 GB", "50%" (of whole) or plain bytes.
func parseSize(s string, whole int64) (int64, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	scale := 1.0
	if rest, ok := strings.CutSuffix(s, "%"); ok {
		s, scale = rest, float64(whole)/100
	} else {
		for _, u := range units {
			if rest, ok := strings.CutSuffix(s, u.suffix); ok {
				s, scale = rest, u.bytes
				break
			}
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if v *= scale; err != nil || !(v >= 1) || v >= math.MaxInt64 {
		return 0, false
	}
	return int64(v), true
}

// formatSize writes bytes as people read them: "1.5 GiB".
func formatSize(n int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes {
			return strconv.FormatFloat(float64(n)/float64(u.bytes), 'f', 1, 64) + " " + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " B"
}

// cgroupLimit returns the memory limit of this process's control group, 0 if there is none. root is "/", or a folder that stands for it.
//
// /proc/self/cgroup has one line a hierarchy, "0::/path" for version 2 and "N:memory:/path" for version 1. A group's limit also binds
// its children, so the smallest limit on the way up counts. In a container the path may be the host's; the mount then shows the
// container's own group at its top, which the way up ends with.
func cgroupLimit(root string) int64 {
	data, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	var limit int64
	for line := range strings.Lines(string(data)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		if part[1] != "" {
			if !strings.Contains(","+part[1]+",", ",memory,") {
				continue
			}
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		for dir := path.Clean("/" + part[2]); ; dir = path.Dir(dir) {
			limit = minLimit(limit, readLimit(filepath.Join(root, mount, dir, file)))
			if dir == "/" {
				break
			}
		}
	}
	return limit
}

// readLimit reads a number of bytes; "max", a missing file and a value too large to be a limit are 0.
func readLimit(name string) int64 {
	data, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil || n >= math.MaxInt64>>1 {
		return 0
	}
	return n
}

// minLimit returns the smaller limit, where 0 means none.
func minLimit(a, b int64) int64 {
	if a <= 0 || (b > 0 && b < a) {
		return b
	}
	return a
}
