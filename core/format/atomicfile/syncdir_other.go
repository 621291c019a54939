//go:build !unix

package atomicfile

// syncDir does nothing: directories cannot be flushed on this system.
func syncDir(string) error { return nil }
