package cpu

// densePanelRef defines one panel of [DenseMatMul]; quads is the number of groups of four columns.
func densePanelRef(dst []float32, ldd int, f DenseFormat, panel []byte, scale *[PanelRows]float32, quads int, x []float32, ldx, tokens int) {
	for t := range tokens {
		var acc [denseQuad][PanelRows]float32
		for k, v := range x[t*ldx : t*ldx+denseQuad*quads] {
			var w [PanelRows]float32
			for r := range w {
				w[r] = denseWeight(f, panel, r, k)
			}
			addScaled(acc[k%denseQuad][:], v, w[:])
		}
		out := (*[PanelRows]float32)(dst[t*ldd:])
		for r := range out {
			s := float32(acc[0][r]+acc[1][r]) + float32(acc[2][r]+acc[3][r])
			if scale != nil {
				s *= scale[r]
			}
			out[r] = s
		}
	}
}
