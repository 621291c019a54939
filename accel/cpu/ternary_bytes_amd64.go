package cpu

import "sync"

// Many tokens read every weight many times. So their products go by windows of panels and pieces of their columns: the codes of a piece become
// bytes, which all tokens are multiplied with, some at a time, before the next piece; sums wait in memory of their own, or where the results
// belong. Bytes, sums and the columns of all tokens stay in the second-level cache, those of the tokens at work in the first.

const (
	windowPanels = linePanels                  // panels of a window: those that lines which are columns become at once
	pieceBlocks  = 64                          // blocks of a piece
	pieceTiles   = 32                          // with tiles: those of 32 tokens are 16 KiB
	sumStride    = windowPanels*PanelRows + 16 // from token to token: rows of a tile lie in different sets of the cache
)

// byteTokens is how many tokens the kernels multiply at once, half of them with registers of half the width.
const byteTokens = 12

// With few tokens making bytes costs as much as the product: then they go no further than to the first-level cache.
const (
	fewTokens    = 32
	fewPanels    = 4
	fewBlocks    = 16 // of a panel; a line has its codes of so many in 64 bytes
	fewOfColumns = 8  // of all panels of a window
	wholeColumns = 32 // of all windows, with up to 16 tokens and tiles
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

func ternaryAddColumns(acc []int32, ldd int, src []byte, lines, n, k0, k1 int, x []int8, ldx, tokens int) {
	w := weights{data: src, lie: asColumns, stride: LineBytes(n), blocks: ceilDiv(lines, BlockCols)}
	ternaryColumns(acc, ldd, &w, k0/BlockCols, ceilDiv(k1, BlockCols), x, ldx, tokens)
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
		w.decodeColumns(dst, size, p/windowPanels, b, n, n*BlockCols*w.stride, w.stride)
	}
}

// decodeColumns takes 64 bytes of each line, from which a window is made, and reads ahead in steps.
func (w *weights) decodeColumns(dst []byte, size, window, b, n, ahead, step int) {
	from := &w.data[b*BlockCols*w.stride+window*BlockBytes]
	if vectors() == AVX512 {
		ternaryDecodeColumnsAVX512(&dst[0], size, from, w.stride, n*BlockCols/4, ahead, step)
	} else {
		ternaryDecodeColumnsAVX2(&dst[0], size, from, w.stride, n*BlockCols/4, ahead, step)
	}
}

// ternaryColumns adds products of blocks [b, b1) of lines, which are columns, to c: piece by piece, in the order of memory.
func ternaryColumns(c []int32, ldc int, w *weights, b, b1 int, x []int8, ldx, tokens int) {
	const size = fewOfColumns*BlockCols*PanelRows + 64
	s := newTileSpace()
	s.w = room(s.w, windowPanels*size)
	tiles := Active() == AMX
	if tiles {
		s.ternaryTails(x, ldx, tokens, w.blocks)
		if tokens <= tileRows {
			for b1-b >= tileBlocks {
				n := min(wholeColumns, b1-b) &^ (tileBlocks - 1)
				s.multiplyColumns(c, ldc, w, b*BlockCols, n*BlockCols, x, ldx, tokens)
				b += n
			}
			s.w = room(s.w, windowPanels*size)
		}
	}
	for ; b < b1; b += fewOfColumns {
		n := min(fewOfColumns, b1-b)
		piece := n * BlockCols * BlockBytes // of a window
		for window := range w.stride / BlockBytes {
			w.decodeColumns(s.w, size, window, b, n, n*BlockCols*w.stride+window*(piece-BlockBytes), BlockBytes)
			sums := c[window*windowPanels*PanelRows:]
			if tiles {
				s.multiplyTiles(sums, ldc, 0, windowPanels, size, b, n, true, x, ldx, tokens, whole{})
			} else {
				s.multiply(sums, ldc, 0, windowPanels, size, b, n, true, x, ldx, tokens, whole{})
			}
		}
	}
	s.release()
}

