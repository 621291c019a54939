package quant

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// raggedShape draws shapes around the layout's corners: 1 to 3 panels, 1 to
// a few blocks, and the awkward ones of real checkpoints.
func raggedShape(t *rapid.T) (rows, cols int) {
	special := [][2]int{{88, 264}, {24, 40}, {4, 1}, {16, 16}, {1, 1}, {64, 17}, {128, 48}, {20, 100}}
	if rapid.Bool().Draw(t, "special") {
		s := rapid.SampledFrom(special).Draw(t, "shape")
		return s[0], s[1]
	}
	return rapid.IntRange(1, 40).Draw(t, "rows"), rapid.IntRange(1, 70).Draw(t, "cols")
}

func drawCodes(t *rapid.T, n int) []int8 {
	return rapid.SliceOfN(rapid.Int8Range(-1, 1), n, n).Draw(t, "codes")
}

// packHFSlowly is the layout's definition, byte by byte.
func packHFSlowly(codes []int8, rows, cols int) []byte {
	out := make([]byte, rows/4*cols)
	for i, v := range codes {
		r, c := i/cols, i%cols
		out[r%(rows/4)*cols+c] |= byte(v+1) << (2 * (r / (rows / 4)))
	}
	return out
}

func TestPackedWeightsRoundTripOverRaggedShapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := raggedShape(t)
		rows = (rows + 3) / 4 * 4
		codes := drawCodes(t, rows*cols)
		want, err := NewTernary(codes, 0.5, rows, cols)
		require.NoError(t, err)
		require.Equal(t, codes, want.Codes(nil))
		require.Equal(t, cpu.TernaryBytes(rows, cols), want.Bytes())

		packed := packHFSlowly(codes, rows, cols)
		panels := make([]byte, len(want.Data))
		require.NoError(t, PackHF(panels, packed, rows, cols))
		require.Equal(t, want.Data, panels)
		back := make([]byte, len(packed))
		require.NoError(t, ToHF(back, panels, rows, cols))
		require.Equal(t, packed, back)
		unpacked := make([]int8, rows*cols)
		require.NoError(t, UnpackHF(unpacked, packed, rows, cols))
		require.Equal(t, codes, unpacked)
		for i, v := range want.Dequantize(nil) {
			require.Equal(t, float32(codes[i])*0.5, v)
		}
	})
}

func TestRowsAreReadInAnyOrderFromEveryLayout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(1, 600).Draw(t, "rows"), rapid.IntRange(1, 300).Draw(t, "cols")
		layout := rapid.SampledFrom([]Layout{Panel16, RowLines, ColumnLines, Base3}).Draw(t, "layout")
		seed := rapid.Uint64().Draw(t, "seed")
		codes, random := make([]int8, rows*cols), rand.New(rand.NewPCG(seed, 1))
		for i := range codes {
			codes[i] = int8(random.IntN(3) - 1)
		}
		panels, err := NewTernary(codes, 1, rows, cols)
		require.NoError(t, err)
		w := Ternary{Rows: rows, Cols: cols, Layout: layout, Data: make([]byte, layout.Bytes(rows, cols))}
		w.FromPanels(panels.Data)
		read, row := w.RowReader(), make([]int8, cols)
		for range 20 {
			r := rapid.IntRange(0, rows-1).Draw(t, "row")
			read(row, r)
			require.Equal(t, codes[r*cols:(r+1)*cols], row)
		}
	})
}

func TestACode3IsReportedWithItsPosition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := raggedShape(t)
		rows = (rows + 3) / 4 * 4
		packed := packHFSlowly(drawCodes(t, rows*cols), rows, cols)
		r, c := rapid.IntRange(0, rows-1).Draw(t, "r"), rapid.IntRange(0, cols-1).Draw(t, "c")
		packed[r%(rows/4)*cols+c] |= 3 << (2 * (r / (rows / 4)))
		err := PackHF(make([]byte, cpu.TernaryBytes(rows, cols)), packed, rows, cols)
		require.ErrorIs(t, err, ErrCode)
		var value *ValueError
		require.ErrorAs(t, err, &value)
		require.Equal(t, [2]int{r, c}, [2]int{value.Row, value.Col})
	})
}

