package cpu

import "math"

func quantizeInt16Ref(hi, lo []int8, x []float32, s float32) (sumHi, sumLo int32) {
	for i, v := range x {
		v *= s
		if !(v > -Int16Max) {
			v = -Int16Max
		}
		if v > Int16Max {
			v = Int16Max
		}
		q := int32(int16(math.Float32bits(float32(v) + expMagic))) // the low bits are v rounded, ties to even
		h, l := (q+128)>>8, int32(int8(q))                         // the low byte, as a signed number, is q - 256*h
		hi[i], lo[i] = int8(h), int8(l)
		sumHi += h
		sumLo += l
	}
	return sumHi, sumLo
}

// int8PanelRef defines one panel of [DenseIntMatMul] with [DenseInt8].
func int8PanelRef(dst []float32, ldd int, panel []byte, scale *[PanelRows]float32, x *Int16Rows, tokens int, add bool) {
	for t := range tokens {
		var hi, lo [PanelRows]int32
		for b := range len(panel) / BlockBytes {
			block, at := (*[BlockBytes]byte)(panel[b*BlockBytes:]), t*x.Stride+4*b
			int8BlockRef(&hi, block, (*[4]int8)(x.Hi[at:]))
			int8BlockRef(&lo, block, (*[4]int8)(x.Lo[at:]))
		}
		denseIntResults((*[PanelRows]float32)(dst[t*ldd:]), &hi, &lo, scale, x.Inv[t], add)
	}
}

// denseIntResults makes the results of a panel and a token of their sums.
func denseIntResults(out *[PanelRows]float32, hi, lo *[PanelRows]int32, scale *[PanelRows]float32, inv float32, add bool) {
	for r := range out {
		sum := float32(float32(hi[r])*256) + float32(lo[r])
		y := float32(float32(sum*scale[r]) * inv)
		if add {
			y += out[r]
		}
		out[r] = y
	}
}

// int8BlockRef adds w*x over the 4 columns of a block to each row's sum.
func int8BlockRef(acc *[PanelRows]int32, block *[BlockBytes]byte, x *[4]int8) {
	for r := range acc {
		for j, v := range x {
			acc[r] += (int32(block[4*r+j]) - 128) * int32(v)
		}
	}
}
