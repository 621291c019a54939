package quant

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
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
// dtypes, and says whether all of them are finite.
func decode(dst []float32, dtype string, src []byte) (finite bool) {
	switch dtype {
	case F32:
		return decodeF32(dst, src[:4*len(dst)])
	case BF16:
		return decodeBF16(dst, src[:2*len(dst)])
	default:
		return decodeF16(dst, src[:2*len(dst)])
	}
}

// decodeF32 takes two elements with one load. Adding 0x00800000 carries into
// the sign's place exactly for the magnitudes of infinity and NaN.
func decodeF32(dst []float32, src []byte) bool {
	bad := uint64(0)
	for len(dst) >= 2 && len(src) >= 8 {
		x := binary.LittleEndian.Uint64(src)
		dst[0] = math.Float32frombits(uint32(x))
		dst[1] = math.Float32frombits(uint32(x >> 32))
		bad |= x&^sign32 + 0x0080000000800000
		dst, src = dst[2:], src[8:]
	}
	if len(dst) > 0 {
		x := binary.LittleEndian.Uint32(src)
		dst[0] = math.Float32frombits(x)
		bad |= uint64(x&0x7fffffff + 0x00800000)
	}
	return bad&sign32 == 0
}

// decodeBF16 takes four.
func decodeBF16(dst []float32, src []byte) bool {
	bad := uint64(0)
	for len(dst) >= 4 && len(src) >= 8 {
		x := binary.LittleEndian.Uint64(src)
		dst[0] = math.Float32frombits(uint32(x) << 16)
		dst[1] = math.Float32frombits(uint32(x) & 0xffff0000)
		dst[2] = math.Float32frombits(uint32(x>>32) << 16)
		dst[3] = math.Float32frombits(uint32(x>>32) & 0xffff0000)
		bad |= x&^sign16 + 0x0080008000800080
		dst, src = dst[4:], src[8:]
	}
	for i := range dst {
		x := binary.LittleEndian.Uint16(src[2*i:])
		dst[i] = math.Float32frombits(uint32(x) << 16)
		bad |= uint64(x&0x7fff + 0x80)
	}
	return bad&sign16 == 0
}

// decodeF16 takes four. It leaves infinity and NaN to a second look: they are errors anyway.
func decodeF16(dst []float32, src []byte) bool {
	all, bad := dst, uint64(0)
	for body := src; len(dst) >= 4 && len(body) >= 8; dst, body = dst[4:], body[8:] {
		x := binary.LittleEndian.Uint64(body)
		dst[0], dst[1], dst[2], dst[3] = widenF16(uint32(x)), widenF16(uint32(x>>16)), widenF16(uint32(x>>32)), widenF16(uint32(x>>48))
		bad |= x&^sign16 + 0x0400040004000400
	}
	for i := range dst {
		x := uint32(binary.LittleEndian.Uint16(src[2*(len(all)-len(dst)+i):]))
		dst[i] = widenF16(x)
		bad |= uint64(x&0x7fff + 0x0400)
	}
	if bad&sign16 == 0 {
		return true
	}
	dst = all
	for i := range dst {
		dst[i] = cpu.FromHalf(binary.LittleEndian.Uint16(src[2*i:]))
	}
	return false
}

// widenF16 is the value of a finite half in the low bits of h.
func widenF16(h uint32) float32 {
	magnitude := math.Float32frombits(h&0x7fff<<13) * halfShift
	return math.Float32frombits(math.Float32bits(magnitude) | h&0x8000<<16)
}

// halfShift: moved to float32's place, a half's exponent is off by 112,
// subnormals included.
const halfShift = 0x1p112

// finite says whether all numbers are finite. As in decodeF32 the sum carries for others.
func finite(dtype string, src []byte) bool {
	sign, step := uint64(sign16), uint64(0x0080008000800080)
	switch dtype {
	case F32:
		sign, step = sign32, 0x0080000000800000
	case F16:
		step = 0x0400040004000400
	}
	bad := uint64(0)
	for ; len(src) >= 8; src = src[8:] {
		bad |= binary.LittleEndian.Uint64(src)&^sign + step
	}
	var last [8]byte
	copy(last[:], src)
	bad |= binary.LittleEndian.Uint64(last[:])&^sign + step
	return bad&sign == 0
}

// bytesOf views numbers as they lie in memory.
func bytesOf[T float32 | uint16](x []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), len(x)*int(unsafe.Sizeof(*new(T))))
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
