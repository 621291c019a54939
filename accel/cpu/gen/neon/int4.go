package main

import (
	"fmt"
	"math"
)

// int4Widest is the most tokens of the kernels without SDOT.
const int4Widest = 2

// int4 emits the products of dense16 matrices of int4 with activations in two int8 planes.
func int4() {
	for tokens := 1; tokens <= int4Widest; tokens++ {
		int4Wide(tokens)
	}
	for tokens := 1; tokens <= 3; tokens++ {
		int4Dot(tokens)
	}
}

// int4Kernel holds what the loop over a group's blocks needs.
type int4Kernel struct {
	tokens     int
	w          reg
	planes     [2][]reg   // [hi, lo][token]
	sum        [][2][]vec // [token][plane]
	y          [][]vec    // [token][part] the results so far
	bias, mask vec
}

func newInt4Kernel(suffix string, sums, tokens int) (k int4Kernel, parts int) {
	parts, rows := 4, fullPanel
	if tokens > 1 {
		parts, rows = 2, halfPanel
	}
	text(fmt.Sprintf("denseInt4%st%d", suffix, tokens), "dst *float32, ldd int, w *byte, hi, lo *int8, ldx int, inv *float32, add, blocks int", "",
		fmt.Sprintf("the results of DenseIntMatMul for %d tokens and %s, of blocks > 0 blocks of weights; add: dst += the results.", tokens, rows))
	k = int4Kernel{tokens: tokens, w: load("w"), bias: bytesOf(8), mask: bytesOf(15)}
	for i, p := range []string{"hi", "lo"} {
		k.planes[i] = tokenRows(p, tokens)
	}
	for range tokens {
		y := newVecs(parts)
		zero(y...)
		k.y = append(k.y, y)
		k.sum = append(k.sum, [2][]vec{newVecs(sums * parts), newVecs(sums * parts)})
	}
	return k, parts
}

// decode makes the signed weights of raw[0]: those of the second field land in raw[1].
func (k int4Kernel) decode(raw []vec) {
	ushrBytes(raw[1], raw[0], 4)
	and(raw[0], raw[0], k.mask)
	subBytes(raw[0], raw[0], k.bias)
	subBytes(raw[1], raw[1], k.bias)
}

// groups multiplies group by group: block adds a block's products to the sums, end leaves in the first of them what belongs to each part.
func (k int4Kernel) groups(block, end func()) {
	scales, n, count, most := newReg(), load("blocks"), newReg(), newReg()
	upper, scale := constant(table(), cUpper), newVec()
	line("MOVD $8, %v", most)
	run, done := newLabel("run"), newLabel("done")
	run.here()
	line("MOVD %v, %v", k.w, scales)
	add(k.w, blockBytes)
	for half := range 2 {
		if half == 1 {
			line("CBZ %v, %s", n, string(done))
		}
		takeUpTo(most, n, count)
		for _, s := range k.sum {
			zero(s[0]...)
			zero(s[1]...)
		}
		loop(count, 1, func() {
			block()
			add(k.w, blockBytes)
		})
		end()
		for p := range k.y[0] {
			ldr(scale, scales, 16*p)
			if half == 0 {
				shl(scale, scale, 16)
			} else {
				and(scale, scale, upper)
			}
			for t, y := range k.y {
				hi, lo := k.sum[t][0][p], k.sum[t][1][p]
				shl(hi, hi, 8)
				addWords(lo, lo, hi)
				scvtf(lo, lo)
				fmla(y[p], lo, scale)
			}
		}
	}
	line("CBNZ %v, %s", n, string(run))
	done.here()
	k.finish()
}

// finish stores the results.
func (k int4Kernel) finish() {
	dst, ldd, inv, more := load("dst"), loadBytes("ldd", 2), load("inv"), load("add")
	f, old := k.sum[0][0][0], k.sum[0][1][:len(k.y[0])]
	for t, y := range k.y {
		ldr32(f, inv)
		for _, v := range y {
			fmul(v, v, f)
		}
		unlessZero(more, func() {
			ldrs(old, dst, 0)
			for p, v := range y {
				fadd(v, v, old[p])
			}
		})
		strs(y, dst, 0)
		if t < len(k.y)-1 {
			add(inv, 4)
			addReg(dst, ldd)
		}
	}
	ret()
}

// int4Dot: SDOT of the weights with twice four columns of the activations.
func int4Dot(tokens int) {
	k, parts := newInt4Kernel("SDOT", 1, tokens)
	raw, xb := make([][]vec, parts), newVecs(2) // [part][field]
	for p := range raw {
		raw[p] = newVecs(2)
	}
	k.groups(func() {
		for p := range raw {
			ldr(raw[p][0], k.w, 16*p)
		}
		for p := range raw {
			k.decode(raw[p])
		}
		for t := range tokens {
			for plane, x := range xb {
				ldr64Post(x, k.planes[plane][t])
				for p := range raw {
					for field, v := range raw[p] {
						sdotLane(k.sum[t][plane][p], v, x, field)
					}
				}
			}
		}
	}, func() {})
}

// int4Wide: products of bytes fit int16; their sums are widened to int32 at once, in two vectors for four rows.
func int4Wide(tokens int) {
	k, parts := newInt4Kernel("NEON", 2, tokens)
	raw, product, x := newVecs(2), newVec(), newVecs(2)
	k.groups(func() {
		for p := range parts {
			ldr(raw[0], k.w, 16*p)
			k.decode(raw)
			for t := range tokens {
				for plane := range k.planes {
					ldr64(x[0], k.planes[plane][t])
					dup(x[1], x[0], 1)
					dup(x[0], x[0], 0)
					s := k.sum[t][plane][2*p:]
					smull(product, raw[0], x[0])
					smlal(product, raw[1], x[1])
					sadalp(s[0], product)
					smull2(product, raw[0], x[0])
					smlal2(product, raw[1], x[1])
					sadalp(s[1], product)
				}
			}
		}
		for _, p := range k.planes {
			for _, r := range p {
				add(r, 8)
			}
		}
	}, func() {
		for _, s := range k.sum {
			for _, sums := range s {
				for p := range parts {
					addPairs(sums[p], sums[2*p], sums[2*p+1])
				}
			}
		}
	})
}

// int4Errors tries steps for numbers that share one: a lane for each.
func int4Errors() {
	text("int4ErrorsNEON", "dst, s, x *float32, n int", "", "dst[i] = sum_k (v - clamp(roundHalfEven(v), -8, 7))^2 with v = x[k]*s[i] for k < n ascending, i < 16; n > 0.")
	dst, from, x, n := load("dst"), load("s"), load("x"), load("n")
	step, sum, v, r := newVecs(4), newVecs(4), newVec(), newVec()
	low, high, magic, number := words(math.Float32bits(-8)), words(math.Float32bits(7)), words(math.Float32bits(12582912)), newVec()
	ldrs(step, from, 0)
	zero(sum...)
	loop(n, 1, func() {
		ldr32Post(number, x)
		for p := range step {
			fmul(v, step[p], number)
			fmaxnm(r, v, low)
			fminnm(r, r, high)
			fadd(r, r, magic)
			fsub(r, r, magic)
			fsub(v, v, r)
			fmul(v, v, v)
			fadd(sum[p], sum[p], v)
		}
	})
	strs(sum, dst, 0)
	ret()
}
