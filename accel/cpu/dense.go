package cpu

import (
	"fmt"
	"math"
)

// DenseFormat is how a dense matrix stores its weights in the dense16 layout.
//
// Rows lie in panels of 16. A panel is column-major: the 16 weights of column 0, then those of column 1, and so on, with
// columns padded to a multiple of 4 and rows to a multiple of 16 by zeros. [DenseInt4] puts columns in pairs of 16
// bytes: byte r holds row r's weight of the even column in its low and of the odd column in its high four bits.
// [DenseOffset] gives the place of one weight.
type DenseFormat uint8

const (
	DenseF32  DenseFormat = iota // float32, little endian: 64 bytes a column
	DenseBF16                    // bfloat16, the upper half of a float32: 32 bytes a column
	DenseInt8                    // int8, times a scale per row: 16 bytes a column
	DenseInt4                    // two's complement -8..7, times a scale per row: 8 bytes a column
)

var denseFormats = [...]struct {
	name        string
	columnBytes int
}{
	DenseF32: {"f32", 64}, DenseBF16: {"bf16", 32}, DenseInt8: {"int8", 16}, DenseInt4: {"int4", 8},
}

// String is the format's short name: f32, bf16, int8, int4.
func (f DenseFormat) String() string {
	if int(f) < len(denseFormats) {
		return denseFormats[f].name
	}
	return fmt.Sprintf("DenseFormat(%d)", uint8(f))
}

// denseCols is the multiple that columns are padded to: the four accumulators of [DenseMatMul].
const denseCols = 4

func densePanelBytes(f DenseFormat, cols int) int {
	return ceilDiv(cols, denseCols) * denseCols * denseFormats[f].columnBytes
}

// DenseBytes is the size of a packed rows x cols matrix.
func DenseBytes(f DenseFormat, rows, cols int) int {
	return ceilDiv(rows, PanelRows) * densePanelBytes(f, cols)
}

// DenseOffset is the index of the first byte of weight [row, col] of a matrix with cols columns. For [DenseInt4] it is
// the byte whose low (even col) or high (odd col) four bits hold the weight.
func DenseOffset(f DenseFormat, cols, row, col int) int {
	base := row / PanelRows * densePanelBytes(f, cols)
	if f == DenseInt4 {
		return base + col/2*PanelRows + row%PanelRows
	}
	size := denseFormats[f].columnBytes
	return base + col*size + row%PanelRows*(size/PanelRows)
}

// DenseMatMul multiplies panels p0 to p1 of a dense matrix with float32 activations:
//
//	dst[t*ldd + r-16*p0] = scale[r] * sum_k w[r,k]*x[t*ldx+k]    for t < tokens and the rows r of 16*p0 .. 16*p1
//
// The sum has one order: four accumulators by k mod 4, each in ascending k, then (a0+a1)+(a2+a3); products and sums are
// rounded separately. A row's result does not depend on the number of tokens or panels in the call. A nil scale is left
// out; else it holds one factor per row (rows past its end, the padding, give 0). Rows of x are padded with zeros to a
// multiple of 4 columns. dst needs 16*(p1-p0) elements for each token.
func DenseMatMul(dst []float32, ldd int, f DenseFormat, panels []byte, scale []float32, cols, p0, p1 int, x []float32, ldx, tokens int) {
	const op = "DenseMatMul"
	if int(f) >= len(denseFormats) || p0 < 0 || p1 < p0 || tokens < 0 || cols < 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: format %s, panels %d to %d, %d columns, %d tokens", op, f, p0, p1, cols, tokens))
	}
	if p0 == p1 || tokens == 0 {
		return
	}
	stride, width := densePanelBytes(f, cols), PanelRows*(p1-p0)
	need(op, "panels", len(panels), p1*stride)
	needRows(op, "dst", len(dst), tokens, width, ldd)
	needRows(op, "x", len(x), tokens, ceilDiv(cols, denseCols)*denseCols, ldx)
	if cols == 0 {
		for t := range tokens {
			clear(dst[t*ldd : t*ldd+width])
		}
		return
	}
	if scale != nil {
		need(op, "scale", len(scale), PanelRows*(p1-1)+1)
	}
	quads := ceilDiv(cols, denseCols)
	var last [PanelRows]float32 // the scales of a panel that has fewer
	for p := p0; p < p1; p++ {
		var s *[PanelRows]float32
		if scale != nil {
			if rest := scale[p*PanelRows:]; len(rest) >= PanelRows {
				s = (*[PanelRows]float32)(rest)
			} else {
				copy(last[:], rest)
				s = &last
			}
		}
		densePanel(dst[(p-p0)*PanelRows:], ldd, f, panels[p*stride:(p+1)*stride], s, quads, x, ldx, tokens)
	}
}

// DenseRow writes one row as float32, for embedding lookup: dst[k] = w[row,k] * scale[row] for k < cols; a nil scale is left out.
func DenseRow(dst []float32, f DenseFormat, panels []byte, scale []float32, cols, row int) {
	const op = "DenseRow"
	if int(f) >= len(denseFormats) || row < 0 || cols < 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: format %s, %d columns, row %d", op, f, cols, row))
	}
	need(op, "dst", len(dst), cols)
	need(op, "panels", len(panels), DenseBytes(f, row+1, cols))
	if scale != nil {
		need(op, "scale", len(scale), row+1)
	}
	panel := panels[row/PanelRows*densePanelBytes(f, cols):]
	r := row % PanelRows
	dst = dst[:cols]
	for k := range dst {
		dst[k] = denseWeight(f, panel, r, k)
	}
	if scale != nil {
		s := scale[row]
		for k := range dst {
			dst[k] *= s
		}
	}
}

// denseWeight decodes the weight of row r and column k of a panel, before its scale.
func denseWeight(f DenseFormat, panel []byte, r, k int) float32 {
	switch f {
	case DenseF32:
		b := panel[k*64+4*r:][:4]
		return math.Float32frombits(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
	case DenseBF16:
		b := panel[k*32+2*r:][:2]
		return math.Float32frombits(uint32(b[0])<<16 | uint32(b[1])<<24)
	case DenseInt8:
		return float32(int8(panel[k*16+r]))
	default:
		b := int8(panel[k/2*16+r])
		if k%2 == 0 {
			b <<= 4
		}
		return float32(b >> 4)
	}
}
