package cpu

import "sync"

// Many tokens read every weight many times. So their products go by windows of panels and pieces of their columns: the codes of a piece become
// bytes, which all tokens are multiplied with, some at a time, before the next piece; sums wait in memory of their own. Bytes, sums and
// the columns of all tokens stay in the second-level cache, those of the tokens at work in the first.

const (
	windowPanels = 16                          // panels of a window: those that lines which are columns become at once
	pieceBlocks  = 64                          // blocks of a piece
	sumStride    = windowPanels*PanelRows + 16 // from token to token: rows of a tile lie in different sets of the cache
)

// byteTokens is how many tokens the kernels multiply at once.
const byteTokens = 12

// With few tokens making bytes costs as much as the product: then they go no further than to the first-level cache.
const (
	fewTokens    = 32
	fewPanels    = 4
	fewBlocks    = 16 // of a panel; a line has its codes of so many in 64 bytes
	fewOfColumns = 8  // of all panels of a window
)

// weights is a ternary matrix as it lies in memory.
type weights struct {
	data   []byte
	lie    lie
	stride int // bytes from panel to panel, or from line to line
	blocks int // of 16 columns
}

type lie uint8

const (
	asPanels  lie = iota
	asRows        // lines are rows
	asColumns     // lines are columns
)

// readsLines says whether kernels multiply with lines as they lie.
func readsLines() bool { return Active() != Scalar }

func ternaryLines(dst []int32, ldd int, m *TernaryLines, p0, p1 int, x []int8, ldx int, xsum []int32) {
	lines, n := m.lines()
	w := weights{data: m.Data, lie: asRows, stride: LineBytes(n), blocks: ceilDiv(n, BlockCols)}
	if m.Columns {
		w.lie, w.blocks = asColumns, ceilDiv(lines, BlockCols)
	}
	ternaryBytes(dst, ldd, &w, p0, p1, x, ldx, xsum)
}

// decode makes bytes of blocks [b, b+n) of count panels from p on, which come to lie size bytes apart.
func (w *weights) decode(dst []byte, size, p, count, b, n int) {
	wide := vectors() == AVX512
	switch w.lie {
	case asPanels:
		for i := range count {
			from, to := &w.data[(p+i)*w.stride+b*BlockBytes], &dst[i*size]
			ahead := n * BlockBytes
			if b+2*n > w.blocks { // what comes next is in the panel after these
				ahead += (count - 1) * w.stride
			}
			if wide {
				ternaryDecodeAVX512(to, from, n, ahead, 0)
			} else {
				ternaryDecodeAVX2(to, from, n, ahead, 0)
			}
		}
	case asRows:
		for i := range count {
			from, to, lines := &w.data[(p+i)*PanelRows*w.stride+b/16*BlockBytes], &dst[i*size], ceilDiv(n, 16)
			ahead := lines * BlockBytes
			if b/16+2*lines > w.stride/BlockBytes {
				ahead += (count*PanelRows - 1) * w.stride
			}
			if wide {
				ternaryDecodeRowsAVX512(to, from, w.stride, lines, ahead)
			} else {
				ternaryDecodeRowsAVX2(to, from, w.stride, lines, ahead)
			}
		}
	case asColumns:
		from := &w.data[b*BlockCols*w.stride+p/windowPanels*BlockBytes]
		if wide {
			ternaryDecodeColumnsAVX512(&dst[0], size, from, w.stride, n*BlockCols/4, n*BlockCols*w.stride)
		} else {
			ternaryDecodeColumnsAVX2(&dst[0], size, from, w.stride, n*BlockCols/4, n*BlockCols*w.stride)
		}
	}
}

