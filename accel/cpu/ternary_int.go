package cpu

import "fmt"

// TernaryIntMatMul multiplies panels p0 to p1 of a ternary matrix with 16-bit activations, as [DenseIntMatMul] does for int8 ones: for
// t < tokens and the rows r of 16*p0 .. 16*p1
//
//	accHi = sum_k w[r,k]*Hi[t*Stride+k]    accLo = sum_k w[r,k]*Lo[t*Stride+k]    both exact int32
//	dst[t*ldd + r-16*p0] = ((float32(accHi)*256 + float32(accLo)) * scale) * Inv[t]
//
// or, with add, dst += that.
func TernaryIntMatMul(dst []float32, ldd int, panels []byte, scale float32, cols, p0, p1 int, x Int16Rows, tokens int, add bool) {
	const op = "TernaryIntMatMul"
	if p0 < 0 || p1 < p0 || tokens < 0 || cols < 1 || cols > MaxDenseIntCols {
		panic(fmt.Sprintf("cpu: %s: bad arguments: panels %d to %d, %d columns (at most %d), %d tokens", op, p0, p1, cols, MaxDenseIntCols, tokens))
	}
	if p0 == p1 || tokens == 0 {
		return
	}
	stride, width, padded := panelBytes(cols), PanelRows*(p1-p0), ceilDiv(cols, BlockCols)*BlockCols
	need(op, "panels", len(panels), p1*stride)
	needRows(op, "dst", len(dst), tokens, width, ldd)
	needRows(op, "hi", len(x.Hi), tokens, padded, x.Stride)
	needRows(op, "lo", len(x.Lo), tokens, padded, x.Stride)
	need(op, "sumHi", len(x.SumHi), tokens)
	need(op, "sumLo", len(x.SumLo), tokens)
	need(op, "inv", len(x.Inv), tokens)
	ternaryInt(dst, ldd, panels[p0*stride:p1*stride], padded/BlockCols, scale, x, tokens, add)
}

// ternaryIntEach multiplies the planes one after the other, some panels with some tokens at a time.
func ternaryIntEach(dst []float32, ldd int, panels []byte, nb int, scale float32, x Int16Rows, tokens int, add bool) {
	const (
		most  = 60            // tokens: a multiple of what the kernels take at once
		width = 2 * PanelRows // two panels
	)
	var sums [2][most * width]int32
	stride := nb * BlockBytes
	for p := 0; p*stride < len(panels); p += 2 {
		w := panels[p*stride : min((p+2)*stride, len(panels))]
		n := len(w) / stride * PanelRows
		for t := 0; t < tokens; t += most {
			m, at := min(most, tokens-t), t*x.Stride
			ternaryMatMul(sums[0][:], n, w, nb, x.Hi[at:], x.Stride, x.SumHi[t:t+m])
			ternaryMatMul(sums[1][:], n, w, nb, x.Lo[at:], x.Stride, x.SumLo[t:t+m])
			for i := range m {
				joinPlanes(dst[(t+i)*ldd+p*PanelRows:][:n], sums[0][i*n:][:n], sums[1][i*n:][:n], scale, x.Inv[t+i], add)
			}
		}
	}
}

// joinPlanesRef makes results of the planes' sums.
func joinPlanesRef(dst []float32, hi, lo []int32, scale, inv float32, add bool) {
	for i := range dst {
		y := float32(float32(float32(float32(float32(hi[i])*256)+float32(lo[i]))*scale) * inv)
		if add {
			y += dst[i]
		}
		dst[i] = y
	}
}
