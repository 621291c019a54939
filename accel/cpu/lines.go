package cpu

import "fmt"

// Ternary matrices of which some lines are skipped lie line by line. A line is what one neuron of a feed-forward layer owns: its row of
// the up projection, or its column of the down projection. Elements of a line are packed as those of a row of a panel (see
// [PackTernary]): byte 4c+j holds in bits 2f and 2f+1 the code of element 16c+4f+j. Lines are padded with weight 0 to a multiple of
// 256 elements, which are 64 bytes, and their number to a multiple of 16.
const (
	lineBlock = 256          // elements of 64 bytes
	lineGroup = BlockCols    // lines that are made panels together
	LineQuad  = 4            // lines that the kernels take at once, see [TernaryDotLines]
	maxLines  = 1 << 16 // sums of as many, each 64*2*128 at most, fit int32
)

// LineBytes is the size of a line of n elements.
func LineBytes(n int) int { return ceilDiv(n, lineBlock) * BlockBytes }

// LinesBytes is the size of a matrix of lines of n elements.
func LinesBytes(lines, n int) int { return ceilDiv(lines, lineGroup) * lineGroup * LineBytes(n) }

// LineElements is n padded to what [LineOrder] and [TernaryAddLines] work on.
func LineElements(n int) int { return ceilDiv(n, lineBlock) * lineBlock }

// PackLines packs the row-major matrix w of lines x n weights -1, 0 and 1 line by line.
func PackLines(dst []byte, w []int8, lines, n int) {
	need("PackLines", "dst", len(dst), LinesBytes(lines, n))
	need("PackLines", "w", len(w), lines*n)
	dst = dst[:LinesBytes(lines, n)]
	for i := range dst {
		dst[i] = 0x55
	}
	stride := LineBytes(n)
	for i := range lines {
		line := dst[i*stride:]
		for k, v := range w[i*n : (i+1)*n] {
			if v < -1 || v > 1 {
				panic(fmt.Sprintf("cpu: PackLines: w[%d,%d] = %d, want -1, 0 or 1", i, k, v))
			}
			line[k/BlockCols*4+k%4] ^= (byte(v+1) ^ 1) << (2 * (k / 4 % 4))
		}
	}
}

// UnpackLines is the reverse of [PackLines].
func UnpackLines(dst []int8, src []byte, lines, n int) {
	need("UnpackLines", "dst", len(dst), lines*n)
	need("UnpackLines", "src", len(src), LinesBytes(lines, n))
	stride := LineBytes(n)
	for i := range lines {
		line := src[i*stride:]
		row := dst[i*n : (i+1)*n]
		for k := range row {
			row[k] = int8(line[k/BlockCols*4+k%4]>>(2*(k/4%4))&3) - 1
		}
	}
}

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

// TernaryDotLines multiplies chosen lines of n elements with one vector, exactly:
//
//	dst[i] = sum_k w[ids[i],k] * x[k]    for i < count
//
// x is in [LineOrder], and xsum its sum. dst and ids are read and written in fours: they have room for count rounded up, and ids
// another four beyond, which tell what to read ahead; all must name lines that exist.
func TernaryDotLines(dst []int32, src []byte, n int, ids []int32, count int, x []int8, xsum int32) {
	const op = "TernaryDotLines"
	padded := ceilDiv(count, LineQuad) * LineQuad
	checkLines(op, src, n, ids, count)
	need(op, "dst", len(dst), padded)
	need(op, "x", len(x), LineElements(n))
	if count == 0 || n == 0 {
		clear(dst[:count])
		return
	}
	for i := 0; i < padded; i += LineQuad {
		lineDot(dst[i:i+LineQuad], src, LineBytes(n), ids[i:i+2*LineQuad], x, xsum)
	}
}

// TernaryAddLines adds multiples of chosen lines of n elements, exactly:
//
//	sum_i (w[ids[i],k]+1) * q[i]    for i < count
//
// to acc, which has [LineElements] sums in an order and a scale of their own, those of [LineSums]. ids and q are read in fours, see [TernaryDotLines]; q is 0 in
// the places past count.
func TernaryAddLines(acc []int32, src []byte, n int, ids []int32, q []int8, count int) {
	const op = "TernaryAddLines"
	checkLines(op, src, n, ids, count)
	need(op, "acc", len(acc), LineElements(n))
	need(op, "q", len(q), ceilDiv(count, LineQuad)*LineQuad)
	if n == 0 {
		return
	}
	for i := 0; i < count; i += LineQuad {
		lineAdd(acc, src, LineBytes(n), ids[i:i+2*LineQuad], q[i:i+LineQuad])
	}
}

func checkLines(op string, src []byte, n int, ids []int32, count int) {
	if n < 0 || count < 0 || count > maxLines {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d elements, %d lines (at most %d)", op, n, count, maxLines))
	}
	if count == 0 {
		return
	}
	padded := ceilDiv(count, LineQuad)*LineQuad + LineQuad
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

// LineSums brings the sums of one or more calls of [TernaryAddLines] into the order of their elements and makes products of them:
//
//	dst[k] = sum of accs[k] - qsum    for k < n
//
// where accs holds runs of [LineElements] sums and qsum is the sum of all q.
func LineSums(dst []int32, accs []int32, n int, qsum int32) {
	size := LineElements(n)
	need("LineSums", "dst", len(dst), n)
	if size == 0 {
		return
	}
	if len(accs) == 0 || len(accs)%size != 0 {
		panic(fmt.Sprintf("cpu: LineSums: %d sums, want a multiple of %d", len(accs), size))
	}
	for at := size; at < len(accs); at += size {
		addInts(accs[:size], accs[at:at+size])
	}
	for k := 0; k < n; k += 4 { // element 64l+16m+4f+j of 256 is sum 64f+16m+4l+j, times 4^f
		b, l, m, f := k&^(lineBlock-1), k/64%4, k/16%4, k/4%4
		from := accs[b+64*f+16*m+4*l:][:4]
		for j := range min(4, n-k) {
			dst[k+j] = from[j]>>(2*f) - qsum
		}
	}
}

func addInts(dst, x []int32) {
	for i, v := range x {
		dst[i] += v
	}
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

// PanelSpace is the room that count panels of a matrix with cols columns need while lines become panels.
func PanelSpace(count, cols int) int {
	return max(ceilDiv(count, 16)*16*panelBytes(cols), count*panelBytes(cols)+16*BlockBytes)
}

func checkPanels(op string, dst, src []byte, lines, n, p0, p1, panels, size int) {
	if lines < 0 || n < 0 || p0 < 0 || p1 < p0 || p1 > panels {
		panic(fmt.Sprintf("cpu: %s: bad arguments: %d lines of %d elements, panels %d to %d of %d", op, lines, n, p0, p1, panels))
	}
	need(op, "src", len(src), LinesBytes(lines, n))
	need(op, "dst", len(dst), PanelSpace(p1-p0, size/BlockBytes*BlockCols))
}
