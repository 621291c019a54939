package cpu

// streamTokens is the largest number of tokens that one call of the single-panel kernels takes.
const streamTokens = 12

func ternaryMatMul(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	switch Active() {
	case AMX:
		ternaryAMX(dst, ldd, panels, nb, x, ldx, xsum)
	case AVX512:
		ternary512(dst, ldd, panels, nb, x, ldx, xsum)
	case AVXVNNI:
		ternaryVNNI(dst, ldd, panels, nb, x, ldx, xsum)
	case AVX2:
		ternary256(dst, ldd, panels, nb, x, ldx, xsum)
	default:
		ternaryMatMulRef(dst, ldd, panels, nb, x, ldx, xsum)
	}
}

// ternary512 reads the panels as one stream when there are few tokens, or side by side where that is faster for one token, and else takes two
// panels at a time, which stay in cache while it goes over the tokens.
func ternary512(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	stride := nb * BlockBytes
	n := len(panels) / stride
	p := 0
	if len(xsum) == 1 && manyStreams {
		for p+sides <= n {
			step := (n - p) / sides
			for range step {
				ternaryGemvAVX512Side(&dst[p*PanelRows], &panels[p*stride], &x[0], &xsum[0], nb, step)
				p++
			}
			p += step * (sides - 1)
		}
	}
	for p < n {
		w, step := &panels[p*stride], 1
		if len(xsum) > streamTokens && p+1 < n {
			step = 2
		}
		for t, size := 0, 0; t < len(xsum); t += size {
			size = tile(len(xsum)-t, streamTokens)
			d, xt, xs := &dst[t*ldd+p*PanelRows], &x[t*ldx], &xsum[t]
			if step == 2 {
				ternaryTile512p2(size, d, ldd, w, xt, ldx, xs, nb)
			} else {
				ternaryTile512p1(size, d, ldd, w, xt, ldx, xs, nb)
			}
		}
		p += step
	}
}

func ternaryTile512p1(tokens int, dst *int32, ldd int, w *byte, x *int8, ldx int, xsum *int32, nb int) {
	switch tokens {
	case 1:
		ternaryGemvAVX512(dst, w, x, xsum, nb)
	case 2:
		ternaryGemmAVX512p1t2(dst, ldd, w, x, ldx, xsum, nb)
	case 3:
		ternaryGemmAVX512p1t3(dst, ldd, w, x, ldx, xsum, nb)
	case 4:
		ternaryGemmAVX512p1t4(dst, ldd, w, x, ldx, xsum, nb)
	case 5:
		ternaryGemmAVX512p1t5(dst, ldd, w, x, ldx, xsum, nb)
	case 6:
		ternaryGemmAVX512p1t6(dst, ldd, w, x, ldx, xsum, nb)
	case 7:
		ternaryGemmAVX512p1t7(dst, ldd, w, x, ldx, xsum, nb)
	case 8:
		ternaryGemmAVX512p1t8(dst, ldd, w, x, ldx, xsum, nb)
	case 9:
		ternaryGemmAVX512p1t9(dst, ldd, w, x, ldx, xsum, nb)
	case 10:
		ternaryGemmAVX512p1t10(dst, ldd, w, x, ldx, xsum, nb)
	case 11:
		ternaryGemmAVX512p1t11(dst, ldd, w, x, ldx, xsum, nb)
	case 12:
		ternaryGemmAVX512p1t12(dst, ldd, w, x, ldx, xsum, nb)
	}
}

