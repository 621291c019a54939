package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
)

// DenseFormat is how a dense matrix stores its weights in the dense16 layout.
//
// Rows lie in panels of 16, panels follow each other. A panel is a sequence of 64-byte blocks, each of 16 rows by 1, 2, 4
// or 8 neighbouring columns, left to right. A 32-bit lane of a block is one row: lane r, bytes 4r to 4r+3, holds the
// columns of row r, so that a partial sum never leaves its lane. Only f16 has the rows of a column beside each other, as
// processors widen halves to lanes:
//
//	f32    1 column:   a float32, little endian
//	bf16   2 columns:  bytes 0 and 1 the even one, bytes 2 and 3 the odd one: the upper halves of float32, little endian
//	f16    2 columns:  bytes 2r and 2r+1 the even one of row r, bytes 32+2r and 33+2r the odd one: IEEE halves, little endian
//	int8   4 columns:  byte j is column j, w+128
//	int4   8 columns:  byte j is column j in its low and column 4+j in its high four bits, each w+8
//
// A panel of int4 has a block of scales in front of every 16 blocks, and of those that are left: in lane r the scale of row r for the next
// [Int4Group] columns in the lower half, for as many after them in the upper half, both bfloat16.
//
// Columns are padded to a multiple of 4, or of 8 for int4, and rows to a multiple of 16, with weight 0; [ClearDense] makes a matrix of it.
// [DenseOffset] gives the place of one weight.
type DenseFormat uint8

const (
	DenseF32  DenseFormat = iota // float32
	DenseBF16                    // bfloat16
	DenseF16                     // float16
	DenseInt8                    // -127..127, times a scale per row
	DenseInt4                    // -8..7, times a scale per row and [Int4Group] columns
)

// Int4Group is how many columns of a row of [DenseInt4] share a scale.
const Int4Group = 64

// int4Run is how many blocks of a panel of [DenseInt4] follow a block of scales.
const int4Run = 2 * Int4Group / 8

var denseFormats = [...]struct {
	name      string
	blockCols int  // columns of a block
	pad       int  // columns are padded to a multiple of this
	zero      byte // of which an all-zero matrix consists
}{
	DenseF32: {"f32", 1, denseQuad, 0}, DenseBF16: {"bf16", 2, denseQuad, 0}, DenseF16: {"f16", 2, denseQuad, 0},
	DenseInt8: {"int8", 4, 4, 0x80}, DenseInt4: {"int4", 8, 8, 0x88},
}

// denseQuad is the number of columns that the float kernels take at a time: the four accumulators of [DenseMatMul].
const denseQuad = 4

// denseTiles is larger than the tokens of any kernel, to number format and tokens together.
const denseTiles = 16

// String is the format's short name: f32, bf16, f16, int8, int4.
func (f DenseFormat) String() string {
	if int(f) < len(denseFormats) {
		return denseFormats[f].name
	}
	return fmt.Sprintf("DenseFormat(%d)", uint8(f))
}

// Integer says whether weights are integers with scales, which [DenseIntMatMul] multiplies; others go to [DenseMatMul].
func (f DenseFormat) Integer() bool { return f == DenseInt8 || f == DenseInt4 }

// ClearDense makes panels, whole ones, those of a matrix of zeros with cols columns; the scales of [DenseInt4] are 0 too.
func ClearDense(f DenseFormat, panels []byte, cols int) {
	if zero := denseFormats[f].zero; zero == 0 {
		clear(panels)
	} else {
		for n := copy(panels, []byte{zero}); n < len(panels); n *= 2 {
			copy(panels[n:], panels[:n])
		}
	}
	if f != DenseInt4 {
		return
	}
	for stride := densePanelBytes(f, cols); len(panels) >= stride && stride > 0; panels = panels[stride:] {
		for at := 0; at < stride; at += (1 + int4Run) * BlockBytes {
			clear(panels[at : at+BlockBytes])
		}
	}
}

