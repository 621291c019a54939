package safetensors

import (
	"maps"
	"math/bits"
	"slices"
	"strings"
)

// The dtypes that the format names, spelled as in the file's header.
const (
	Bool       = "BOOL"
	F4         = "F4"
	F6E2M3     = "F6_E2M3"
	F6E3M2     = "F6_E3M2"
	U8         = "U8"
	I8         = "I8"
	F8E5M2     = "F8_E5M2"
	F8E4M3     = "F8_E4M3"
	F8E8M0     = "F8_E8M0"
	F8E4M3FNUZ = "F8_E4M3FNUZ"
	F8E5M2FNUZ = "F8_E5M2FNUZ"
	I16        = "I16"
	U16        = "U16"
	F16        = "F16"
	BF16       = "BF16"
	I32        = "I32"
	U32        = "U32"
	F32        = "F32"
	C64        = "C64"
	F64        = "F64"
	I64        = "I64"
	U64        = "U64"
)

// dtypeBits is the width of one element. F4 and the F6 kinds are packed
// without padding between elements, so widths are counted in bits.
var dtypeBits = map[string]int{
	Bool: 8, F4: 4, F6E2M3: 6, F6E3M2: 6,
	U8: 8, I8: 8, F8E5M2: 8, F8E4M3: 8, F8E8M0: 8, F8E4M3FNUZ: 8, F8E5M2FNUZ: 8,
	I16: 16, U16: 16, F16: 16, BF16: 16,
	I32: 32, U32: 32, F32: 32,
	C64: 64, F64: 64, I64: 64, U64: 64,
}

// DTypeBits returns the width of one element of the named dtype in bits, and
// whether the format knows the name.
func DTypeBits(name string) (int, bool) {
	n, ok := dtypeBits[name]
	return n, ok
}

// DTypes lists the names the format knows, sorted.
func DTypes() []string { return slices.Sorted(maps.Keys(dtypeBits)) }

func dtypeList() string { return "one of " + strings.Join(DTypes(), ", ") }

// byteSize is the number of bytes of a tensor. ok is false when the count does
// not fit an int64 or, for sub-byte dtypes, is no whole number of bytes. The
// product is taken over the dimensions that are not zero, so that a zero-size
// tensor cannot hide dimensions whose partial products overflow later.
func byteSize(shape []int, width int) (size int64, ok bool) {
	total, empty := uint64(width), false
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		if d == 0 {
			empty = true
			continue
		}
		hi, lo := bits.Mul64(total, uint64(d))
		if hi != 0 || lo > 1<<62 {
			return 0, false
		}
		total = lo
	}
	if empty {
		return 0, true
	}
	return int64(total / 8), total%8 == 0
}
