package cpu

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// lineCase is a matrix of lines, and a choice of them.
type lineCase struct {
	lines, n int
	w        []int8 // lines x n
	packed   []byte
	ids      []int32 // count, then what the kernels read ahead
	count    int
}

func newLineCase(r *rand.Rand, lines, n, count int, weight func(*rand.Rand) int8) lineCase {
	c := lineCase{lines: lines, n: n, count: count, w: make([]int8, lines*n), packed: make([]byte, LinesBytes(lines, n))}
	for i := range c.w {
		c.w[i] = weight(r)
	}
	packLines(c.packed, c.w, lines, n)
	c.ids = make([]int32, ceilDiv(count, LineRun)*LineRun+LineRun)
	for i := range c.ids {
		c.ids[i] = int32(r.IntN(lines))
	}
	return c
}

// packLines is the layout's definition.
func packLines(dst []byte, w []int8, lines, n int) {
	for i := range dst {
		dst[i] = 0x55 // weights 0
	}
	for i := range lines {
		for k, v := range w[i*n : (i+1)*n] {
			dst[i*LineBytes(n)+k/BlockCols*4+k%4] ^= (byte(v+1) ^ 1) << (2 * (k / 4 % 4))
		}
	}
}

func (c lineCase) line(id int32) []int8 { return c.w[int(id)*c.n:][:c.n] }

// checkDots holds the products of the chosen lines to the formula.
func (c lineCase) checkDots(t require.TestingT, x []int8) {
	want, xsum := make([]int32, c.count), int32(0)
	for _, v := range x {
		xsum += int32(v)
	}
	for i := range want {
		for k, w := range c.line(c.ids[i]) {
			want[i] += int32(w) * int32(x[k])
		}
	}
	ordered := make([]int8, LineElements(c.n))
	LineOrder(ordered, x, c.n)
	for _, isa := range Supported() {
		onISA(isa, func() {
			dst, untouched := guarded[int32](ceilDiv(c.count, LineRun)*LineRun, -7777)
			TernaryDotLines(dst, c.packed, c.n, c.ids, c.count, ordered, xsum)
			untouched(t, isa)
			require.Equal(t, want, dst[:c.count], isa)
		})
	}
}

// checkSums holds the sum of multiples of the chosen lines to the formula, added up in two runs.
func (c lineCase) checkSums(t require.TestingT, q []int8) {
	want, qsum := make([]int32, c.n), int32(0)
	for i, v := range q[:c.count] {
		qsum += int32(v)
		for k, w := range c.line(c.ids[i]) {
			want[k] += int32(w) * int32(v)
		}
	}
	first := min(c.count, c.count/2/LineRun*LineRun)
	for _, isa := range Supported() {
		onISA(isa, func() {
			size := LineElements(c.n)
			acc, untouched := guarded[int32](2*size, 0)
			TernaryAddLines(acc[:size], c.packed, c.n, c.ids, q, first)
			TernaryAddLines(acc[size:], c.packed, c.n, c.ids[first:], q[first:], c.count-first)
			untouched(t, isa)
			dst, untouched := guarded[int32](c.n, -7777)
			AddInts(acc[:size], acc[size:])
			LineSums(dst, acc[:size], c.n, qsum)
			untouched(t, isa)
			require.Equal(t, want, dst, isa)
		})
	}
}

// checkPanels holds panels made of lines to those of the matrix and of its transpose, and lines made of those to the packed ones.
func (c lineCase) checkPanels(t require.TestingT, p0, p1, c0, c1 int) {
	turned := make([]int8, len(c.w))
	for i := range c.lines {
		for k := range c.n {
			turned[k*c.lines+i] = c.w[i*c.n+k]
		}
	}
	rows, columns := make([]byte, TernaryBytes(c.lines, c.n)), make([]byte, TernaryBytes(c.n, c.lines))
	PackTernary(rows, c.w, c.lines, c.n)
	PackTernary(columns, turned, c.n, c.lines)
	for _, isa := range Supported() {
		onISA(isa, func() {
			dst, untouched := guarded[byte](PanelSpace(p1-p0, c.n), 0xee)
			LinesToPanels(dst, c.packed, c.lines, c.n, p0, p1)
			untouched(t, isa)
			require.Equal(t, rows[p0*panelBytes(c.n):p1*panelBytes(c.n)], dst[:(p1-p0)*panelBytes(c.n)], isa)
			dst, untouched = guarded[byte](PanelSpace(c1-c0, c.lines), 0xee)
			LinesToColumnPanels(dst, c.packed, c.lines, c.n, c0, c1)
			untouched(t, isa)
			require.Equal(t, columns[c0*panelBytes(c.lines):c1*panelBytes(c.lines)], dst[:(c1-c0)*panelBytes(c.lines)], isa)
			dst, untouched = guarded[byte](len(c.packed), 0xee)
			PanelsToLines(dst, rows, c.lines, c.n)
			untouched(t, isa)
			require.Equal(t, c.packed, dst, isa)
			dst, untouched = guarded[byte](len(c.packed), 0xee)
			ColumnPanelsToLines(dst, columns, c.lines, c.n, 0, c0)
			ColumnPanelsToLines(dst, columns[c0*panelBytes(c.lines):], c.lines, c.n, c0, ceilDiv(c.n, PanelRows))
			untouched(t, isa)
			require.Equal(t, c.packed, dst, isa)
		})
	}
}

