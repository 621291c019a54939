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

// EachCodes shows the codes -1, 0 and 1 of a tensor of a ternary type, whose
// rows have cols, to each: a few at a time, which are the values from at on, and
// lie in the first read bytes. So memory does not grow with the tensor. It
// returns the tensor's one scale. i2sLayout is for I2_S alone.
//
// Code 3, which no writer makes, is shown as 2 and an error at the end; an error
// of each ends it. See I2S, Codes and RowCodes for the types.
func EachCodes(dtype, i2sLayout string, src []byte, n, cols int, each func(codes []int8, at, read int) error) (scale float32, err error) {
	c := codeReader{dtype: dtype, src: src, n: n, cols: cols, each: each, bad: -1}
	switch dtype {
	case I2_S:
		scale, err = c.i2s(i2sLayout)
	case TQ1_0, TQ2_0:
		scale, err = c.blocks()
	case IQ1_BN, IQ2_BN:
		scale, err = c.rows()
	default:
		return 0, &container.Error{Kind: ErrDecode, Field: "type", Found: dtype, Expected: "a ternary type"}
	}
	if err == nil && c.bad >= 0 {
		err = &container.Error{Kind: ErrDecode, Field: fmt.Sprintf("code %d", c.bad), Found: "3", Expected: "0, 1 or 2"}
	}
	return scale, err
}

// IsTernary says whether EachCodes knows a type.
func IsTernary(dtype string) bool {
	return slices.Contains([]string{I2_S, TQ1_0, TQ2_0, IQ1_BN, IQ2_BN}, dtype)
}

// codeReader is EachCodes under way.
type codeReader struct {
	dtype   string
	src     []byte
	n, cols int
	each    func(codes []int8, at, read int) error
	bad     int // the first value with a code 3, -1 if there is none
}

// show passes codes on; three says that there may be a code 3 among them.
func (c *codeReader) show(codes []int8, at, read int, three bool) error {
	if three {
		if i := slices.Index(codes, 2); i >= 0 && (c.bad < 0 || at+i < c.bad) {
			c.bad = at + i
		}
	}
	return c.each(codes, at, read)
}

// I2S reads the codes -1, 0 and 1 of an I2_S tensor [rows, cols] into dst and
// returns its scale. Code 3, which no writer makes, is an error.
//
// In every layout four values share a byte, the first of them in the two
// highest bits, and code c stands for c-1.
func I2S(dst []int8, layout string, src []byte, rows, cols int) (scale float32, err error) {
	if len(dst) != rows*cols {
		return 0, sizeError(src, len(dst), fmt.Sprintf("those of I2_S [%d, %d]", rows, cols))
	}
	return EachCodes(I2_S, layout, src, len(dst), cols, into(dst))
}

// into copies codes to their places.
func into(dst []int8) func(codes []int8, at, _ int) error {
	return func(codes []int8, at, _ int) error {
		copy(dst[at:], codes)
		return nil
	}
}

func sizeError(src []byte, n int, expected string) error {
	return &container.Error{Kind: ErrDecode, Field: "size", Found: fmt.Sprintf("%d bytes, %d values", len(src), n), Expected: expected}
}

func (c *codeReader) i2s(layout string) (scale float32, err error) {
	if size, ok := Bytes(I2_S, c.n, c.cols); !ok || len(c.src) != size {
		return 0, sizeError(c.src, c.n, fmt.Sprintf("those of I2_S [%d, %d]", c.n/max(1, c.cols), c.cols))
	}
	block, ok := i2sBlock(layout, c.cols)
	if !ok {
		return 0, &container.Error{Kind: ErrDecode, Field: "i2s_layout", Found: container.Quote(layout), Expected: fmt.Sprintf("one of %v", I2SLayouts())}
	}
	if c.n%block != 0 {
		return 0, &container.Error{Kind: ErrDecode, Field: "shape", Found: fmt.Sprintf("[%d, %d]", c.n/c.cols, c.cols),
			Expected: fmt.Sprintf("whole blocks of %d values in layout %s", block, layout)}
	}
	quarter := block / 4
	var codes [1024]int8
	for at := 0; at < c.n/4; {
		piece := c.src[at:][:min(len(codes), quarter-at%quarter)]
		three := HasCode3(piece)
		for k := range 4 {
			codes2(codes[:], piece, 6-2*k)
			if err := c.show(codes[:len(piece)], at/quarter*block+k*quarter+at%quarter, at+len(piece), three); err != nil {
				return 0, err
			}
		}
		at += len(piece)
	}
	return I2SScale(c.src), nil
}

