package model

// CRC32C is the checksum of the native format, for tests that write such files.
func CRC32C(b []byte) uint32 {
	var sum checksum
	sum.update(b)
	return uint32(sum)
}
