package cpu

import "unsafe"

// AMX multiplies tiles: 16 rows of 64 int8 with 64 rows of 16, sixteen times what a vector instruction does. A block of 64 columns of
// a panel, four bytes of a row side by side, is such a right factor.
//
// A core seems to have few tiles beyond the eight with names, and fewer still while its other hardware thread works: then a program that holds
// all eight is as slow as if every instruction waited for the one before it (docs/architecture.md has the times). So tilesAMX, streamTilesAMX and wideTilesAMX hold four: two products,
// one tile of the factor that both share, and one for the other two factors in turn. Where codes become bytes between the tiles, which takes longer
// than they do, it is six.

// tileJob is the operand of the AMX kernels: for groups of rows one after the other
//
//	c0[0:16, 0:16] = a0 b0    c1[0:16, 0:16] = a1 b0
//
// over 64*steps columns, and then over the 64 columns of the tails unless these are nil.
type tileJob struct {
	c0, c1         *int32
	ldc            int   // bytes from row to row of c0 and c1
	a0, a1         *int8 // 16 rows each
	lda            int
	b0, b1         *byte // 16 columns of 4-byte lanes, contiguous
	ldb            int   // of lines
	steps          int
	tailA0, tailA1 *int8 // 64 bytes a row
	tailB          *byte
	groups         int    // > 0
	more           int    // not 0: c0 and c1 += the products
	start0, start1 *int32 // what the products are added to for the first time, rows of 64 bytes, or nil for zeros
	ahead          int    // where to read ahead, from b0 on
	apart, back    int    // of the eight places that panelTilesAMX, rowTilesAMX and columnTilesAMX read ahead: from one to the next; from the ninth to the first, and some lines on
	rows           int    // of columnTilesAMX

	nextA, nextTail, nextB, nextC int // bytes from group to group
}

// tilesAMX runs a job.
//
//go:noescape
func tilesAMX(job *tileJob, shapes *[64]byte)

// streamTilesAMX is tilesAMX for weights that come from memory: one group, steps > 0, and no tails. It reads ahead as many bytes as b0 has, in eight streams that
// begin ahead bytes after b0 and lie nextB apart: hardware fetches more at once for many streams.
//
//go:noescape
func streamTilesAMX(job *tileJob, shapes *[64]byte)

// wideTilesAMX runs a job with one left tile and two right ones, after which comes the tail's:
//
//	c0[0:16, 0:16] = a0 b0    c0[0:16, 16:32] = a0 b1
//
//go:noescape
func wideTilesAMX(job *tileJob, shapes *[64]byte)

// panelTilesAMX is wideTilesAMX for groups of four panels of codes, which begin at b0 and lie nextB bytes apart; steps > 0, and there are no tails.
// The codes of 64 columns become bytes, in memory of eight tiles at b1, while the 64 before are multiplied: reading, decoding and
// multiplying go on at once.
//
//go:noescape
func panelTilesAMX(job *tileJob, shapes *[64]byte)

// rowTilesAMX multiplies groups of 32 lines of codes, which are rows, with up to 16 tokens:
//
//	c0[0:16, 0:16] = b[0:16] a    c0[16:32, 0:16] = b[16:32] a
//
// Lines begin at b0 and lie ldb bytes apart, as many as they are long: 64*steps; groups lie nextB = 32*ldb apart. At a0 are the tokens'
// columns, turned: 64 bytes are four columns of 16 tokens. Rows of c0 are 64 bytes. Codes become bytes, in memory of 16 tiles at b1, while those
// before are multiplied.
//
//go:noescape
func rowTilesAMX(job *tileJob, shapes *[64]byte)

// columnTilesAMX multiplies up to 16 tokens with 64 bytes of each of 64*steps lines of codes, which are columns:
//
//	c0[0:rows, 0:256] += a0 b
//
// Lines begin at b0 and lie ldb bytes apart. It reads ahead nearly as many bytes as it reads: what the first of the steps takes it does not. Codes become bytes, in memory of eight tiles at b1, while
// those before are multiplied.
//
//go:noescape
func columnTilesAMX(job *tileJob, shapes *[64]byte)

const (
	tileRows   = 16
	tileCols   = 64                   // columns of a left tile
	tileBytes  = tileRows * tileCols  // of a tile
	tileBlocks = tileCols / BlockCols // of a panel
)

// tileShapes configures tiles for as many rows of the left factor.
var tileShapes = func() (all [tileRows + 1][64]byte) {
	for rows := range all {
		c := &all[rows]
		c[0] = 1 // palette
		for t := range 8 {
			c[16+2*t], c[48+t] = tileCols, tileRows
		}
		for t := range 5 { // the sums and the left factor
			c[48+t] = byte(rows)
		}
	}
	return all
}()

