package main

import "fmt"

// ternary emits the products with panel16 matrices. The two-bit codes w+1 are multiplied as bytes; the sum of x is taken off at the end.
func ternary() {
	ternaryGemv()
	for tokens := 2; tokens <= 4; tokens++ {
		ternaryGemm(tokens)
	}
	ternaryGemvDot()
	for tokens := 2; tokens <= 8; tokens++ {
		ternaryGemmDot(tokens)
	}
}

const (
	gemvParams = "dst *int32, w *byte, x *int8, xsum *int32, blocks int"
	gemmParams = "dst *int32, ldd int, w *byte, x *int8, ldx int, xsum *int32, blocks int"

	fullPanel = "the 16 rows r of a panel"
	halfPanel = "the 8 rows r of the half panel that w points to"

	blockBytes = 64 // of both layouts
)

// ternaryGemv multiplies one panel with one token. A lane of int16 sums the products of one row and every fourth column: a block adds at
// most 4*2*127 to, and takes at most 4*2*128 off it, so that 32 blocks are within -32768..32512 and are then widened to int32.
func ternaryGemv() {
	text("ternaryGemvNEON", gemvParams, "", "dst[r] = sum_k w[r,k]*x[k] for "+fullPanel+"; blocks > 0.")
	ternaryWide(4, 1)
}

// ternaryGemm multiplies eight rows, half a panel, with several tokens, which share the decoded weights.
func ternaryGemm(tokens int) {
	text(fmt.Sprintf("ternaryGemmNEONt%d", tokens), gemmParams, "",
		fmt.Sprintf("dst[t*ldd+r] = sum_k w[r,k]*x[t*ldx+k] for %s and t < %d; blocks > 0.", halfPanel, tokens))
	ternaryWide(2, tokens)
}

// ternaryWide is the body of both, for parts times four rows.
func ternaryWide(parts, tokens int) {
	w, n := load("w"), load("blocks")
	x := tokenRows("x", tokens)
	sum32, sum16 := make([][]vec, tokens), make([][]vec, tokens) // [token][part], [token][half of a part]
	for t := range sum32 {
		sum32[t], sum16[t] = newVecs(parts), newVecs(2*parts)
		zero(sum32[t]...)
	}
	raw, weight, xb, mask := newVecs(parts), newVecs(parts), newVec(), bytesOf(3)
	count, most := newReg(), newReg()
	line("MOVD $32, %v", most)
	outer := newLabel("outer")
	outer.here()
	takeUpTo(most, n, count)
	for _, s := range sum16 {
		zero(s...)
	}
	loop(count, 1, func() {
		ldrs(raw, w, 0)
		add(w, blockBytes)
		for f := range 4 {
			for p, v := range raw {
				and(weight[p], v, mask)
				if f < 3 {
					ushrBytes(v, v, 2)
				}
			}
			for t, s := range sum16 {
				ldr32Post(xb, x[t])
				for p, v := range weight {
					smlal(s[2*p], v, xb)
					smlal2(s[2*p+1], v, xb)
				}
			}
		}
	})
	for t := range sum16 {
		for p, s := range sum32[t] {
			saddlp(raw[0], sum16[t][2*p])
			saddlp(raw[1], sum16[t][2*p+1])
			addPairs(raw[0], raw[0], raw[1])
			addWords(s, s, raw[0])
		}
	}
	line("CBNZ %v, %s", n, string(outer))
	ternaryStore(sum32, xb)
}

// tokenRows gives a pointer to each token's row of a parameter, whose elements are bytes.
func tokenRows(name string, tokens int) []reg {
	if tokens == 1 {
		return []reg{load(name)}
	}
	return pointers(load(name), load("ldx"), tokens)
}

// takeUpTo moves min(most, n) from n to count.
func takeUpTo(most, n, count reg) {
	line("CMP %v, %v", most, n)
	line("CSEL LT, %v, %v, %v", n, most, count)
	line("SUB %v, %v, %v", count, n, n)
}

// ternaryStore takes the sums of x off and stores.
func ternaryStore(sum [][]vec, t vec) {
	dst, xsum := load("dst"), load("xsum")
	var ldd reg
	if len(sum) > 1 {
		ldd = loadBytes("ldd", 2)
	}
	for i, s := range sum {
		ldr32(t, xsum)
		for _, v := range s {
			subWords(v, v, t)
		}
		strs(s, dst, 0)
		if i < len(sum)-1 {
			add(xsum, 4)
			addReg(dst, ldd)
		}
	}
	ret()
}

// ternaryGemvDot multiplies one panel with one token. The fields 0 to 2 of a byte are masked in place and accumulated scaled by 1, 4 and
// 16, which leaves one shift; the scale is shifted out at the end.
func ternaryGemvDot() {
	text("ternaryGemvSDOT", gemvParams, "", "dst[r] = sum_k w[r,k]*x[k] for "+fullPanel+"; blocks > 0.")
	w, n, x := load("w"), load("blocks"), load("x")
	var sum [4][]vec // [field][part]
	for f := range sum {
		sum[f] = newVecs(4)
		zero(sum[f]...)
	}
	mask := []vec{bytesOf(3), bytesOf(3 << 2), bytesOf(3 << 4)}
	raw, xb, weight := newVecs(4), newVec(), newVecs(4)
	loop(n, 1, func() {
		ldrs(raw, w, 0)
		ldrPost(xb, x, 16)
		add(w, blockBytes)
		for f := range sum {
			for p, v := range raw {
				if f < 3 {
					and(weight[p], v, mask[f])
				} else {
					ushrBytes(weight[p], v, 6)
				}
			}
			for p, v := range weight {
				sdotLane(sum[f][p], v, xb, f)
			}
		}
	})
	for f := 1; f < 4; f++ {
		for p, s := range sum[f] {
			if f < 3 {
				sshr(s, s, 2*f)
			}
			addWords(sum[0][p], sum[0][p], s)
		}
	}
	ternaryStore(sum[:1], xb)
}

// ternaryGemmDot multiplies one panel, or half of one with more tokens than the registers hold sums for, with several tokens, which share
// the decoded weights.
func ternaryGemmDot(tokens int) {
	parts, rows := 4, fullPanel
	if tokens > 4 {
		parts, rows = 2, halfPanel
	}
	text(fmt.Sprintf("ternaryGemmSDOTt%d", tokens), gemmParams, "",
		fmt.Sprintf("dst[t*ldd+r] = sum_k w[r,k]*x[t*ldx+k] for %s and t < %d; blocks > 0.", rows, tokens))
	w, n := load("w"), load("blocks")
	x := tokenRows("x", tokens)
	sum := make([][]vec, tokens) // [token][part]
	for t := range sum {
		sum[t] = newVecs(parts)
		zero(sum[t]...)
	}
	mask, raw, xb, weight := bytesOf(3), newVecs(parts), newVecs(tokens), newVecs(parts)
	loop(n, 1, func() {
		ldrs(raw, w, 0)
		for t, r := range x {
			ldrPost(xb[t], r, 16)
		}
		add(w, blockBytes)
		for f := range 4 {
			for p, v := range raw {
				and(weight[p], v, mask)
				if f < 3 {
					ushrBytes(v, v, 2)
				}
			}
			for t := range sum {
				for p, v := range weight {
					sdotLane(sum[t][p], v, xb[t], f)
				}
			}
		}
	})
	ternaryStore(sum, xb[0])
}
