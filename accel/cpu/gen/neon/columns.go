package main

// columns emits what turns the matrices of a training step, and packs its weights.
func columns() {
	quantizeColumns()
	int8Columns()
	ternaryFlip()
	ternaryRow()
}

// quantizeColumns takes sixteen rows of four columns at a time and turns them before it splits them.
func quantizeColumns() {
	text("quantizeColumnsNEON", "hi, lo *int8, stride int, sumHi, sumLo *int32, x *float32, ldx int, f, s *float32, rows int", "",
		"v = clamp(roundHalfEven((x[r*ldx+c]*f[r])*s[c]), -32512, 32512), hi[c*stride+r] = (v+128)>>8,",
		"lo[c*stride+r] = v - 256*hi, sumHi[c] += hi, sumLo[c] += lo for c < 4 and r < rows, a multiple of 16 > 0.")
	hi, lo, stride := load("hi"), load("lo"), load("stride")
	x, ldx, f, n, t := load("x"), loadBytes("ldx", 2), load("f"), load("rows"), table()
	scale, low, high, half := newVec(), constant(t, cMin16), constant(t, cMax16), constant(t, c128)
	ldr(scale, load("s"), 0)
	sumHi, sumLo := newLanes(), newLanes() // of each column
	zero(append(sumHi[:], sumLo[:]...)...)
	v, h := [4]lanes{newLanes(), newLanes(), newLanes(), newLanes()}, newLanes()
	toHi, toLo := newReg(), newReg()
	loop(n, 16, func() {
		for r, rows := range v {
			ldr(h[0], f, 16*r)
			for i := range rows {
				ldr(rows[i], x, 0)
				addReg(x, ldx)
				fmulLane(rows[i], rows[i], h[0], i)
			}
			round(rows, scale, low, high)
			rows.transpose(h)
		}
		add(f, 64)
		line("MOVD %v, %v", hi, toHi)
		line("MOVD %v, %v", lo, toLo)
		for c := range 4 {
			column := lanes{v[0][c], v[1][c], v[2][c], v[3][c]}
			with(addWords, h, column, half)
			for i := range h {
				sshr(h[i], h[i], 8)
				shl(column[i], column[i], 24)
				sshr(column[i], column[i], 24) // the low byte, as a signed number, is v - 256*hi
				addWords(sumHi[c], sumHi[c], h[i])
				addWords(sumLo[c], sumLo[c], column[i])
			}
			h.storeInt8(toHi)
			column.storeInt8(toLo)
			addReg(toHi, stride)
			addReg(toLo, stride)
		}
		add(hi, 16)
		add(lo, 16)
	})
	addSums(sumHi, load("sumHi"), h)
	addSums(sumLo, load("sumLo"), h)
	ret()
}

// addSums adds the four lanes of each of four sums to memory.
func addSums(sum lanes, to reg, t lanes) {
	addPairs(sum[0], sum[0], sum[1])
	addPairs(sum[2], sum[2], sum[3])
	addPairs(sum[0], sum[0], sum[2])
	ldr(t[0], to, 0)
	addWords(t[0], t[0], sum[0])
	str(t[0], to, 0)
}

// int8Columns interleaves the bytes of four rows.
func int8Columns() {
	text("int8ColumnsNEON", "dst *byte, stride int, x *int8, ldx, blocks, panels int", "",
		"dst[p*stride+64*b+4*c+j] = x[(4*b+j)*ldx+16*p+c] + 128 for p < panels, b < blocks, c < 16 and j < 4; panels, blocks > 0.")
	dst, stride, x, ldx, n := load("dst"), load("stride"), load("x"), load("ldx"), load("blocks")
	count, out := newReg(), newReg()
	rows := []reg{newReg(), newReg(), newReg(), newReg()}
	flip, v, k := bytesOf(0x80), newLanes(), newLanes()
	loop(n, 1, func() {
		line("MOVD panels+%d(FP), %v", offset("panels"), count)
		line("MOVD %v, %v", dst, out)
		for j := range rows {
			line("MOVD %v, %v", x, rows[j])
			addReg(x, ldx)
		}
		loop(count, 1, func() {
			for j, p := range rows {
				ldrPost(v[j], p, 16)
				eor(v[j], v[j], flip)
			}
			interleave(v, k)
			v.store(out)
			addReg(out, stride)
		})
		add(dst, blockBytes)
	})
	ret()
}

// code makes 1 + (v > high) - (v < low) of each lane; it spoils t.
func code(v, t lanes, high, low, one vec) {
	with(fcmgt, t, v, high)
	for i := range v {
		fcmgt(v[i], low, v[i])
		addWords(v[i], v[i], one)
	}
	three16(subWords, v, v, t)
}

// thresholds gives half, -half and the integer 1.
func thresholds() (high, low, one vec) {
	high, low = splat("half"), newVec()
	fneg(low, high)
	return high, low, words(1)
}

// ternaryFlip: four neighbouring rows go to the bytes of a column's lane, the next four to the next field of these.
func ternaryFlip() {
	text("ternaryFlipNEON", "dst *byte, w *float32, ldw, blocks int, half float32", "",
		"with t(v) = 1 if v > half, -1 if v < -half, else 0: field f of dst[64*b+4*c+j] = t(w[(16*b+4*f+j)*ldw+c]) + 1",
		"for b < blocks, c < 16 and j, f < 4; blocks > 0.")
	dst, w, ldw, n := load("dst"), load("w"), loadBytes("ldw", 2), load("blocks")
	high, low, one := thresholds()
	out, v, t := newLanes(), newLanes(), newLanes()
	loop(n, 1, func() {
		zero(out[:]...)
		for r := range 16 {
			v.load(w)
			addReg(w, ldw)
			code(v, t, high, low, one)
			for i := range v {
				shl(v[i], v[i], 8*(r%4)+2*(r/4))
			}
			three16(orr, out, out, v)
		}
		out.store(dst)
		add(dst, blockBytes)
	})
	ret()
}

// ternaryRow packs sixteen columns of a row into its lane: the codes as bytes, four by four in the fields of a 32-bit word.
func ternaryRow() {
	text("ternaryRowNEON", "dst *byte, w *float32, blocks int, half float32", "",
		"with t(v) = 1 if v > half, -1 if v < -half, else 0: field f of dst[64*b+j] = t(w[16*b+4*f+j]) + 1",
		"for b < blocks and j, f < 4; blocks > 0.")
	dst, w, n := load("dst"), load("w"), load("blocks")
	high, low, one := thresholds()
	shifts, v, t := constant(table(), cFields), newLanes(), newLanes()
	loop(n, 1, func() {
		v.load(w)
		add(w, 64)
		code(v, t, high, low, one)
		uzp1Halves(v[0], v[0], v[1])
		uzp1Halves(v[2], v[2], v[3])
		uzp1Bytes(v[0], v[0], v[2])
		ushl(v[0], v[0], shifts)
		for lane := 2; lane > 0; lane-- {
			ext(t[0], v[0], v[0], lane)
			orr(v[0], v[0], t[0])
		}
		str32(v[0], dst)
		add(dst, blockBytes)
	})
	ret()
}
