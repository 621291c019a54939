package cpu

import (
	"encoding/binary"
	"math"
)

// int4Scale is the scale of row r of a panel of [DenseInt4] for a group of columns.
func int4Scale(panel []byte, r, group int) float32 {
	return math.Float32frombits(uint32(binary.LittleEndian.Uint16(panel[int4ScaleOffset(r, group):])) << 16)
}

// int4Row decodes row r of a panel.
func int4Row(dst []float32, panel []byte, r int) {
	for g := 0; len(dst) > 0; g++ {
		n, scale := min(Int4Group, len(dst)), int4Scale(panel, r, g)
		for k := range dst[:n] {
			b := panel[denseOffset(DenseInt4, r, g*Int4Group+k)]
			dst[k] = float32(int(b>>(k%8/4*4)&15)-8) * scale
		}
		dst = dst[n:]
	}
}

// Int4Errors is, for each of some inverse steps s, what rounding x to integers of -8 to 7 loses:
//
//	dst[i] = sum_k (v - clamp(roundHalfEven(v), -8, 7))^2    with v = x[k]*s[i]
//
// in units of the step's square, for k ascending; products and sums are rounded separately.
func Int4Errors(dst, s *[Lanes]float32, x []float32) {
	*dst = [Lanes]float32{}
	if len(x) > 0 {
		int4Errors(dst, s, x)
	}
}

// int4Each goes panel by panel.
func int4Each(dst []float32, ldd int, panels []byte, stride, blocks int, x *Int16Rows, tokens int, add bool) {
	for p := range len(panels) / stride {
		int4Panel(dst[p*PanelRows:], ldd, panels[p*stride:(p+1)*stride], blocks, x, tokens, add)
	}
}

// int4PanelRef defines one panel of [DenseIntMatMul] with [DenseInt4].
func int4PanelRef(dst []float32, ldd int, panel []byte, blocks int, x *Int16Rows, tokens int, add bool) {
	const groupBlocks = int4Run / 2
	for t := range tokens {
		var y [PanelRows]float32
		for g := range ceilDiv(blocks, groupBlocks) {
			var acc [PanelRows]int32
			for b := g * groupBlocks; b < min((g+1)*groupBlocks, blocks); b++ {
				block, at := (*[BlockBytes]byte)(panel[(1+b/int4Run+b)*BlockBytes:]), t*x.Stride+8*b
				int4BlockRef(&acc, block, (*[8]int8)(x.Hi[at:]), (*[8]int8)(x.Lo[at:]))
			}
			for r, a := range acc {
				y[r] = FMA(float32(a), int4Scale(panel, r, g), y[r])
			}
		}
		out := (*[PanelRows]float32)(dst[t*ldd:])
		for r, v := range y {
			v = float32(v * x.Inv[t])
			if add {
				v += out[r]
			}
			out[r] = v
		}
	}
}

// int4BlockRef adds w*x over the 8 columns of a block to each row's sum.
func int4BlockRef(acc *[PanelRows]int32, block *[BlockBytes]byte, hi, lo *[8]int8) {
	for r := range acc {
		for j := range 4 {
			c := block[4*r+j]
			acc[r] += (int32(c&15)-8)*(256*int32(hi[j])+int32(lo[j])) + (int32(c>>4)-8)*(256*int32(hi[4+j])+int32(lo[4+j]))
		}
	}
}

func int4ErrorsRef(dst, s *[Lanes]float32, x []float32) {
	for i, step := range s {
		sum := float32(0)
		for _, v := range x {
			v = float32(v * step)
			d := v - (float32(min(max(v, -8), 7)+expMagic) - expMagic)
			sum += float32(d * d)
		}
		dst[i] = sum
	}
}
