package pool

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// pageSize is the operating system's page.
var pageSize = os.Getpagesize()

// hugePage is what large blocks are aligned to, as elsewhere; Windows gives large pages to privileged processes only.
const hugePage = 2 << 20

// mapAttempts bounds how often mapMemory tries again when another thread takes the addresses that it has found.
const mapAttempts = 16

// mapMemory maps n zeroed bytes that start on a multiple of align (a power of two); n is a multiple of the page size.
// The system aligns to 64 KiB. For more it reserves align bytes too many, gives all back, and asks for the aligned part: a mapping can only be
// given back whole.
func mapMemory(n, align int) ([]byte, error) {
	const how, access = windows.MEM_RESERVE | windows.MEM_COMMIT, windows.PAGE_READWRITE
	base, err := windows.VirtualAlloc(0, uintptr(n), how, access)
	for range mapAttempts {
		if err != nil {
			return nil, os.NewSyscallError("VirtualAlloc", err)
		}
		if base != 0 && base&uintptr(align-1) == 0 {
			return unsafe.Slice((*byte)(pointer(base)), n), nil
		}
		if base != 0 {
			_ = windows.VirtualFree(base, 0, windows.MEM_RELEASE)
		}
		var room uintptr
		if room, err = windows.VirtualAlloc(0, uintptr(n+align), windows.MEM_RESERVE, access); err != nil {
			continue
		}
		_ = windows.VirtualFree(room, 0, windows.MEM_RELEASE)
		aligned := (room + uintptr(align-1)) &^ uintptr(align-1)
		if base, err = windows.VirtualAlloc(aligned, uintptr(n), how, access); err != nil {
			base, err = 0, nil // somebody was faster
		}
	}
	return nil, os.NewSyscallError("VirtualAlloc", windows.ERROR_INVALID_ADDRESS)
}

// unmapMemory gives a mapping of mapMemory back.
func unmapMemory(b []byte) error {
	return os.NewSyscallError("VirtualFree", windows.VirtualFree(uintptr(unsafe.Pointer(unsafe.SliceData(b))), 0, windows.MEM_RELEASE))
}

// pointer is an address of memory that is not Go's.
func pointer(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }

// adviseHuge does nothing, see hugePage.
func adviseHuge([]byte) error { return nil }

// adviseUnused lets the system take the pages of b when it needs them. What they read afterwards is not promised.
func adviseUnused(b []byte) (zeroed bool) {
	_, _ = windows.VirtualAlloc(uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), windows.MEM_RESET, windows.PAGE_READWRITE)
	return false
}

var globalMemoryStatusEx = windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalMemoryStatusEx")

// systemMemory is the machine's memory in bytes. 0: unknown.
func systemMemory() int64 {
	status := struct { // MEMORYSTATUSEX
		length, load                                                                     uint32
		total, free, pageTotal, pageFree, virtualTotal, virtualFree, virtualExtendedFree uint64
	}{}
	status.length = uint32(unsafe.Sizeof(status))
	if ok, _, _ := globalMemoryStatusEx.Call(uintptr(unsafe.Pointer(&status))); ok == 0 {
		return 0
	}
	return int64(status.total)
}

// ResidentBytes is this process's resident memory. 0: unknown, as always here.
func ResidentBytes() int64 { return 0 }
