package cpu

import (
	"sync"
	"unsafe"
)

// AMX multiplies tiles: 16 rows of 64 int8 with 64 rows of 16, sixteen times what a vector instruction does. A block of 64 columns of
// a panel, four bytes of a row side by side, is such a right factor. The kernels hold two tiles of each factor and their four
// products; what does not fill tiles (odd panels, the last tokens) goes to the AVX-512 kernels, which give the same integers.

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

	nextA, nextTail, nextC int // bytes from group to group
}

// tilesInt8AMX runs a job whose right factor is signed.
//
//go:noescape
func tilesInt8AMX(job *tileJob, shapes *[64]byte)

// tilesUint8AMX runs a job whose right factor is unsigned.
//
//go:noescape
func tilesUint8AMX(job *tileJob, shapes *[64]byte)

const (
	tileCols  = 64            // columns of a left tile
	tileBytes = 16 * tileCols // of a tile
)

// tileShapes configures eight tiles of 16 rows of 64 bytes.
var tileShapes = func() (c [64]byte) {
	c[0] = 1 // palette
	for t := range 8 {
		c[16+2*t], c[48+t] = tileCols, 16
	}
	return c
}()

// tileSpace is memory of one running call.
type tileSpace struct {
	job   tileJob
	w     []byte // right factor: two decoded panels
	last  []byte // the last columns of two panels
	tails []int8 // last columns of the left factor, 64 bytes a row
	sums  [denseGroups][2][16][2 * PanelRows]int32
	scale [2 * PanelRows]float32
}

// denseGroups groups of 16 tokens have their sums in cache at a time, and meet denseSteps times 64 columns of two panels, which stay
// in the first-level cache, before they go on to the next.
const (
	denseGroups = 4
	denseSteps  = 8
)

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

// tail copies the columns past 64*steps of rows rows of x, up to cols, to rows of 64.
func (s *tileSpace) tail(x []int8, ldx, rows, steps, cols, from int) {
	for r := range rows {
		t := s.tails[from+r*tileCols:][:tileCols]
		clear(t[copy(t, x[r*ldx+steps*tileCols:r*ldx+cols]):])
	}
}

// ternaryTokens and denseTokens are the tokens of one group.
const (
	ternaryTokens = 32
	denseTokens   = 16
)

// ternaryAMX decodes two panels at a time and multiplies them with 32 tokens at a time.
func ternaryAMX(dst []int32, ldd int, panels []byte, nb int, x []int8, ldx int, xsum []int32) {
	stride := nb * BlockBytes
	tokens, n := len(xsum)/ternaryTokens*ternaryTokens, len(panels)/stride&^1
	if tokens > 0 && n > 0 {
		s := newTileSpace()
		const fields = 4 // blocks of 64 columns hold four of 16
		steps, rest := nb/fields, nb%fields
		size := ceilDiv(nb, fields) * tileBytes
		s.w = room(s.w, 2*size)
		if rest > 0 {
			clear(s.w[nb*4*BlockBytes : size])
			clear(s.w[size+nb*4*BlockBytes : 2*size])
			s.tails = room(s.tails, tokens*tileCols)
			s.tail(x, ldx, tokens, steps, nb*BlockCols, 0)
		}
		for p := 0; p < n; p += 2 {
			ternaryDecodeAVX512(&s.w[0], &panels[p*stride], nb, -1)
			ternaryDecodeAVX512(&s.w[size], &panels[(p+1)*stride], nb, -1)
			s.job = tileJob{
				c: &dst[p*PanelRows], ldc: 4 * ldd, a0: &x[0], a1: &x[16*ldx], lda: ldx, b0: &s.w[0], b1: &s.w[size], steps: steps,
				groups: tokens / ternaryTokens, nextA: ternaryTokens * ldx, nextTail: ternaryTokens * tileCols, nextC: 4 * ternaryTokens * ldd,
			}
			if rest > 0 {
				s.job.tailA0, s.job.tailA1 = &s.tails[0], &s.tails[16*tileCols]
				s.job.tailB0, s.job.tailB1 = &s.w[steps*tileBytes], &s.w[size+steps*tileBytes]
			}
			tilesInt8AMX(&s.job, &tileShapes)
		}
		s.job = tileJob{}
		s.release()
	} else {
		tokens, n = 0, 0
	}
	if n*stride < len(panels) && tokens > 0 {
		ternary512(dst[n*PanelRows:], ldd, panels[n*stride:], nb, x, ldx, xsum[:tokens])
	}
	if tokens < len(xsum) {
		ternary512(dst[tokens*ldd:], ldd, panels, nb, x[tokens*ldx:], ldx, xsum[tokens:])
	}
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
		s.last = room(s.last, 2*tileBytes)
		s.tails = room(s.tails, 2*tokens*tileCols)
		s.tail(x.Hi, x.Stride, tokens, steps, cols, 0)
		s.tail(x.Lo, x.Stride, tokens, steps, cols, tokens*tileCols)
	}
	for p := 0; p < n; p += 2 {
		var w0, w1 []byte
		if blocks > 0 {
			s.w = room(s.w, 2*stride)
			w0, w1 = s.w[:stride], s.w[stride:]
			ternaryDecodeAVX512(&w0[0], &panels[p*blocks*BlockBytes], blocks, 127)
			ternaryDecodeAVX512(&w1[0], &panels[(p+1)*blocks*BlockBytes], blocks, 127)
			for i := range s.scale {
				s.scale[i] = scale
			}
		} else {
			w0, w1 = panels[p*stride:][:stride], panels[(p+1)*stride:][:stride]
			clear(s.scale[copy(s.scale[:], scales[p*PanelRows:]):])
		}
		if rest {
			copy(s.last, w0[steps*tileBytes:])
			copy(s.last[tileBytes:], w1[steps*tileBytes:])
		}
		for t := 0; t < tokens; t += denseGroups * denseTokens {
			m := min(denseGroups*denseTokens, tokens-t)
			at := t * x.Stride
			s.job = tileJob{
				c: &s.sums[0][0][0][0], ldc: 4 * 2 * PanelRows, a0: &x.Hi[at], a1: &x.Lo[at], lda: x.Stride, b0: &w0[0], b1: &w1[0], steps: steps,
				groups: m / denseTokens, nextA: denseTokens * x.Stride, nextTail: denseTokens * tileCols, nextC: int(unsafe.Sizeof(s.sums[0])),
			}
			for k := denseSteps; k < steps; k += denseSteps { // all but the last piece of a long sum
				s.job.steps = denseSteps
				tilesUint8AMX(&s.job, &tileShapes)
				s.job.a0, s.job.a1 = &x.Hi[at+k*tileCols], &x.Lo[at+k*tileCols]
				s.job.b0, s.job.b1 = &w0[k*tileBytes], &w1[k*tileBytes]
				s.job.steps, s.job.more = steps-k, 1
			}
			if rest {
				s.job.tailA0, s.job.tailA1 = &s.tails[t*tileCols], &s.tails[(tokens+t)*tileCols]
				s.job.tailB0, s.job.tailB1 = &s.last[0], &s.last[tileBytes]
			}
			tilesUint8AMX(&s.job, &tileShapes)
			denseIntFinishAVX512(&dst[t*ldd+p*PanelRows], ldd, &s.sums[0][0][0][0], &s.scale[0], &x.SumHi[t], &x.SumLo[t], &x.Inv[t], asInt(add), m)
		}
	}
	s.job = tileJob{}
	s.release()
	return n, tokens
}
