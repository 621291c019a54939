package cpu

func int4Panels(dst []float32, ldd int, panels []byte, stride, blocks int, x Int16Rows, tokens int, add bool) {
	int4Each(dst, ldd, panels, stride, blocks, &x, tokens, add)
}

// int4Panel multiplies the whole panel with one token, and its halves with several.
func int4Panel(dst []float32, ldd int, panel []byte, blocks int, x *Int16Rows, tokens int, add bool) {
	isa, most := Active(), halfTokens
	switch isa {
	case Scalar:
		int4PanelRef(dst, ldd, panel, blocks, x, tokens, add)
		return
	case NEON:
		most = 2
	}
	for t, size := 0, 0; t < tokens; t += size {
		size = tile(tokens-t, most)
		for r := 0; r < PanelRows; r += PanelRows / 2 {
			int4Tile(isa, size, &dst[t*ldd+r], ldd, &panel[4*r], x, t, blocks, asInt(add))
			if size == 1 {
				break
			}
		}
	}
}

func int4Tile(isa ISA, tokens int, dst *float32, ldd int, w *byte, x *Int16Rows, t, blocks, add int) {
	hi, lo, ldx, inv := &x.Hi[t*x.Stride], &x.Lo[t*x.Stride], x.Stride, &x.Inv[t]
	switch dot := isa == NEONDot; {
	case dot && tokens == 1:
		denseInt4SDOTt1(dst, ldd, w, hi, lo, ldx, inv, add, blocks)
	case dot && tokens == 2:
		denseInt4SDOTt2(dst, ldd, w, hi, lo, ldx, inv, add, blocks)
	case dot && tokens == 3:
		denseInt4SDOTt3(dst, ldd, w, hi, lo, ldx, inv, add, blocks)
	case tokens == 1:
		denseInt4NEONt1(dst, ldd, w, hi, lo, ldx, inv, add, blocks)
	case tokens == 2:
		denseInt4NEONt2(dst, ldd, w, hi, lo, ldx, inv, add, blocks)
	}
}

func int4Errors(dst, s *[Lanes]float32, x []float32) {
	if !vectors() {
		int4ErrorsRef(dst, s, x)
		return
	}
	int4ErrorsNEON(&dst[0], &s[0], &x[0], len(x))
}