// Whatever the pieces, what is counted is what PackHF packs, and what it refuses is refused in its words.
func TestCountingPieceByPieceIsWhatPackingFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := raggedShape(t)
		rows = (rows + 3) / 4 * 4
		if rapid.Bool().Draw(t, "whole panels in a quarter") {
			rows = (rows + 63) / 64 * 64
		}
		codes := drawCodes(t, rows*cols)
		packed := packHFSlowly(codes, rows, cols)
		for range rapid.IntRange(0, 3).Draw(t, "codes 3") {
			packed[rapid.IntRange(0, len(packed)-1).Draw(t, "at")] |= 3 << (2 * rapid.IntRange(0, 3).Draw(t, "quarter"))
		}
		counter, err := NewHFCount(len(packed), rows, cols)
		require.NoError(t, err)
		for rest := packed; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			counter.Add(rest[:n])
			rest = rest[n:]
		}
		n, err := counter.Counts()
		if refused := PackHF(make([]byte, cpu.TernaryBytes(rows, cols)), packed, rows, cols); refused != nil {
			require.EqualError(t, err, refused.Error())
			return
		}
		require.NoError(t, err)
		var want [3]int
		for _, code := range codes {
			want[code+1]++
		}
		require.Equal(t, want, n)
	})
}

func TestPackedWeightsOfAnImpossibleShapeAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ rows, cols, packed, panels int }{
		"rows are no multiple of four": {6, 16, 16, 64},
		"no rows":                      {0, 16, 0, 0},
		"negative rows":                {-4, 16, 0, 0},
		"no columns":                   {4, 0, 0, 0},
		"too many columns":             {4, cpu.MaxTernaryCols + 1, cpu.MaxTernaryCols + 1, 0},
		"packed bytes too few":         {4, 16, 15, 64},
		"packed bytes too many":        {4, 16, 17, 64},
		"panels too short":             {4, 16, 16, 63},
	} {
		require.ErrorIs(t, PackHF(make([]byte, c.panels), make([]byte, c.packed), c.rows, c.cols), ErrShape, name)
		require.ErrorIs(t, ToHF(make([]byte, c.packed), make([]byte, c.panels), c.rows, c.cols), ErrShape, name)
		require.ErrorIs(t, UnpackHF(nil, make([]byte, c.packed), c.rows, c.cols), ErrShape, name)
		if _, err := NewHFCount(c.packed, c.rows, c.cols); name != "panels too short" {
			require.ErrorIs(t, err, ErrShape, name)
		}
	}
	require.ErrorIs(t, PackHF(make([]byte, 64), make([]byte, 16), 6, 16), ErrShape)
	_, err := NewTernary(make([]int8, 3), 1, 2, 2)
	require.ErrorIs(t, err, ErrShape)
	_, err = NewTernary(nil, 1, 0, 2)
	require.ErrorIs(t, err, ErrShape)
	_, err = NewTernary([]int8{0, 1, 2, 0}, 1, 2, 2)
	require.ErrorIs(t, err, ErrCode)
	require.EqualError(t, err, "quant: code is not ternary: row 1, column 0: found 2, expected -1, 0 or 1")
}

// roundSlowly is clamp(roundHalfEven(w/m), -1, 1) by the division it stands for.
func roundSlowly(w, m float32) int8 {
	return int8(max(-1, min(1, math.RoundToEven(float64(w/m)))))
}

func TestTheComparisonIsTheRoundedDivision(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.Float32Range(1e-5, 1e4).Draw(t, "m")
		half := m / 2
		w := rapid.Float32Range(-3*m, 3*m).Draw(t, "w")
		near := math.Float32frombits(math.Float32bits(half) + uint32(rapid.IntRange(-3, 3).Draw(t, "ulps")))
		for _, v := range []float32{w, near, -near, 0, half, -half} {
			require.Equal(t, roundSlowly(v, m), ternary(v, half), "w %g, m %g", v, m)
		}
	})
}