// ternaryBytes multiplies panels p0 to p1.
func ternaryBytes(dst []int32, ldd int, w *weights, p0, p1 int, x []int8, ldx int, xsum []int32) {
	tokens := len(xsum)
	s := newTileSpace()
	s.sums = room(s.sums, tokens*sumStride)
	group, piece := windowPanels, pieceBlocks
	if tokens <= fewTokens {
		group, piece = fewPanels, fewBlocks
		if w.lie == asColumns {
			group, piece = windowPanels, fewOfColumns
		}
	}
	size := piece*BlockCols*PanelRows + 64 // panels begin in different sets of the cache
	s.w = room(s.w, windowPanels*size)     // kernels take panels in twos and fours: what is past the last one they multiply for nothing
	tiles := Active() == AMX
	if tiles {
		s.ternaryTails(x, ldx, tokens, w.blocks)
	}
	window := p0
	if w.lie == asColumns {
		window = p0 &^ (windowPanels - 1)
	}
	for ; window < p1; window += windowPanels {
		count := min(windowPanels, p1-window)
		for p := 0; p < count; p += group {
			n := min(group, count-p)
			for b := 0; b < w.blocks; b += piece {
				blocks := min(piece, w.blocks-b)
				w.decode(s.w[p*size:], size, window+p, n, b, blocks)
				if tiles {
					s.multiplyTiles(p, n, size, b, blocks, x, ldx, tokens)
				} else {
					s.multiply(p, n, size, b, blocks, x, ldx, tokens)
				}
			}
		}
		first := max(p0, window)
		for t, sum := range xsum {
			ternaryFinish(dst[t*ldd+(first-p0)*PanelRows:][:(window+count-first)*PanelRows], s.sums[t*sumStride+(first-window)*PanelRows:], sum)
		}
	}
	s.release()
}

// multiply adds products of blocks from b on to the sums of n panels from p on of a window.
func (s *tileSpace) multiply(p, n, size, b, blocks int, x []int8, ldx, tokens int) {
	for t, m := 0, 0; t < tokens; t += m {
		m = tile(tokens-t, byteTokens)
		for q := p; q < p+n; q++ {
			c, xt, w := &s.sums[t*sumStride+q*PanelRows], &x[t*ldx+b*BlockCols], s.w[q*size:]
			switch Active() {
			case AVX512:
				ternaryBytesAVX512(c, sumStride, xt, ldx, &w[0], size, blocks, m, b)
				q++
			case AVXVNNI:
				ternaryBytesAVXVNNI(c, sumStride, xt, ldx, &w[0], size, blocks, m, b)
				ternaryBytesAVXVNNI(&s.sums[t*sumStride+q*PanelRows+8], sumStride, xt, ldx, &w[32], size, blocks, m, b)
			default:
				ternaryBytesAVX2(c, sumStride, xt, ldx, &w[0], size, blocks, m, b)
				ternaryBytesAVX2(&s.sums[t*sumStride+q*PanelRows+8], sumStride, xt, ldx, &w[32], size, blocks, m, b)
			}
		}
	}
}

// ternaryFinish takes the sum of the inputs off.
func ternaryFinish(dst, sums []int32, sum int32) {
	if vectors() == AVX512 {
		ternaryFinishAVX512(&dst[0], &sums[0], len(dst)/PanelRows, int(sum))
	} else {
		ternaryFinishAVX2(&dst[0], &sums[0], len(dst)/PanelRows, int(sum))
	}
}

// tileSpace is memory of one running call.
type tileSpace struct {
	w     []byte  // weights as bytes
	sums  []int32 // of a window, sumStride apart
	tails []int8  // for AMX: last columns of the left factor, 64 bytes a row
	job   tileJob
	ints  intSpace
}

// tileSpaces are those of no call, as many as there were calls at a time. A sync.Pool would forget them now and then, and steps that
// allocate nothing are a promise.
var tileSpaces struct {
	sync.Mutex
	free []*tileSpace
}

func newTileSpace() *tileSpace {
	tileSpaces.Lock()
	defer tileSpaces.Unlock()
	n := len(tileSpaces.free)
	if n == 0 {
		return new(tileSpace)
	}
	s := tileSpaces.free[n-1]
	tileSpaces.free = tileSpaces.free[:n-1]
	return s
}

func (s *tileSpace) release() {
	tileSpaces.Lock()
	tileSpaces.free = append(tileSpaces.free, s)
	tileSpaces.Unlock()
}

// room gives s a length of at least n; contents are undefined.
func room[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