// intSpace is memory for products with int8 weights.
type intSpace struct {
	last  [2 * tileBytes]byte // the last columns of two panels
	sums  [denseGroups][2][16][2 * PanelRows]int32
	scale [2 * PanelRows]float32
}

// lineSpace is memory for products with lines.
type lineSpace struct {
	padded   []int8  // 16 tokens
	turned   []byte  // the same, as right factors
	products []int32 // [panels][16 rows][16 tokens]
}

// denseGroups groups of 16 tokens have their sums in cache at a time, and meet denseSteps times 64 columns of two panels, which stay
// in the first-level cache, before they go on to the next.
const (
	denseTokens = 16
	denseGroups = 4
	denseSteps  = 8
	denseAhead  = 8 // panels that are read ahead together
)

// tail copies the columns past 64*steps of rows rows of x, up to cols, to rows of 64.
func (s *tileSpace) tail(x []int8, ldx, rows, steps, cols, from int) {
	for r := range rows {
		t := s.tails[from+r*tileCols:][:tileCols]
		clear(t[copy(t, x[r*ldx+steps*tileCols:r*ldx+cols]):])
	}
}

// ternaryTails makes rows of 64 of the columns that fill no tile.
func (s *tileSpace) ternaryTails(x []int8, ldx, tokens, blocks int) {
	if blocks%tileBlocks > 0 {
		s.tails = room(s.tails, tokens*tileCols)
		s.tail(x, ldx, tokens, blocks/tileBlocks, blocks*BlockCols, 0)
	}
}

// multiplyTiles is multiply with tiles. With out, sums of tokens that fill two tiles are made there in all pieces, and begin at -xsum.
func (s *tileSpace) multiplyTiles(c []int32, ldc, p, n, size, b, blocks int, more bool, x []int8, ldx, tokens int, out whole) {
	s.job = tileJob{lda: ldx, steps: blocks / tileBlocks, more: asInt(more)}
	job := &s.job
	tail := blocks%tileBlocks > 0
	if tail {
		job.tailB = &s.w[p*size+job.steps*tileBytes]
	}
	for t, m := 0, 0; t < tokens; t += m {
		m = min(2*tileRows, tokens-t)
		job.c0, job.ldc, job.a0, job.b0 = &c[t*ldc+p*PanelRows], 4*ldc, &x[t*ldx+b*BlockCols], &s.w[p*size]
		if tail {
			job.tailA0 = &s.tails[t*tileCols]
		}
		if m <= tileRows {
			job.b1 = &s.w[(p+1)*size]
			job.groups, job.nextB, job.nextC = ceilDiv(n, 2), 2*size, 4*2*PanelRows
			wideTilesAMX(job, &tileShapes[m])
			continue
		}
		second := t + m - tileRows // rows that both tiles have get the same sums twice
		job.c1, job.a1 = &c[second*ldc+p*PanelRows], &x[second*ldx+b*BlockCols]
		if out.dst != nil {
			job.c0, job.c1, job.ldc = &out.dst[t*out.ldd+p*PanelRows], &out.dst[second*out.ldd+p*PanelRows], 4*out.ldd
			job.start0, job.start1 = &s.starts[t][0], &s.starts[second][0]
		}
		if tail {
			job.tailA1 = &s.tails[second*tileCols]
		}
		job.groups, job.nextB, job.nextC = n, size, 4*PanelRows
		tilesAMX(job, &tileShapes[tileRows])
	}
	s.job = tileJob{}
}

// begin makes the starts of sums of tokens.
func (s *tileSpace) begin(xsum []int32) {
	s.starts = room(s.starts, len(xsum))
	for t, sum := range xsum {
		row := &s.starts[t]
		for i := range row {
			row[i] = -sum
		}
	}
}

// multiplyPanels makes the sums of count panels from p on, a multiple of fewPanels, with up to 16 tokens.
func (s *tileSpace) multiplyPanels(w *weights, p, count int, x []int8, ldx, tokens int) {
	s.job = tileJob{
		c0: &s.sums[0], ldc: 4 * sumStride, a0: &x[0], lda: ldx, b0: &w.data[p*w.stride], b1: &s.w[0], steps: w.blocks / tileBlocks,
		groups: count / fewPanels, nextB: w.stride,
	}
	s.job.readAhead(fewPanels*w.stride, 2)
	panelTilesAMX(&s.job, &tileShapes[tokens])
	s.job = tileJob{}
}

