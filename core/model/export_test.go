package model

import "github.com/bitnet-rust/bitnet_rust/accel/cpu"

// CRC32C is the checksum of the native format, for tests that write such files.
func CRC32C(b []byte) uint32 {
	var sum checksum
	sum.update(b)
	return uint32(sum)
}

// Packings are those that this processor is fast with.
var Packings = packings

func packings() []string {
	if cpu.Base3Ready() {
		return []string{Packing2Bit, PackingBase3}
	}
	return []string{Packing2Bit}
}
