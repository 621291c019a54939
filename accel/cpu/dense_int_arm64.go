package cpu

func quantizeInt16(hi, lo []int8, x []float32, s float32) (sumHi, sumLo int32) {
	if !vectors() {
		return quantizeInt16Ref(hi, lo, x, s)
	}
	var lanes [2 * Lanes]int32
	quantizeInt16NEON(&lanes[0], &hi[0], &lo[0], &x[0], len(x), s)
	for i := range Lanes {
		sumHi += lanes[i]
		sumLo += lanes[Lanes+i]
	}
	return sumHi, sumLo
}

func ternaryInt(dst []float32, ldd int, panels []byte, nb int, scale float32, x Int16Rows, tokens int, add bool) {
	ternaryIntEach(dst, ldd, panels, nb, scale, x, tokens, add)
}

func joinPlanes(dst []float32, hi, lo []int32, scale, inv float32, add bool) {
	if !vectors() {
		joinPlanesRef(dst, hi, lo, scale, inv, add)
		return
	}
	joinPlanesNEON(&dst[0], &hi[0], &lo[0], len(dst), scale, inv, asInt(add))
}

func int8Panels(dst []float32, ldd int, panels []byte, stride int, scale []float32, x Int16Rows, tokens int, add bool) {
	int8Each(dst, ldd, panels, stride, scale, x, tokens, add)
}

func int8Panel(dst []float32, ldd int, panel []byte, scale *[PanelRows]float32, x *Int16Rows, tokens int, add bool) {
	isa, blocks := Active(), len(panel)/BlockBytes
	if isa == Scalar {
		int8PanelRef(dst, ldd, panel, scale, x, tokens, add)
		return
	}
	for t, size := 0, 0; t < tokens; t += size {
		size = tile(tokens-t, halfTokens)
		for r := 0; r < PanelRows; r += PanelRows / 2 {
			int8Tile(isa, size, &dst[t*ldd+r], ldd, &panel[4*r], &scale[r], x, t, blocks, asInt(add))
			if size == 1 {
				break
			}
		}
	}
}

func int8Tile(isa ISA, tokens int, dst *float32, ldd int, w *byte, scale *float32, x *Int16Rows, t, blocks, add int) {
	hi, lo, ldx, inv := &x.Hi[t*x.Stride], &x.Lo[t*x.Stride], x.Stride, &x.Inv[t]
	switch dot := isa == NEONDot; {
	case dot && tokens == 1:
		denseInt8SDOTt1(dst, ldd, w, scale, hi, lo, ldx, inv, add, blocks)
	case dot && tokens == 2:
		denseInt8SDOTt2(dst, ldd, w, scale, hi, lo, ldx, inv, add, blocks)
	case dot && tokens == 3:
		denseInt8SDOTt3(dst, ldd, w, scale, hi, lo, ldx, inv, add, blocks)
	case tokens == 1:
		denseInt8NEONt1(dst, ldd, w, scale, hi, lo, ldx, inv, add, blocks)
	case tokens == 2:
		denseInt8NEONt2(dst, ldd, w, scale, hi, lo, ldx, inv, add, blocks)
	case tokens == 3:
		denseInt8NEONt3(dst, ldd, w, scale, hi, lo, ldx, inv, add, blocks)
	}
}