func randomInts(r *rand.Rand, n int, input func(*rand.Rand) int8) []int8 {
	x := make([]int8, n)
	for i := range x {
		x[i] = input(r)
	}
	return x
}

func TestLinesAreExactOnRaggedShapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		lines, n := rapid.IntRange(1, 90).Draw(t, "lines"), rapid.IntRange(1, 1100).Draw(t, "n")
		c := newLineCase(r, lines, n, rapid.IntRange(0, 40).Draw(t, "count"), ternaryWeights[names(ternaryWeights).Draw(t, "weights")])
		input := ternaryInputs[names(ternaryInputs).Draw(t, "inputs")]
		c.checkDots(t, randomInts(r, n, input))
		q := randomInts(r, ceilDiv(c.count, LineRun)*LineRun, input)
		clear(q[c.count:])
		c.checkSums(t, q)
		p0 := rapid.IntRange(0, ceilDiv(lines, PanelRows)-1).Draw(t, "p0")
		c0 := rapid.IntRange(0, ceilDiv(n, 256)-1).Draw(t, "c0") * 16
		panels := ceilDiv(n, PanelRows)
		c.checkPanels(t, p0, rapid.IntRange(p0+1, ceilDiv(lines, PanelRows)).Draw(t, "p1"), c0, min(panels, c0+16*rapid.IntRange(1, 3).Draw(t, "c1")))
	})
}

// The largest sums: pairs of products of the AVX2 kernels reach exactly -32768.
func TestLinesDoNotOverflowAtTheExtremes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, w := range []string{"plus", "minus"} {
		for _, input := range ternaryInputs {
			newLineCase(r, 32, 6912, 9, ternaryWeights[w]).checkDots(t, randomInts(r, 6912, input))
			q := randomInts(r, 4000, input)
			newLineCase(r, 40, 320, len(q), ternaryWeights[w]).checkSums(t, q)
		}
	}
}

func TestLinesWithoutElementsAreZero(t *testing.T) {
	dst := slices.Repeat([]int32{9}, LineRun)
	TernaryDotLines(dst, nil, 0, make([]int32, 2*LineRun), 3, nil, 0)
	require.Equal(t, []int32{0, 0, 0, 9, 9, 9, 9, 9}, dst)
	TernaryAddLines(nil, nil, 0, make([]int32, 2*LineRun), make([]int8, LineRun), 3)
	TernaryDotLines(nil, nil, 256, nil, 0, make([]int8, 256), 0) // no lines
}

