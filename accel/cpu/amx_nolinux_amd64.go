//go:build !linux && amd64

package cpu

// requestTiles: the other systems are not asked for tile registers.
func requestTiles() bool { return false }