// ternaryTile512p2 takes at least half of streamTokens: more than these never make a smaller tile.
func ternaryTile512p2(tokens int, dst *int32, ldd int, w *byte, x *int8, ldx int, xsum *int32, nb int) {
	switch tokens {
	case 6:
		ternaryGemmAVX512p2t6(dst, ldd, w, x, ldx, xsum, nb)
	case 7:
		ternaryGemmAVX512p2t7(dst, ldd, w, x, ldx, xsum, nb)
	case 8:
		ternaryGemmAVX512p2t8(dst, ldd, w, x, ldx, xsum, nb)
	case 9:
		ternaryGemmAVX512p2t9(dst, ldd, w, x, ldx, xsum, nb)
	case 10:
		ternaryGemmAVX512p2t10(dst, ldd, w, x, ldx, xsum, nb)
	case 11:
		ternaryGemmAVX512p2t11(dst, ldd, w, x, ldx, xsum, nb)
	case 12:
		ternaryGemmAVX512p2t12(dst, ldd, w, x, ldx, xsum, nb)
	}
}

// ternary256 takes whole panels for one token, side by side where that is faster, and half panels for several.
func ternary256(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	stride := nb * BlockBytes
	p, n := 0, len(panels)/stride
	if len(xsum) == 1 && manyStreams {
		for p+sides <= n {
			step := (n - p) / sides
			for range step {
				ternaryGemvAVX2Side(&dst[p*PanelRows], &panels[p*stride], &x[0], &xsum[0], nb, step)
				p++
			}
			p += step * (sides - 1)
		}
	}
	for ; p < n; p++ {
		if len(xsum) == 1 {
			ternaryGemvAVX2(&dst[p*PanelRows], &panels[p*stride], &x[0], &xsum[0], nb)
			continue
		}
		for half := range 2 {
			w := &panels[p*stride+half*BlockBytes/2]
			for t, size := 0, 0; t < len(xsum); t += size {
				size = tile(len(xsum)-t, 4)
				d, xt, xs := &dst[t*ldd+p*PanelRows+half*PanelRows/2], &x[t*ldx], &xsum[t]
				switch size {
				case 2:
					ternaryGemmAVX2t2(d, ldd, w, xt, ldx, xs, nb)
				case 3:
					ternaryGemmAVX2t3(d, ldd, w, xt, ldx, xs, nb)
				case 4:
					ternaryGemmAVX2t4(d, ldd, w, xt, ldx, xs, nb)
				}
			}
		}
	}
}

// ternaryVNNI takes whole panels for a few tokens and half panels for more.
func ternaryVNNI(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	const most, whole = 10, 4
	stride := nb * BlockBytes
	for p := range len(panels) / stride {
		for half := range 2 {
			w := &panels[p*stride+half*BlockBytes/2]
			for t, size := 0, 0; t < len(xsum); t += size {
				size = tile(len(xsum)-t, most)
				if size <= whole && half == 1 {
					continue
				}
				ternaryTileVNNI(size, &dst[t*ldd+p*PanelRows+half*PanelRows/2], ldd, w, &x[t*ldx], ldx, &xsum[t], nb)
			}
		}
	}
}

func ternaryTileVNNI(tokens int, dst *int32, ldd int, w *byte, x *int8, ldx int, xsum *int32, nb int) {
	switch tokens {
	case 1:
		ternaryGemvAVXVNNI(dst, w, x, xsum, nb)
	case 2:
		ternaryGemmAVXVNNIt2(dst, ldd, w, x, ldx, xsum, nb)
	case 3:
		ternaryGemmAVXVNNIt3(dst, ldd, w, x, ldx, xsum, nb)
	case 4:
		ternaryGemmAVXVNNIt4(dst, ldd, w, x, ldx, xsum, nb)
	case 5:
		ternaryGemmAVXVNNIt5(dst, ldd, w, x, ldx, xsum, nb)
	case 6:
		ternaryGemmAVXVNNIt6(dst, ldd, w, x, ldx, xsum, nb)
	case 7:
		ternaryGemmAVXVNNIt7(dst, ldd, w, x, ldx, xsum, nb)
	case 8:
		ternaryGemmAVXVNNIt8(dst, ldd, w, x, ldx, xsum, nb)
	case 9:
		ternaryGemmAVXVNNIt9(dst, ldd, w, x, ldx, xsum, nb)
	case 10:
		ternaryGemmAVXVNNIt10(dst, ldd, w, x, ldx, xsum, nb)
	}
}
