package tensor

import (
	"sync"

	"golang.org/x/sys/unix"
)

// physicalMemory is the machine's RAM in bytes, 0 when it cannot be told.
var physicalMemory = sync.OnceValue(func() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(uint64(info.Totalram) * uint64(info.Unit))
})
