package cpu

// base3UnpackRef makes blocks of panel16 of groups of base 3.
func base3UnpackRef(dst, src []byte, groups int) {
	for g := range groups {
		to, from := dst[g*base3Group*BlockBytes:][:base3Group*BlockBytes], src[g*base3Packed*BlockBytes:][:base3Packed*BlockBytes]
		last := to[base3Packed*BlockBytes:]
		clear(last)
		for i, v := range from {
			to[i] = base3Codes[v]
			last[i%BlockBytes] |= base3Fifth[v] << (2 * (i / BlockBytes))
		}
	}
}

// base3MatVecRef defines [Base3MatVec]: panels of what was nb blocks each, as many as src holds.
func base3MatVecRef(dst []int32, src []byte, nb int, x []int8, xsum int32) {
	var blocks [base3Group * BlockBytes]byte
	for p := 0; len(src) > 0; p++ {
		acc := (*[PanelRows]int32)(dst[p*PanelRows:])
		for r := range acc {
			acc[r] = -xsum
		}
		for b := 0; b < nb; {
			count, size := 1, BlockBytes
			if b+base3Group <= nb-nb%base3Group {
				count, size = base3Group, base3Packed*BlockBytes
				base3UnpackRef(blocks[:], src, 1)
			} else {
				copy(blocks[:], src[:size])
			}
			for i := range count {
				ternaryBlockRef(acc, (*[BlockBytes]byte)(blocks[i*BlockBytes:]), (*[BlockCols]int8)(x[(b+i)*BlockCols:]))
			}
			src, b = src[size:], b+count
		}
	}
}
