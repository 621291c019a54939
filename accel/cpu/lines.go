package cpu

import (
	"fmt"
	"sync/atomic"
)

// Ternary matrices of which some lines are skipped lie line by line. A line is what one neuron of a feed-forward layer owns: its row of
// the up projection, or its column of the down projection. Elements of a line are packed as those of a row of a panel (see
// [PackTernary]): byte 4c+j holds in bits 2f and 2f+1 the code of element 16c+4f+j. Lines are padded with weight 0 to a multiple of
// 256 elements, which are 64 bytes, and their number to a multiple of 16.
const (
	lineBlock = 256       // elements of 64 bytes
	lineGroup = BlockCols // lines that are made panels together
	LineRun   = 8         // lines that the kernels take at once, see [TernaryDotLines]
	MaxLines  = 1 << 16   // sums of as many, each 64*2*128 at most, fit int32
)

var skipZeros atomic.Bool

// SkipZeros says whether lines are to be left out whose part in a result is known to be zero. It is on unless BITNET_SKIP_ZEROS is 0.
func SkipZeros() bool { return skipZeros.Load() }

// SetSkipZeros turns skipping off and on, to compare speeds: results are the same.
func SetSkipZeros(on bool) { skipZeros.Store(on) }

// LineBytes is the size of a line of n elements.
func LineBytes(n int) int { return ceilDiv(n, lineBlock) * BlockBytes }

// LinesBytes is the size of a matrix of lines of n elements.
func LinesBytes(lines, n int) int { return ceilDiv(lines, lineGroup) * lineGroup * LineBytes(n) }

// LineElements is n padded to what [LineOrder] and [TernaryAddLines] work on.
func LineElements(n int) int { return ceilDiv(n, lineBlock) * lineBlock }

// LineOrder arranges n int8 values as [TernaryDotLines] reads them: in each 256 of them, element 16c+4f+j goes to 64f+4c+j. dst has
// [LineElements] elements, and what is padding there becomes zero.
func LineOrder(dst, x []int8, n int) {
	need("LineOrder", "dst", len(dst), LineElements(n))
	need("LineOrder", "x", len(x), n)
	body := n &^ (lineBlock - 1)
	for b := 0; b < body; b += lineBlock {
		for c := range 16 {
			for f := range 4 {
				*(*[4]int8)(dst[b+64*f+4*c:]) = [4]int8(x[b+16*c+4*f:])
			}
		}
	}
	if body < n {
		clear(dst[body : body+lineBlock])
		for k, v := range x[body:n] {
			dst[body+64*(k/4%4)+k/16*4+k%4] = v
		}
	}
}

// Positive writes first+i to ids for each x[i] above zero, or NaN without a sign, and returns how many these are. ids has room for 16 more than x.
func Positive(ids []int32, x []float32, first int) int {
	need("Positive", "ids", len(ids), len(x)+16)
	return positive(ids, x, first)
}

// Nonzero writes first+i to ids for each x[i] that is not zero and returns how many these are. ids has room for 16 more than x.
func Nonzero(ids []int32, x []int8, first int) int {
	need("Nonzero", "ids", len(ids), len(x)+16)
	return nonzero(ids, x, first)
}

// TernaryDotLines multiplies chosen lines of n elements with one vector, exactly:
//
//	dst[i] = sum_k w[ids[i],k] * x[k]    for i < count
//
// x is in [LineOrder], and xsum its sum. dst and ids are read and written in runs of [LineRun]: they have room for count rounded up, and ids
// another run beyond, which tells what to read ahead; all must name lines that exist.
func TernaryDotLines(dst []int32, src []byte, n int, ids []int32, count int, x []int8, xsum int32) {
	const op = "TernaryDotLines"
	padded := ceilDiv(count, LineRun) * LineRun
	checkLines(op, src, n, ids, count)
	need(op, "dst", len(dst), padded)
	need(op, "x", len(x), LineElements(n))
	if count == 0 || n == 0 {
		clear(dst[:count])
		return
	}
	for i := 0; i < padded; i += LineRun {
		lineDot(dst[i:i+LineRun], src, LineBytes(n), ids[i:i+2*LineRun], x, xsum)
	}
}

