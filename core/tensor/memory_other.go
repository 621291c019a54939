//go:build !linux

package tensor

// physicalMemory is unknown here; allocations are bounded by SetMemoryLimit.
func physicalMemory() int64 { return 0 }
