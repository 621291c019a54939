package pool

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// adviseHuge asks for huge pages under b. It is advice: a kernel without them still gives ordinary pages, and the error says so.
func adviseHuge(b []byte) error { return unix.Madvise(b, unix.MADV_HUGEPAGE) }

// adviseUnused gives the pages of b back to the kernel and keeps the addresses. It reports whether they now read as zero.
func adviseUnused(b []byte) (zeroed bool) { return unix.Madvise(b, unix.MADV_DONTNEED) == nil }

// systemMemory is the memory this process may hope for: the machine's, or less if its control group says so. 0: unknown.
func systemMemory() int64 {
	total := cgroupLimit("/")
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		total = minLimit(total, int64(uint64(info.Totalram)*uint64(info.Unit)))
	}
	return total
}

// ResidentBytes is this process's resident memory (RSS), from /proc/self/statm. 0: unknown.
func ResidentBytes() int64 {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(pageSize)
}
