package cpu

import "golang.org/x/sys/unix"

// requestTiles asks Linux for the tile registers, which a process must do once before it uses them: their 8 KiB make signal frames
// larger than some programs expect. False when the kernel is too old, or a thread's signal stack too small.
func requestTiles() bool {
	const (
		archReqXcompPerm = 0x1023
		xtileData        = 18
	)
	_, _, err := unix.RawSyscall(unix.SYS_ARCH_PRCTL, archReqXcompPerm, xtileData, 0)
	return err == 0
}
