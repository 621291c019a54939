package cpu

import "fmt"

// Int16Max is the largest magnitude of the integers that [QuantizeInt16] makes: 127*256, so that both of their planes
// are int8.
const Int16Max = 32512

// Int16Cols is the multiple of columns that rows of [Int16Rows] are padded to, with zeros: a block of ternary weights.
const Int16Cols = BlockCols

// MaxDenseIntCols bounds the columns of an integer matrix: 2^17 products of a weight of -127 to 127 with a plane of the
// activations stay within int32. (Weight -128, which no packer makes, is exact to one column less; beyond that its sums
// wrap, alike on every instruction set.)
const MaxDenseIntCols = 1 << 17

// Int16Rows are rows of activations as 16-bit integers, each split in two int8 planes:
//
//	x[t,k] = (256*Hi[t*Stride+k] + Lo[t*Stride+k]) * Inv[t]
//
// A row has columns up to a multiple of [Int16Cols], the padding zero. [QuantizeInt16] makes the planes.
type Int16Rows struct {
	Hi, Lo       []int8
	Stride       int       // from row to row of Hi and of Lo
	SumHi, SumLo []int32   // of each row's planes
	Inv          []float32 // what one step of the row's integers is worth: 1/s
}

// From gives the rows from row t on.
func (x Int16Rows) From(t int) Int16Rows {
	return Int16Rows{Hi: x.Hi[t*x.Stride:], Lo: x.Lo[t*x.Stride:], Stride: x.Stride, SumHi: x.SumHi[t:], SumLo: x.SumLo[t:], Inv: x.Inv[t:]}
}

// QuantizeInt16 rounds x to 16-bit integers in two int8 planes and returns the sums of the planes:
//
//	v = clamp(roundHalfEven(x[i]*s), -32512, 32512)    hi[i] = (v+128) >> 8    lo[i] = v - 256*hi[i]
//
// hi is within -127..127, lo within -128..127. NaN becomes -32512.
func QuantizeInt16(hi, lo []int8, x []float32, s float32) (sumHi, sumLo int32) {
	n := len(x)
	need("QuantizeInt16", "hi", len(hi), n)
	need("QuantizeInt16", "lo", len(lo), n)
	body := n &^ (Lanes - 1)
	if body > 0 {
		sumHi, sumLo = quantizeInt16(hi[:body], lo[:body], x[:body], s)
	}
	h, l := quantizeInt16Ref(hi[body:n], lo[body:n], x[body:], s)
	return sumHi + h, sumLo + l
}

// DenseIntMatMul multiplies panels p0 to p1 of an integer matrix, [DenseInt8] or [DenseInt4], with 16-bit activations. For
// t < tokens and the rows r of 16*p0 .. 16*p1, with w the integers before their scale:
//
//	accHi = sum_k w[r,k]*Hi[t*Stride+k]    accLo = sum_k w[r,k]*Lo[t*Stride+k]    both exact int32
//	dst[t*ldd + r-16*p0] = ((float32(accHi)*256 + float32(accLo)) * scale[r]) * Inv[t]
//
// or, with add, dst += that.
// Both conversions, the sum and each product are rounded to float32, in this order (the product with 256 is exact). A
// result depends on its row and token alone. scale holds one factor per row; rows past its end, the padding, give 0.
// dst needs 16*(p1-p0) elements for each token.
func DenseIntMatMul(dst []float32, ldd int, f DenseFormat, panels []byte, scale []float32, cols, p0, p1 int, x Int16Rows, tokens int, add bool) {
	const op = "DenseIntMatMul"
	if !f.Integer() || p0 < 0 || p1 < p0 || tokens < 0 || cols < 0 || cols > MaxDenseIntCols {
		panic(fmt.Sprintf("cpu: %s: bad arguments: format %s, panels %d to %d, %d columns (at most %d), %d tokens", op, f, p0, p1, cols, MaxDenseIntCols, tokens))
	}
	if p0 == p1 || tokens == 0 {
		return
	}
	stride, width := densePanelBytes(f, cols), PanelRows*(p1-p0)
	need(op, "panels", len(panels), p1*stride)
	needRows(op, "dst", len(dst), tokens, width, ldd)
	if cols == 0 {
		for t := range tokens {
			clear(dst[t*ldd : t*ldd+width])
		}
		return
	}
	needRows(op, "hi", len(x.Hi), tokens, DenseCols(f, cols), x.Stride)
	needRows(op, "lo", len(x.Lo), tokens, DenseCols(f, cols), x.Stride)
	need(op, "sumHi", len(x.SumHi), tokens)
	need(op, "sumLo", len(x.SumLo), tokens)
	need(op, "inv", len(x.Inv), tokens)
	need(op, "scale", len(scale), PanelRows*(p1-1)+1)
	denseIntPanels(dst, ldd, f, panels[p0*stride:p1*stride], stride, scale[p0*PanelRows:], x, tokens, add)
}

// denseIntEach goes panel by panel.
func denseIntEach(dst []float32, ldd int, f DenseFormat, panels []byte, stride int, scale []float32, x Int16Rows, tokens int, add bool) {
	var last [PanelRows]float32
	for p := range len(panels) / stride {
		denseIntPanel(dst[p*PanelRows:], ldd, f, panels[p*stride:(p+1)*stride], panelScale(scale, p, &last), &x, tokens, add)
	}
}

// asInt is b as a kernel's argument.
func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
