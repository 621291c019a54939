package cpu

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var (
	allFormats   = []DenseFormat{DenseF32, DenseBF16, DenseF16, DenseInt8, DenseInt4}
	floatFormats = []DenseFormat{DenseF32, DenseBF16, DenseF16}
	intFormats   = []DenseFormat{DenseInt8, DenseInt4}
)

// packDense packs row-major weights, before their scale: numbers that the format holds. The scales of int4 are 1.
func packDense(f DenseFormat, w []float32, rows, cols int) []byte {
	panels := bytes.Repeat([]byte{0x55}, DenseBytes(f, rows, cols))
	ClearDense(f, panels, cols)
	for i, v := range w {
		at := panels[DenseOffset(f, cols, i/cols, i%cols):]
		switch f {
		case DenseF32:
			binary.LittleEndian.PutUint32(at, math.Float32bits(v))
		case DenseBF16:
			binary.LittleEndian.PutUint16(at, uint16(math.Float32bits(v)>>16))
		case DenseF16:
			binary.LittleEndian.PutUint16(at, toHalf(v))
		case DenseInt8:
			at[0] = byte(int(v) + 128)
		case DenseInt4:
			shift := 4 * (i % cols / 4 % 2)
			at[0] = at[0]&^(15<<shift) | byte(int(v)+8)<<shift
			binary.LittleEndian.PutUint16(panels[Int4ScaleOffset(cols, i/cols, i%cols):], 0x3f80)
		}
	}
	return panels
}

// toHalf is a float16 near v.
func toHalf(v float32) uint16 {
	var h [1]uint16
	ToHalves(Float16, h[:], []float32{v})
	return h[0]
}

// drawWeights draws weights that a format holds; kind is for the float formats.
func drawWeights(r *rand.Rand, f DenseFormat, kind string, n int) []float32 {
	w := floats(r, kind, n)
	for i, v := range w {
		switch f {
		case DenseBF16:
			w[i] = math.Float32frombits(math.Float32bits(v) &^ 0xffff)
		case DenseF16:
			if w[i] = FromHalf(toHalf(v)); kind == "denormal" { // as float16
				w[i] = FromHalf(uint16(r.Uint32()) & 0x83ff)
			}
		case DenseInt8:
			w[i] = float32(r.IntN(256) - 128)
		case DenseInt4:
			w[i] = float32(r.IntN(16) - 8)
		}
	}
	return w
}

// denseCase is a product on a packed matrix; w holds the weights as float32 before their scale.
type denseCase struct {
	f                  DenseFormat
	rows, cols, tokens int
	w, scale, x        []float32
	panels             []byte
	ldx                int
}

func newDenseCase(r *rand.Rand, f DenseFormat, rows, cols, tokens, gap int, kind string, scaled bool) denseCase {
	c := denseCase{f: f, rows: rows, cols: cols, tokens: tokens, ldx: DenseCols(f, cols) + gap}
	c.w = drawWeights(r, f, kind, rows*cols)
	c.panels = packDense(f, c.w, rows, cols)
	if scaled {
		c.scale = floats(r, "normal", rows)
	}
	rowsX := floats(r, kind, tokens*cols)
	c.x = make([]float32, tokens*c.ldx)
	for t := range tokens {
		copy(c.x[t*c.ldx:], rowsX[t*cols:(t+1)*cols])
	}
	return c
}

// want is the formula and the order in DenseMatMul's comment; the columns of the padding count, as they turn -0 into 0.
func (c denseCase) want(row, token int) float32 {
	var a [4]float32
	for k := range DenseCols(c.f, c.cols) {
		w := float32(0)
		if k < c.cols {
			w = c.w[row*c.cols+k]
		}
		a[k%4] = FMA(w, c.x[token*c.ldx+k], a[k%4])
	}
	s := float32(a[0]+a[1]) + float32(a[2]+a[3])
	if c.scale != nil {
		s *= c.scale[row]
	}
	return s
}

func (c denseCase) check(t require.TestingT, p0, p1 int) {
	width := PanelRows * (p1 - p0)
	ldd := width + 3
	rows := min(c.rows, PanelRows*p1) - PanelRows*p0 // without the padding
	for _, isa := range Supported() {
		onISA(isa, func() {
			dst, untouched := guarded[float32]((c.tokens-1)*ldd+width, -7777)
			DenseMatMul(dst, ldd, c.f, c.panels, c.scale, c.cols, p0, p1, c.x, c.ldx, c.tokens)
			untouched(t, isa)
			for token := range c.tokens {
				want := make([]float32, rows)
				for r := range want {
					want[r] = c.want(PanelRows*p0+r, token)
				}
				sameBits(t, want, dst[token*ldd:][:rows], "%v %v: token %d", c.f, isa, token)
				if token < c.tokens-1 {
					require.Equal(t, []float32{-7777, -7777, -7777}, dst[token*ldd+width:(token+1)*ldd], "%v %v: between tokens", c.f, isa)
				}
			}
		})
	}
}

