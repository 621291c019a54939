//go:build unix

package pool

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pageSize is the operating system's page: 4 KiB on amd64, 16 KiB on Apple silicon.
var pageSize = os.Getpagesize()

// hugePage is the size and alignment from which the kernel can put one translation entry under the memory.
const hugePage = 2 << 20

// mapMemory maps n zeroed bytes that start on a multiple of align (a power of two); n is a multiple of the page size.
// The kernel aligns to pages only, so for more it maps align bytes too many and gives both ends back.
func mapMemory(n, align int) ([]byte, error) {
	extra := 0
	if align > pageSize {
		extra = align
	}
	base, err := unix.MmapPtr(-1, 0, nil, uintptr(n+extra), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	if extra == 0 {
		return unsafe.Slice((*byte)(base), n), nil
	}
	head := int(-uintptr(base) & uintptr(align-1))
	if head > 0 {
		_ = unix.MunmapPtr(base, uintptr(head))
	}
	if tail := extra - head; tail > 0 {
		_ = unix.MunmapPtr(unsafe.Add(base, head+n), uintptr(tail))
	}
	return unsafe.Slice((*byte)(unsafe.Add(base, head)), n), nil
}

// unmapMemory gives a mapping of mapMemory back.
func unmapMemory(b []byte) error {
	return os.NewSyscallError("munmap", unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b))))
}
