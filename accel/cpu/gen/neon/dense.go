package main

import "fmt"

// denseFormat is one way to store the float weights of a dense16 matrix.
type denseFormat struct {
	name    string
	columns int // of a block
}

// dense emits the products with float dense16 matrices: full panels for one token, which streams from memory, and half panels for several.
func dense() {
	for _, f := range []denseFormat{{"F32", 1}, {"BF16", 2}, {"F16", 2}} {
		for tokens := 1; tokens <= 3; tokens++ {
			denseKernel(f, tokens)
		}
	}
}

// denseKernel: four accumulators for each token, one for each k mod 4.
func denseKernel(f denseFormat, tokens int) {
	parts, rows := 4, fullPanel
	if tokens > 1 {
		parts, rows = 2, "the 8 rows r of the half panel that w and scale point to"
	}
	text(fmt.Sprintf("dense%sNEONt%d", f.name, tokens), "dst *float32, ldd int, w *byte, scale *float32, x *float32, ldx int, quads int", "",
		fmt.Sprintf("dst[t*ldd+r] = scale[r] * sum_k w[r,k]*x[t*ldx+k] for %s and t < %d,", rows, tokens),
		"in the order of DenseMatMul; scale may be nil; quads > 0 groups of four columns.")
	w, n := load("w"), load("quads")
	x := pointers(load("x"), loadBytes("ldx", 2), tokens)
	sum := make([][][]vec, tokens) // [token][part][k mod 4]
	for t := range sum {
		for range parts {
			s := newVecs(4)
			zero(s...)
			sum[t] = append(sum[t], s)
		}
	}
	xb, raw := newVecs(tokens), newVecs(parts)
	weight, upper := newVec(), vec(0)
	if f.name == "BF16" {
		upper = constant(table(), cUpper)
	}
	loop(n, 1, func() {
		for t, r := range x {
			ldrPost(xb[t], r, 16)
		}
		for k := range 4 {
			if f.name == "F16" {
				for p := 0; p < parts; p += 2 {
					ldr(raw[p+1], w, k*blockBytes/2+8*p)
					halves(raw[p], raw[p+1])
					halves2(raw[p+1], raw[p+1])
				}
			} else if k%f.columns == 0 {
				ldrs(raw, w, k/f.columns*blockBytes)
			}
			for p := range raw {
				v := raw[p]
				if f.name == "BF16" && k%2 == 0 {
					shl(weight, v, 16)
					v = weight
				} else if f.name == "BF16" {
					and(v, v, upper)
				}
				for t := range sum {
					fmlaLane(sum[t][p][k], v, xb[t], k)
				}
			}
		}
		add(w, 4/f.columns*blockBytes)
	})
	dst, ldd, scale := load("dst"), loadBytes("ldd", 2), load("scale")
	for t := range sum {
		for _, s := range sum[t] {
			fadd(s[0], s[0], s[1])
			fadd(s[2], s[2], s[3])
			fadd(s[0], s[0], s[2])
		}
	}
	unlessZero(scale, func() {
		ldrs(raw, scale, 0)
		for t := range sum {
			for p, s := range sum[t] {
				fmul(s[0], s[0], raw[p])
			}
		}
	})
	for t := range sum {
		for p, s := range sum[t] {
			str(s[0], dst, 16*p)
		}
		if t < tokens-1 {
			addReg(dst, ldd)
		}
	}
	ret()
}
