package cpu

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"
)

// Geometry of the panel16 layout.
const (
	PanelRows  = 16 // rows of one panel
	BlockCols  = 16 // columns of one block
	BlockBytes = 64 // bytes of one block: 16 x 16 two-bit codes
)

// MaxTernaryCols bounds the columns of a ternary matrix: the AVX-512 kernel keeps one of four partial sums scaled by 64,
// and 2^18 columns of the largest products stay within int32.
const MaxTernaryCols = 1 << 18

// TernaryBytes is the size of a packed rows x cols ternary matrix; rows and cols are padded to multiples of 16.
func TernaryBytes(rows, cols int) int {
	return ceilDiv(rows, PanelRows) * panelBytes(cols)
}

func panelBytes(cols int) int { return ceilDiv(cols, BlockCols) * BlockBytes }

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// PackTernary packs the row-major rows x cols matrix w of -1, 0 and 1 into dst ([TernaryBytes] long) as panel16.
//
// Rows lie in panels of 16, columns in blocks of 16; the blocks of a panel are contiguous, left to right. Byte 4r+j of a block
// holds, in bits 2f and 2f+1, the code w[r][4f+j]+1 of row r of the panel and column 4f+j of the block. A 32-bit lane is
// therefore four neighbouring columns of one row: the operand of VPDPBUSD, SDOT and AMX. Padding holds weight 0 (code 1).
func PackTernary(dst []byte, w []int8, rows, cols int) {
	need("PackTernary", "dst", len(dst), TernaryBytes(rows, cols))
	need("PackTernary", "w", len(w), rows*cols)
	dst = dst[:TernaryBytes(rows, cols)]
	for i := range dst {
		dst[i] = 0x55
	}
	stride, whole := panelBytes(cols), cols&^(BlockCols-1)
	for r := range rows {
		lane, row := dst[r/PanelRows*stride+4*(r%PanelRows):], w[r*cols:(r+1)*cols]
		raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(row))), cols)
		for c := 0; c < whole; c += BlockCols { // four columns at a time
			block, codes, bad := raw[c:c+BlockCols], uint32(0), uint32(0)
			for f := range 4 {
				v := binary.LittleEndian.Uint32(block[4*f:])
				bad |= (v^v>>1)&0x7e7e7e7e | v>>1&^v&0x01010101 // a bit that is not the sign's, or -2
				codes |= (v&0x03030303 + 0x01010101) & 0x03030303 << (2 * f)
			}
			if bad != 0 {
				refuseCode(row, r)
			}
			binary.LittleEndian.PutUint32(lane[c/BlockCols*BlockBytes:], codes)
		}
		for c := whole; c < cols; c++ {
			v := row[c]
			if v < -1 || v > 1 {
				refuseCode(row, r)
			}
			shift := 2 * (c / 4 % 4)
			lane[c/BlockCols*BlockBytes+c%4] ^= (byte(v+1) ^ 1) << shift // the padding's code 1 becomes v+1
		}
	}
}

// refuseCode panics for the first number of row r that is no weight.
func refuseCode(row []int8, r int) {
	c := slices.IndexFunc(row, func(v int8) bool { return v < -1 || v > 1 })
	panic(fmt.Sprintf("cpu: PackTernary: w[%d,%d] = %d, want -1, 0 or 1", r, c, row[c]))
}

// UnpackTernary is the reverse of [PackTernary]: dst becomes the row-major rows x cols matrix of -1, 0 and 1.
func UnpackTernary(dst []int8, panels []byte, rows, cols int) {
	need("UnpackTernary", "dst", len(dst), rows*cols)
	need("UnpackTernary", "panels", len(panels), TernaryBytes(rows, cols))
	for r := range rows {
		unpackRow(dst[r*cols:(r+1)*cols], panels, r)
	}
}

