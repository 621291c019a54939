package cpu

// halfTokens is the most tokens that one call of the dense kernels takes, with half of a panel; one token has the whole panel.
const halfTokens = 3

func densePanel(dst []float32, ldd int, f DenseFormat, panel []byte, scale *[PanelRows]float32, quads int, x []float32, ldx, tokens int) {
	if !vectors() {
		densePanelRef(dst, ldd, f, panel, scale, quads, x, ldx, tokens)
		return
	}
	for t, size := 0, 0; t < tokens; t += size {
		size = tile(tokens-t, halfTokens)
		for r := 0; r < PanelRows; r += PanelRows / 2 {
			var s *float32
			if scale != nil {
				s = &scale[r]
			}
			denseTileNEON(f, size, &dst[t*ldd+r], ldd, &panel[denseOffset(f, r, 0)], s, &x[t*ldx], ldx, quads)
			if size == 1 {
				break
			}
		}
	}
}

func denseTileNEON(f DenseFormat, tokens int, dst *float32, ldd int, w *byte, scale, x *float32, ldx, quads int) {
	switch int(f)*denseTiles + tokens {
	case int(DenseF32)*denseTiles + 1:
		denseF32NEONt1(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF32)*denseTiles + 2:
		denseF32NEONt2(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF32)*denseTiles + 3:
		denseF32NEONt3(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 1:
		denseBF16NEONt1(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 2:
		denseBF16NEONt2(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseBF16)*denseTiles + 3:
		denseBF16NEONt3(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 1:
		denseF16NEONt1(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 2:
		denseF16NEONt2(dst, ldd, w, scale, x, ldx, quads)
	case int(DenseF16)*denseTiles + 3:
		denseF16NEONt3(dst, ldd, w, scale, x, ldx, quads)
	}
}
