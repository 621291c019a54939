package pool

import "golang.org/x/sys/unix"

// adviseHuge asks for huge pages under b. It is advice: a kernel without them still gives ordinary pages.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }

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
