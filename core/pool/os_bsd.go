//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package pool

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// adviseHuge does nothing: these systems choose large pages by themselves.
func adviseHuge([]byte) error { return nil }

// adviseUnused lets the kernel take the pages of b when it needs them. What they read afterwards is not promised.
func adviseUnused(b []byte) (zeroed bool) {
	_ = unix.Madvise(b, unix.MADV_FREE)
	return false
}

// systemMemory is the machine's memory in bytes. 0: unknown.
func systemMemory() int64 {
	name := "hw.physmem"
	if runtime.GOOS == "darwin" {
		name = "hw.memsize"
	}
	n, err := unix.SysctlUint64(name)
	if err != nil {
		return 0
	}
	return int64(n)
}

// ResidentBytes is this process's resident memory. 0: unknown, as always here.
func ResidentBytes() int64 { return 0 }
