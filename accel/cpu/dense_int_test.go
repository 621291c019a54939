package cpu

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// intCase is a product of an integer matrix; w holds its codes, and scale one number for each row, or for int4 each of its groups.
type intCase struct {
	f                  DenseFormat
	rows, cols, tokens int
	w                  []int
	scale              []float32
	panels             []byte
	x                  Int16Rows
}

// rowScale is what DenseIntMatMul takes as scale.
func (c intCase) rowScale() []float32 {
	if c.f == DenseInt4 {
		return nil
	}
	return c.scale
}

// setScales puts scales of int4 into the panels, bfloat16 in the upper half of each.
func (c intCase) setScales() {
	groups := ceilDiv(c.cols, Int4Group)
	for i, s := range c.scale {
		binary.LittleEndian.PutUint16(c.panels[Int4ScaleOffset(c.cols, i/groups, i%groups*Int4Group):], uint16(math.Float32bits(s)>>16))
	}
}

// intWeights draw a code within -top-1..top.
var intWeights = map[string]func(r *rand.Rand, top int) int{
	"random":   randomCode,
	"top":      func(_ *rand.Rand, top int) int { return top },
	"-top":     func(_ *rand.Rand, top int) int { return -top },
	"lowest":   func(_ *rand.Rand, top int) int { return -top - 1 },
	"zero":     func(*rand.Rand, int) int { return 0 },
	"extremes": func(r *rand.Rand, top int) int { return []int{-top - 1, top}[r.IntN(2)] },
}

func randomCode(r *rand.Rand, top int) int { return r.IntN(2*top+2) - top - 1 }

// newIntCase fills both planes with whatever int8 the input draws, more than QuantizeInt16 would make.
func newIntCase(r *rand.Rand, f DenseFormat, rows, cols, tokens, gap int, weight func(*rand.Rand, int) int, input func(*rand.Rand) int8) intCase {
	c := intCase{f: f, rows: rows, cols: cols, tokens: tokens, w: make([]int, rows*cols), scale: floats(r, "normal", rows)}
	top := 127
	if f == DenseInt4 {
		top = 7
	}
	w := make([]float32, len(c.w))
	for i := range w {
		c.w[i] = weight(r, top)
		w[i] = float32(c.w[i])
	}
	c.panels = packDense(f, w, rows, cols)
	if f == DenseInt4 {
		c.scale = floats(r, "normal", rows*ceilDiv(cols, Int4Group))
		for i, s := range c.scale {
			c.scale[i] = math.Float32frombits(math.Float32bits(s) &^ 0xffff)
		}
		c.setScales()
	}
	stride := ceilDiv(cols, Int16Cols)*Int16Cols + gap
	c.x = Int16Rows{Hi: make([]int8, tokens*stride), Lo: make([]int8, tokens*stride), Stride: stride,
		SumHi: make([]int32, tokens), SumLo: make([]int32, tokens), Inv: floats(r, "positive", tokens)}
	for t := range tokens {
		for k := t * stride; k < t*stride+cols; k++ {
			c.x.Hi[k], c.x.Lo[k] = input(r), input(r)
			c.x.SumHi[t] += int32(c.x.Hi[k])
			c.x.SumLo[t] += int32(c.x.Lo[k])
		}
	}
	if f == DenseInt4 {
		c.x.Eights = eights(c.x, tokens, cols)
	}
	return c
}

func eights(x Int16Rows, tokens, cols int) []int32 {
	e := make([]int32, tokens*x.Groups())
	for t := range tokens {
		for k := range cols {
			e[t*x.Groups()+k/Int4Group] -= 8 * (256*int32(x.Hi[t*x.Stride+k]) + int32(x.Lo[t*x.Stride+k]))
		}
	}
	return e
}

