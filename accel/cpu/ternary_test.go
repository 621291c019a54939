package cpu

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// ternaryCase is a product with everything that surrounds it.
type ternaryCase struct {
	rows, cols, tokens int
	w                  []int8 // rows x cols
	panels             []byte
	x                  []int8 // tokens x ldx
	ldx                int
	xsum               []int32
}

var ternaryWeights = map[string]func(r *rand.Rand) int8{
	"random": func(r *rand.Rand) int8 { return int8(r.IntN(3) - 1) },
	"zero":   func(*rand.Rand) int8 { return 0 },
	"plus":   func(*rand.Rand) int8 { return 1 },
	"minus":  func(*rand.Rand) int8 { return -1 },
}

var ternaryInputs = map[string]func(r *rand.Rand) int8{
	"random":   func(r *rand.Rand) int8 { return int8(r.IntN(256) - 128) },
	"127":      func(*rand.Rand) int8 { return 127 },
	"-127":     func(*rand.Rand) int8 { return -127 },
	"-128":     func(*rand.Rand) int8 { return -128 },
	"zero":     func(*rand.Rand) int8 { return 0 },
	"extremes": func(r *rand.Rand) int8 { return []int8{-128, -127, 127}[r.IntN(3)] },
}

func newTernaryCase(r *rand.Rand, rows, cols, tokens, gap int, weight, input func(*rand.Rand) int8) ternaryCase {
	c := ternaryCase{rows: rows, cols: cols, tokens: tokens, ldx: ceilDiv(cols, BlockCols)*BlockCols + gap}
	c.w = make([]int8, rows*cols)
	for i := range c.w {
		c.w[i] = weight(r)
	}
	c.panels = make([]byte, TernaryBytes(rows, cols))
	PackTernary(c.panels, c.w, rows, cols)
	c.x, c.xsum = make([]int8, tokens*c.ldx), make([]int32, tokens)
	for t := range tokens {
		for k := range cols {
			v := input(r)
			c.x[t*c.ldx+k] = v
			c.xsum[t] += int32(v)
		}
	}
	return c
}

// want is the formula in TernaryMatMul's comment on the unpacked matrix, with zero rows as padding.
func (c ternaryCase) want(p0, p1 int) []int32 {
	out := make([]int32, c.tokens*PanelRows*(p1-p0))
	for t := range c.tokens {
		for r := PanelRows * p0; r < min(c.rows, PanelRows*p1); r++ {
			s := int32(0)
			for k, w := range c.w[r*c.cols : (r+1)*c.cols] {
				s += int32(w) * int32(c.x[t*c.ldx+k])
			}
			out[t*PanelRows*(p1-p0)+r-PanelRows*p0] = s
		}
	}
	return out
}

// check runs panels p0..p1 on every instruction set, with rows of dst further apart than they are long.
func (c ternaryCase) check(t require.TestingT, p0, p1 int) {
	want := c.want(p0, p1)
	width := PanelRows * (p1 - p0)
	ldd := width + 5
	for _, isa := range Supported() {
		onISA(isa, func() {
			dst, untouched := guarded[int32]((c.tokens-1)*ldd+width, -7777)
			TernaryMatMul(dst, ldd, c.panels, c.cols, p0, p1, c.x, c.ldx, c.xsum, c.tokens)
			untouched(t, isa)
			c.compare(t, want, dst, width, ldd, isa)
		})
	}
}

// compare holds what was written to dst, and what was not, to want.
func (c ternaryCase) compare(t require.TestingT, want, dst []int32, width, ldd int, isa ISA) {
	for i := range c.tokens {
		require.Equal(t, want[i*width:(i+1)*width], dst[i*ldd:i*ldd+width], "%v: token %d", isa, i)
		if i < c.tokens-1 {
			require.Equal(t, []int32{-7777, -7777, -7777, -7777, -7777}, dst[i*ldd+width:(i+1)*ldd], "%v: between tokens", isa)
		}
	}
}

// asLines gives the matrix as lines that are its rows, and as lines that are its columns.
func (c ternaryCase) asLines() [2]TernaryLines {
	rows := TernaryLines{Data: make([]byte, LinesBytes(c.rows, c.cols)), Rows: c.rows, Cols: c.cols}
	PanelsToLines(rows.Data, c.panels, c.rows, c.cols)
	columns := TernaryLines{Data: make([]byte, LinesBytes(c.cols, c.rows)), Rows: c.rows, Cols: c.cols, Columns: true}
	ColumnPanelsToLines(columns.Data, c.panels, c.cols, c.rows, 0, ceilDiv(c.rows, PanelRows))
	return [2]TernaryLines{rows, columns}
}

