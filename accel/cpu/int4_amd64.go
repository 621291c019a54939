package cpu

func int4Panels(dst []float32, ldd int, panels []byte, stride, blocks int, x Int16Rows, tokens int, add bool) {
	if tokens > 1 || vectors() == Scalar {
		int4Each(dst, ldd, panels, stride, blocks, &x, tokens, add)
		return
	}
	most := 1
	if manyStreams {
		most = sides
	}
	for n := len(panels) / stride; n > 0; n -= most {
		side := min(n, most)
		int4Side(dst, panels, blocks, side, &x, add)
		dst, panels = dst[side*PanelRows:], panels[side*stride:]
		if side < most {
			break
		}
	}
}

// int4Side multiplies up to sides panels with one token.
func int4Side(dst []float32, panels []byte, blocks, side int, x *Int16Rows, add bool) {
	if side == sides && vectors() == AVX512 {
		denseInt4AVX512Side(&dst[0], &panels[0], &x.Hi[0], &x.Lo[0], &x.Eights[0], &x.Inv[0], asInt(add), blocks)
		return
	}
	var y [sides][PanelRows]float32
	switch isa := vectors(); {
	case Active() == AVXVNNI:
		denseInt4AVXVNNIt1(&dst[0], &y[0][0], &panels[0], &x.Hi[0], &x.Lo[0], &x.Eights[0], &x.Inv[0], asInt(add), blocks, side)
	case isa == AVX512:
		denseInt4AVX512t1(&dst[0], &y[0][0], &panels[0], &x.Hi[0], &x.Lo[0], &x.Eights[0], &x.Inv[0], asInt(add), blocks, side)
	default:
		denseInt4AVX2t1(&dst[0], &y[0][0], &panels[0], &x.Hi[0], &x.Lo[0], &x.Eights[0], &x.Inv[0], asInt(add), blocks, side)
	}
}

// int4Panel multiplies a panel with several tokens: as many rows of it as the registers hold.
func int4Panel(dst []float32, ldd int, panel []byte, blocks int, x *Int16Rows, tokens int, add bool) {
	rows, most := PanelRows/2, intTokens256
	switch vectors() {
	case Scalar:
		int4PanelRef(dst, ldd, panel, blocks, x, tokens, add)
		return
	case AVX512:
		rows, most = PanelRows, intTokens512
	}
	for r := 0; r < PanelRows; r += rows {
		for t, size := 0, 0; t < tokens; t += size {
			size = tile(tokens-t, most) // more than one
			int4Tile(size, &dst[t*ldd+r], ldd, &panel[4*r], x, t, blocks, asInt(add))
		}
	}
}

func int4Tile(tokens int, dst *float32, ldd int, w *byte, x *Int16Rows, t, blocks, add int) {
	hi, lo, ldx, eights, groups, inv := &x.Hi[t*x.Stride], &x.Lo[t*x.Stride], x.Stride, &x.Eights[t*x.Groups()], x.Groups(), &x.Inv[t]
	switch isa := vectors(); {
	case isa == AVX512 && tokens == 2:
		denseInt4AVX512t2(dst, ldd, w, hi, lo, ldx, eights, groups, inv, add, blocks)
	case isa == AVX512 && tokens == 3:
		denseInt4AVX512t3(dst, ldd, w, hi, lo, ldx, eights, groups, inv, add, blocks)
	case isa == AVX512 && tokens == 4:
		denseInt4AVX512t4(dst, ldd, w, hi, lo, ldx, eights, groups, inv, add, blocks)
	case isa == AVX512 && tokens == 5:
		denseInt4AVX512t5(dst, ldd, w, hi, lo, ldx, eights, groups, inv, add, blocks)
	case isa == AVX512 && tokens == 6:
		denseInt4AVX512t6(dst, ldd, w, hi, lo, ldx, eights, groups, inv, add, blocks)
	case isa == AVX512 && tokens == 7:
		denseInt4AVX512t7(dst, ldd, w, hi, lo, ldx, eights, groups, inv, add, blocks)
	case isa == AVX512 && tokens == 8:
		denseInt4AVX512t8(dst, ldd, w, hi, lo, ldx, eights, groups, inv, add, blocks)
	case Active() == AVXVNNI && tokens == 2:
		denseInt4AVXVNNIt2(dst, ldd, w, hi, lo, ldx, eights, groups, inv, add, blocks)
	case Active() == AVXVNNI && tokens == 3:
		denseInt4AVXVNNIt3(dst, ldd, w, hi, lo, ldx, eights, groups, inv, add, blocks)
	case tokens == 2:
		denseInt4AVX2t2(dst, ldd, w, hi, lo, ldx, eights, groups, inv, add, blocks)
	case tokens == 3:
		denseInt4AVX2t3(dst, ldd, w, hi, lo, ldx, eights, groups, inv, add, blocks)
	}
}

func int4Errors(dst, s *[Lanes]float32, x []float32) {
	switch vectors() {
	case AVX512:
		int4ErrorsAVX512(&dst[0], &s[0], &x[0], len(x))
	case AVX2:
		int4ErrorsAVX2(&dst[0], &s[0], &x[0], len(x))
	default:
		int4ErrorsRef(dst, s, x)
	}
}