// quantizedRows makes 16-bit rows, cols a multiple of Int16Cols.
func quantizedRows(x []float32, tokens, cols int) Int16Rows {
	q := Int16Rows{Hi: make([]int8, len(x)), Lo: make([]int8, len(x)), Stride: cols,
		SumHi: make([]int32, tokens), SumLo: make([]int32, tokens), Inv: make([]float32, tokens)}
	for t := range tokens {
		row := x[t*cols : (t+1)*cols]
		s := Int16Max / AbsMax(row)
		q.Inv[t] = 1 / s
		q.SumHi[t], q.SumLo[t] = QuantizeInt16(q.Hi[t*cols:], q.Lo[t*cols:], row, s)
	}
	q.Eights = eights(q, tokens, cols)
	return q
}

// want is the formula and the order in DenseIntMatMul's comment.
func (c intCase) want(row, token int) float32 {
	if c.f == DenseInt4 {
		return c.want4(row, token)
	}
	var hi, lo int64
	for k, w := range c.w[row*c.cols : (row+1)*c.cols] {
		hi += int64(w) * int64(c.x.Hi[token*c.x.Stride+k])
		lo += int64(w) * int64(c.x.Lo[token*c.x.Stride+k])
	}
	sum := float32(float32(hi)*256) + float32(lo)
	return float32(sum*c.scale[row]) * c.x.Inv[token]
}

func (c intCase) want4(row, token int) float32 {
	y, groups := float32(0), ceilDiv(c.cols, Int4Group)
	for g := range groups {
		acc := int64(0)
		for k := g * Int4Group; k < min((g+1)*Int4Group, c.cols); k++ {
			at := token*c.x.Stride + k
			acc += int64(c.w[row*c.cols+k]) * (256*int64(c.x.Hi[at]) + int64(c.x.Lo[at]))
		}
		y = FMA(float32(acc), c.scale[row*groups+g], y)
	}
	return y * c.x.Inv[token]
}

func (c intCase) check(t require.TestingT, p0, p1 int) {
	width := PanelRows * (p1 - p0)
	ldd := width + 3
	rows := min(c.rows, PanelRows*p1) - PanelRows*p0 // without the padding
	want := make([][]float32, c.tokens)
	for token := range want {
		want[token] = make([]float32, rows)
		for r := range rows {
			want[token][r] = c.want(PanelRows*p0+r, token)
		}
	}
	for _, isa := range Supported() {
		onISA(isa, func() {
			dst, untouched := guarded[float32]((c.tokens-1)*ldd+width, -7777)
			DenseIntMatMul(dst, ldd, c.f, c.panels, c.rowScale(), c.cols, p0, p1, c.x, c.tokens, false)
			untouched(t, isa)
			for token := range c.tokens {
				sameBits(t, want[token], dst[token*ldd:][:rows], "%v %v: token %d", c.f, isa, token)
				sameBits(t, make([]float32, width-rows), dst[token*ldd+rows:][:width-rows], "%v %v: padding rows", c.f, isa)
				if token < c.tokens-1 {
					require.Equal(t, []float32{-7777, -7777, -7777}, dst[token*ldd+width:(token+1)*ldd], "%v %v: between tokens", c.f, isa)
				}
			}
			sum := floats(rand.New(rand.NewPCG(1, 1)), "normal", len(dst))
			twice := append([]float32(nil), sum...)
			DenseIntMatMul(twice, ldd, c.f, c.panels, c.rowScale(), c.cols, p0, p1, c.x, c.tokens, true)
			for token := range c.tokens {
				for i, y := range dst[token*ldd:][:width] {
					sum[token*ldd+i] += y
				}
			}
			sameBits(t, sum, twice, "%v %v: add", c.f, isa)
		})
	}
}

func TestDenseIntMatMulIsExactOnRaggedShapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom(intFormats).Draw(t, "format")
		rows, cols := rapid.IntRange(1, 200).Draw(t, "rows"), rapid.IntRange(1, 700).Draw(t, "cols")
		tokens := rapid.IntRange(1, max(1, min(100, 600_000/(rows*cols)))).Draw(t, "tokens")
		weight := intWeights[names(intWeights).Draw(t, "weights")]
		input := ternaryInputs[names(ternaryInputs).Draw(t, "inputs")]
		c := newIntCase(source(t), f, rows, cols, tokens, rapid.IntRange(0, 9).Draw(t, "gap"), weight, input)
		panels := ceilDiv(rows, PanelRows)
		p0 := rapid.IntRange(0, panels-1).Draw(t, "p0")
		c.check(t, p0, rapid.IntRange(p0+1, panels).Draw(t, "p1"))
	})
}

