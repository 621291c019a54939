package main

// lines emits what works on ternary matrices that lie line by line.
func lines() {
	lineDot(false)
	lineDot(true)
	lineAdd(false)
	lineAdd(true)
	flipLanes()
	flipCodes()
}

// suffix of kernels with SDOT and of those without.
func suffix(dot bool) string {
	if dot {
		return "SDOT"
	}
	return "NEON"
}

// lineBases gives the addresses of the four lines that are worked on, and of the four that come next.
func lineBases() (now, next []reg) {
	src, stride, ids, id := load("src"), load("stride"), load("ids"), newReg()
	for i := range 8 {
		p := newReg()
		line("MOVW %d(%v), %v", 4*i, ids, id)
		line("MADD %v, %v, %v, %v", stride, src, id, p)
		if i < 4 {
			now = append(now, p)
		} else {
			next = append(next, p)
		}
	}
	return now, next
}

// lineDot: with SDOT the fields 0 to 2 of a byte are masked in place, and their sums scaled by 1, 4 and 16. Without it, lanes of int16 take a
// block's products, 32 of at most 2*128 each.
func lineDot(dot bool) {
	text("lineDot"+suffix(dot), "dst *int32, src *byte, stride int, ids *int32, x *int8, xsum int, blocks int", "",
		"dst[i] = the line ids[i] times x, for i < 4; ids[4:8] are read ahead; blocks > 0.")
	now, next := lineBases()
	x, n, off := load("x"), load("blocks"), newReg()
	line("MOVD $0, %v", off)
	v, xf, t := newVecs(4), newVec(), newVecs(2)
	var sum [4][]vec // [line][field]
	var sum16, mask []vec
	fields := 1
	if dot {
		fields = 4
		mask = []vec{bytesOf(3), bytesOf(3 << 2), bytesOf(3 << 4)}
	} else {
		sum16, mask = newVecs(4), []vec{bytesOf(3)}
	}
	for i := range sum {
		sum[i] = newVecs(fields)
		zero(sum[i]...)
	}
	loop(n, 1, func() {
		zero(sum16...)
		for i := range next {
			prefetch(next[i], off)
		}
		for part := range 4 {
			for i, p := range now {
				ldr(v[i], p, 16*part)
			}
			for f := range 4 {
				ldr(xf, x, 64*f+16*part)
				for i := range v {
					w := t[i%2]
					switch {
					case dot && f < 3:
						and(w, v[i], mask[f])
					case dot:
						ushrBytes(w, v[i], 6)
					default:
						and(w, v[i], mask[0])
						ushrBytes(v[i], v[i], 2)
					}
					if dot {
						sdot(sum[i][f], w, xf)
					} else {
						smlal(sum16[i], w, xf)
						smlal2(sum16[i], w, xf)
					}
				}
			}
		}
		for i, s := range sum16 {
			sadalp(sum[i][0], s)
		}
		for _, p := range append(now, off) {
			add(p, blockBytes)
		}
		add(x, 4*blockBytes)
	})
	for _, s := range sum {
		for f := 1; f < fields; f++ {
			if f < 3 {
				sshr(s[f], s[f], 2*f)
			}
			addWords(s[0], s[0], s[f])
		}
	}
	addPairs(v[0], sum[0][0], sum[1][0])
	addPairs(v[1], sum[2][0], sum[3][0])
	addPairs(v[0], v[0], v[1])
	dupReg(xf, load("xsum"))
	subWords(v[0], v[0], xf)
	str(v[0], load("dst"), 0)
	ret()
}

// lineAdd interleaves the bytes of four lines, so that a 32-bit lane holds one element of each, and multiplies them with the four factors at
// once. Fields stay where they are in their bytes: sums of field f are scaled by 4^f. Field 3, which a signed byte cannot hold there, is
// halved and added twice.
func lineAdd(dot bool) {
	text("lineAdd"+suffix(dot), "acc *int32, src *byte, stride int, ids *int32, q *int8, blocks int", "",
		"acc += the codes of lines ids[i] times q[i], for i < 4; ids[4:8] are read ahead; blocks > 0.")
	now, next := lineBases()
	acc, n, off := load("acc"), load("blocks"), newReg()
	line("MOVD $0, %v", off)
	factors := newVec()
	ldr32(factors, load("q"))
	mask := []vec{bytesOf(3), bytesOf(3 << 2), bytesOf(3 << 4), bytesOf(3 << 5)}
	v, k, t, sum, product := newLanes(), newLanes(), newVec(), newLanes(), newVecs(2)
	loop(n, 1, func() {
		for i := range next {
			prefetch(next[i], off)
		}
		for part := range 4 {
			for i, p := range now {
				ldr(v[i], p, 16*part)
			}
			interleave(v, k)
			for f := range 4 {
				at := func(i int) int { return 256*f + 64*i + 16*part }
				for i := range v {
					ldr(sum[i], acc, at(i))
				}
				for i, codes := range v {
					if f == 3 {
						ushrBytes(codes, codes, 1)
					}
					and(t, codes, mask[f])
					if !dot {
						smull(product[0], t, factors)
						smull2(product[1], t, factors)
						addPairs16(product[0], product[0], product[1])
					}
					for range 1 + f/3 {
						if dot {
							sdot(sum[i], t, factors)
						} else {
							sadalp(sum[i], product[0])
						}
					}
					str(sum[i], acc, at(i))
				}
			}
		}
		for _, p := range append(now, off) {
			add(p, blockBytes)
		}
		add(acc, 16*blockBytes)
	})
	ret()
}