// encode renders weights in a source dtype, and gives back what the bytes mean.
func encode(dtype string, w []float32) (src []byte, exact []float32) {
	for _, v := range w {
		switch dtype {
		case F32:
			src = binary.LittleEndian.AppendUint32(src, math.Float32bits(v))
		case BF16:
			src = binary.LittleEndian.AppendUint16(src, bfloat16(v))
		case F16:
			src = binary.LittleEndian.AppendUint16(src, float16(v))
		}
	}
	exact = make([]float32, len(w))
	decode(exact, dtype, src)
	return src, exact
}

// float16 truncates to half precision; values are small enough not to overflow.
func float16(v float32) uint16 {
	bits := math.Float32bits(v)
	scaled := math.Float32bits(float32(math.Abs(float64(v))) * 0x1p-112)
	return uint16(bits>>16&0x8000) | uint16(scaled>>13)
}

func TestMasterWeightsOfEveryDTypeQuantizeLikeTheirFloats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := raggedShape(t)
		w := rapid.SliceOfN(rapid.Float32Range(-2, 2), rows*cols, rows*cols).Draw(t, "w")
		for _, dtype := range []string{F32, F16, BF16} {
			src, exact := encode(dtype, w)
			want := make([]int8, len(w))
			scale := AbsMeanTernary(want, exact)
			panels := make([]byte, cpu.TernaryBytes(rows, cols))
			got, err := map[string]func([]byte, []byte, int, int) (float32, error){F32: TernarizeF32, F16: TernarizeF16, BF16: TernarizeBF16}[dtype](panels, src, rows, cols)
			require.NoError(t, err)
			require.Equal(t, scale, got)
			direct, err := NewTernary(want, scale, rows, cols)
			require.NoError(t, err)
			require.Equal(t, direct.Data, panels, dtype)
		}
	})
}

func TestTiesAtHalfTheScaleRoundToZeroInEveryDType(t *testing.T) {
	// mean|w| = 1: 0.5 is a tie and becomes 0, the next value up becomes 1.
	for dtype, ulp := range map[string]float32{F32: 0x1p-24, F16: 0x1p-11, BF16: 0x1p-8} {
		w := []float32{0.5, -0.5, 0.5 + ulp, -0.5 - ulp, 1.5, -1.5, 1.5 - 2*ulp, -1.5}
		src, exact := encode(dtype, w)
		require.Equal(t, w, exact)
		panels := make([]byte, cpu.TernaryBytes(2, 4))
		scale, err := Ternarize(panels, dtype, src, 2, 4)
		require.NoError(t, err)
		require.Equal(t, float32(1), scale)
		require.Equal(t, []int8{0, 0, 1, -1, 1, -1, 1, -1}, (&Ternary{Rows: 2, Cols: 4, Data: panels}).Codes(nil))
	}
}

func TestTheScaleIsTheMeanOfMagnitudesOverManyBlocks(t *testing.T) {
	const rows, cols = 31, 9001 // several sum blocks, the last one ragged
	w := make([]float32, rows*cols)
	exact := new(big.Float).SetPrec(200)
	for i := range w {
		w[i] = float32(math.Sin(float64(i))) * 0.03
		exact.Add(exact, big.NewFloat(math.Abs(float64(w[i]))))
	}
	mean, _ := exact.Quo(exact, big.NewFloat(rows*cols)).Float32()
	src, _ := encode(F32, w)
	for _, threads := range []int{1, 3} {
		before := cpu.NumThreads()
		require.NoError(t, cpu.SetNumThreads(threads))
		scale, err := TernarizeF32(make([]byte, cpu.TernaryBytes(rows, cols)), src, rows, cols)
		require.NoError(t, err)
		require.Equal(t, mean, scale)
		require.NoError(t, cpu.SetNumThreads(before))
	}
}

