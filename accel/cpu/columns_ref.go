package cpu

import "math"

func absMaxColumnsRef(top, x []float32, f float32) {
	for i, v := range x {
		top[i] = math.Float32frombits(max(math.Float32bits(top[i]), math.Float32bits(v*f)&^(1<<31)))
	}
}

// quantizeColumnsRef does rows [r0, r1) and columns [c0, c1) of x, and adds to the sums.
func quantizeColumnsRef(dst *Int16Rows, x []float32, ldx, r0, r1, c0, c1 int, f, s []float32) {
	for r := r0; r < r1; r++ {
		for c := c0; c < c1; c++ {
			at := c*dst.Stride + r
			v := float32(x[r*ldx+c] * f[r])
			hi, lo := quantizeInt16Ref(dst.Hi[at:at+1], dst.Lo[at:at+1], []float32{v}, s[c])
			dst.SumHi[c] += hi
			dst.SumLo[c] += lo
		}
	}
}

// int8ColumnsRef does the blocks of four rows from the first one on, of columns c0 to c1, with zeros as padding.
func int8ColumnsRef(dst []byte, stride int, x []int8, ldx, first, rows, c0, c1 int) {
	zero := denseFormats[DenseInt8].zero
	for p := c0 / PanelRows; p < ceilDiv(c1, PanelRows); p++ {
		for b := first; b < stride/BlockBytes; b++ {
			block := dst[p*stride+b*BlockBytes:][:BlockBytes]
			for i := range block {
				block[i] = zero
				if r, c := 4*b+i%4, p*PanelRows+i/4; r < rows && c < c1 {
					block[i] = byte(x[r*ldx+c]) ^ 0x80
				}
			}
		}
	}
}

// ternaryFlipRef does the blocks of sixteen rows from the first one on, of columns c0 to c1, with zeros as padding.
func ternaryFlipRef(dst []byte, stride int, w []float32, ldw, first, rows, c0, c1 int, half float32) {
	for p := c0 / PanelRows; p < ceilDiv(c1, PanelRows); p++ {
		for b := first; b < stride/BlockBytes; b++ {
			block := dst[p*stride+b*BlockBytes:][:BlockBytes]
			for i := range block {
				block[i] = 0
				for f := range 4 {
					code := byte(1)
					if r, c := BlockCols*b+4*f+i%4, p*PanelRows+i/4; r < rows && c < c1 {
						switch v := w[r*ldw+c]; {
						case v > half:
							code = 2
						case v < -half:
							code = 0
						}
					}
					block[i] |= code << (2 * f)
				}
			}
		}
	}
}

func ternaryRowRef(lane []byte, w []float32, half float32) {
	for b := 0; b*BlockCols < len(w); b++ {
		at := lane[b*BlockBytes:][:4]
		copy(at, "\x55\x55\x55\x55") // weight 0
		for k, v := range w[b*BlockCols : min((b+1)*BlockCols, len(w))] {
			code := byte(1)
			if v > half {
				code = 2
			} else if v < -half {
				code = 0
			}
			at[k%4] ^= (code ^ 1) << (2 * (k / 4))
		}
	}
}
