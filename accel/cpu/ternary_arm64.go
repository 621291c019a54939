package cpu

// ternaryMatMul goes panel by panel over some tokens at a time. Few of them get the whole panel, more get its halves one after the other.
func ternaryMatMul(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	isa := Active()
	if isa == Scalar {
		ternaryMatMulRef(dst, ldd, panels, nb, x, ldx, xsum)
		return
	}
	most, whole := 4, 1
	if isa == NEONDot {
		most, whole = 8, 4
	}
	stride := nb * BlockBytes
	for p := range len(panels) / stride {
		for t, size := 0, 0; t < len(xsum); t += size {
			size = tile(len(xsum)-t, most)
			for r := 0; r < PanelRows; r += PanelRows / 2 {
				d, w := &dst[t*ldd+p*PanelRows+r], &panels[p*stride+4*r]
				if isa == NEONDot {
					ternaryTileDot(size, d, ldd, w, &x[t*ldx], ldx, &xsum[t], nb)
				} else {
					ternaryTileNEON(size, d, ldd, w, &x[t*ldx], ldx, &xsum[t], nb)
				}
				if size <= whole {
					break
				}
			}
		}
	}
}

func ternaryTileNEON(tokens int, dst *int32, ldd int, w *byte, x *int8, ldx int, xsum *int32, nb int) {
	switch tokens {
	case 1:
		ternaryGemvNEON(dst, w, x, xsum, nb)
	case 2:
		ternaryGemmNEONt2(dst, ldd, w, x, ldx, xsum, nb)
	case 3:
		ternaryGemmNEONt3(dst, ldd, w, x, ldx, xsum, nb)
	case 4:
		ternaryGemmNEONt4(dst, ldd, w, x, ldx, xsum, nb)
	}
}

func ternaryTileDot(tokens int, dst *int32, ldd int, w *byte, x *int8, ldx int, xsum *int32, nb int) {
	switch tokens {
	case 1:
		ternaryGemvSDOT(dst, w, x, xsum, nb)
	case 2:
		ternaryGemmSDOTt2(dst, ldd, w, x, ldx, xsum, nb)
	case 3:
		ternaryGemmSDOTt3(dst, ldd, w, x, ldx, xsum, nb)
	case 4:
		ternaryGemmSDOTt4(dst, ldd, w, x, ldx, xsum, nb)
	case 5:
		ternaryGemmSDOTt5(dst, ldd, w, x, ldx, xsum, nb)
	case 6:
		ternaryGemmSDOTt6(dst, ldd, w, x, ldx, xsum, nb)
	case 7:
		ternaryGemmSDOTt7(dst, ldd, w, x, ldx, xsum, nb)
	case 8:
		ternaryGemmSDOTt8(dst, ldd, w, x, ldx, xsum, nb)
	}
}

// readsLines says whether kernels multiply with lines as they lie.
func readsLines() bool { return false }

func ternaryLines([]int32, int, *TernaryLines, int, int, []int8, int, []int32) {}

func ternaryAddColumns([]int32, int, []byte, int, int, int, int, []int8, int, int) {}