func TestTheScaleHasAFloor(t *testing.T) {
	require.Equal(t, float32(1e-5), AbsMeanTernary(make([]int8, 2), []float32{0, 0}))
	codes := make([]int8, 2)
	require.Equal(t, float32(1e-5), AbsMeanTernary(codes, []float32{1e-6, -6e-6}))
	require.Equal(t, []int8{0, -1}, codes)
	panels := make([]byte, cpu.TernaryBytes(1, 2))
	scale, err := Ternarize(panels, F16, []byte{1, 0, 0, 0x80}, 1, 2) // the smallest subnormal, -0
	require.NoError(t, err)
	require.Equal(t, float32(1e-5), scale)
	require.Equal(t, []int8{0, 0}, (&Ternary{Rows: 1, Cols: 2, Data: panels}).Codes(nil))
}

func TestNaNAndInfinityAmongMasterWeightsAreReportedWithTheirPosition(t *testing.T) {
	const rows, cols = 40, 3000
	for _, dtype := range []string{F32, F16, BF16} {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1))} {
			src, _ := encode(dtype, make([]float32, rows*cols))
			size := len(src) / (rows * cols)
			for _, at := range []int{7, 39*cols + 2998, 20*cols + 5} { // the report is about the first
				high := uint16(math.Float32bits(bad) >> 16)
				if dtype == F16 {
					high = high&0x8000 | 0x7c00 | high&0x40
				}
				binary.LittleEndian.PutUint16(src[(at+1)*size-2:], high)
			}
			_, err := Ternarize(make([]byte, cpu.TernaryBytes(rows, cols)), dtype, src, rows, cols)
			require.ErrorIs(t, err, ErrNotFinite)
			require.ErrorContains(t, err, "row 0, column 7")
			_, err = NewDense(cpu.DenseInt8, dtype, src, rows, cols)
			require.ErrorIs(t, err, ErrNotFinite)
			require.ErrorContains(t, err, "row 0, column 7")
		}
	}
}

func TestMasterWeightsOfAnImpossibleShapeOrDTypeAreRefused(t *testing.T) {
	_, err := Ternarize(make([]byte, 64), F32, make([]byte, 15), 2, 2)
	require.ErrorIs(t, err, ErrShape)
	_, err = Ternarize(make([]byte, 63), F32, make([]byte, 16), 2, 2)
	require.ErrorIs(t, err, ErrShape)
	_, err = Ternarize(nil, F32, nil, 0, 2)
	require.ErrorIs(t, err, ErrShape)
	_, err = Ternarize(make([]byte, 64), "I8", make([]byte, 4), 2, 2)
	require.ErrorIs(t, err, ErrDType)
}

func TestHalfPrecisionDecodesExactlyOverAllValues(t *testing.T) {
	for h := range 1 << 16 {
		mantissa, exponent := float64(h&0x3ff), h>>10&31
		want := math.Ldexp(mantissa, -24)
		switch {
		case exponent == 31 && mantissa != 0:
			require.True(t, math.IsNaN(float64(cpu.FromHalf(uint16(h)))))
			continue
		case exponent == 31:
			want = math.Inf(1)
		case exponent > 0:
			want = math.Ldexp(mantissa+1024, exponent-25)
		}
		if h&0x8000 != 0 {
			want = -want
		}
		if got := cpu.FromHalf(uint16(h)); float64(got) != want {
			t.Fatalf("half %#04x: found %g, expected %g", h, got, want)
		}
	}
}

