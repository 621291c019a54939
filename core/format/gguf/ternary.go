package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// The orders in which I2_S tensors have their codes. Files do not say which one
// they have: it depends on the machine that wrote them.
const (
	I2SX86   = "x86"   // blocks of 128 values in 32 bytes: the published files
	I2SArm64 = "arm64" // blocks of 64 values in 16 bytes: files that were quantized on ARM
	I2SRow4  = "row4"  // a byte has one column of four rows: x86 builds of bitnet.cpp without ACT_PARALLEL
)

// I2SLayouts lists them.
func I2SLayouts() []string { return []string{I2SX86, I2SArm64, I2SRow4} }

// I2S reads the codes -1, 0 and 1 of an I2_S tensor [rows, cols] into dst and
// returns its scale. Code 3, which no writer makes, is an error.
//
// In every layout four values share a byte, the first of them in the two
// highest bits, and code c stands for c-1.
func I2S(dst []int8, layout string, src []byte, rows, cols int) (scale float32, err error) {
	n := rows * cols
	if size, ok := Bytes(I2_S, n, cols); !ok || len(src) != size || len(dst) != n {
		return 0, &container.Error{Kind: ErrDecode, Field: "size", Found: fmt.Sprintf("%d bytes, %d values", len(src), len(dst)),
			Expected: fmt.Sprintf("those of I2_S [%d, %d]", rows, cols)}
	}
	block, ok := i2sBlock(layout, cols)
	if !ok {
		return 0, &container.Error{Kind: ErrDecode, Field: "i2s_layout", Found: container.Quote(layout), Expected: fmt.Sprintf("one of %v", I2SLayouts())}
	}
	if n%block != 0 {
		return 0, &container.Error{Kind: ErrDecode, Field: "shape", Found: fmt.Sprintf("[%d, %d]", rows, cols),
			Expected: fmt.Sprintf("whole blocks of %d values in layout %s", block, layout)}
	}
	quarter := block / 4
	for at := 0; at < n; at += block {
		for k := range 4 {
			for i, b := range src[at/4 : at/4+quarter] {
				dst[at+k*quarter+i] = code2(b >> (6 - 2*k))
			}
		}
	}
	return I2SScale(src), noCode3(dst)
}

// i2sBlock is the number of values whose quarters share bytes.
func i2sBlock(layout string, cols int) (int, bool) {
	switch layout {
	case I2SX86:
		return 128, true
	case I2SArm64:
		return 64, true
	case I2SRow4:
		return 4 * cols, true
	}
	return 0, false
}

// I2SScale is the scale of an I2_S tensor, which stands behind its codes.
func I2SScale(src []byte) float32 {
	var v [1]float32
	decoders[F32](v[:], src[len(src)-i2sTail:])
	return v[0]
}

// code2 is what a code stands for: 3, which is none of a weight, for 2.
func code2(b byte) int8 { return int8(b&3) - 1 }

// noCode3 refuses codes of 3.
func noCode3(codes []int8) error {
	if i := slices.Index(codes, 2); i >= 0 {
		return &container.Error{Kind: ErrDecode, Field: fmt.Sprintf("code %d", i), Found: "3", Expected: "0, 1 or 2"}
	}
	return nil
}

// PutI2SRow writes codes, whose number is a multiple of 128, in the layout x86.
func PutI2SRow(dst []byte, codes []int8) {
	for at := 0; at < len(codes); at += 128 {
		for i := at; i < at+32; i += 8 {
			joined := digits(codes[i:])<<6 | digits(codes[i+32:])<<4 | digits(codes[i+64:])<<2 | digits(codes[i+96:])
			binary.LittleEndian.PutUint64(dst[i-at/4*3:], joined)
		}
	}
}

// digits are eight codes, -1, 0 and 1, plus 1, in a byte each.
func digits(codes []int8) uint64 {
	const ones = 0x0101010101010101
	eight := binary.LittleEndian.Uint64(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(codes[:8]))), 8))
	return (eight&(3*ones) + ones) & (3 * ones) // the low bits of -1 are 3
}

// I2STail is what stands behind the codes of a tensor: its scale, and padding.
func I2STail(scale float32) []byte {
	tail := make([]byte, i2sTail)
	binary.LittleEndian.PutUint32(tail, math.Float32bits(scale))
	return tail
}

// Codes reads the codes -1, 0 and 1 of whole blocks of TQ1_0 or TQ2_0, and
// their one scale. A block whose scale is 0 is a block of zeros and may have
// any codes; otherwise all scales have to be equal, as they are in files made
// of ternary weights, and code 3 is an error.
func Codes(dst []int8, dtype string, src []byte) (scale float32, err error) {
	d := dtypes[dtype]
	if (dtype != TQ1_0 && dtype != TQ2_0) || len(src)%d.bytes != 0 || len(dst) != len(src)/d.bytes*d.values {
		return 0, &container.Error{Kind: ErrDecode, Field: "size", Found: fmt.Sprintf("%d bytes, %d values of %s", len(src), len(dst), dtype),
			Expected: "whole blocks of TQ1_0 or TQ2_0"}
	}
	for at := 0; at < len(dst); at += 256 {
		b := src[at/256*d.bytes:][:d.bytes]
		s := half(b[d.bytes-2:])
		switch {
		case s == 0:
			clear(dst[at : at+256])
			continue
		case scale == 0:
			scale = s
		case s != scale:
			return 0, &container.Error{Kind: ErrDecode, Field: fmt.Sprintf("scale of block %d", at/256), Found: fmt.Sprint(s),
				Expected: fmt.Sprintf("%v, the scale of the blocks before it: weights of a ternary layer have one scale", scale)}
		}
		codesOf(dst[at:at+256], dtype, b)
	}
	return scale, noCode3(dst)
}

