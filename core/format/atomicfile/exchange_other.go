//go:build !linux

package atomicfile

// exchange is not possible on this system.
func exchange(string, string) (done bool, err error) { return false, nil }
