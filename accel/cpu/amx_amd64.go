package cpu

import "unsafe"

// AMX multiplies tiles: 16 rows of 64 int8 with 64 rows of 16, sixteen times what a vector instruction does. A block of 64 columns of
// a panel, four bytes of a row side by side, is such a right factor. The kernels hold two tiles of each factor and their four
// products.

// tileJob is the operand of the AMX kernels: for groups of rows one after the other
//
//	c[0:16, 0:16] = a0 b0    c[0:16, 16:32] = a0 b1    c[16:32, 0:16] = a1 b0    c[16:32, 16:32] = a1 b1
//
// over 64*steps columns, and then over the 64 columns of the tails unless these are nil.
type tileJob struct {
	c              *int32
	ldc            int   // bytes from row to row of c
	a0, a1         *int8 // 16 rows each
	lda            int
	b0, b1         *byte // 16 columns of 4-byte lanes, contiguous
	steps          int
	tailA0, tailA1 *int8 // 64 bytes a row
	tailB0, tailB1 *byte
	groups         int // > 0
	more           int // not 0: c += the products

	nextA, nextTail, nextB, nextC int // bytes from group to group
}

// tilesAMX runs a job.
//
//go:noescape
func tilesAMX(job *tileJob, shapes *[64]byte)

// wideTilesAMX runs a job with one left tile and four right ones, which lie as far apart as b0 and b1:
//
//	c[0:16, 0:64] = a0 b0..b3
//
//go:noescape
func wideTilesAMX(job *tileJob, shapes *[64]byte)

// panelTilesAMX is wideTilesAMX for groups of four panels of codes, which begin at b0 and lie nextB bytes apart; steps > 0, and there are no tails.
// The codes of 64 columns become bytes, in memory of eight tiles at b1, while the 64 before are multiplied: reading, decoding and
// multiplying go on at once.
//
//go:noescape
func panelTilesAMX(job *tileJob, shapes *[64]byte)

const (
	tileRows   = 16
	tileCols   = 64                   // columns of a left tile
	tileBytes  = tileRows * tileCols  // of a tile
	tileBlocks = tileCols / BlockCols // of a panel
)

// tileShapes configures eight tiles for as many rows of the left factor: up to 16 for wideTilesAMX, and up to 32, in two tiles, for tilesAMX.
var tileShapes = func() (all [2*tileRows + 1][64]byte) {
	for rows := range all {
		c := &all[rows]
		c[0] = 1 // palette
		for t := range 8 {
			c[16+2*t], c[48+t] = tileCols, tileRows
		}
		for t := range 5 { // the sums and the left factor
			if rows <= tileRows {
				c[48+t] = byte(rows)
			}
		}
		for _, t := range []int{2, 3, 5} {
			if rows > tileRows {
				c[48+t] = byte(rows - tileRows)
			}
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

// denseGroups groups of 16 tokens have their sums in cache at a time, and meet denseSteps times 64 columns of two panels, which stay
// in the first-level cache, before they go on to the next.
const (
	denseTokens = 16
	denseGroups = 4
	denseSteps  = 8
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

// multiplyTiles is multiply with tiles.
func (s *tileSpace) multiplyTiles(c []int32, ldc, p, n, size, b, blocks int, more bool, x []int8, ldx, tokens int) {
	for t, m := 0, 0; t < tokens; t += m {
		m = min(2*tileRows, tokens-t)
		s.job = tileJob{
			c: &c[t*ldc+p*PanelRows], ldc: 4 * ldc, a0: &x[t*ldx+b*BlockCols], lda: ldx, b0: &s.w[p*size], b1: &s.w[(p+1)*size],
			steps: blocks / tileBlocks, more: asInt(more),
		}
		if blocks%tileBlocks > 0 {
			s.job.tailA0, s.job.tailB0, s.job.tailB1 = &s.tails[t*tileCols], &s.w[p*size+s.job.steps*tileBytes], &s.w[(p+1)*size+s.job.steps*tileBytes]
		}
		wide := 2
		if m <= tileRows {
			wide = 4
		} else {
			s.job.a1 = &x[(t+tileRows)*ldx+b*BlockCols]
			if s.job.tailA0 != nil {
				s.job.tailA1 = &s.tails[(t+tileRows)*tileCols]
			}
		}
		s.job.groups, s.job.nextB, s.job.nextC = ceilDiv(n, wide), wide*size, 4*wide*PanelRows
		if wide == 4 {
			wideTilesAMX(&s.job, &tileShapes[m])
		} else {
			tilesAMX(&s.job, &tileShapes[m])
		}
	}
	s.job = tileJob{}
}

// multiplyPanels makes the sums of count panels from p on, a multiple of fewPanels, with up to 16 tokens.
func (s *tileSpace) multiplyPanels(w *weights, p, count int, x []int8, ldx, tokens int) {
	s.job = tileJob{
		c: &s.sums[0], ldc: 4 * sumStride, a0: &x[0], lda: ldx, b0: &w.data[p*w.stride], b1: &s.w[0], steps: w.blocks / tileBlocks,
		groups: count / fewPanels, nextB: w.stride,
	}
	panelTilesAMX(&s.job, &tileShapes[tokens])
	s.job = tileJob{}
}

// denseIntAMX multiplies two panels of int8 weights at a time with both planes of 16 tokens at a time.
func denseIntAMX(dst []float32, ldd int, panels []byte, stride int, scale []float32, x Int16Rows, tokens int, add bool) {
	n, t := intTilesAMX(dst, ldd, panels, stride, 0, scale, 0, &x, tokens, add)
	if n*stride < len(panels) && t > 0 {
		denseIntEach(dst[n*PanelRows:], ldd, DenseInt8, panels[n*stride:], stride, scale[n*PanelRows:], x, t, add)
	}
	if t < tokens {
		denseIntEach(dst[t*ldd:], ldd, DenseInt8, panels, stride, scale, x.From(t), tokens-t, add)
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
			s.job = tileJob{
				c: &s.ints.sums[0][0][0][0], ldc: 4 * 2 * PanelRows, a0: &x.Hi[at], a1: &x.Lo[at], lda: x.Stride, b0: &w0[0], b1: &w1[0], steps: steps,
				groups: m / denseTokens, nextA: denseTokens * x.Stride, nextTail: denseTokens * tileCols, nextC: int(unsafe.Sizeof(s.ints.sums[0])),
			}
			piece := denseSteps
			if m == denseTokens {
				piece = steps // one group meets weights once
			}
			for k := piece; k < steps; k += piece { // all but the last piece of a long sum
				s.job.steps = piece
				tilesAMX(&s.job, &tileShapes[2*tileRows])
				s.job.a0, s.job.a1 = &x.Hi[at+k*tileCols], &x.Lo[at+k*tileCols]
				s.job.b0, s.job.b1 = &w0[k*tileBytes], &w1[k*tileBytes]
				s.job.steps, s.job.more = steps-k, 1
			}
			if rest {
				s.job.tailA0, s.job.tailA1 = &s.tails[t*tileCols], &s.tails[(tokens+t)*tileCols]
				s.job.tailB0, s.job.tailB1 = &s.ints.last[0], &s.ints.last[tileBytes]
			}
			tilesAMX(&s.job, &tileShapes[2*tileRows])
			denseIntFinishAVX512(&dst[t*ldd+p*PanelRows], ldd, &s.ints.sums[0][0][0][0], &s.ints.scale[0], &x.SumHi[t], &x.SumLo[t], &x.Inv[t], asInt(add), m)
		}
	}
	s.job = tileJob{}
	s.release()
	return n, tokens
}
