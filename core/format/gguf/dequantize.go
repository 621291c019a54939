package gguf

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// Decodes says whether Dequantize knows a type.
func Decodes(dtype string) bool { return decoders[dtype] != nil }

// Decoded lists the types that Dequantize knows, sorted.
func Decoded() []string { return slices.Sorted(maps.Keys(decoders)) }

// Dequantize writes the numbers of whole blocks into dst, which has room for
// all of them. The products are rounded where the Python package gguf rounds
// them. I2_S is decoded by I2S.
func Dequantize(dst []float32, dtype string, src []byte) error {
	decode, d := decoders[dtype], dtypes[dtype]
	if decode == nil {
		return &container.Error{Kind: ErrDecode, Field: "type", Found: dtype, Expected: "one of " + strings.Join(Decoded(), ", ")}
	}
	if len(src)%d.bytes != 0 || len(dst) != len(src)/d.bytes*d.values {
		return &container.Error{Kind: ErrDecode, Field: "size", Found: fmt.Sprintf("%d bytes for %d values of %s", len(src), len(dst), dtype),
			Expected: fmt.Sprintf("blocks of %d bytes for %d values", d.bytes, d.values)}
	}
	for len(src) > 0 {
		decode(dst[:d.values], src[:d.bytes])
		dst, src = dst[d.values:], src[d.bytes:]
	}
	return nil
}

// decoders turn one block into numbers.
var decoders = map[string]func(dst []float32, b []byte){
	F32: func(dst []float32, b []byte) { dst[0] = math.Float32frombits(binary.LittleEndian.Uint32(b)) },
	F16: func(dst []float32, b []byte) { dst[0] = half(b) },
	BF16: func(dst []float32, b []byte) {
		dst[0] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
	},
	Q4_0: decodeQ4, Q8_0: decodeQ8, Q4_K: decodeQ4K, Q6_K: decodeQ6K,
	TQ1_0: decodeTernary(TQ1_0), TQ2_0: decodeTernary(TQ2_0),
}

// half widens an IEEE half. Its exponent and fraction, where a float32 has them, are the number times 2^-112.
func half(b []byte) float32 {
	h := uint32(binary.LittleEndian.Uint16(b))
	sign := h & 0x8000 << 16
	if h&0x7c00 == 0x7c00 { // infinity, NaN
		return math.Float32frombits(sign | 0x7f800000 | h&0x3ff<<13)
	}
	return math.Float32frombits(sign | math.Float32bits(math.Float32frombits(h&0x7fff<<13)*0x1p112))
}

// Q4_0: a half, then 16 bytes; byte i has value i in its low bits and value
// 16+i in its high bits, less 8.
func decodeQ4(dst []float32, b []byte) {
	d := half(b)
	for i, q := range b[2:18] {
		dst[i] = d * float32(int(q&15)-8)
		dst[16+i] = d * float32(int(q>>4)-8)
	}
}

// Q8_0: a half, then 32 int8.
func decodeQ8(dst []float32, b []byte) {
	d := half(b)
	for i, q := range b[2:34] {
		dst[i] = d * float32(int8(q))
	}
}

// Q4_K: two halves d and dmin; 12 bytes of eight 6-bit scales and eight 6-bit
// minima; 128 bytes of four bits, each 32 bytes two groups of 32 values.
func decodeQ4K(dst []float32, b []byte) {
	d, dmin, packed, codes := half(b), half(b[2:]), b[4:16], b[16:144]
	for group := range 8 {
		scale, least := scales6(packed, group)
		s, m := float32(d*float32(scale)), float32(dmin*float32(least))
		for i := range 32 {
			q := codes[group/2*32+i] >> (4 * (group % 2)) & 15
			dst[group*32+i] = float32(s*float32(q)) - m
		}
	}
}

// scales6 unpacks scale and minimum of a group: those of groups 0 to 3 are the
// low six bits of bytes 0 to 3 and 4 to 7, of the others the nibbles of bytes 8
// to 11 below the high two bits of bytes 0 to 7.
func scales6(packed []byte, group int) (scale, least byte) {
	if group < 4 {
		return packed[group] & 63, packed[group+4] & 63
	}
	return packed[group+4]&15 | packed[group-4]>>6<<4, packed[group+4]>>4 | packed[group]>>6<<4
}

// Q6_K: 128 bytes of low four bits, 64 bytes of high two bits, 16 int8 scales
// for 16 values each, a half. Each half of the block has 64 and 32 bytes of
// them: value 32k+i of it is nibble k/2 of low byte 32(k%2)+i with the bits 2k
// of high byte i, less 32.
func decodeQ6K(dst []float32, b []byte) {
	d := half(b[208:])
	for part := range 2 {
		high := b[128+32*part:][:32]
		for k := range 4 {
			out, low := dst[128*part+32*k:][:32], b[64*part+k%2*32:][:32]
			nibble, pair := k/2*4, 2*k
			for h, scale := range b[192+8*part+2*k:][:2] {
				s := float32(d * float32(int8(scale)))
				for i := 16 * h; i < 16*h+16; i += 8 {
					q := binary.LittleEndian.Uint64(low[i:])>>nibble&0x0f0f0f0f0f0f0f0f | binary.LittleEndian.Uint64(high[i:])>>pair&0x0303030303030303<<4
					eight := (*[8]float32)(out[i:])
					eight[0], eight[1], eight[2], eight[3] = s*sixBits[q&63], s*sixBits[q>>8&63], s*sixBits[q>>16&63], s*sixBits[q>>24&63]
					eight[4], eight[5], eight[6], eight[7] = s*sixBits[q>>32&63], s*sixBits[q>>40&63], s*sixBits[q>>48&63], s*sixBits[q>>56&63]
				}
			}
		}
	}
}

// sixBits are the values of six bits, less 32.
var sixBits = func() (t [64]float32) {
	for i := range t {
		t[i] = float32(i - 32)
	}
	return t
}()

// decodeTernary multiplies the codes of a block by the half behind them.
func decodeTernary(dtype string) func(dst []float32, b []byte) {
	return func(dst []float32, b []byte) {
		var codes [256]int8
		codesOf(codes[:], dtype, b)
		d := half(b[len(b)-2:])
		for i, c := range codes {
			dst[i] = d * float32(c)
		}
	}
}
