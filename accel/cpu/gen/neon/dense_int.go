package main

import "fmt"

// int8Dense emits the products of dense16 matrices of int8 with activations in two int8 planes.
func int8Dense() {
	for tokens := 1; tokens <= 3; tokens++ {
		int8Wide(tokens)
	}
	for tokens := 1; tokens <= 3; tokens++ {
		int8Dot(tokens)
	}
}

// int8Kernel holds what the loop of a kernel needs.
type int8Kernel struct {
	parts  int
	w, n   reg
	planes [2][]reg // [hi, lo][token]
	sum    [][2][]vec
}

// newInt8Kernel begins a kernel with sums sums for each part, four rows.
func newInt8Kernel(suffix string, parts, sums, tokens int) int8Kernel {
	rows := fullPanel
	if parts == 2 {
		rows = "the 8 rows r of the half panel that w and scale point to"
	}
	text(fmt.Sprintf("denseInt8%st%d", suffix, tokens),
		"dst *float32, ldd int, w *byte, scale *float32, hi, lo *int8, ldx int, inv *float32, add, blocks int", "",
		"with accHi = sum_k w[r,k]*hi[t*ldx+k] and accLo = sum_k w[r,k]*lo[t*ldx+k],",
		fmt.Sprintf("dst[t*ldd+r] = ((float32(accHi)*256 + float32(accLo)) * scale[r]) * inv[t] for %s and t < %d; blocks > 0; add: dst += that.", rows, tokens))
	k := int8Kernel{parts: parts, w: load("w"), n: load("blocks")}
	for i, p := range []string{"hi", "lo"} {
		k.planes[i] = tokenRows(p, tokens)
	}
	k.sum = make([][2][]vec, tokens)
	for t := range k.sum {
		for p := range k.sum[t] {
			k.sum[t][p] = newVecs(sums * parts)
			zero(k.sum[t][p]...)
		}
	}
	return k
}

// int8Dot: SDOT of the weights, as signed bytes, with four columns of the activations: w+128 with its uppermost bit changed is w.
func int8Dot(tokens int) {
	parts := 4
	if tokens > 1 {
		parts = 2
	}
	k := newInt8Kernel("SDOT", parts, 1, tokens)
	bias, raw, xb := bytesOf(0x80), newVecs(parts), newVecs(2)
	loop(k.n, 1, func() {
		ldrs(raw, k.w, 0)
		for _, v := range raw {
			eor(v, v, bias)
		}
		for t := range tokens {
			for plane := range k.planes {
				x := xb[plane]
				ldr32Post(x, k.planes[plane][t])
				for p, v := range raw {
					sdotLane(k.sum[t][plane][p], v, x, 0)
				}
			}
		}
		add(k.w, blockBytes)
	})
	k.finish(append(xb, raw[0]))
}

// int8Wide: products of bytes fit int16; their sums are widened to int32 at once, in two vectors for four rows.
func int8Wide(tokens int) {
	parts := 2
	if tokens == 1 {
		parts = 4
	}
	k := newInt8Kernel("NEON", parts, 2, tokens)
	bias, raw, product, x := bytesOf(0x80), newVec(), newVec(), newVec()
	loop(k.n, 1, func() {
		for p := range parts {
			ldr(raw, k.w, 16*p)
			eor(raw, raw, bias)
			for t := range tokens {
				for plane := range k.planes {
					ldr32(x, k.planes[plane][t])
					s := k.sum[t][plane][2*p:]
					smull(product, raw, x)
					sadalp(s[0], product)
					smull2(product, raw, x)
					sadalp(s[1], product)
				}
			}
		}
		add(k.w, blockBytes)
		for _, p := range k.planes {
			for _, r := range p {
				add(r, 4)
			}
		}
	})
	for t := range k.sum {
		for plane, s := range k.sum[t] {
			for p := range parts {
				addPairs(s[p], s[2*p], s[2*p+1])
			}
			k.sum[t][plane] = s[:parts]
		}
	}
	k.finish([]vec{product, raw, x})
}

// finish makes results of the sums and stores them; it needs three vectors.
func (k int8Kernel) finish(spare []vec) {
	dst, ldd, scale, inv, more := load("dst"), loadBytes("ldd", 2), load("scale"), load("inv"), load("add")
	times, f, s := spare[0], spare[1], spare[2]
	ldr(times, table(), 16*c256)
	for t := range k.sum {
		ldr32(f, inv)
		hi, lo := k.sum[t][0], k.sum[t][1]
		for p, y := range hi {
			scvtf(y, y)
			scvtf(lo[p], lo[p])
			fmul(y, y, times)
			fadd(y, y, lo[p])
			ldr(s, scale, 16*p)
			fmul(y, y, s)
			fmul(y, y, f)
		}
		unlessZero(more, func() {
			ldrs(lo, dst, 0)
			for p, y := range hi {
				fadd(y, y, lo[p])
			}
		})
		strs(hi, dst, 0)
		if t < len(k.sum)-1 {
			add(inv, 4)
			addReg(dst, ldd)
		}
	}
	ret()
}