// turn makes tokens, at most 16, right factors of rowTilesAMX.
func (s *tileSpace) turn(x []int8, ldx, tokens, blocks, steps int) {
	cols := steps * lineBlock
	s.lines.turned = room(s.lines.turned, cols*tileRows)
	if tokens < tileRows || blocks*BlockCols < cols {
		s.lines.padded = room(s.lines.padded, cols*tileRows)
		clear(s.lines.padded[tokens*cols:])
		for t := range tokens {
			row := s.lines.padded[t*cols:][:cols]
			clear(row[copy(row, x[t*ldx:][:blocks*BlockCols]):])
		}
		x, ldx = s.lines.padded, cols
	}
	flipLanes(s.lines.turned, 64, tileBytes, bytesOf(x), ldx, 64, cols/64)
}

// multiplyRows makes the sums of count panels from p on, an even number whose rows are lines, with tokens that turn has turned.
func (s *tileSpace) multiplyRows(w *weights, p, count int) {
	const size = 4 * PanelRows * tileRows // of a panel's products
	s.lines.products = room(s.lines.products, windowPanels*PanelRows*tileRows)
	s.job = tileJob{
		c0: &s.lines.products[0], a0: (*int8)(unsafe.Pointer(&s.lines.turned[0])), b0: &w.data[p*PanelRows*w.stride], b1: &s.w[0], ldb: w.stride,
		steps: w.stride / BlockBytes, groups: count / 2, nextB: 2 * PanelRows * w.stride,
	}
	s.job.readAhead(count*PanelRows*w.stride, 4)
	rowTilesAMX(&s.job, &tileShapes[tileRows])
	s.job = tileJob{}
	flipLanes(bytesOf(s.sums), 4*sumStride, 4*PanelRows, bytesOf(s.lines.products), 4*tileRows, size, count)
}

// multiplyColumns adds to c the products of count lines from line on, which are columns: a multiple of 64 lines and of tokens, at most 16.
func (s *tileSpace) multiplyColumns(c []int32, ldc int, w *weights, line, count int, x []int8, ldx, tokens int) {
	s.w = room(s.w, 8*tileBytes)
	size := count * BlockBytes // of a window
	s.job = tileJob{ldc: 4 * ldc, a0: &x[line], lda: ldx, b1: &s.w[0], ldb: w.stride, steps: count / tileCols, rows: tokens}
	for window := range w.stride / BlockBytes {
		s.job.c0, s.job.b0 = &c[window*lineBlock], &w.data[line*w.stride+window*BlockBytes]
		s.job.readAhead(count*w.stride, 2)
		s.job.ahead += window * (size/aheadPlaces - BlockBytes)
		columnTilesAMX(&s.job, &tileShapes[tokens])
	}
	s.job = tileJob{}
}

// readAhead makes a kernel read ahead the size bytes that come after as many from b0 on, in eight places at once: of so many streams hardware fetches more than of one.
// It takes so many lines of each at a time.
func (j *tileJob) readAhead(size, lines int) {
	j.ahead, j.apart, j.back = size, size/aheadPlaces, size-lines*BlockBytes
}

// aheadPlaces is how many places are read ahead at once.
const aheadPlaces = 8

// bytesOf views numbers as bytes.
func bytesOf[T int8 | int32](x []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), len(x)*int(unsafe.Sizeof(x[0])))
}

// denseIntAMX multiplies two panels of int8 weights at a time with both planes of 16 tokens at a time.
func denseIntAMX(dst []float32, ldd int, panels []byte, stride int, scale []float32, x Int16Rows, tokens int, add bool) {
	n, t := intTilesAMX(dst, ldd, panels, stride, 0, scale, 0, &x, tokens, add)
	if n*stride < len(panels) && t > 0 {
		int8Each(dst[n*PanelRows:], ldd, panels[n*stride:], stride, scale[n*PanelRows:], x, t, add)
	}
	if t < tokens {
		int8Each(dst[t*ldd:], ldd, panels, stride, scale, x.From(t), tokens-t, add)
	}
}

// ternaryIntAMX is denseIntAMX for panels of nb ternary blocks, which become int8 two at a time.
func ternaryIntAMX(dst []float32, ldd int, panels []byte, nb int, scale float32, x *Int16Rows, tokens int, add bool) {
	stride := nb * BlockBytes
	n, t := intTilesAMX(dst, ldd, panels, 4*stride, nb, nil, scale, x, tokens, add)
	if n*stride < len(panels) && t > 0 {
		ternaryIntEach(dst[n*PanelRows:], ldd, panels[n*stride:], nb, scale, *x, t, add)
	}
	if t < tokens {
		ternaryIntEach(dst[t*ldd:], ldd, panels, nb, scale, x.From(t), tokens-t, add)
	}
}

