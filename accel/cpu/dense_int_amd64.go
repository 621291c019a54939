package cpu

// The most tokens that one call of the integer kernels takes.
const (
	intTokens512 = 8
	intTokens256 = 3
)

func quantizeInt16(hi, lo []int8, x []float32, s float32) (sumHi, sumLo int32) {
	var lanes [2 * Lanes]int32
	switch vectors() {
	case AVX512:
		quantizeInt16AVX512(&lanes[0], &hi[0], &lo[0], &x[0], len(x), s)
	case AVX2:
		quantizeInt16AVX2(&lanes[0], &hi[0], &lo[0], &x[0], len(x), s)
	default:
		return quantizeInt16Ref(hi, lo, x, s)
	}
	for i := range Lanes {
		sumHi += lanes[i]
		sumLo += lanes[Lanes+i]
	}
	return sumHi, sumLo
}

func ternaryInt(dst []float32, ldd int, panels []byte, nb int, scale float32, x Int16Rows, tokens int, add bool) {
	if Active() == AMX {
		ternaryIntAMX(dst, ldd, panels, nb, scale, &x, tokens, add)
		return
	}
	ternaryIntEach(dst, ldd, panels, nb, scale, x, tokens, add)
}

func joinPlanes(dst []float32, hi, lo []int32, scale, inv float32, add bool) {
	switch vectors() {
	case AVX512:
		joinPlanesAVX512(&dst[0], &hi[0], &lo[0], len(dst), scale, inv, asInt(add))
	case AVX2:
		joinPlanesAVX2(&dst[0], &hi[0], &lo[0], len(dst), scale, inv, asInt(add))
	default:
		joinPlanesRef(dst, hi, lo, scale, inv, add)
	}
}

func int8Panels(dst []float32, ldd int, panels []byte, stride int, scale []float32, x Int16Rows, tokens int, add bool) {
	n := 0
	if tokens == 1 {
		n = min(len(panels)/stride, len(scale)/PanelRows) // whole ones
		switch {
		case Active() == AVX2:
			n = int8Joined(dst, panels[:n*stride], stride, scale, &x, add)
		case manyStreams && vectors() == AVX512:
			n = n / sides * sides
			for p := 0; p < n; p += sides {
				denseInt8AVX512Side(&dst[p*PanelRows], 0, &panels[p*stride], &scale[p*PanelRows], &x.Hi[0], &x.Lo[0], 0,
					&x.SumHi[0], &x.SumLo[0], &x.Inv[0], asInt(add), stride/BlockBytes)
			}
		default:
			n = 0
		}
		dst, panels, scale = dst[n*PanelRows:], panels[n*stride:], scale[n*PanelRows:]
	}
	if Active() == AMX {
		denseIntAMX(dst, ldd, panels, stride, scale, x, tokens, add)
		return
	}
	int8Each(dst, ldd, panels, stride, scale, x, tokens, add)
}

func int8Panel(dst []float32, ldd int, panel []byte, scale *[PanelRows]float32, x *Int16Rows, tokens int, add bool) {
	blocks := len(panel) / BlockBytes
	switch isa := vectors(); {
	case Active() == AVXVNNI:
		for t, size := 0, 0; t < tokens; t += size {
			size = tile(tokens-t, intTokens256)
			int8TileVNNI(size, &dst[t*ldd], ldd, &panel[0], &scale[0], x, t, blocks, asInt(add))
		}
	case isa == AVX512:
		for t, size := 0, 0; t < tokens; t += size {
			size = tile(tokens-t, intTokens512)
			int8Tile512(size, &dst[t*ldd], ldd, &panel[0], &scale[0], x, t, blocks, asInt(add))
		}
	case isa == AVX2:
		int8Panel256(dst, ldd, panel, scale, x, tokens, blocks, asInt(add))
	default:
		int8PanelRef(dst, ldd, panel, scale, x, tokens, add)
	}
}

// int8Panel256 takes the whole panel for one token and half panels for several.
func int8Panel256(dst []float32, ldd int, panel []byte, scale *[PanelRows]float32, x *Int16Rows, tokens, blocks, add int) {
	const rows = PanelRows / 2
	halves := 2
	if tokens == 1 {
		halves = 1
	}
	for half := range halves {
		for t, size := 0, 0; t < tokens; t += size {
			size = tile(tokens-t, intTokens256)
			int8Tile256(size, &dst[t*ldd+half*rows], ldd, &panel[half*BlockBytes/2], &scale[half*rows], x, t, blocks, add)
		}
	}
}

func int8Tile512(tokens int, dst *float32, ldd int, w *byte, scale *float32, x *Int16Rows, t, blocks, add int) {
	hi, lo, ldx, sumHi, sumLo, inv := &x.Hi[t*x.Stride], &x.Lo[t*x.Stride], x.Stride, &x.SumHi[t], &x.SumLo[t], &x.Inv[t]
	switch tokens {
	case 1:
		denseInt8AVX512t1(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	case 2:
		denseInt8AVX512t2(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	case 3:
		denseInt8AVX512t3(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	case 4:
		denseInt8AVX512t4(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	case 5:
		denseInt8AVX512t5(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	case 6:
		denseInt8AVX512t6(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	case 7:
		denseInt8AVX512t7(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	case 8:
		denseInt8AVX512t8(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	}
}

func int8Tile256(tokens int, dst *float32, ldd int, w *byte, scale *float32, x *Int16Rows, t, blocks, add int) {
	hi, lo, ldx, sumHi, sumLo, inv := &x.Hi[t*x.Stride], &x.Lo[t*x.Stride], x.Stride, &x.SumHi[t], &x.SumLo[t], &x.Inv[t]
	switch tokens {
	case 1:
		denseInt8AVX2t1(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	case 2:
		denseInt8AVX2t2(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	case 3:
		denseInt8AVX2t3(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	}
}

func int8TileVNNI(tokens int, dst *float32, ldd int, w *byte, scale *float32, x *Int16Rows, t, blocks, add int) {
	hi, lo, ldx, sumHi, sumLo, inv := &x.Hi[t*x.Stride], &x.Lo[t*x.Stride], x.Stride, &x.SumHi[t], &x.SumLo[t], &x.Inv[t]
	switch tokens {
	case 1:
		denseInt8AVXVNNIt1(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	case 2:
		denseInt8AVXVNNIt2(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	case 3:
		denseInt8AVXVNNIt3(dst, ldd, w, scale, hi, lo, ldx, sumHi, sumLo, inv, add, blocks)
	}
}
