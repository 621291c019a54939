package cpu

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// beforeFault copies s to the very end of readable memory: reading one element past it ends the process.
func beforeFault[T any](t *testing.T, s []T) []T {
	t.Helper()
	page := unix.Getpagesize()
	size := len(s) * int(unsafe.Sizeof(s[0]))
	room := ceilDiv(size, page) * page
	mem, err := unix.Mmap(-1, 0, room+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Munmap(mem)) })
	require.NoError(t, unix.Mprotect(mem[room:], unix.PROT_NONE))
	c := unsafe.Slice((*T)(unsafe.Pointer(&mem[room-size])), len(s))
	copy(c, s)
	return c
}

func TestNoKernelTouchesMemoryPastItsSlices(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	each := func(f func()) {
		for _, isa := range Supported() {
			onISA(isa, f)
		}
	}
	for tokens := 1; tokens <= 14; tokens++ {
		c := newTernaryCase(r, 40, 48, tokens, 0, ternaryWeights["random"], ternaryInputs["random"])
		dst := beforeFault(t, make([]int32, tokens*48))
		panels, x, xsum := beforeFault(t, c.panels), beforeFault(t, c.x), beforeFault(t, c.xsum)
		each(func() { TernaryMatMul(dst, 48, panels, c.cols, 0, 3, x, c.ldx, xsum, tokens) })
		space := beforeFault(t, make([]byte, PanelSpace(linePanels, c.cols)))
		for _, m := range c.asLines() {
			m.Data = beforeFault(t, m.Data)
			each(func() { TernaryLinesMatMul(dst, 48, m, 0, 3, x, c.ldx, xsum, tokens, space) })
		}
		for _, f := range floatFormats {
			d := newDenseCase(r, f, 40, 8, tokens, 0, "normal", true)
			dst := beforeFault(t, make([]float32, tokens*48))
			panels, scale, x := beforeFault(t, d.panels), beforeFault(t, d.scale), beforeFault(t, d.x)
			each(func() { DenseMatMul(dst, 48, f, panels, scale, d.cols, 0, 3, x, d.ldx, tokens) })
		}
		for _, f := range intFormats {
			for _, cols := range []int{8, 24, 64, 72, 200} {
				d := newIntCase(r, f, 40, cols, tokens, 0, randomCode, ternaryInputs["random"])
				dst := beforeFault(t, make([]float32, tokens*48))
				panels, scale := beforeFault(t, d.panels), beforeFault(t, d.scale)
				x := Int16Rows{Hi: beforeFault(t, d.x.Hi), Lo: beforeFault(t, d.x.Lo), Stride: d.x.Stride,
					SumHi: beforeFault(t, d.x.SumHi), SumLo: beforeFault(t, d.x.SumLo), Inv: beforeFault(t, d.x.Inv)}
				if f == DenseInt4 {
					scale, x.Eights = nil, beforeFault(t, d.x.Eights)
				}
				each(func() { DenseIntMatMul(dst, 48, f, panels, scale, d.cols, 0, 3, x, tokens, false) })
			}
		}
	}
	for _, panels := range []int{2, 5, 7, sides, sides + 1} { // side by side
		c := newTernaryCase(r, panels*PanelRows, 48, 1, 0, ternaryWeights["random"], ternaryInputs["random"])
		dst, w, x := beforeFault(t, make([]int32, panels*PanelRows)), beforeFault(t, c.panels), beforeFault(t, c.x)
		each(func() { eachOrder(func() { TernaryMatMul(dst, len(dst), w, c.cols, 0, panels, x, c.ldx, c.xsum, 1) }) })
		five := newTernaryCase(r, panels*PanelRows, 112, 1, 0, ternaryWeights["random"], ternaryInputs["random"])
		packed, blocks, xf := beforeFault(t, five.inBase3()), beforeFault(t, five.panels), beforeFault(t, five.x)
		each(func() { eachOrder(func() { Base3MatVec(dst, packed, five.cols, 0, panels, xf, five.xsum[0]) }) })
		each(func() { UnpackBase3(blocks, packed, five.cols, 0, panels) })
		for _, f := range intFormats {
			d := newIntCase(r, f, panels*PanelRows, 200, 1, 0, randomCode, ternaryInputs["random"])
			dst, w, scale := beforeFault(t, make([]float32, panels*PanelRows)), beforeFault(t, d.panels), beforeFault(t, d.scale)
			x := Int16Rows{Hi: beforeFault(t, d.x.Hi), Lo: beforeFault(t, d.x.Lo), Stride: d.x.Stride, SumHi: d.x.SumHi, SumLo: d.x.SumLo, Inv: d.x.Inv}
			if f == DenseInt4 {
				scale, x.Eights = nil, beforeFault(t, d.x.Eights)
			}
			each(func() {
				eachOrder(func() { DenseIntMatMul(dst, len(dst), f, w, scale, d.cols, 0, panels, x, 1, false) })
			})
		}
	}
	for n := 1; n <= 40; n++ {
		x, y, w := beforeFault(t, floats(r, "normal", n)), beforeFault(t, make([]float32, n)), beforeFault(t, floats(r, "normal", n))
		q, lo, acc := beforeFault(t, make([]int8, n)), beforeFault(t, make([]int8, n)), beforeFault(t, make([]int32, n))
		each(func() {
			SumSquares(x)
			AbsMax(x)
			MaxF32(x)
			ScaleMul(y, x, w, 2)
			ScaleMul(y, x, nil, 2)
			QuantizeInt8(q, x, 30)
			QuantizeInt16(q, lo, x, 3000)
			Silu(y, x)
			ReLU2(y, x)
			Mul(y, x, w)
			Add(y, x, w)
			DequantRow(y, acc, 2)
			ExpSum(y, 0)
		})
	}
	for n := 1; n <= 9; n++ {
		for _, dim := range []int{16, 48, 64, 80, 128, 208} {
			b, half := beforeFault(t, floats(r, "normal", n*dim)), beforeFault(t, make([]uint16, n*dim))
			for _, high := range []int{3, 4, 13} { // 13: tiles of 6 rows, and of 1
				left, sums := beforeFault(t, floats(r, "normal", high*n)), beforeFault(t, make([]float32, high*dim))
				each(func() {
					AddProduct(sums, dim, left, n, 1, b, dim, high, dim, n, Ahead{})
					AddProduct(sums, dim, left, 1, high, b, dim, high, dim, n, Ahead{})
					for _, f := range halfFormats {
						AddProductHalf(sums, dim, left, n, 1, f, half, dim, high, dim, n, Ahead{})
						ToHalves(f, half, b)
					}
				})
				weights, tops := beforeFault(t, make([]float32, high*dim)), beforeFault(t, make([]float32, high))
				each(func() {
					for _, f := range halfFormats {
						SoftmaxHalf(weights, dim, left, n, 1, f, half, dim, high, dim, n, tops, tops, Ahead{})
					}
				})
				pairs, ints, scale := beforeFault(t, make([]int8, 2*n*dim)), beforeFault(t, make([]int16, high*2*n)), beforeFault(t, make([]float32, high))
				each(func() { AddPairs(sums, dim, ints, 2*n, scale, pairs, 2*dim, high, dim, n, Ahead{}) })
				perKey := beforeFault(t, make([]float32, dim))
				each(func() {
					SoftmaxPairs(weights, dim, ints, 2*n, scale, pairs, 2*dim, high, dim, n, perKey, perKey, scale, scale, 32767, scale, Ahead{})
				})
			}
			each(func() { Dot(b, b) })
			rows, scales := beforeFault(t, make([]int16, n*dim)), beforeFault(t, make([]float32, n))
			each(func() { QuantizeRows(rows, dim, b, dim, n, dim, 32767, scales) })
		}
	}
	for rows := 1; rows <= 17; rows++ {
		for _, cols := range []int{1, 8, 9, 16, 33} {
			x, dst, q := beforeFault(t, floats(r, "normal", rows*cols)), beforeFault(t, make([]float32, rows*cols)), beforeFault(t, make([]int8, rows*cols))
			packed, ternary := beforeFault(t, make([]byte, DenseBytes(DenseInt8, cols, rows))), beforeFault(t, make([]byte, TernaryBytes(cols, rows)))
			each(func() {
				Transpose(dst, rows, x, cols, rows, cols)
				PackInt8Columns(packed, q, cols, rows, cols)
				PackTernaryColumns(ternary, x, cols, rows, cols, 0.5)
			})
			width := ceilDiv(rows, Int16Cols) * Int16Cols
			ints := Int16Rows{Hi: beforeFault(t, make([]int8, width*cols)), Lo: beforeFault(t, make([]int8, width*cols)), Stride: width,
				SumHi: beforeFault(t, make([]int32, cols)), SumLo: beforeFault(t, make([]int32, cols))}
			f, s := beforeFault(t, floats(r, "normal", rows)), beforeFault(t, floats(r, "normal", cols))
			each(func() { QuantizeColumns16(ints, x, cols, rows, cols, f, s) })
		}
	}
}