// checkLines is check for the matrix in lines.
func (c ternaryCase) checkLines(t require.TestingT, p0, p1 int) {
	want := c.want(p0, p1)
	width := PanelRows * (p1 - p0)
	ldd := width + 5
	for _, m := range c.asLines() {
		for _, isa := range Supported() {
			onISA(isa, func() {
				dst, untouched := guarded[int32]((c.tokens-1)*ldd+width, -7777)
				space, untouchedSpace := guarded[byte](LinesSpace(c.cols), 0xee)
				TernaryLinesMatMul(dst, ldd, m, p0, p1, c.x, c.ldx, c.xsum, c.tokens, space)
				untouched(t, isa)
				untouchedSpace(t, isa)
				c.compare(t, want, dst, width, ldd, isa)
			})
		}
	}
}

// checkColumns holds what is added up of runs of columns to the product of the whole matrix.
func (c ternaryCase) checkColumns(t require.TestingT) {
	panels := ceilDiv(c.rows, PanelRows)
	want, m := c.want(0, panels), c.asLines()[1]
	middle := c.cols / 2 / ColumnUnit * ColumnUnit
	for _, isa := range Supported() {
		onISA(isa, func() {
			if !ReadsLines() {
				return
			}
			ldd := ColumnSpace(c.rows)
			acc, untouched := guarded[int32](c.tokens*ldd, 0)
			TernaryAddColumns(acc, ldd, m.Data, c.cols, c.rows, middle, c.cols, c.x, c.ldx, c.tokens)
			TernaryAddColumns(acc, ldd, m.Data, c.cols, c.rows, 0, middle, c.x, c.ldx, c.tokens)
			untouched(t, isa)
			for i, sum := range c.xsum {
				dst := make([]int32, c.rows)
				SubInt(dst, acc[i*ldd:], sum)
				require.Equal(t, want[i*panels*PanelRows:][:c.rows], dst, "%v: token %d", isa, i)
			}
		})
	}
}

func names[T any](m map[string]T) *rapid.Generator[string] {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m)))
}

func TestTernaryMatMulIsExactOnRaggedShapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(1, 200).Draw(t, "rows"), rapid.IntRange(1, 700).Draw(t, "cols")
		tokens := rapid.IntRange(1, max(1, min(100, 1_200_000/(rows*cols)))).Draw(t, "tokens")
		weight := ternaryWeights[names(ternaryWeights).Draw(t, "weights")]
		input := ternaryInputs[names(ternaryInputs).Draw(t, "inputs")]
		c := newTernaryCase(source(t), rows, cols, tokens, rapid.IntRange(0, 20).Draw(t, "gap"), weight, input)
		panels := ceilDiv(rows, PanelRows)
		p0 := rapid.IntRange(0, panels-1).Draw(t, "p0")
		p1 := rapid.IntRange(p0+1, panels).Draw(t, "p1")
		c.check(t, p0, p1)
		c.checkLines(t, p0, p1)
		c.checkColumns(t)
	})
}

func TestTernaryMatMulIsExactForEveryTileOfTokensAndPanels(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for tokens := 1; tokens <= 40; tokens++ {
		panels := 1 + tokens%7
		c := newTernaryCase(r, 16*panels-3, 264, tokens, 0, ternaryWeights["random"], ternaryInputs["random"])
		c.check(t, 0, panels)
		c.checkLines(t, 0, panels)
		c.checkColumns(t)
	}
}

// Columns that fill tiles, for one tile's worth of tokens: codes become bytes between the tiles.
func TestTernaryMatMulIsExactForWholeRowsOfTiles(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	for _, cols := range []int{64, 250, 640, 2560} {
		for _, tokens := range []int{8, 11, 15, 16, 17} {
			panels := 3 + r.IntN(20)
			c := newTernaryCase(r, 16*panels-5, cols, tokens, 3, ternaryWeights["random"], ternaryInputs["extremes"])
			c.check(t, panels/3, panels)
			c.checkLines(t, panels/3, panels)
			c.checkColumns(t)
		}
	}
}

