package quant

import (
	"encoding/binary"
	"fmt"
	"math"
)

// The source dtypes of weights, spelled as safetensors spells them. Bytes are
// little-endian and need no alignment.
const (
	F32  = "F32"
	F16  = "F16"
	BF16 = "BF16"
)

// infinity is the float32 bit pattern from which on magnitudes are not finite.
const infinity = 0x7f800000

// elementSize is the width of a source dtype in bytes.
func elementSize(dtype string) (int, error) {
	switch dtype {
	case F32:
		return 4, nil
	case F16, BF16:
		return 2, nil
	}
	return 0, fmt.Errorf("%w: found %.40q, expected F32, F16 or BF16", ErrDType, dtype)
}

// checkSource checks a source matrix and returns its element size.
func checkSource(dtype string, src []byte, rows, cols int) (int, error) {
	if err := checkShape(rows, cols); err != nil {
		return 0, err
	}
	size, err := elementSize(dtype)
	if err != nil {
		return 0, err
	}
	return size, checkBytes("source", len(src), rows*cols*size, rows, cols)
}

// decode converts len(dst) elements to float32, which is exact for all three
// dtypes, and returns the largest magnitude's bits: at or above infinity there
// is a NaN or an infinity among them.
func decode(dst []float32, dtype string, src []byte) (worst uint32) {
	switch dtype {
	case F32:
		src = src[:4*len(dst)]
		for i := range dst {
			bits := binary.LittleEndian.Uint32(src[4*i:])
			worst = max(worst, bits&0x7fffffff)
			dst[i] = math.Float32frombits(bits)
		}
	case BF16:
		src = src[:2*len(dst)]
		for i := range dst {
			bits := uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16
			worst = max(worst, bits&0x7fffffff)
			dst[i] = math.Float32frombits(bits)
		}
	case F16:
		src = src[:2*len(dst)]
		for i := range dst {
			bits := halfBits(binary.LittleEndian.Uint16(src[2*i:]))
			worst = max(worst, bits&0x7fffffff)
			dst[i] = math.Float32frombits(bits)
		}
	}
	return worst
}

// halfBits converts IEEE half precision to the bits of the equal float32. Moved
// to float32's place, a half's exponent is off by 112, subnormals included.
func halfBits(h uint16) uint32 {
	const shift = 0x1p112
	sign := uint32(h&0x8000) << 16
	if h&0x7c00 == 0x7c00 { // infinity and NaN
		return sign | infinity | uint32(h&0x3ff)<<13
	}
	return sign | math.Float32bits(math.Float32frombits(uint32(h&0x7fff)<<13)*shift)
}

// notFinite finds the first NaN or infinity of a row-major range that starts
// at element first of the matrix.
func notFinite(values []float32, first, cols int) error {
	for i, v := range values {
		if math.Float32bits(v)&0x7fffffff >= infinity {
			at := first + i
			return &ValueError{Kind: ErrNotFinite, Row: at / cols, Col: at % cols, Found: fmt.Sprint(v), Expected: "a finite number"}
		}
	}
	return nil
}