// TernaryAddLines adds multiples of chosen lines of n elements, exactly:
//
//	sum_i (w[ids[i],k]+1) * q[i]    for i < count
//
// to acc, which has [LineElements] sums in an order and a scale of their own, those of [LineSums]. ids and q are read in runs, see [TernaryDotLines]; q is 0 in
// the places past count.
func TernaryAddLines(acc []int32, src []byte, n int, ids []int32, q []int8, count int) {
	const op = "TernaryAddLines"
	checkLines(op, src, n, ids, count)
	need(op, "acc", len(acc), LineElements(n))
	need(op, "q", len(q), ceilDiv(count, LineRun)*LineRun)
	if n == 0 {
		return
	}
	lineAdd(acc, src, LineBytes(n), ids, q[:ceilDiv(count, LineRun)*LineRun])
}

func checkLines(op string, src []byte, n int, ids []int32, count int) {
	if n < 0 || count < 0 || count > MaxLines {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d elements, %d lines (at most %d)", op, n, count, MaxLines))
	}
	if count == 0 {
		return
	}
	padded := ceilDiv(count, LineRun)*LineRun + LineRun
	need(op, "ids", len(ids), padded)
	lines := int32(1 << 30)
	if n > 0 {
		lines = int32(len(src) / LineBytes(n))
	}
	for _, id := range ids[:padded] {
		if uint32(id) >= uint32(lines) {
			panic(fmt.Sprintf("cpu: %s: line %d of %d", op, id, lines))
		}
	}
}

// ColumnSpace is how many sums of a row [TernaryAddColumns] adds to, for lines of n elements.
func ColumnSpace(n int) int { return LineElements(n) + BlockCols } // rows begin in different sets of the cache

// ColumnUnit is how many columns are multiplied together at the least.
const ColumnUnit = 64

// TernaryAddColumns adds products of rows of int8 activations with the lines k0 to k1, which are columns of a matrix, to acc, exactly:
//
//	acc[t*ldd+r] += sum_k (w[r,k]+1) * x[t*ldx+k]    for t < tokens, r < n and k0 <= k < k1
//
// k0 is a multiple of [ColumnUnit], and so is k1 unless it is the number of lines. Rows of x are as [TernaryMatMul] takes them. A row of acc has
// [LineElements] sums of its own, and is best [ColumnSpace] from the next. [ReadsLines] says where this can be called.
func TernaryAddColumns(acc []int32, ldd int, src []byte, lines, n, k0, k1 int, x []int8, ldx, tokens int) {
	const op = "TernaryAddColumns"
	if lines < 0 || n < 0 || k0 < 0 || k0%ColumnUnit != 0 || k1 < k0 || k1 > lines || k1%ColumnUnit != 0 && k1 < lines || tokens < 0 || !readsLines() {
		panic(fmt.Sprintf("cpu: %s: bad arguments: lines %d to %d of %d with %d elements, %d tokens, %v", op, k0, k1, lines, n, tokens, Active()))
	}
	if k0 == k1 || n == 0 || tokens == 0 {
		return
	}
	need(op, "src", len(src), LinesBytes(lines, n))
	needRows(op, "acc", len(acc), tokens, LineElements(n), ldd)
	needRows(op, "x", len(x), tokens, ceilDiv(lines, BlockCols)*BlockCols, ldx)
	ternaryAddColumns(acc, ldd, src, lines, n, k0, k1, x, ldx, tokens)
}

// ReadsLines says whether the active instruction set multiplies with lines as they lie: else panels are made of them.
func ReadsLines() bool { return readsLines() }

// LineSums brings the sums of [TernaryAddLines] into the order of their elements and takes off qsum, the sum of all q: dst[k] is the sum of
// w[ids[i],k] * q[i], for k < n. Sums of several calls may be added with [AddInts] first.
func LineSums(dst []int32, acc []int32, n int, qsum int32) {
	size := LineElements(n)
	need("LineSums", "dst", len(dst), n)
	need("LineSums", "acc", len(acc), size)
	lineSums(dst, acc, n, qsum)
}

// LineShare is up to how many lines of every one, on average, single products of rows with lines ([TernaryDotLines], [TernaryAddLines]) are
// faster than [TernaryLinesMatMul] with all of them. Making bytes of a line costs as much as some products; every row adds what its own
// product costs then, which is nearly nothing with tiles. Measured with matrices of 2560 by 6912.
func LineShare(rows int) int {
	switch Active() {
	case AMX:
		return 5
	case AVX512:
		return 4 + rows/6
	case AVX2, AVXVNNI:
		return 4 + rows/3
	default:
		return 8
	}
}

