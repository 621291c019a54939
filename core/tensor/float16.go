package tensor

import "math"

// Float16 values and bfloat16 values as stored. Both round to nearest, ties to
// even, keep infinities and signed zeros, and turn every NaN into a quiet one.
type (
	Float16Bits  uint16
	BFloat16Bits uint16
)

// ToFloat16 rounds f to IEEE 754 binary16. Magnitudes from 65520 up become
// infinite, those below 2^-24 become subnormal steps or zero.
func ToFloat16(f float32) Float16Bits {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000: // NaN: keep the upper payload bits, set the quiet bit
		return Float16Bits(sign | 0x7e00 | uint16(b>>13&0x3ff))
	case b >= 0x477ff000: // 65520 and more, infinity
		return Float16Bits(sign | 0x7c00)
	case b < 0x38800000: // below 2^-14: adding 0.5 makes float32 round at 2^-24
		r := math.Float32bits(math.Float32frombits(b)+0.5) - math.Float32bits(0.5)
		return Float16Bits(sign | uint16(r))
	}
	b += 0xfff + b>>13&1 // half of the dropped bits, ties to even
	return Float16Bits(sign | uint16((b-0x38000000)>>13))
}

// Float32 widens h exactly.
func (h Float16Bits) Float32() float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0: // zero and subnormals: frac * 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(frac)*0x1p-24))
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// ToBFloat16 rounds f to bfloat16.
func ToBFloat16(f float32) BFloat16Bits {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return BFloat16Bits(b>>16 | 0x40)
	}
	return BFloat16Bits((b + 0x7fff + b>>16&1) >> 16)
}

// Float32 widens h exactly.
func (h BFloat16Bits) Float32() float32 { return math.Float32frombits(uint32(h) << 16) }
