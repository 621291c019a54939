package cpu

// streamTokens is the largest number of tokens for which codes of panels become bytes in registers. More need so many instructions for each
// code that it pays to make bytes once for all.
func streamTokens() int {
	switch Active() {
	case AMX:
		return 7
	case AVX512:
		return 24
	default:
		return 4
	}
}

func ternaryMatMul(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	isa := Active()
	switch stride := nb * BlockBytes; {
	case isa == Scalar:
		ternaryMatMulRef(dst, ldd, panels, nb, x, ldx, xsum)
	case len(xsum) > streamTokens():
		w := weights{data: panels, lie: asPanels, stride: stride, blocks: nb}
		ternaryBytes(dst, ldd, &w, 0, len(panels)/stride, x, ldx, xsum)
	case isa == AVXVNNI:
		ternaryVNNI(dst, ldd, panels, nb, x, ldx, xsum)
	case isa == AVX2:
		ternary256(dst, ldd, panels, nb, x, ldx, xsum)
	default:
		ternary512(dst, ldd, panels, nb, x, ldx, xsum)
	}
}

// ternary512 reads the panels as one stream, or side by side where that is faster for one token.
func ternary512(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	stride := nb * BlockBytes
	n, p := len(panels)/stride, 0
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
	for ; p < n; p++ {
		for t, size := 0, 0; t < len(xsum); t += size {
			size = tile(len(xsum)-t, byteTokens)
			ternaryTile512(size, &dst[t*ldd+p*PanelRows], ldd, &panels[p*stride], &x[t*ldx], ldx, &xsum[t], nb)
		}
	}
}

func ternaryTile512(tokens int, dst *int32, ldd int, w *byte, x *int8, ldx int, xsum *int32, nb int) {
	switch tokens {
	case 1:
		ternaryGemvAVX512(dst, w, x, xsum, nb)
	case 2:
		ternaryGemmAVX512t2(dst, ldd, w, x, ldx, xsum, nb)
	case 3:
		ternaryGemmAVX512t3(dst, ldd, w, x, ldx, xsum, nb)
	case 4:
		ternaryGemmAVX512t4(dst, ldd, w, x, ldx, xsum, nb)
	case 5:
		ternaryGemmAVX512t5(dst, ldd, w, x, ldx, xsum, nb)
	case 6:
		ternaryGemmAVX512t6(dst, ldd, w, x, ldx, xsum, nb)
	case 7:
		ternaryGemmAVX512t7(dst, ldd, w, x, ldx, xsum, nb)
	case 8:
		ternaryGemmAVX512t8(dst, ldd, w, x, ldx, xsum, nb)
	case 9:
		ternaryGemmAVX512t9(dst, ldd, w, x, ldx, xsum, nb)
	case 10:
		ternaryGemmAVX512t10(dst, ldd, w, x, ldx, xsum, nb)
	case 11:
		ternaryGemmAVX512t11(dst, ldd, w, x, ldx, xsum, nb)
	case 12:
		ternaryGemmAVX512t12(dst, ldd, w, x, ldx, xsum, nb)
	}
}

// How many bytes ahead kernels of AVX2 read: of panels that are read in turns, which are of 512 bytes, and of others, a page.
const (
	turnAhead = 768
	pageAhead = 4096
)

// ternarySides is how many panels ternary256 reads in turns where there are manyStreams.
const ternarySides = 4

// ternary256 takes whole panels for one token, two by two, and half panels for several.
func ternary256(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	stride := nb * BlockBytes
	p, n := 0, len(panels)/stride
	if len(xsum) == 1 {
		most, ahead := 2, pageAhead
		if manyStreams {
			most, ahead = ternarySides, turnAhead
		}
		for side := most; side >= 2; side /= 2 {
			step := (n - p) / side
			for range step {
				ternaryGemvAVX2Pairs(&dst[p*PanelRows], &panels[p*stride], &x[0], &xsum[0], nb, step, side/2, ahead)
				p++
			}
			p += step * (side - 1)
		}
	}
	for ; p < n; p++ {
		if len(xsum) == 1 {
			ternaryGemvAVX2(&dst[p*PanelRows], &panels[p*stride], &x[0], &xsum[0], nb)
			continue
		}
		for half := range 2 {
			d, w, xt, xs := &dst[(2*p+half)*PanelRows/2], &panels[p*stride+half*BlockBytes/2], &x[0], &xsum[0]
			switch len(xsum) {
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

func ternaryVNNI(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	stride := nb * BlockBytes
	for p := range len(panels) / stride {
		d, w, xt, xs := &dst[p*PanelRows], &panels[p*stride], &x[0], &xsum[0]
		switch len(xsum) {
		case 1:
			ternaryGemvAVXVNNI(d, w, xt, xs, nb)
		case 2:
			ternaryGemmAVXVNNIt2(d, ldd, w, xt, ldx, xs, nb)
		case 3:
			ternaryGemmAVXVNNIt3(d, ldd, w, xt, ldx, xs, nb)
		case 4:
			ternaryGemmAVXVNNIt4(d, ldd, w, xt, ldx, xs, nb)
		}
	}
}
