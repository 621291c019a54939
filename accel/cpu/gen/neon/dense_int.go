package main

import "fmt"

// intFormat is one way to store the integer weights of a dense16 matrix.
type intFormat struct {
	name   string
	fields int // weights in a byte: groups of four columns in a block
}

// denseInt emits the products of integer dense16 matrices with activations in two int8 planes.
func denseInt() {
	for _, f := range []intFormat{{"Int8", 1}, {"Int4", 2}} {
		for tokens := 1; tokens <= 3; tokens++ {
			denseIntWide(f, tokens)
		}
		for tokens := 1; tokens <= 3; tokens++ {
			denseIntDot(f, tokens)
		}
	}
}

// intKernel holds what the loop of a kernel needs.
type intKernel struct {
	f      intFormat
	parts  int
	w, n   reg
	planes [2][]reg // [hi, lo][token]
	sum    [][2][]vec
}

// newIntKernel begins a kernel with sums sums for each part, four rows.
func newIntKernel(f intFormat, suffix string, parts, sums, tokens int) intKernel {
	rows := fullPanel
	if parts == 2 {
		rows = "the 8 rows r of the half panel that w and scale point to"
	}
	text(fmt.Sprintf("dense%s%st%d", f.name, suffix, tokens),
		"dst *float32, ldd int, w *byte, scale *float32, hi, lo *int8, ldx int, inv *float32, add, blocks int", "",
		"with accHi = sum_k w[r,k]*hi[t*ldx+k] and accLo = sum_k w[r,k]*lo[t*ldx+k],",
		fmt.Sprintf("dst[t*ldd+r] = ((float32(accHi)*256 + float32(accLo)) * scale[r]) * inv[t] for %s and t < %d; blocks > 0; add: dst += that.", rows, tokens))
	k := intKernel{f: f, parts: parts, w: load("w"), n: load("blocks")}
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

// decode makes the signed weights of one part of a block: those of int4's second field land in the second vector.
func (k intKernel) decode(raw []vec, bias, mask vec) {
	if k.f.fields == 1 {
		eor(raw[0], raw[0], bias)
		return
	}
	ushrBytes(raw[1], raw[0], 4)
	and(raw[0], raw[0], mask)
	subBytes(raw[0], raw[0], bias)
	subBytes(raw[1], raw[1], bias)
}

// constants: w+128 with its uppermost bit changed is w as a signed byte; of w+8 eight is taken off.
func (k intKernel) constants() (bias, mask vec) {
	if k.f.fields == 1 {
		return bytesOf(0x80), 0
	}
	return bytesOf(8), bytesOf(15)
}

// denseIntDot: SDOT of the weights, as signed bytes, with four or two times four columns of the activations.
func denseIntDot(f intFormat, tokens int) {
	parts := 4
	if tokens > 1 {
		parts = 2
	}
	k := newIntKernel(f, "SDOT", parts, 1, tokens)
	bias, mask := k.constants()
	raw := make([][]vec, parts) // [part][field]
	for p := range raw {
		raw[p] = newVecs(f.fields)
	}
	xb := newVecs(2)
	loop(k.n, 1, func() {
		for p := range raw {
			ldr(raw[p][0], k.w, 16*p)
		}
		for p := range raw {
			k.decode(raw[p], bias, mask)
		}
		for t := range tokens {
			for plane := range k.planes {
				x := xb[plane]
				if f.fields == 1 {
					ldr32Post(x, k.planes[plane][t])
				} else {
					ldr64Post(x, k.planes[plane][t])
				}
				for p := range raw {
					for i, v := range raw[p] {
						sdotLane(k.sum[t][plane][p], v, x, i)
					}
				}
			}
		}
		add(k.w, blockBytes)
	})
	k.finish(append(xb, raw[0][0]))
}

// denseIntWide: products of bytes fit int16; their sums are widened to int32 at once, in two vectors for four rows.
func denseIntWide(f intFormat, tokens int) {
	parts := 2
	if tokens == 1 {
		parts = 4
	}
	k := newIntKernel(f, "NEON", parts, 2, tokens)
	bias, mask := k.constants()
	raw, product, xb := newVecs(f.fields), newVec(), newVecs(f.fields)
	loop(k.n, 1, func() {
		for p := range parts {
			ldr(raw[0], k.w, 16*p)
			k.decode(raw, bias, mask)
			for t := range tokens {
				for plane := range k.planes {
					if f.fields == 1 {
						ldr32(xb[0], k.planes[plane][t])
					} else {
						ldr64(xb[0], k.planes[plane][t])
						dup(xb[1], xb[0], 1)
						dup(xb[0], xb[0], 0)
					}
					s := k.sum[t][plane][2*p:]
					smull(product, raw[0], xb[0])
					if f.fields == 2 {
						smlal(product, raw[1], xb[1])
					}
					sadalp(s[0], product)
					smull2(product, raw[0], xb[0])
					if f.fields == 2 {
						smlal2(product, raw[1], xb[1])
					}
					sadalp(s[1], product)
				}
			}
		}
		add(k.w, blockBytes)
		for _, p := range k.planes {
			for _, r := range p {
				add(r, 4*f.fields)
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
	k.finish(append([]vec{product}, append(raw, xb...)...))
}

// finish makes results of the sums and stores them; it needs three vectors.
func (k intKernel) finish(spare []vec) {
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
