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
	// Eights is for products with [DenseInt4], else nil: of row t from t*[Int16Rows.Groups] on, for each [Int4Group] columns -8 times the sum of
	// their integers 256*Hi+Lo.
	Eights []int32
}

// Groups is the number of groups of [Int4Group] columns in a row, its padding included.
func (x Int16Rows) Groups() int { return ceilDiv(x.Stride, Int4Group) }

// From gives the rows from row t on.
func (x Int16Rows) From(t int) Int16Rows {
	y := Int16Rows{Hi: x.Hi[t*x.Stride:], Lo: x.Lo[t*x.Stride:], Stride: x.Stride, SumHi: x.SumHi[t:], SumLo: x.SumLo[t:], Inv: x.Inv[t:]}
	if x.Eights != nil {
		y.Eights = x.Eights[t*x.Groups():]
	}
	return y
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
// t < tokens and the rows r of 16*p0 .. 16*p1, with w the integers before their scales, [DenseInt8] gives
//
//	accHi = sum_k w[r,k]*Hi[t*Stride+k]    accLo = sum_k w[r,k]*Lo[t*Stride+k]    both exact int32
//	dst[t*ldd + r-16*p0] = ((float32(accHi)*256 + float32(accLo)) * scale[r]) * Inv[t]
//
// or, with add, dst += that.
// Both conversions, the sum and each product are rounded to float32, in this order (the product with 256 is exact).
// scale holds one factor per row; rows past its end, the padding, give 0.
//
// [DenseInt4] has its scales s in the panels, for each group g of [Int4Group] columns; scale is nil, x needs Eights, and
//
//	acc[g] = sum_{k in g} w[r,k]*(256*Hi[t*Stride+k] + Lo[t*Stride+k])    exact int32, and float32 if the planes are QuantizeInt16's
//	y = float32(acc[g])*s[r,g] + y    for g ascending, from y = 0, with fused multiply-add
//	dst[t*ldd + r-16*p0] = y * Inv[t]    or, with add, dst += that
//
// A result depends on its row and token alone. dst needs 16*(p1-p0) elements for each token.
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
	if f == DenseInt4 {
		blocks := DenseCols(f, cols) / denseFormats[f].blockCols
		needRows(op, "eights", len(x.Eights), tokens, ceilDiv(cols, Int4Group), x.Groups())
		int4Panels(dst, ldd, panels[p0*stride:p1*stride], stride, blocks, x, tokens, add)
		return
	}
	need(op, "scale", len(scale), PanelRows*(p1-1)+1)
	int8Panels(dst, ldd, panels[p0*stride:p1*stride], stride, scale[p0*PanelRows:], x, tokens, add)
}

// int8Each goes panel by panel.
func int8Each(dst []float32, ldd int, panels []byte, stride int, scale []float32, x Int16Rows, tokens int, add bool) {
	var last [PanelRows]float32
	for p := range len(panels) / stride {
		int8Panel(dst[p*PanelRows:], ldd, panels[p*stride:(p+1)*stride], panelScale(scale, p, &last), &x, tokens, add)
	}
}

// asInt is b as a kernel's argument.
func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