func TestDenseIntMatMulForEveryTileOfTokensAndNumberOfBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range intFormats {
		for tokens := 1; tokens <= 32; tokens++ {
			for _, cols := range []int{4, 5, 12, 40, 90, 128, 640} {
				newIntCase(r, f, 40, cols, tokens, 0, randomCode, ternaryInputs["random"]).check(t, 0, 3)
			}
		}
	}
}

// Long sums of many tokens go piece by piece.
func TestDenseIntMatMulOfManyTokensAndColumns(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, cols := range []int{512, 1024, 1100} {
		newIntCase(r, DenseInt8, 40, cols, 83, 8, randomCode, ternaryInputs["random"]).check(t, 0, 3)
	}
}

// The largest sums: the int16 partial sums of the AVX2 int4 kernels reach -30720, and a group's sum may be above 2^24.
func TestDenseIntMatMulDoesNotOverflowAtTheExtremes(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, f := range intFormats {
		for _, weight := range intWeights {
			for _, input := range ternaryInputs {
				for _, tokens := range []int{1, 3} {
					newIntCase(r, f, 17, 1292, tokens, 0, weight, input).check(t, 0, 2)
				}
			}
		}
	}
}

// A product of a row that has the same sign as the activations everywhere is beyond what float32 holds exactly, for one of the planes or for both:
// where planes are joined, panels with such a row are left to others, beside panels without.
func TestDenseIntMatMulOfSumsBeyondFloat32(t *testing.T) {
	const cols = 2564
	r := rand.New(rand.NewPCG(15, 16))
	column := 0
	for name, plane := range map[string]func(hi, lo *int8){
		"both": func(hi, lo *int8) {},
		"hi":   func(hi, lo *int8) { *lo = int8(r.IntN(256) - 128) },
		"lo":   func(hi, lo *int8) { *hi = -int8(r.IntN(3) / 2) }, // takes about as much off as would hide the rounding of that plane
		"lo, by the last columns": func(hi, lo *int8) {
			if *hi = 0; column < cols/2 {
				*lo = 0
			}
		},
		"none": func(hi, lo *int8) { *hi, *lo = int8(r.IntN(255)-127), int8(r.IntN(256)-128) },
		"below 16 bits": func(hi, lo *int8) {
			if *hi, *lo = int8(r.IntN(255)-127), int8(r.IntN(256)-128); r.IntN(50) == 0 {
				*hi, *lo = -128, -1
			}
		},
	} {
		n := 0
		weight := func(r *rand.Rand, top int) int {
			row := n / cols
			n++
			if row%3 == 1 && row/PanelRows%3 != 1 {
				return top - r.IntN(3)
			}
			return randomCode(r, top)
		}
		c := newIntCase(r, DenseInt8, 16*11, cols, 1, 0, weight, func(r *rand.Rand) int8 { return int8(120 + r.IntN(8)) })
		c.x.SumHi[0], c.x.SumLo[0] = 0, 0
		for k := range cols {
			column = k
			plane(&c.x.Hi[k], &c.x.Lo[k])
			c.x.SumHi[0] += int32(c.x.Hi[k])
			c.x.SumLo[0] += int32(c.x.Lo[k])
		}
		t.Run(name, func(t *testing.T) { c.check(t, 0, 11) })
	}
}

func TestDenseIntMatMulOfTheWidestMatrix(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, f := range intFormats {
		for tokens, inputs := range map[int][]string{1: {"top", "127", "-top", "-128"}, 2: {"top", "-128", "-top", "127"}} {
			for i := 0; i < len(inputs); i += 2 {
				newIntCase(r, f, 1, MaxDenseIntCols, tokens, 0, intWeights[inputs[i]], ternaryInputs[inputs[i+1]]).check(t, 0, 1)
			}
		}
	}
}