func TestDenseMatMulGivesTheSameBitsOnEveryISA(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(floatFormats).Draw(t, "format")
		rows, cols := rapid.IntRange(1, 200).Draw(t, "rows"), rapid.IntRange(1, 700).Draw(t, "cols")
		tokens := rapid.IntRange(1, max(1, min(40, 300_000/(rows*cols)))).Draw(t, "tokens")
		kind := rapid.SampledFrom(floatKinds).Draw(t, "kind")
		c := newDenseCase(source(t), f, rows, cols, tokens, rapid.IntRange(0, 9).Draw(t, "gap"), kind, rapid.Bool().Draw(t, "scaled"))
		panels := ceilDiv(rows, PanelRows)
		p0 := rapid.IntRange(0, panels-1).Draw(t, "p0")
		c.check(t, p0, rapid.IntRange(p0+1, panels).Draw(t, "p1"))
	})
}

func TestDenseMatMulForEveryTileOfTokens(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range floatFormats {
		for tokens := 1; tokens <= 20; tokens++ {
			newDenseCase(r, f, 40, 90, tokens, 0, "normal", tokens%2 == 0).check(t, 0, 3)
		}
	}
}

// A token's result is the same alone and among others: the order of the sum is the row's own.
func TestDenseMatMulDoesNotDependOnTheBatch(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, f := range floatFormats {
		c := newDenseCase(r, f, 32, 515, 9, 0, "normal", true)
		for _, isa := range Supported() {
			onISA(isa, func() {
				all, alone := make([]float32, 9*32), make([]float32, 32)
				DenseMatMul(all, 32, f, c.panels, c.scale, c.cols, 0, 2, c.x, c.ldx, 9)
				for i := range 9 {
					DenseMatMul(alone, 32, f, c.panels, c.scale, c.cols, 0, 2, c.x[i*c.ldx:], c.ldx, 1)
					sameBits(t, alone, all[i*32:][:32], "%v %v token %d", f, isa, i)
				}
			})
		}
	}
}

func TestDenseRowIsTheScaledRow(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, f := range allFormats {
		for _, scaled := range []bool{true, false} {
			c := newDenseCase(r, f, 37, 41, 0, 0, "normal", scaled)
			for row := range c.rows {
				want := append([]float32(nil), c.w[row*c.cols:(row+1)*c.cols]...)
				for k := range want {
					if scaled {
						want[k] *= c.scale[row]
					}
				}
				got, untouched := guarded[float32](c.cols, -7777)
				DenseRow(got, f, c.panels, c.scale, c.cols, row)
				untouched(t)
				sameBits(t, want, got, "%v row %d", f, row)
			}
		}
	}
}

func TestDensePaddingRowsGiveZero(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, f := range floatFormats {
		c := newDenseCase(r, f, 3, 50, 2, 0, "normal", true)
		for _, isa := range Supported() {
			onISA(isa, func() {
				dst := floats(r, "normal", 32)
				DenseMatMul(dst, 16, f, c.panels, c.scale, c.cols, 0, 1, c.x, c.ldx, 2)
				require.Equal(t, make([]float32, 13), dst[3:16], "%v %v", f, isa)
			})
		}
	}
}

func TestDenseMatMulWithoutColumnsIsZero(t *testing.T) {
	dst := floats(rand.New(rand.NewPCG(1, 1)), "normal", 16)
	DenseMatMul(dst, 16, DenseF32, nil, nil, 0, 0, 1, nil, 0, 1)
	require.Equal(t, make([]float32, 16), dst)
	DenseMatMul(nil, 0, DenseF32, nil, nil, 8, 1, 1, nil, 0, 1)
}

func TestDenseFormatsHaveNames(t *testing.T) {
	names := ""
	for _, f := range allFormats {
		names += f.String() + " "
	}
	require.Equal(t, "f32 bf16 f16 int8 int4 ", names)
	require.Equal(t, "DenseFormat(9)", DenseFormat(9).String())
	for _, f := range allFormats {
		require.Equal(t, slices.Contains(intFormats, f), f.Integer())
	}
}

