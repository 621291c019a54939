package cpu

// ternaryMatMulRef defines [TernaryMatMul]: panels of nb blocks each, as many as panels holds; one token per xsum.
func ternaryMatMulRef(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	for p := 0; p < len(panels)/(nb*BlockBytes); p++ {
		for t, sum := range xsum {
			acc := (*[PanelRows]int32)(dst[t*ldd+p*PanelRows:])
			for r := range acc {
				acc[r] = -sum
			}
			for b := range nb {
				block := (*[BlockBytes]byte)(panels[(p*nb+b)*BlockBytes:])
				ternaryBlockRef(acc, block, (*[BlockCols]int8)(x[t*ldx+b*BlockCols:]))
			}
		}
	}
}

// ternaryBlockRef adds code*x, that is (w+1)*x, over the 16 columns of a block to each row's sum.
func ternaryBlockRef(acc *[PanelRows]int32, block *[BlockBytes]byte, x *[BlockCols]int8) {
	for r := range acc {
		s := acc[r]
		for j := range 4 {
			c := block[4*r+j]
			s += int32(c&3)*int32(x[j]) + int32(c>>2&3)*int32(x[4+j]) + int32(c>>4&3)*int32(x[8+j]) + int32(c>>6)*int32(x[12+j])
		}
		acc[r] = s
	}
}