// TernaryRow is one row of [UnpackTernary]: dst[k] = w[row,k] for k < cols.
func TernaryRow(dst []int8, panels []byte, cols, row int) {
	const op = "TernaryRow"
	if row < 0 || cols < 0 {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d columns, row %d", op, cols, row))
	}
	need(op, "dst", len(dst), cols)
	need(op, "panels", len(panels), TernaryBytes(row+1, cols))
	unpackRow(dst[:cols], panels, row)
}

func unpackRow(row []int8, panels []byte, r int) {
	cols := len(row)
	whole := cols &^ (BlockCols - 1)
	lane := panels[r/PanelRows*panelBytes(cols)+4*(r%PanelRows):]
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(row))), cols)
	for c := 0; c < whole; c += BlockCols { // four columns at a time
		block, codes := raw[c:c+BlockCols], binary.LittleEndian.Uint32(lane[c/BlockCols*BlockBytes:])
		for f := range 4 {
			v := codes >> (2 * f) & 0x03030303
			binary.LittleEndian.PutUint32(block[4*f:], (v|0x80808080-0x01010101)^0x80808080) // each less 1, without a carry
		}
	}
	for c := whole; c < cols; c++ {
		row[c] = int8(lane[c/BlockCols*BlockBytes+c%4]>>(2*(c/4%4))&3) - 1
	}
}

// TernaryMatMul multiplies panels p0 to p1 of a ternary matrix with int8 activations, exactly:
//
//	dst[t*ldd + r-16*p0] = sum_k w[r,k] * x[t*ldx+k]    for t < tokens and the rows r of 16*p0 .. 16*p1
//
// Rows of x are padded with zeros to a multiple of 16 columns and may hold every int8, -128 too. xsum[t] is the sum of
// row t of x: kernels multiply the codes w+1 and take the sum off again. Padding rows of the last panel give 0. dst needs
// 16*(p1-p0) elements for each token. panels holds no code 3.
func TernaryMatMul(dst []int32, ldd int, panels []byte, cols int, p0, p1 int, x []int8, ldx int, xsum []int32, tokens int) {
	const op = "TernaryMatMul"
	if p0 < 0 || p1 < p0 || tokens < 0 || cols < 0 || cols > MaxTernaryCols {
		panic(fmt.Sprintf("cpu: %s: bad arguments: panels %d to %d, %d columns (at most %d), %d tokens", op, p0, p1, cols, MaxTernaryCols, tokens))
	}
	if p0 == p1 || tokens == 0 {
		return
	}
	stride, width := panelBytes(cols), PanelRows*(p1-p0)
	need(op, "panels", len(panels), p1*stride)
	needRows(op, "dst", len(dst), tokens, width, ldd)
	needRows(op, "x", len(x), tokens, ceilDiv(cols, BlockCols)*BlockCols, ldx)
	need(op, "xsum", len(xsum), tokens)
	if cols == 0 {
		for t := range tokens {
			clear(dst[t*ldd : t*ldd+width])
		}
		return
	}
	ternaryMatMul(dst, ldd, panels[p0*stride:p1*stride], ceilDiv(cols, BlockCols), x, ldx, xsum[:tokens])
}

// need panics unless a slice has at least the length that a kernel will touch.
func need(op, name string, got, want int) {
	if got < want {
		panic(fmt.Sprintf("cpu: %s: %s has %d elements, want at least %d", op, name, got, want))
	}
}

// needRows is need for rows of a matrix with a stride between them.
func needRows(op, name string, got, rows, width, stride int) {
	if rows > 1 && stride < width {
		panic(fmt.Sprintf("cpu: %s: rows of %s are %d apart, want at least %d", op, name, stride, width))
	}
	need(op, name, got, (rows-1)*stride+width)
}

// tile cuts n tokens into groups of nearly equal size, at most most, and gives the first group's size: 13 tokens become 7+6,
// not 12+1, as the weights are decoded once for each group.
func tile(n, most int) int { return ceilDiv(n, ceilDiv(n, most)) }