// interleave makes of four vectors of bytes four whose 32-bit lanes hold a byte of each; it spoils t.
func interleave(v, t lanes) {
	zip1Bytes(t[0], v[0], v[1])
	zip2Bytes(t[2], v[0], v[1])
	zip1Bytes(t[1], v[2], v[3])
	zip2Bytes(t[3], v[2], v[3])
	for i := 0; i < 4; i += 2 {
		zip1Halves(v[i], t[i], t[i+1])
		zip2Halves(v[i+1], t[i], t[i+1])
	}
}

const flipParams = "dst *byte, dstStride, dstStep int, src *byte, stride, srcStep, count int"

// flipLanes goes by squares of four.
func flipLanes() {
	text("flipLanesNEON", flipParams, "", "lane c of line r becomes lane r of block c, for 16 lines by 16 lanes, count times; count > 0.")
	dst, dstStride, dstStep := load("dst"), load("dstStride"), load("dstStep")
	src, stride, srcStep, n := load("src"), load("stride"), load("srcStep"), load("count")
	from := []reg{newReg(), newReg(), newReg(), newReg()}
	to, v, t := newReg(), newLanes(), newLanes()
	loop(n, 1, func() {
		line("MOVD %v, %v", src, from[0])
		for r := 0; r < 16; r += 4 {
			if r > 0 {
				line("ADD %v, %v, %v", stride, from[3], from[0])
			}
			for i := 1; i < 4; i++ {
				line("ADD %v, %v, %v", stride, from[i-1], from[i])
			}
			line("ADD $%d, %v, %v", 4*r, dst, to)
			for c := 0; c < 16; c += 4 {
				for i := range v {
					ldr(v[i], from[i], 4*c)
				}
				v.transpose(t)
				for i := range v {
					str(v[i], to, 0)
					addReg(to, dstStride)
				}
			}
		}
		addReg(dst, dstStep)
		addReg(src, srcStep)
	})
	ret()
}

// flipCodes takes four lanes of sixteen lines at a time, whose codes change places in four steps: of two lines whose numbers differ in one bit,
// the codes of the first whose numbers have that bit are swapped with those of the second whose numbers do not.
func flipCodes() {
	text("flipCodesNEON", flipParams, "", "the code of element e of lane c of line k becomes that of column k in lane e of block c,",
		"for 16 lines by 16 lanes, count times; count > 0.")
	dst, dstStride, dstStep := load("dst"), load("dstStride"), load("dstStep")
	src, stride, srcStep, n := load("src"), load("stride"), load("srcStep"), load("count")
	steps := []struct{ bit, shift int }{{8, 4}, {4, 2}, {2, 16}, {1, 8}}
	var mask []vec
	for _, s := range steps {
		mask = append(mask, words(codesWithout(s.bit)))
	}
	from, to := newReg(), newReg()
	v := [4]lanes{newLanes(), newLanes(), newLanes(), newLanes()}
	t := newLanes()
	at := func(k int) vec { return v[k/4][k%4] }
	loop(n, 1, func() {
		for c := 0; c < 16; c += 4 {
			line("ADD $%d, %v, %v", 4*c, src, from)
			for k := range 16 {
				ldr(at(k), from, 0)
				addReg(from, stride)
			}
			for i, s := range steps {
				for k := range 16 {
					if k&s.bit != 0 {
						continue
					}
					a, b, d := at(k), at(k+s.bit), t[k%4]
					ushr(d, a, s.shift)
					eor(d, d, b)
					and(d, d, mask[i])
					eor(b, b, d)
					shl(d, d, s.shift)
					eor(a, a, d)
				}
			}
			for _, l := range v {
				l.transpose(t)
			}
			if c == 0 {
				line("MOVD %v, %v", dst, to)
			}
			for lane := range 4 {
				for e, l := range v {
					str(l[lane], to, 16*e)
				}
				addReg(to, dstStride)
			}
		}
		addReg(dst, dstStep)
		addReg(src, srcStep)
	})
	ret()
}

// codesWithout are the bits of the codes of a lane whose number is without a bit. Code e has bits 8(e%4) + 2(e/4).
func codesWithout(bit int) (mask uint32) {
	for e := range 16 {
		if e&bit == 0 {
			mask |= 3 << (8*(e%4) + 2*(e/4))
		}
	}
	return mask
}