// SubInt is dst = x - v, modulo 2^32, for as many as dst has.
func SubInt(dst, x []int32, v int32) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] = x[i] - v
	}
}

// AddInts is dst += x, modulo 2^32, for as many as x has.
func AddInts(dst, x []int32) {
	need("AddInts", "dst", len(dst), len(x))
	addInts(dst[:len(x)], x)
}

// LinesToPanels makes panels p0 to p1 of the matrix that has the lines as rows, as [PackTernary] packs them: rows 16*p0 to 16*p1. dst has
// [PanelSpace] bytes.
func LinesToPanels(dst []byte, src []byte, lines, n, p0, p1 int) {
	const op = "LinesToPanels"
	checkPanels(op, dst, src, lines, n, p0, p1, ceilDiv(lines, PanelRows), panelBytes(n))
	stride := LineBytes(n)
	for p := p0; p < p1; p++ { // each runs over the beginning of the next
		flipLanes(dst[(p-p0)*panelBytes(n):], BlockBytes, lineGroup*BlockBytes, src[p*PanelRows*stride:], stride, BlockBytes, stride/BlockBytes)
	}
}

// LinesToColumnPanels makes panels p0 to p1 of the matrix that has the lines as columns: of its rows 16*p0 to 16*p1. p0 is a multiple of 16,
// and so is p1 unless it is the last. dst has [PanelSpace] bytes.
func LinesToColumnPanels(dst []byte, src []byte, lines, n, p0, p1 int) {
	const op = "LinesToColumnPanels"
	checkPanels(op, dst, src, lines, n, p0, p1, ceilDiv(n, PanelRows), panelBytes(lines))
	if p0%16 != 0 {
		panic(fmt.Sprintf("cpu: %s: panels from %d, want a multiple of 16", op, p0))
	}
	stride := LineBytes(n)
	for p := p0; p < p1; p += 16 {
		flipCodes(dst[(p-p0)*panelBytes(lines):], panelBytes(lines), BlockBytes, src[p/16*BlockBytes:], stride, lineGroup*stride, ceilDiv(lines, lineGroup))
	}
}

// TernaryLines is a rows x cols ternary matrix that lies in lines.
type TernaryLines struct {
	Data       []byte // [LinesBytes] of the lines
	Rows, Cols int    // of the matrix
	Columns    bool   // lines are columns, not rows
}

// lines gives their number and length.
func (m *TernaryLines) lines() (lines, n int) {
	if m.Columns {
		return m.Cols, m.Rows
	}
	return m.Rows, m.Cols
}

// linePanels is how many panels are made of lines at a time.
const linePanels = 16

// LinesSpace is the memory that [TernaryLinesMatMul] works in, for a matrix with cols columns: none where kernels read lines.
func LinesSpace(cols int) int {
	if readsLines() {
		return 0
	}
	return PanelSpace(linePanels, cols)
}

// TernaryLinesMatMul is [TernaryMatMul] for a matrix in lines. space has [LinesSpace] bytes.
func TernaryLinesMatMul(dst []int32, ldd int, m TernaryLines, p0, p1 int, x []int8, ldx int, xsum []int32, tokens int, space []byte) {
	const op = "TernaryLinesMatMul"
	if p0 < 0 || p1 < p0 || p1 > ceilDiv(m.Rows, PanelRows) || tokens < 0 || m.Cols < 0 || m.Cols > MaxTernaryCols {
		panic(fmt.Sprintf("cpu: %s: bad arguments: panels %d to %d of %d rows, %d columns (at most %d), %d tokens", op, p0, p1, m.Rows, m.Cols, MaxTernaryCols, tokens))
	}
	if p0 == p1 || tokens == 0 {
		return
	}
	lines, n := m.lines()
	width, blocks := PanelRows*(p1-p0), ceilDiv(m.Cols, BlockCols)
	need(op, "data", len(m.Data), LinesBytes(lines, n))
	needRows(op, "dst", len(dst), tokens, width, ldd)
	needRows(op, "x", len(x), tokens, blocks*BlockCols, ldx)
	need(op, "xsum", len(xsum), tokens)
	need(op, "space", len(space), LinesSpace(m.Cols))
	switch {
	case m.Cols == 0:
		for t := range tokens {
			clear(dst[t*ldd : t*ldd+width])
		}
	case readsLines():
		ternaryLines(dst, ldd, &m, p0, p1, x, ldx, xsum[:tokens])
	default:
		for from, to := p0, 0; from < p1; from = to {
			first := from &^ (linePanels - 1)
			to = min(first+linePanels, p1)
			if m.Columns {
				LinesToColumnPanels(space, m.Data, lines, n, first, to)
			} else {
				LinesToPanels(space, m.Data, lines, n, first, to)
			}
			TernaryMatMul(dst[(from-p0)*PanelRows:], ldd, space, m.Cols, from-first, to-first, x, ldx, xsum, tokens)
		}
	}
}