func TestDenseIntMatMulDoesNotDependOnTheBatch(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, f := range intFormats {
		c := newIntCase(r, f, 32, 515, 9, 0, randomCode, ternaryInputs["random"])
		for _, isa := range Supported() {
			onISA(isa, func() {
				all, alone := make([]float32, 9*32), make([]float32, 32)
				DenseIntMatMul(all, 32, f, c.panels, c.rowScale(), c.cols, 0, 2, c.x, 9, false)
				for i := range 9 {
					DenseIntMatMul(alone, 32, f, c.panels, c.rowScale(), c.cols, 0, 2, c.x.From(i), 1, false)
					sameBits(t, alone, all[i*32:][:32], "%v %v token %d", f, isa, i)
				}
			})
		}
	}
}

// What a plane of NaN and infinite rows becomes is the same everywhere too.
func TestDenseIntMatMulPassesNaNAndInfinityOn(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for _, f := range intFormats {
		c := newIntCase(r, f, 16, 20, 4, 0, randomCode, ternaryInputs["random"])
		c.x.Inv = []float32{float32(math.NaN()), float32(math.Inf(1)), 0, 1}
		c.scale[3], c.scale[4] = float32(math.Inf(-1)), float32(math.NaN())
		if f == DenseInt4 {
			c.setScales()
		}
		c.check(t, 0, 1)
	}
}

func TestDenseIntMatMulWithoutColumnsIsZero(t *testing.T) {
	dst := floats(rand.New(rand.NewPCG(1, 1)), "normal", 16)
	DenseIntMatMul(dst, 16, DenseInt8, nil, nil, 0, 0, 1, Int16Rows{}, 1, false)
	require.Equal(t, make([]float32, 16), dst)
	DenseIntMatMul(nil, 0, DenseInt8, nil, nil, 8, 1, 1, Int16Rows{}, 1, false)
}

func TestQuantizeInt16RoundsHalfToEvenIntoTwoPlanes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		x := drawFloats(t, r, "x", rapid.IntRange(0, 300).Draw(t, "n"))
		s := rapid.SampledFrom([]float32{1, 0.5, Int16Max / 3.5, 1e-3, 1e6}).Draw(t, "s")
		if rapid.Bool().Draw(t, "ties") {
			s = 1
			for i := range x {
				x[i] = float32(r.IntN(132_000)-66_000) / 2
			}
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				hi, untouchedHi := guarded[int8](len(x), 77)
				lo, untouchedLo := guarded[int8](len(x), 77)
				sumHi, sumLo := QuantizeInt16(hi, lo, x, s)
				untouchedHi(t, isa)
				untouchedLo(t, isa)
				for i, v := range x {
					want := math.RoundToEven(float64(v * s))
					switch {
					case math.IsNaN(want) || want < -Int16Max:
						want = -Int16Max
					case want > Int16Max:
						want = Int16Max
					}
					require.Equal(t, int(want), 256*int(hi[i])+int(lo[i]), "%v: %g", isa, v)
					require.NotEqual(t, int8(-128), hi[i])
					sumHi -= int32(hi[i])
					sumLo -= int32(lo[i])
				}
				require.Zero(t, sumHi, isa)
				require.Zero(t, sumLo, isa)
			})
		}
	})
}

// The error of 16-bit activations is far below that of the weights: logits are within a thousandth of the largest one of what
// float activations give, also when one channel is a hundred times larger than the others.
func TestSixteenBitActivationsAreAsGoodAsFloat(t *testing.T) {
	const rows, cols = 512, 2560
	for _, outlier := range []float32{1, 100} {
		r := rand.New(rand.NewPCG(13, 14))
		x := floats(r, "normal", cols)
		x[cols/3] = outlier
		for _, f := range intFormats {
			c := newIntCase(r, f, rows, cols, 1, 0, randomCode, ternaryInputs["zero"])
			c.x = quantizedRows(x, 1, cols)
			got := make([]float32, rows)
			DenseIntMatMul(got, rows, f, c.panels, c.rowScale(), cols, 0, rows/PanelRows, c.x, 1, false)
			worst, largest := 0.0, 0.0
			for row := range rows {
				want := 0.0
				weights := make([]float32, cols)
				DenseRow(weights, f, c.panels, c.rowScale(), cols, row)
				for k, w := range weights {
					want += float64(w) * float64(x[k])
				}
				worst, largest = max(worst, math.Abs(want-float64(got[row]))), max(largest, math.Abs(want))
			}
			t.Logf("%v, outlier %g: off by %.1e of the largest logit", f, outlier, worst/largest)
			require.Less(t, worst, 1e-3*largest, "%v, outlier %g", f, outlier)
		}
	}
}

