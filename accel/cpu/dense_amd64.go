package cpu

func densePanel(dst []float32, ldd int, f DenseFormat, panel []byte, scale *[PanelRows]float32, quads int, x []float32, ldx, tokens int) {
	switch vectors() {
	case AVX512:
		var s *float32
		if scale != nil {
			s = &scale[0]
		}
		for t, size := 0, 0; t < tokens; t += size {
			size = tile(tokens-t, 6)
			denseTile512(f, size, &dst[t*ldd], ldd, &panel[0], s, &x[t*ldx], ldx, quads)
		}
	case AVX2:
		densePanel256(dst, ldd, f, panel, scale, quads, x, ldx, tokens)
	default:
		densePanelRef(dst, ldd, f, panel, scale, quads, x, ldx, tokens)
	}
}

// densePanel256 takes the whole panel for one token and half panels for several.
func densePanel256(dst []float32, ldd int, f DenseFormat, panel []byte, scale *[PanelRows]float32, quads int, x []float32, ldx, tokens int) {
	const rows = PanelRows / 2
	halves := 2
	if tokens == 1 {
		halves = 1
	}
	for half := range halves {
		var s *float32
		if scale != nil {
			s = &scale[half*rows]
		}
		w := &panel[denseOffset(f, half*rows, 0)]
		for t, size := 0, 0; t < tokens; t += size {
			size = tile(tokens-t, 3)
			denseTile256(f, size, &dst[t*ldd+half*rows], ldd, w, s, &x[t*ldx], ldx, quads)
		}
	}
}

func denseTile512(f DenseFormat, tokens int, dst *float32, ldd int, w *byte, scale, x *float32, ldx, quads int) {
	switch int(f)*denseTiles + tokens {
	case int(DenseF32)*denseTiles + 1:
		denseF32AVX512t1(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF32)*denseTiles + 2:
		denseF32AVX512t2(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF32)*denseTiles + 3:
		denseF32AVX512t3(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF32)*denseTiles + 4:
		denseF32AVX512t4(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF32)*denseTiles + 5:
		denseF32AVX512t5(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF32)*denseTiles + 6:
		denseF32AVX512t6(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 1:
		denseBF16AVX512t1(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 2:
		denseBF16AVX512t2(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 3:
		denseBF16AVX512t3(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 4:
		denseBF16AVX512t4(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 5:
		denseBF16AVX512t5(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 6:
		denseBF16AVX512t6(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 1:
		denseF16AVX512t1(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 2:
		denseF16AVX512t2(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 3:
		denseF16AVX512t3(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 4:
		denseF16AVX512t4(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 5:
		denseF16AVX512t5(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 6:
		denseF16AVX512t6(dst, ldd, w, scale, x, ldx, quads)
	}
}

func denseTile256(f DenseFormat, tokens int, dst *float32, ldd int, w *byte, scale, x *float32, ldx, quads int) {
	switch int(f)*denseTiles + tokens {
	case int(DenseF32)*denseTiles + 1:
		denseF32AVX2t1(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF32)*denseTiles + 2:
		denseF32AVX2t2(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF32)*denseTiles + 3:
		denseF32AVX2t3(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 1:
		denseBF16AVX2t1(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 2:
		denseBF16AVX2t2(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 3:
		denseBF16AVX2t3(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 1:
		denseF16AVX2t1(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 2:
		denseF16AVX2t2(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 3:
		denseF16AVX2t3(dst, ldd, w, scale, x, ldx, quads)
	}
}