func TestActivationsQuantizePerTokenAndPadWithZeros(t *testing.T) {
	const tokens, dim = 3, 5
	stride := ActivationStride(dim)
	require.Equal(t, 16, stride)
	q := make([]int8, tokens*stride)
	for i := range q {
		q[i] = 99
	}
	scale, sum := make([]float32, tokens), make([]int32, tokens)
	x := []float32{1, -1, 0.5, 0, 0.25, 0, 0, 0, 0, 0, -254, 127, 1, 3, 5}
	QuantizeActivations(q, scale, sum, x, tokens, dim)
	require.Equal(t, []float32{127, 127 / float32(1e-5), 0.5}, scale)
	require.Equal(t, []int8{127, -127, 64, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, q[:stride]) // 63.5 is a tie: 64 is even
	require.Equal(t, make([]int8, stride), q[stride:2*stride])
	require.Equal(t, []int8{-127, 64, 0, 2, 2}, q[2*stride:2*stride+dim])
	require.Equal(t, []int32{96, 0, -59}, sum)
	require.Panics(t, func() { QuantizeActivations(q, scale, sum, x, tokens+1, dim) })
}

func TestSixteenBitActivationsTakeARowsLargestValueToTheEnd(t *testing.T) {
	const dim, padded, stride = 5, 16, 19
	require.Equal(t, padded, Activation16Stride(dim))
	x := []float32{1, -1, 0.5, 0, 1.0 / 65024, 0, 0, 0, 0, 0, -65024, 32512, 257, 1, 3, 2e-30, -1e-30, 0, 0, 0, 1e-38, 0, 0, 0, 0}
	const tokens = 5
	q := cpu.Int16Rows{Hi: make([]int8, tokens*stride), Lo: make([]int8, tokens*stride), Stride: stride,
		SumHi: make([]int32, tokens), SumLo: make([]int32, tokens), Inv: make([]float32, tokens)}
	for i := range q.Hi {
		q.Hi[i], q.Lo[i] = 99, 99
	}
	QuantizeActivations16(q, x, tokens, dim)
	for token, want := range [tokens][dim]int{
		{32512, -32512, 16256, 0, 0}, // half a step is a tie: 0 is even
		{},
		{-32512, 16256, 128, 0, 2}, // 128.5 and 0.5 and 1.5 are ties
		{32512, -16256},
		{}, // too small for a finite scale
	} {
		hi, lo := q.Hi[token*stride:], q.Lo[token*stride:]
		sumHi, sumLo := int32(0), int32(0)
		for k, v := range want {
			require.Equal(t, v, 256*int(hi[k])+int(lo[k]), "token %d, column %d", token, k)
			sumHi, sumLo = sumHi+int32(hi[k]), sumLo+int32(lo[k])
		}
		for _, plane := range [][]int8{hi, lo} {
			require.Equal(t, make([]int8, padded-dim), plane[dim:padded], "padded to %d columns, and no further", padded)
			require.Equal(t, []int8{99, 99, 99}, plane[padded:stride])
		}
		require.Equal(t, []int32{sumHi, sumLo}, []int32{q.SumHi[token], q.SumLo[token]})
	}
	require.InEpsilonSlice(t, []float32{1.0 / 32512, 0x1p-100 / 32512, 2, 2e-30 / 32512, 0x1p-100 / 32512}, q.Inv, 1e-6)
	require.Panics(t, func() { QuantizeActivations16(q, x, tokens+1, dim) })
}

// For int4, rows have sums of their groups too, and nothing else changes.
func TestSixteenBitActivationsHaveTheSumsOfGroups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tokens, dim, gap := rapid.IntRange(1, 3).Draw(t, "tokens"), rapid.IntRange(1, 300).Draw(t, "dim"), rapid.IntRange(0, 70).Draw(t, "gap")
		x := rapid.SliceOfN(rapid.Float32Range(-2, 2), tokens*dim, tokens*dim).Draw(t, "x")
		stride := Activation16Stride(dim) + gap
		rows := func() cpu.Int16Rows {
			return cpu.Int16Rows{Hi: make([]int8, tokens*stride), Lo: make([]int8, tokens*stride), Stride: stride,
				SumHi: make([]int32, tokens), SumLo: make([]int32, tokens), Inv: make([]float32, tokens)}
		}
		plain, grouped := rows(), rows()
		QuantizeActivations16(plain, x, tokens, dim)
		grouped.Eights = make([]int32, tokens*grouped.Groups())
		for i := range grouped.Eights {
			grouped.Eights[i] = 99
		}
		QuantizeActivations16(grouped, x, tokens, dim)
		want := make([]int32, len(grouped.Eights))
		for token := range tokens {
			for k := range dim {
				at := token*stride + k
				want[token*grouped.Groups()+k/cpu.Int4Group] -= 8 * (256*int32(plain.Hi[at]) + int32(plain.Lo[at]))
			}
		}
		require.Equal(t, want, grouped.Eights)
		grouped.Eights = nil
		require.Equal(t, plain, grouped)
	})
}