func TestLinesRejectABrokenContract(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	c := newLineCase(r, 32, 256, 5, ternaryWeights["random"])
	x, q, dst, acc := make([]int8, 256), make([]int8, 8), make([]int32, 8), make([]int32, 256)
	beyond := slices.Clone(c.ids)
	beyond[6] = 32
	panels := make([]byte, PanelSpace(2, 256))
	for name, call := range map[string]func(){
		"short dst":           func() { TernaryDotLines(dst[:7], c.packed, 256, c.ids, 5, x, 0) },
		"short ids":           func() { TernaryDotLines(dst, c.packed, 256, c.ids[:11], 5, x, 0) },
		"short x":             func() { TernaryDotLines(dst, c.packed, 256, c.ids, 5, x[:255], 0) },
		"a line beyond":       func() { TernaryDotLines(dst, c.packed, 256, beyond, 5, x, 0) },
		"a negative count":    func() { TernaryDotLines(dst, c.packed, 256, c.ids, -1, x, 0) },
		"short sums":          func() { TernaryAddLines(acc[:255], c.packed, 256, c.ids, q, 5) },
		"short factors":       func() { TernaryAddLines(acc, c.packed, 256, c.ids, q[:7], 5) },
		"too many lines":      func() { TernaryAddLines(acc, c.packed, 256, c.ids, q, MaxLines+1) },
		"sums: short dst":     func() { LineSums(dst, acc, 9, 0) },
		"sums: short":         func() { LineSums(make([]int32, 256), acc[:255], 256, 0) },
		"order: short":        func() { LineOrder(x[:255], x, 1) },
		"panels: short dst":   func() { LinesToPanels(panels[:100], c.packed, 32, 256, 0, 2) },
		"panels: beyond":      func() { LinesToPanels(panels, c.packed, 32, 256, 0, 3) },
		"panels: short lines": func() { LinesToPanels(panels, c.packed[:100], 32, 256, 0, 2) },
		"columns: amid":       func() { LinesToColumnPanels(make([]byte, PanelSpace(16, 32)), c.packed, 32, 256, 1, 2) },
		"back: short":         func() { PanelsToLines(c.packed[:100], make([]byte, TernaryBytes(32, 256)), 32, 256) },
		"back: short panels":  func() { ColumnPanelsToLines(c.packed, panels[:100], 32, 256, 0, 16) },
		"back: amid":          func() { ColumnPanelsToLines(c.packed, panels, 32, 256, 1, 16) },
		"back: a part":        func() { ColumnPanelsToLines(c.packed, panels, 32, 256, 0, 1) },
	} {
		require.Panics(t, call, name)
	}
}

func BenchmarkLines(b *testing.B) {
	const n, lines = 2560, 6912
	r := rand.New(rand.NewPCG(1, 2))
	c := newLineCase(r, lines, n, lines, ternaryWeights["random"])
	for i := range c.ids {
		c.ids[i] = int32(i % lines)
	}
	x, ordered := randomInts(r, n, ternaryInputs["random"]), make([]int8, LineElements(n))
	LineOrder(ordered, x, n)
	q, dst, acc := randomInts(r, lines, ternaryInputs["random"]), make([]int32, lines), make([]int32, LineElements(n))
	space := make([]byte, PanelSpace(16, lines))
	for name, f := range map[string]func(){
		"dot":     func() { TernaryDotLines(dst, c.packed, n, c.ids, lines, ordered, 0) },
		"add":     func() { clear(acc); TernaryAddLines(acc, c.packed, n, c.ids, q, lines) },
		"panels":  func() { LinesToPanels(space, c.packed, lines, n, 0, 16) },
		"columns": func() { LinesToColumnPanels(space, c.packed, lines, n, 0, 16) },
	} {
		for _, isa := range Supported() {
			if isa == AMX {
				continue
			}
			b.Run(name+"/"+isa.String(), func(b *testing.B) {
				weights := lines * n
				switch name {
				case "panels":
					weights = 256 * n
				case "columns":
					weights = 256 * lines
				}
				b.SetBytes(int64(weights / 4))
				onISA(isa, func() {
					for range b.N {
						f()
					}
				})
				b.ReportMetric(float64(weights)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gweights/s")
			})
		}
	}
}

func TestChoicesListWhatTheyAreAskedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, n := source(t), rapid.IntRange(0, 100).Draw(t, "n")
		first := rapid.IntRange(0, 1000).Draw(t, "first")
		x, q := drawFloats(t, r, "x", n), randomInts(r, n, ternaryInputs[names(ternaryInputs).Draw(t, "inputs")])
		var positive, nonzero []int32
		for i := range n {
			if x[i] > 0 || x[i] != x[i] && !math.Signbit(float64(x[i])) {
				positive = append(positive, int32(first+i))
			}
			if q[i] != 0 {
				nonzero = append(nonzero, int32(first+i))
			}
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				ids, untouched := guarded[int32](n+16, -7777)
				require.Equal(t, len(positive), Positive(ids, x, first), isa)
				require.ElementsMatch(t, positive, ids[:len(positive)], isa)
				require.Equal(t, len(nonzero), Nonzero(ids, q, first), isa)
				require.ElementsMatch(t, nonzero, ids[:len(nonzero)], isa)
				untouched(t, isa)
			})
		}
	})
}