// codesOf decodes one block.
func codesOf(dst []int8, dtype string, b []byte) {
	if dtype == TQ2_0 {
		// Each 32 bytes have 128 values, value 32k+i in bits 2k of byte i.
		for v := range dst {
			dst[v] = code2(b[v/128*32+v%32] >> (v % 128 / 32 * 2))
		}
		return
	}
	for v := range dst {
		i, digit := trit(v)
		dst[v] = int8(uint16(b[i]*powers3[digit])*3>>8) - 1
	}
}

// trit says which byte of a TQ1_0 block has value v, and as which of its digits
// in base 3: 32 bytes have five times 32 values, 16 bytes five times 16, 4 bytes
// four times 4. A byte is its five digits, the first the highest, as a fraction
// of 256: digit n is what 3 times the byte times 3^n, modulo 256, carries over.
func trit(v int) (index, digit int) {
	switch {
	case v < 160:
		return v % 32, v / 32
	case v < 240:
		return 32 + (v-160)%16, (v - 160) / 16
	default:
		return 48 + (v-240)%4, (v - 240) / 4
	}
}

var powers3 = [...]byte{1, 3, 9, 27, 81}

// RowCodes reads the codes -1, 0 and 1 of a tensor of IQ1_BN or IQ2_BN with
// rows of cols, and their one scale. These types are ik_llama.cpp's: a row is
// its scale, float16 or float32, and blocks of 64 codes. Scales have to be
// equal, as they are in files made of ternary weights.
//
// IQ2_BN has value 16k+i of a block in bits 2k of byte i. IQ1_BN has value
// 16g+5j+n in digit n in base 3, the lowest first, of byte 3g+j, and value
// 16g+15 in digit g of the last byte; a byte is a fraction of 256, as in TQ1_0.
func RowCodes(dst []int8, dtype string, src []byte, cols int) (scale float32, err error) {
	d, front := dtypes[dtype], rowScales[dtype]
	if size, ok := Bytes(dtype, len(dst), cols); !ok || front == 0 || len(src) != size {
		return 0, &container.Error{Kind: ErrDecode, Field: "size", Found: fmt.Sprintf("%d bytes, %d values of %s in rows of %d", len(src), len(dst), dtype, cols),
			Expected: "rows of whole blocks of IQ1_BN or IQ2_BN"}
	}
	stride := front + cols/d.values*d.bytes
	for row := 0; row*stride < len(src); row++ {
		text := src[row*stride:][:stride]
		s := half(text)
		if front == 4 {
			s = math.Float32frombits(binary.LittleEndian.Uint32(text))
		}
		if row == 0 {
			scale = s
		}
		if s != scale {
			return 0, &container.Error{Kind: ErrDecode, Field: fmt.Sprintf("scale of row %d", row), Found: fmt.Sprint(s),
				Expected: fmt.Sprintf("%v, the scale of the rows before it: weights of a ternary layer have one scale", scale)}
		}
		for c := range cols {
			b, v := text[front+c/64*d.bytes:], c%64
			switch {
			case dtype == IQ2_BN:
				dst[row*cols+c] = code2(b[v%16] >> (v / 16 * 2))
			case v%16 == 15:
				dst[row*cols+c] = lowDigit(b[12], v/16)
			default:
				dst[row*cols+c] = lowDigit(b[v/16*3+v%16/5], v%16%5)
			}
		}
	}
	return scale, noCode3(dst)
}

// lowDigit is digit n in base 3 of five, counted from the lowest, less 1.
func lowDigit(b byte, n int) int8 { return int8(uint16(b*powers3[4-n])*3>>8) - 1 }

// PutCodes writes codes, whose number is a multiple of 256, as blocks of TQ1_0
// or TQ2_0 that all have the scale, the bits of a float16.
func PutCodes(dst []byte, dtype string, codes []int8, scale uint16) {
	size := dtypes[dtype].bytes
	for block := range slices.Chunk(codes, 256) {
		b := dst[:size]
		dst = dst[size:]
		if dtype == TQ2_0 {
			for half := range 2 {
				for at := 128 * half; at < 128*half+32; at += 8 {
					joined := digits(block[at:]) | digits(block[at+32:])<<2 | digits(block[at+64:])<<4 | digits(block[at+96:])<<6
					binary.LittleEndian.PutUint64(b[at-96*half:], joined)
				}
			}
		} else {
			putTrits(b, block)
		}
		b[size-2], b[size-1] = byte(scale), byte(scale>>8)
	}
}

func putTrits(b []byte, codes []int8) {
	var sums [52]int
	for v, c := range codes {
		i, digit := trit(v)
		sums[i] += int(c+1) * int(powers3[4-digit])
	}
	for i, sum := range sums { // as a fraction of 243, rounded up, so that the digits come back
		b[i] = byte((sum*256 + 242) / 243)
	}
}