// PackDenseRows makes a panel of up to 16 rows of cols numbers that have the format's own bits already: float32, bfloat16 or float16. Rows
// begin stride bytes apart in src; those that are not there are zeros.
func PackDenseRows(panel []byte, f DenseFormat, src []byte, stride, rows, cols int) {
	const op = "PackDenseRows"
	if f.Integer() || rows < 0 || rows > PanelRows || cols < 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d rows, %d columns of %v", op, rows, cols, f))
	}
	width := cols * 4 / denseFormats[f].blockCols
	need(op, "panel", len(panel), densePanelBytes(f, cols))
	needRows(op, "src", len(src), rows, width, stride)
	blocks, full := densePanelBytes(f, cols)/BlockBytes, 0
	if rows == PanelRows && width >= BlockBytes {
		full = width / BlockBytes
		flipLanes(panel, BlockBytes, 16*BlockBytes, src, stride, BlockBytes, full)
	}
	for c := 16 * full; c < blocks; c += 16 {
		var tile, turned [16 * BlockBytes]byte
		for r := range rows {
			copy(tile[r*BlockBytes:][:BlockBytes], src[r*stride:][:width][min(4*c, width):])
		}
		flipLanes(turned[:], BlockBytes, 0, tile[:], BlockBytes, 0, 1)
		copy(panel[c*BlockBytes:blocks*BlockBytes], turned[:])
	}
	if f == DenseF16 {
		for ; blocks > 0; blocks, panel = blocks-1, panel[BlockBytes:] {
			splitPairs((*[BlockBytes]byte)(panel))
		}
	}
}

// splitPairs makes of 16 lanes of two halves each the even halves and then the odd ones.
func splitPairs(block *[BlockBytes]byte) {
	le := binary.LittleEndian
	a, b, c, d := le.Uint64(block[0:]), le.Uint64(block[8:]), le.Uint64(block[16:]), le.Uint64(block[24:])
	e, f, g, h := le.Uint64(block[32:]), le.Uint64(block[40:]), le.Uint64(block[48:]), le.Uint64(block[56:])
	le.PutUint64(block[0:], evenHalves(a, b))
	le.PutUint64(block[8:], evenHalves(c, d))
	le.PutUint64(block[16:], evenHalves(e, f))
	le.PutUint64(block[24:], evenHalves(g, h))
	le.PutUint64(block[32:], evenHalves(a>>16, b>>16))
	le.PutUint64(block[40:], evenHalves(c>>16, d>>16))
	le.PutUint64(block[48:], evenHalves(e>>16, f>>16))
	le.PutUint64(block[56:], evenHalves(g>>16, h>>16))
}

// evenHalves are the halves 0 and 2 of a, and those of b.
func evenHalves(a, b uint64) uint64 {
	const even = 0x0000ffff0000ffff
	a, b = a&even, b&even
	return uint64(uint32(a|a>>16)) | (b|b>>16)<<32
}

// DenseCols is a number of columns with their padding.
func DenseCols(f DenseFormat, cols int) int {
	pad := denseFormats[f].pad
	return ceilDiv(cols, pad) * pad
}

func densePanelBytes(f DenseFormat, cols int) int {
	blocks := DenseCols(f, cols) / denseFormats[f].blockCols
	if f == DenseInt4 {
		blocks += ceilDiv(blocks, int4Run)
	}
	return blocks * BlockBytes
}

// DenseBytes is the size of a packed rows x cols matrix.
func DenseBytes(f DenseFormat, rows, cols int) int {
	return ceilDiv(rows, PanelRows) * densePanelBytes(f, cols)
}

// DenseOffset is the index of the first byte of weight [row, col] of a matrix with cols columns. For [DenseInt4] it is
// the byte whose low (col mod 8 < 4) or high four bits hold the weight.
func DenseOffset(f DenseFormat, cols, row, col int) int {
	return row/PanelRows*densePanelBytes(f, cols) + denseOffset(f, row%PanelRows, col)
}

// denseOffset is DenseOffset within a panel.
func denseOffset(f DenseFormat, r, col int) int {
	block := col / denseFormats[f].blockCols
	switch at := block*BlockBytes + 4*r; f {
	case DenseBF16:
		return at + 2*(col%2)
	case DenseF16:
		return block*BlockBytes + col%2*BlockBytes/2 + 2*r
	case DenseInt8:
		return at + col%4
	case DenseInt4:
		return at + (1+block/int4Run)*BlockBytes + col%4
	default:
		return at
	}
}

// Int4ScaleOffset is the index of the bfloat16 that weight [row, col] of a [DenseInt4] matrix with cols columns is multiplied by.
func Int4ScaleOffset(cols, row, col int) int {
	return row/PanelRows*densePanelBytes(DenseInt4, cols) + int4ScaleOffset(row%PanelRows, col/Int4Group)
}