// The bytes of each layout, spelled out once: other programs read them from native files.
func TestDenseLayoutsAreThoseOfTheFileFormat(t *testing.T) {
	for f, want := range map[DenseFormat]struct{ row, col, at, bytes, cols int }{
		DenseF32:  {18, 5, 1*8*64 + 5*64 + 4*2, 2 * 8 * 64, 8},
		DenseBF16: {18, 5, 1*4*64 + 2*64 + 4*2 + 2, 2 * 4 * 64, 8},
		DenseF16:  {18, 5, 1*4*64 + 2*64 + 32 + 2*2, 2 * 4 * 64, 8},
		DenseInt8: {18, 6, 1*2*64 + 1*64 + 4*2 + 2, 2 * 2 * 64, 8},
		DenseInt4: {18, 6, 1*2*64 + 64 + 4*2 + 2, 2 * 2 * 64, 8},
	} {
		require.Equal(t, want.at, DenseOffset(f, 7, want.row, want.col), f)
		require.Equal(t, want.bytes, DenseBytes(f, 20, 7), f)
		require.Equal(t, want.cols, DenseCols(f, 7), f)
	}
	require.Equal(t, []int{4, 4, 4, 4, 8}, []int{DenseCols(DenseF32, 1), DenseCols(DenseBF16, 1), DenseCols(DenseF16, 1), DenseCols(DenseInt8, 1), DenseCols(DenseInt4, 1)})

	const cols, panel = 300, (38 + 3) * 64 // blocks of 8 columns behind each block of scales: 16, 16 and 6
	require.Equal(t, 2*panel, DenseBytes(DenseInt4, 20, cols))
	for col, want := range map[int]struct{ weight, scale int }{
		0: {64, 0}, 63: {8 * 64, 0}, 64: {9 * 64, 2}, 127: {16 * 64, 2}, 128: {18 * 64, 17 * 64}, 255: {33 * 64, 17*64 + 2}, 256: {35 * 64, 34 * 64},
	} {
		require.Equal(t, panel+want.weight+4*2+col%4, DenseOffset(DenseInt4, cols, 18, col), col)
		require.Equal(t, panel+want.scale+4*2, Int4ScaleOffset(cols, 18, col), col)
	}
}

// Rows of a matrix in the format's own bits are turned into the layout, padding and absent rows with zeros.
func TestRowsBecomePanelsOfTheLayoutOnEveryISA(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(floatFormats).Draw(t, "format")
		rows, cols := rapid.IntRange(1, PanelRows).Draw(t, "rows"), rapid.IntRange(1, 90).Draw(t, "cols")
		if rapid.Bool().Draw(t, "full") {
			rows = PanelRows
		}
		size := 4 / denseFormats[f].blockCols
		stride := cols*size + rapid.IntRange(0, 9).Draw(t, "gap")
		src := make([]byte, (rows-1)*stride+cols*size)
		r := source(t)
		for i := range src {
			src[i] = byte(r.Uint32())
		}
		want := make([]byte, DenseBytes(f, PanelRows, cols))
		for r := range rows {
			for c := range cols {
				copy(want[DenseOffset(f, cols, r, c):][:size], src[r*stride+c*size:])
			}
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				panel, untouched := guarded[byte](len(want), 0xee)
				PackDenseRows(panel, f, src, stride, rows, cols)
				untouched(t, isa)
				require.Equal(t, want, panel, isa)
			})
		}
	})
}

func TestClearedMatricesAreZero(t *testing.T) {
	const rows, cols = 20, 150
	for _, f := range allFormats {
		panels := bytes.Repeat([]byte{0x7f}, DenseBytes(f, rows, cols))
		ClearDense(f, panels, cols)
		row := make([]float32, cols)
		for r := range rows {
			DenseRow(row, f, panels, nil, cols, r)
			require.Equal(t, make([]float32, cols), row, f)
		}
	}
}

func TestDenseRejectsABrokenContract(t *testing.T) {
	c := newDenseCase(rand.New(rand.NewPCG(1, 1)), DenseBF16, 32, 8, 2, 0, "normal", true)
	dst := make([]float32, 64)
	for name, call := range map[string]func(){
		"unknown format": func() { DenseMatMul(dst, 32, 9, c.panels, nil, 8, 0, 2, c.x, 8, 2) },
		"integer format": func() { DenseMatMul(dst, 32, DenseInt8, c.panels, c.scale, 8, 0, 2, c.x, 8, 2) },
		"short dst":      func() { DenseMatMul(dst[:63], 32, c.f, c.panels, nil, 8, 0, 2, c.x, 8, 2) },
		"short x":        func() { DenseMatMul(dst, 32, c.f, c.panels, nil, 8, 0, 2, c.x[:15], 8, 2) },
		"short panels":   func() { DenseMatMul(dst, 32, c.f, c.panels[:511], nil, 8, 0, 2, c.x, 8, 2) },
		"short scale":    func() { DenseMatMul(dst, 32, c.f, c.panels, c.scale[:16], 8, 0, 2, c.x, 8, 2) },
		"rows: integers": func() { PackDenseRows(c.panels, DenseInt8, make([]byte, 128), 8, 16, 8) },
		"rows: too many": func() { PackDenseRows(c.panels, c.f, make([]byte, 17*16), 16, 17, 8) },
		"rows: short":    func() { PackDenseRows(c.panels, c.f, make([]byte, 255), 16, 16, 8) },
		"rows: panel":    func() { PackDenseRows(c.panels[:255], c.f, make([]byte, 256), 16, 16, 8) },
		"row: format":    func() { DenseRow(dst, 9, c.panels, nil, 8, 0) },
		"row: outside":   func() { DenseRow(dst, c.f, c.panels, nil, 8, 32) },
		"row: scale":     func() { DenseRow(dst, c.f, c.panels, c.scale[:1], 8, 1) },
	} {
		require.Panics(t, call, name)
	}
}