// Long sums go piece by piece, and wide matrices window by window.
func TestTernaryMatMulIsExactInPiecesAndWindows(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, shape := range [][2]int{{520, 300}, {35, 2100}, {260, 1040}} {
		for _, tokens := range []int{2, 17, 33, 70} {
			c := newTernaryCase(r, shape[0], shape[1], tokens, 3, ternaryWeights["random"], ternaryInputs["extremes"])
			panels := ceilDiv(shape[0], PanelRows)
			c.check(t, panels/3, panels)
			c.checkLines(t, panels/3, panels)
			c.checkColumns(t)
		}
	}
}

func TestTernaryMatMulIsExactForShapesThatDoNotDivide(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, shape := range [][2]int{{88, 264}, {24, 512}, {1, 1}, {16, 16}, {17, 17}, {200, 700}, {640, 2560}} {
		for _, tokens := range []int{1, 3} {
			c := newTernaryCase(r, shape[0], shape[1], tokens, 0, ternaryWeights["random"], ternaryInputs["random"])
			c.check(t, 0, ceilDiv(shape[0], PanelRows))
		}
	}
}

// The largest sums: int16 partial sums of the AVX2 kernels reach exactly -32768.
func TestTernaryMatMulDoesNotOverflowAtTheExtremes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, w := range []string{"plus", "minus", "zero"} {
		for _, input := range ternaryInputs {
			for _, tokens := range []int{1, 2, 3, 4, 13} {
				c := newTernaryCase(r, 33, 6912, tokens, 0, ternaryWeights[w], input)
				c.check(t, 0, 3)
			}
			newTernaryCase(r, 33, 6912, 27, 0, ternaryWeights[w], input).checkLines(t, 0, 3)
		}
	}
}

func TestTernaryMatMulOfTheWidestMatrix(t *testing.T) {
	c := newTernaryCase(nil, 16, MaxTernaryCols, 1, 0, ternaryWeights["plus"], ternaryInputs["-128"])
	c.check(t, 0, 1)
	c = newTernaryCase(nil, 16, MaxTernaryCols, 2, 0, ternaryWeights["plus"], ternaryInputs["127"])
	c.check(t, 0, 1)
}

func TestTernaryMatMulWithoutColumnsIsZero(t *testing.T) {
	dst := []int32{9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9}
	TernaryMatMul(dst, 16, nil, 0, 0, 1, nil, 0, []int32{0}, 1)
	require.Equal(t, append(make([]int32, 16), 9), dst)
	dst = []int32{9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9}
	TernaryLinesMatMul(dst, 16, TernaryLines{Rows: 3, Data: make([]byte, LinesBytes(3, 0))}, 0, 1, nil, 0, []int32{0}, 1, make([]byte, LinesSpace(0)))
	require.Equal(t, append(make([]int32, 16), 9), dst)
	TernaryMatMul(nil, 0, nil, 16, 0, 0, nil, 0, nil, 1) // no panels
	TernaryMatMul(nil, 0, nil, 16, 0, 1, nil, 0, nil, 0) // no tokens
}

func TestUnpackTernaryReversesPackTernary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(1, 70).Draw(t, "rows"), rapid.IntRange(1, 70).Draw(t, "cols")
		c := newTernaryCase(source(t), rows, cols, 0, 0, ternaryWeights["random"], nil)
		back := make([]int8, rows*cols)
		UnpackTernary(back, c.panels, rows, cols)
		require.Equal(t, c.w, back)
		for r := range rows {
			row, untouched := guarded[int8](cols, -77)
			TernaryRow(row, c.panels, cols, r)
			untouched(t)
			require.Equal(t, c.w[r*cols:(r+1)*cols], row)
		}
		for r := range ceilDiv(rows, PanelRows) * PanelRows { // padding is weight 0
			for k := range ceilDiv(cols, BlockCols) * BlockCols {
				b := c.panels[r/PanelRows*panelBytes(cols)+k/BlockCols*BlockBytes+4*(r%PanelRows)+k%4]
				code := b >> (2 * (k / 4 % 4)) & 3
				if r >= rows || k >= cols {
					require.Equal(t, byte(1), code)
				} else {
					require.Equal(t, c.w[r*cols+k]+1, int8(code))
				}
			}
		}
	})
}