// intTilesAMX multiplies what fills tiles and says how many panels and tokens that is. stride is the size of a panel of int8 weights. With
// blocks > 0 panels are ternary, of as many blocks, and have one scale; else scales has one for each row.
func intTilesAMX(dst []float32, ldd int, panels []byte, stride, blocks int, scales []float32, scale float32, x *Int16Rows, tokens int, add bool) (n, t int) {
	n = len(panels) / stride
	if blocks > 0 {
		n = len(panels) / (blocks * BlockBytes)
	}
	n, tokens = n&^1, tokens/denseTokens*denseTokens
	if n == 0 || tokens == 0 {
		return 0, 0
	}
	s := newTileSpace()
	steps, cols := stride/tileBytes, stride/16
	rest := stride%tileBytes > 0
	once := blocks == 0 && !rest && steps > 0 && tokens == denseTokens
	if rest {
		s.tails = room(s.tails, 2*tokens*tileCols)
		s.tail(x.Hi, x.Stride, tokens, steps, cols, 0)
		s.tail(x.Lo, x.Stride, tokens, steps, cols, tokens*tileCols)
	}
	for p := 0; p < n; p += 2 {
		var w0, w1 []byte
		if blocks > 0 {
			s.w = room(s.w, 2*stride)
			w0, w1 = s.w[:stride], s.w[stride:]
			ternaryDecodeAVX512(&w0[0], &panels[p*blocks*BlockBytes], blocks, 0, 127)
			ternaryDecodeAVX512(&w1[0], &panels[(p+1)*blocks*BlockBytes], blocks, 0, 127)
			for i := range s.ints.scale {
				s.ints.scale[i] = scale
			}
		} else {
			w0, w1 = panels[p*stride:][:stride], panels[(p+1)*stride:][:stride]
			clear(s.ints.scale[copy(s.ints.scale[:], scales[p*PanelRows:]):])
		}
		if rest {
			copy(s.ints.last[:], w0[steps*tileBytes:])
			copy(s.ints.last[tileBytes:], w1[steps*tileBytes:])
		}
		for t := 0; t < tokens; t += denseGroups * denseTokens {
			m := min(denseGroups*denseTokens, tokens-t)
			at := t * x.Stride
			groups := m / denseTokens
			for i, w := range [2][]byte{w0, w1} {
				s.job = tileJob{
					c0: &s.ints.sums[0][0][0][i*PanelRows], c1: &s.ints.sums[0][1][0][i*PanelRows], ldc: 4 * 2 * PanelRows,
					a0: &x.Hi[at], a1: &x.Lo[at], lda: x.Stride, b0: &w[0], steps: steps,
					groups: groups, nextA: denseTokens * x.Stride, nextTail: denseTokens * tileCols, nextC: int(unsafe.Sizeof(s.ints.sums[0])),
				}
				if once { // in as many steps as a group of panels has, each step reads an equal part of all panels of the next group
					place := (p + i) % denseAhead
					s.job.nextB, s.job.ahead = stride, (denseAhead-place)*stride+place*stride/denseAhead
					streamTilesAMX(&s.job, &tileShapes[tileRows])
					continue
				}
				piece := denseSteps
				if groups == 1 {
					piece = steps // it meets weights once
				}
				for k := piece; k < steps; k += piece { // all but the last piece of a long sum
					s.job.steps = piece
					tilesAMX(&s.job, &tileShapes[tileRows])
					s.job.a0, s.job.a1 = &x.Hi[at+k*tileCols], &x.Lo[at+k*tileCols]
					s.job.b0 = &w[k*tileBytes]
					s.job.steps, s.job.more = steps-k, 1
				}
				if rest {
					s.job.tailA0, s.job.tailA1, s.job.tailB = &s.tails[t*tileCols], &s.tails[(tokens+t)*tileCols], &s.ints.last[i*tileBytes]
				}
				tilesAMX(&s.job, &tileShapes[tileRows])
			}
			denseIntFinishAVX512(&dst[t*ldd+p*PanelRows], ldd, &s.ints.sums[0][0][0][0], &s.ints.scale[0], &x.SumHi[t], &x.SumLo[t], &x.Inv[t], asInt(add), m)
		}
	}
	s.job = tileJob{}
	s.release()
	return n, tokens
}