// ternaryBytes multiplies panels p0 to p1.
func ternaryBytes(dst []int32, ldd int, w *weights, p0, p1 int, x []int8, ldx int, xsum []int32) {
	tokens := len(xsum)
	s := newTileSpace()
	s.sums = room(s.sums, max(tokens, tileRows)*sumStride)
	tiles := Active() == AMX
	group, piece := windowPanels, pieceBlocks
	if tiles {
		piece = pieceTiles
	}
	if tokens <= fewTokens {
		group, piece = fewPanels, fewBlocks
		if w.lie == asColumns {
			group, piece = windowPanels, fewOfColumns
		}
	}
	size := piece*BlockCols*PanelRows + 64 // panels begin in different sets of the cache
	s.w = room(s.w, windowPanels*size)     // kernels take panels in twos: what is past the last one they multiply for nothing
	if tiles {
		s.ternaryTails(x, ldx, tokens, w.blocks)
		s.begin(xsum)
	}
	// With tokens of one tile there is nothing to reuse, and whole panels and rows go through the tiles.
	one := tiles && tokens <= tileRows
	panels := one && w.lie == asPanels && w.blocks%tileBlocks == 0
	rows := one && w.lie == asRows
	if rows {
		s.turn(x, ldx, tokens, w.blocks, w.stride/BlockBytes)
	}
	window := p0
	if w.lie == asColumns {
		window = p0 &^ (windowPanels - 1)
	}
	for ; window < p1; window += windowPanels {
		count := min(windowPanels, p1-window)
		first := max(p0, window) - window // a window of columns may begin before p0
		to := dst[(window+first-p0)*PanelRows:]
		direct := !tiles && first%2 == 0 && count%2 == 0 // kernels take panels in twos
		ends := 0                                        // tokens whose sums end where they belong
		if tiles && first == 0 {
			if ends = tokens / (2 * tileRows) * (2 * tileRows); tokens-ends > tileRows {
				ends = tokens
			}
		}
		done := 0
		switch {
		case panels && count >= fewPanels:
			done = count &^ (fewPanels - 1)
			s.multiplyPanels(w, window, done, x, ldx, tokens)
		case rows && count > 1:
			done = count &^ 1
			s.multiplyRows(w, window, done)
		}
		for p := done; p < count; p += group {
			n := min(group, count-p)
			for b := 0; b < w.blocks; b += piece {
				blocks := min(piece, w.blocks-b)
				w.decode(s.w[p*size:], size, window+p, n, b, blocks)
				if tiles {
					out := whole{}
					if ends > 0 {
						out = whole{dst: to, ldd: ldd}
					}
					s.multiplyTiles(s.sums, sumStride, p, n, size, b, blocks, b > 0, x, ldx, tokens, out)
					continue
				}
				out, from := whole{}, max(p, first&^1) // kernels take panels in twos
				if direct && b+blocks == w.blocks {
					out = whole{dst: to[(from-first)*PanelRows:], ldd: ldd, xsum: xsum}
				}
				s.multiply(s.sums, sumStride, from, p+n-from, size, b, blocks, b > 0, x, ldx, tokens, out)
			}
		}
		if direct {
			continue
		}
		for t := ends; t < tokens; t++ {
			ternaryFinish(to[t*ldd:][:(count-first)*PanelRows], s.sums[t*sumStride+first*PanelRows:], xsum[t])
		}
	}
	s.release()
}

// whole is where sums go when they are whole.
type whole struct {
	dst  []int32 // begins with the first panel that is multiplied
	ldd  int
	xsum []int32 // of all tokens, nil while sums are not whole
}

// multiply makes products of blocks from b on with n panels from p on of a window: the sums of panel 0 begin at c. With more it adds to them.
func (s *tileSpace) multiply(c []int32, ldc, p, n, size, b, blocks int, more bool, x []int8, ldx, tokens int, out whole) {
	most := byteTokens
	if vectors() == AVX2 {
		most = byteTokens / 2
	}
	var dst, xsum *int32
	for t, m := 0, 0; t < tokens; t += m {
		m = tile(tokens-t, most)
		for q := p; q < p+n; q++ {
			sums, xt, w := &c[t*ldc+q*PanelRows], &x[t*ldx+b*BlockCols], &s.w[q*size]
			if out.xsum != nil {
				dst, xsum = &out.dst[t*out.ldd+(q-p)*PanelRows], &out.xsum[t]
			}
			switch Active() {
			case AVXVNNI:
				ternaryBytesAVXVNNI(sums, ldc, xt, ldx, w, size, blocks, m, asInt(more), dst, out.ldd, xsum)
			case AVX2:
				ternaryBytesAVX2(sums, ldc, xt, ldx, w, size, blocks, m, asInt(more), dst, out.ldd, xsum)
			default:
				ternaryBytesAVX512(sums, ldc, xt, ldx, w, size, blocks, m, asInt(more), dst, out.ldd, xsum)
				q++
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
	w      []byte             // weights as bytes
	sums   []int32            // of a window, sumStride apart
	tails  []int8             // for AMX: last columns of the left factor, 64 bytes a row
	starts [][PanelRows]int32 // for AMX: of sums that end where they belong
	job    tileJob
	ints   intSpace
	lines  lineSpace
	joined joinedSpace

	lineSums []int16
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