func TestPackTernaryFindsEveryNumberThatIsNoWeight(t *testing.T) {
	const rows, cols = 17, 19
	for v := -128; v < 128; v++ {
		for _, at := range []int{0, 7, 15, 16, 18, 16*cols + 3, rows*cols - 1} {
			w := make([]int8, rows*cols)
			w[at] = int8(v)
			pack := func() { PackTernary(make([]byte, TernaryBytes(rows, cols)), w, rows, cols) }
			if v < -1 || v > 1 {
				require.PanicsWithValue(t, fmt.Sprintf("cpu: PackTernary: w[%d,%d] = %d, want -1, 0 or 1", at/cols, at%cols, v), pack)
			} else {
				require.NotPanics(t, pack)
			}
		}
	}
}

func TestTernaryRejectsABrokenContract(t *testing.T) {
	panels, x, xsum, dst := make([]byte, TernaryBytes(32, 32)), make([]int8, 64), make([]int32, 2), make([]int32, 64)
	m := TernaryLines{Data: make([]byte, LinesBytes(32, 32)), Rows: 32, Cols: 32}
	space := make([]byte, PanelSpace(linePanels, 32))
	with := func(change func(m *TernaryLines)) TernaryLines { c := m; change(&c); return c }
	for name, call := range map[string]func(){
		"lines: short data": func() {
			TernaryLinesMatMul(dst, 32, with(func(m *TernaryLines) { m.Data = m.Data[1:] }), 0, 2, x, 32, xsum, 2, space)
		},
		"lines: beyond":       func() { TernaryLinesMatMul(dst, 48, m, 0, 3, x, 32, xsum, 1, space) },
		"lines: short dst":    func() { TernaryLinesMatMul(dst[:31], 32, m, 0, 2, x, 32, xsum, 1, space) },
		"lines: short x":      func() { TernaryLinesMatMul(dst, 32, m, 0, 2, x[:63], 32, xsum, 2, space) },
		"lines: short xsum":   func() { TernaryLinesMatMul(dst, 32, m, 0, 2, x, 32, xsum[:1], 2, space) },
		"columns: amid":       func() { TernaryAddColumns(dst, 256, m.Data, 32, 32, 16, 32, x, 32, 1) },
		"columns: beyond":     func() { TernaryAddColumns(make([]int32, 256), 256, m.Data, 32, 32, 0, 33, x, 32, 1) },
		"columns: short sums": func() { TernaryAddColumns(dst, 256, m.Data, 32, 32, 0, 32, x, 32, 1) },
		"lines: short space":  func() { onISA(Scalar, func() { TernaryLinesMatMul(dst, 32, m, 0, 2, x, 32, xsum, 2, space[1:]) }) },
		"short dst":           func() { TernaryMatMul(dst[:31], 32, panels, 32, 0, 2, x, 32, xsum, 1) },
		"narrow ldd":          func() { TernaryMatMul(dst, 31, panels, 32, 0, 2, x, 32, xsum, 2) },
		"short x":             func() { TernaryMatMul(dst, 32, panels, 32, 0, 2, x[:63], 32, xsum, 2) },
		"narrow ldx":          func() { TernaryMatMul(dst, 32, panels, 32, 0, 2, x, 31, xsum, 2) },
		"short xsum":          func() { TernaryMatMul(dst, 32, panels, 32, 0, 2, x, 32, xsum[:1], 2) },
		"short panels":        func() { TernaryMatMul(dst, 32, panels, 32, 0, 3, x, 32, xsum, 1) },
		"reversed panels":     func() { TernaryMatMul(dst, 32, panels, 32, 2, 1, x, 32, xsum, 1) },
		"too many columns":    func() { TernaryMatMul(dst, 32, panels, MaxTernaryCols+1, 0, 1, x, 32, xsum, 1) },
		"weight 2":            func() { PackTernary(panels, []int8{2}, 1, 1) },
		"pack: short dst":     func() { PackTernary(panels[:63], []int8{1}, 1, 1) },
		"pack: short w":       func() { PackTernary(panels, []int8{1}, 1, 2) },
		"unpack: short":       func() { UnpackTernary(make([]int8, 1), panels, 1, 2) },
		"row: short":          func() { TernaryRow(make([]int8, 31), panels, 32, 0) },
		"row: outside":        func() { TernaryRow(make([]int8, 32), panels, 32, 32) },
		"row: negative":       func() { TernaryRow(make([]int8, 32), panels, 32, -1) },
	} {
		require.Panics(t, call, name)
	}
}