// PanelSpace is the room that count panels of a matrix with cols columns need while lines become panels.
func PanelSpace(count, cols int) int {
	return max(ceilDiv(count, 16)*16*panelBytes(cols), count*panelBytes(cols)+16*BlockBytes)
}

// PanelsToLines is the reverse of [LinesToPanels] for a whole matrix: panels becomes lines of n elements, one for each row.
func PanelsToLines(dst, panels []byte, lines, n int) {
	const op = "PanelsToLines"
	need(op, "dst", len(dst), LinesBytes(lines, n))
	need(op, "panels", len(panels), TernaryBytes(lines, n))
	stride, size, blocks := LineBytes(n), panelBytes(n), ceilDiv(n, BlockCols)
	for p := range ceilDiv(lines, PanelRows) {
		to, from, full := dst[p*PanelRows*stride:], panels[p*size:][:size], blocks/16
		if full > 0 {
			flipLanes(to, stride, BlockBytes, from, BlockBytes, 16*BlockBytes, full)
		}
		if rest := from[full*16*BlockBytes:]; len(rest) > 0 {
			last := zeroTile()
			copy(last[:], rest)
			flipLanes(to[full*BlockBytes:], stride, 0, last[:], BlockBytes, 0, 1)
		}
	}
}

// ColumnPanelsToLines is the reverse of [LinesToColumnPanels]: panels p0 to p1, which begin at panels, become the elements 16*p0 to 16*p1 of lines of
// n elements, one for each column. p0 is a multiple of 16, and so is p1 unless it is the number of all panels.
func ColumnPanelsToLines(dst, panels []byte, lines, n, p0, p1 int) {
	const op = "ColumnPanelsToLines"
	if lines < 0 || n < 0 || p0 < 0 || p0%16 != 0 || p1 < p0 || p1 > ceilDiv(n, PanelRows) || p1%16 != 0 && p1 < ceilDiv(n, PanelRows) {
		panic(fmt.Sprintf("cpu: %s: bad arguments: panels %d to %d of %d lines of %d elements", op, p0, p1, lines, n))
	}
	stride, size := LineBytes(n), panelBytes(lines)
	need(op, "dst", len(dst), LinesBytes(lines, n))
	need(op, "panels", len(panels), (p1-p0)*size)
	var turned [16 * BlockBytes]byte
	for p := p0; p < p1; p += 16 {
		for c := range ceilDiv(lines, lineGroup) {
			// flipCodes moves three roles on by one: twice is the way back.
			if from := panels[(p-p0)*size+c*BlockBytes:]; p+16 <= p1 {
				flipCodes(turned[:], BlockBytes, 0, from, size, 0, 1)
			} else {
				tile := zeroTile()
				for i := range p1 - p {
					copy(tile[i*BlockBytes:][:BlockBytes], from[i*size:])
				}
				flipCodes(turned[:], BlockBytes, 0, tile[:], BlockBytes, 0, 1)
			}
			flipCodes(dst[c*lineGroup*stride+p/16*BlockBytes:], stride, 0, turned[:], BlockBytes, 0, 1)
		}
	}
}

// zeroTile is 16 by 16 lanes of weight 0.
func zeroTile() (t [16 * BlockBytes]byte) {
	for i := range t {
		t[i] = 0x55
	}
	return t
}

func checkPanels(op string, dst, src []byte, lines, n, p0, p1, panels, size int) {
	if lines < 0 || n < 0 || p0 < 0 || p1 < p0 || p1 > panels {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d lines of %d elements, panels %d to %d of %d", op, lines, n, p0, p1, panels))
	}
	need(op, "src", len(src), LinesBytes(lines, n))
	need(op, "dst", len(dst), PanelSpace(p1-p0, size/BlockBytes*BlockCols))
}
