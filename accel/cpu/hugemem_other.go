//go:build !linux

package cpu

func hugeMemory(n int) (mem []byte, free func(), err error) {
	return make([]byte, n), func() {}, nil
}