func TestDenseIntRejectsABrokenContract(t *testing.T) {
	c := newIntCase(rand.New(rand.NewPCG(1, 1)), DenseInt8, 32, 8, 2, 0, randomCode, ternaryInputs["random"])
	c4 := newIntCase(rand.New(rand.NewPCG(1, 1)), DenseInt4, 32, 80, 2, 0, randomCode, ternaryInputs["random"])
	dst := make([]float32, 64)
	with4 := func(eights []int32) func() {
		x := c4.x
		x.Eights = eights
		return func() { DenseIntMatMul(dst, 32, DenseInt4, c4.panels, nil, 80, 0, 2, x, 2, false) }
	}
	with := func(change func(x *Int16Rows)) func() {
		x := c.x
		change(&x)
		return func() { DenseIntMatMul(dst, 32, c.f, c.panels, c.scale, 8, 0, 2, x, 2, false) }
	}
	for name, call := range map[string]func(){
		"float format":     func() { DenseIntMatMul(dst, 32, DenseF32, c.panels, c.scale, 8, 0, 2, c.x, 2, false) },
		"unknown format":   func() { DenseIntMatMul(dst, 32, 9, c.panels, c.scale, 8, 0, 2, c.x, 2, false) },
		"reversed panels":  func() { DenseIntMatMul(dst, 32, c.f, c.panels, c.scale, 8, 2, 1, c.x, 2, false) },
		"too many columns": func() { DenseIntMatMul(dst, 32, c.f, c.panels, c.scale, MaxDenseIntCols+1, 0, 2, c.x, 2, false) },
		"short dst":        func() { DenseIntMatMul(dst[:63], 32, c.f, c.panels, c.scale, 8, 0, 2, c.x, 2, false) },
		"narrow ldd":       func() { DenseIntMatMul(dst, 31, c.f, c.panels, c.scale, 8, 0, 2, c.x, 2, false) },
		"short panels":     func() { DenseIntMatMul(dst, 32, c.f, c.panels[:255], c.scale, 8, 0, 2, c.x, 2, false) },
		"short scale":      func() { DenseIntMatMul(dst, 32, c.f, c.panels, c.scale[:16], 8, 0, 2, c.x, 2, false) },
		"no scale":         func() { DenseIntMatMul(dst, 32, c.f, c.panels, nil, 8, 0, 2, c.x, 2, false) },
		"no eights":        with4(nil),
		"short eights":     with4(c4.x.Eights[:3]),
		"short int4":       func() { DenseIntMatMul(dst, 32, DenseInt4, c4.panels[:1471], nil, 80, 0, 2, c4.x, 2, false) },
		"short hi":         with(func(x *Int16Rows) { x.Hi = x.Hi[:15] }),
		"short lo":         with(func(x *Int16Rows) { x.Lo = x.Lo[:15] }),
		"narrow stride":    with(func(x *Int16Rows) { x.Stride = 7 }),
		"short sumHi":      with(func(x *Int16Rows) { x.SumHi = x.SumHi[:1] }),
		"short sumLo":      with(func(x *Int16Rows) { x.SumLo = x.SumLo[:1] }),
		"short inv":        with(func(x *Int16Rows) { x.Inv = x.Inv[:1] }),
		"quantize: hi":     func() { QuantizeInt16(make([]int8, 1), make([]int8, 2), dst[:2], 1) },
		"quantize: lo":     func() { QuantizeInt16(make([]int8, 2), make([]int8, 1), dst[:2], 1) },
	} {
		require.Panics(t, call, name)
	}
}