// int4ScaleOffset is Int4ScaleOffset within a panel, for a group of columns.
func int4ScaleOffset(r, group int) int { return group/2*(1+int4Run)*BlockBytes + 4*r + 2*(group%2) }

// DenseMatMul multiplies panels p0 to p1 of a float matrix, [DenseF32], [DenseBF16] or [DenseF16], with float32 activations:
//
//	dst[t*ldd + r-16*p0] = scale[r] * sum_k w[r,k]*x[t*ldx+k]    for t < tokens and the rows r of 16*p0 .. 16*p1
//
// The sum has one order: four accumulators by k mod 4, each in ascending k with fused multiply-add, then (a0+a1)+(a2+a3). A
// row's result does not depend on the number of tokens or panels in the call. A nil scale is left out; else it holds one
// factor per row (rows past its end, the padding, give 0). Rows of x are padded with zeros to a multiple of 4 columns. dst
// needs 16*(p1-p0) elements for each token.
func DenseMatMul(dst []float32, ldd int, f DenseFormat, panels []byte, scale []float32, cols, p0, p1 int, x []float32, ldx, tokens int) {
	const op = "DenseMatMul"
	if f > DenseF16 || p0 < 0 || p1 < p0 || tokens < 0 || cols < 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: format %s, panels %d to %d, %d columns, %d tokens", op, f, p0, p1, cols, tokens))
	}
	if p0 == p1 || tokens == 0 {
		return
	}
	stride, width := densePanelBytes(f, cols), PanelRows*(p1-p0)
	need(op, "panels", len(panels), p1*stride)
	needRows(op, "dst", len(dst), tokens, width, ldd)
	needRows(op, "x", len(x), tokens, DenseCols(f, cols), ldx)
	if cols == 0 {
		for t := range tokens {
			clear(dst[t*ldd : t*ldd+width])
		}
		return
	}
	if scale != nil {
		need(op, "scale", len(scale), PanelRows*(p1-1)+1)
	}
	quads := ceilDiv(cols, denseQuad)
	var last [PanelRows]float32
	for p := p0; p < p1; p++ {
		var s *[PanelRows]float32
		if scale != nil {
			s = panelScale(scale, p, &last)
		}
		densePanel(dst[(p-p0)*PanelRows:], ldd, f, panels[p*stride:(p+1)*stride], s, quads, x, ldx, tokens)
	}
}

// panelScale gives the scales of panel p: in place, or in last, which is all zero, for a panel that has fewer rows.
func panelScale(scale []float32, p int, last *[PanelRows]float32) *[PanelRows]float32 {
	rest := scale[p*PanelRows:]
	if len(rest) >= PanelRows {
		return (*[PanelRows]float32)(rest)
	}
	copy(last[:], rest)
	return last
}

// DenseRow writes one row as float32, for embedding lookup: dst[k] = w[row,k] * scale[row] for k < cols, where w has the scales of [DenseInt4];
// a nil scale is left out.
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
	switch whole := cols &^ 1; f {
	case DenseInt4:
		int4Row(dst, panel, r)
	case DenseBF16:
		for k := 0; k < whole; k += 2 { // of a pair of columns each lane has a word
			pair := binary.LittleEndian.Uint32(panel[k/2*BlockBytes+4*r:])
			dst[k], dst[k+1] = math.Float32frombits(pair<<16), math.Float32frombits(pair&0xffff0000)
		}
		if whole < cols {
			dst[whole] = denseWeight(f, panel, r, whole)
		}
	case DenseF16:
		for k := range dst {
			dst[k] = FromHalf(binary.LittleEndian.Uint16(panel[k*BlockBytes/2+2*r:]))
		}
	default:
		for k := range dst {
			dst[k] = denseWeight(f, panel, r, k)
		}
	}
	if scale != nil {
		s := scale[row]
		for k := range dst {
			dst[k] *= s
		}
	}
}

// denseWeight decodes the weight of row r and column k of a panel, before its scale; not of int4.
func denseWeight(f DenseFormat, panel []byte, r, k int) float32 {
	b := panel[denseOffset(f, r, k):]
	switch f {
	case DenseF32:
		return math.Float32frombits(binary.LittleEndian.Uint32(b))
	case DenseBF16:
		return math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
	case DenseF16:
		return FromHalf(binary.LittleEndian.Uint16(b))
	default:
		return float32(int(b[0]) - 128)
	}
}