// HasCode3 says whether there is the one code of two bits, four in a byte, that stands for no weight.
func HasCode3(src []byte) bool {
	var bad uint64
	for ; len(src) >= 8; src = src[8:] {
		x := binary.LittleEndian.Uint64(src)
		bad |= x & (x >> 1)
	}
	for _, b := range src {
		bad |= uint64(b & (b >> 1))
	}
	return bad&0x5555555555555555 != 0
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

// codes2 is code2 of the same two bits of many bytes.
func codes2(dst []int8, src []byte, shift int) {
	const ones, signs = 0x0101010101010101, 0x8080808080808080
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), len(dst))
	whole := len(src) &^ 7
	for i := 0; i < whole; i += 8 {
		eight := binary.LittleEndian.Uint64(src[i:]) >> shift & (3 * ones)
		binary.LittleEndian.PutUint64(raw[i:], (eight|signs-ones)^signs) // each less 1, without a carry
	}
	for i, b := range src[whole:] {
		dst[whole+i] = code2(b >> shift)
	}
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
	if dtype != TQ1_0 && dtype != TQ2_0 {
		return 0, sizeError(src, len(dst), "whole blocks of TQ1_0 or TQ2_0")
	}
	return EachCodes(dtype, "", src, len(dst), len(dst), into(dst))
}

func (c *codeReader) blocks() (scale float32, err error) {
	d := dtypes[c.dtype]
	if len(c.src)%d.bytes != 0 || c.n != len(c.src)/d.bytes*d.values {
		return 0, sizeError(c.src, c.n, "whole blocks of TQ1_0 or TQ2_0")
	}
	var codes [256]int8
	for at := 0; at < c.n; at += len(codes) {
		read := (at/256 + 1) * d.bytes
		b := c.src[read-d.bytes : read]
		s := half(b[d.bytes-2:])
		three := false
		switch {
		case s == 0:
			clear(codes[:])
		case scale != 0 && s != scale:
			return 0, &container.Error{Kind: ErrDecode, Field: fmt.Sprintf("scale of block %d", at/256), Found: fmt.Sprint(s),
				Expected: fmt.Sprintf("%v, the scale of the blocks before it: weights of a ternary layer have one scale", scale)}
		default:
			scale = s
			codesOf(codes[:], c.dtype, b)
			three = c.dtype == TQ2_0 && HasCode3(b[:d.bytes-2])
		}
		if err := c.show(codes[:], at, read, three); err != nil {
			return 0, err
		}
	}
	return scale, nil
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
	if rowScales[dtype] == 0 {
		return 0, sizeError(src, len(dst), "rows of whole blocks of IQ1_BN or IQ2_BN")
	}
	return EachCodes(dtype, "", src, len(dst), cols, into(dst))
}

func (c *codeReader) rows() (scale float32, err error) {
	d, front := dtypes[c.dtype], rowScales[c.dtype]
	if size, ok := Bytes(c.dtype, c.n, c.cols); !ok || len(c.src) != size {
		return 0, sizeError(c.src, c.n, "rows of whole blocks of IQ1_BN or IQ2_BN")
	}
	var codes [64]int8
	read := 0
	for row := range c.n / c.cols {
		text := c.src[read:][:front]
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
		read += front
		for at := 0; at < c.cols; at += len(codes) {
			b := c.src[read:][:d.bytes]
			for v := range codes {
				switch {
				case c.dtype == IQ2_BN:
					codes[v] = code2(b[v%16] >> (v / 16 * 2))
				case v%16 == 15:
					codes[v] = lowDigit(b[12], v/16)
				default:
					codes[v] = lowDigit(b[v/16*3+v%16/5], v%16%5)
				}
			}
			read += d.bytes
			if err := c.show(codes[:], row*c.cols+at, read, c.dtype == IQ2_BN && HasCode3(b)); err != nil {
				return 0, err
			}
		}
	}
	return scale, nil
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
