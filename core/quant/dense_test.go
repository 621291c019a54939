package quant

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

func TestDensePackingKeepsEveryRowWithinItsFormatsRounding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := raggedShape(t)
		w := rapid.SliceOfN(rapid.Float32Range(-2, 2), rows*cols, rows*cols).Draw(t, "w")
		for _, dtype := range []string{F32, F16, BF16} {
			src, exact := encode(dtype, w)
			for _, format := range []cpu.DenseFormat{cpu.DenseF32, cpu.DenseBF16, cpu.DenseF16, cpu.DenseInt8, cpu.DenseInt4} {
				d, err := NewDense(format, dtype, src, rows, cols)
				require.NoError(t, err)
				row := make([]float32, cols)
				for r := range rows {
					want := exact[r*cols : (r+1)*cols]
					largest := float64(cpu.AbsMax(want))
					d.Row(row, r)
					for c, v := range row {
						if format == cpu.DenseInt4 {
							group := c / cpu.Int4Group * cpu.Int4Group
							largest = float64(cpu.AbsMax(want[group:min(group+cpu.Int4Group, cols)]))
						}
						bound := denseBound(format, dtype, float64(want[c]), largest)
						if off := math.Abs(float64(v) - float64(want[c])); off > bound {
							t.Fatalf("%v of %s at %d, %d: off by %g, bound %g", format, dtype, r, c, off, bound)
						}
					}
				}
			}
		}
	})
}

// largestLoss is what the coarsest of int4's steps clips off the largest weight of a group, of which it is 11.9 steps, and the rounding of its scale.
const largestLoss = (11.9-8)/11.9 + 1.0/256

// denseBound is half a step of the format at a value of a row, or for int4 the most that a value may be off; largest is that of the row, or group.
func denseBound(f cpu.DenseFormat, dtype string, value, largest float64) float64 {
	switch {
	case f == cpu.DenseInt8:
		return largest*(1.0/254+0x1p-22) + tiny // scale, code and product are rounded to float32, each by 2^-24 of the weight at most
	case f == cpu.DenseInt4:
		return largest*largestLoss + tiny
	case f == cpu.DenseBF16 && dtype != BF16:
		return math.Abs(value)/256 + 1e-40
	case f == cpu.DenseF16 && dtype != F16:
		return math.Abs(value)/2048 + 0x1p-25
	}
	return 0
}

func TestInt8AndInt4HeadsAreThePublicQuantizers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := raggedShape(t)
		w := rapid.SliceOfN(rapid.Float32Range(-2, 2), rows*cols, rows*cols).Draw(t, "w")
		src, _ := encode(F32, w)
		for format, o := range map[cpu.DenseFormat]Options{
			cpu.DenseInt8: {Bits: 8, Granularity: PerRow}, cpu.DenseInt4: {Bits: 4, Granularity: PerGroup, Group: cpu.Int4Group, FitClip: true},
		} {
			d, err := NewDense(format, F32, src, rows, cols)
			require.NoError(t, err)
			q, err := Quantize(w, rows, cols, o)
			require.NoError(t, err)
			a, b := make([]float32, cols), make([]float32, cols)
			for r := range rows {
				d.Row(a, r)
				q.Row(b, r)
				require.Equal(t, b, a)
			}
			fromDense, err := CompareDense(d, F32, src)
			require.NoError(t, err)
			fromQuantized, err := q.Metrics(w)
			require.NoError(t, err)
			require.Equal(t, fromQuantized, fromDense)
			if format == cpu.DenseInt8 {
				require.Equal(t, q.Scales, d.RowScale)
			}
		}
	})
}

// Of the scales that are tried none loses less.
func TestInt4ScalesAreTheBestOfTheirGrid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SliceOfN(rapid.Float32Range(-2, 2), 1, cpu.Int4Group).Draw(t, "w")
		q, err := Quantize(w, 1, len(w), Options{Bits: 4, Granularity: PerRow, FitClip: true})
		require.NoError(t, err)
		// In float32 a weight's steps are off by 2^-23 of them (1/scale and the product are rounded), and each addition by 2^-24 of the sum.
		lost := func(scale float64) (sum, off float64) {
			for _, v := range w {
				steps := float64(v) / scale
				d, x := steps-min(max(math.RoundToEven(steps), -8), 7), math.Abs(steps)*0x1p-23
				sum, off = sum+d*d, off+x*(2*math.Abs(d)+x)
			}
			off += sum * float64(len(w)+2) * 0x1p-24
			return sum * scale * scale, off * scale * scale
		}
		largest := float64(cpu.AbsMax(w))
		if largest < tiny {
			require.Zero(t, q.Scales[0])
			return
		}
		got, gotOff := lost(float64(q.Scales[0]))
		require.Equal(t, q.Scales[0], math.Float32frombits(math.Float32bits(q.Scales[0])&^0xffff), "a bfloat16")
		for _, steps := range int4Steps {
			for _, signed := range []float64{largest, -largest} {
				if at := slices.Index(w, float32(-signed)); at < 0 || at > slices.IndexFunc(w, func(v float32) bool { return math.Abs(float64(v)) == largest }) {
					continue
				}
				scale := float64(math.Float32frombits(uint32(bfloat16(float32(signed)/steps)) << 16))
				other, off := lost(scale)
				require.LessOrEqual(t, got, other+off+gotOff)
			}
		}
	})
}

// What the head of a model costs: normal weights lose a third less with scales for groups, and large ones among them cost their group alone.
func TestInt4GroupsLoseLessThanRows(t *testing.T) {
	const rows, cols = 16, 1024
	w := gaussian(rows*cols, 5)
	src, _ := encode(F32, w)
	d, err := NewDense(cpu.DenseInt4, F32, src, rows, cols)
	require.NoError(t, err)
	groups, err := CompareDense(d, F32, src)
	require.NoError(t, err)
	q, err := Quantize(w, rows, cols, Options{Bits: 4, Granularity: PerRow})
	require.NoError(t, err)
	whole, err := q.Metrics(w)
	require.NoError(t, err)
	t.Logf("per group %v; per row %v", groups, whole)
	require.Greater(t, groups.SQNR, 20.5)
	require.Greater(t, groups.SQNR, whole.SQNR+3)
}

func TestPaddingOfADenseMatrixIsZeroWhateverTheBufferHeld(t *testing.T) {
	src, _ := encode(F32, []float32{1, 2, 3, 4, 5, 6})
	for _, format := range []cpu.DenseFormat{cpu.DenseF32, cpu.DenseBF16, cpu.DenseF16, cpu.DenseInt8, cpu.DenseInt4} {
		clean, err := NewDense(format, F32, src, 2, 3)
		require.NoError(t, err)
		require.Equal(t, len(clean.Panels)+4*len(clean.RowScale), clean.Bytes())
		dirty := make([]byte, len(clean.Panels))
		for i := range dirty {
			dirty[i] = 0xff
		}
		require.NoError(t, PackDense(dirty, make([]float32, 2), format, F32, src, 2, 3))
		require.Equal(t, clean.Panels, dirty)
	}
}

func TestNaNAndInfinityInADenseMatrixAreReportedWithTheirPosition(t *testing.T) {
	const rows, cols = 18, 37
	for _, format := range []cpu.DenseFormat{cpu.DenseF32, cpu.DenseBF16, cpu.DenseF16, cpu.DenseInt8, cpu.DenseInt4} {
		largest := map[string]float32{BF16: math.MaxFloat32, F16: 65504}
		for dtype, bad := range map[string][]uint16{BF16: {0x7f80, 0xff80, 0x7fc0}, F16: {0x7c00, 0xfc00, 0x7e00}} {
			for _, bits := range bad {
				for _, at := range []int{0, 1, 17*cols + 35, 17*cols + 36} {
					src, _ := encode(dtype, slices.Repeat([]float32{largest[dtype], -1}, rows*cols/2))
					binary.LittleEndian.PutUint16(src[2*at:], bits)
					_, err := NewDense(format, dtype, src, rows, cols)
					require.ErrorIs(t, err, ErrNotFinite)
					require.ErrorContains(t, err, fmt.Sprintf("row %d, column %d", at/cols, at%cols))
				}
			}
		}
	}
}

func TestFloat16SaturatesAtItsLargestNumber(t *testing.T) {
	src, _ := encode(F32, []float32{65504, 65519, 65520, -1e6, math.MaxFloat32, 1})
	d, err := NewDense(cpu.DenseF16, F32, src, 2, 3)
	require.NoError(t, err)
	row := make([]float32, 3)
	d.Row(row, 0)
	require.Equal(t, []float32{65504, 65504, 65504}, row)
	d.Row(row, 1)
	require.Equal(t, []float32{-65504, 65504, 1}, row)
}

func TestBfloat16RoundsHalfToEvenAndSaturates(t *testing.T) {
	for bits, want := range map[uint32]uint16{
		0x3f800000: 0x3f80, 0x3f808000: 0x3f80, 0x3f808001: 0x3f81, 0x3f818000: 0x3f82, 0x3f81ffff: 0x3f82,
		0x7f7fffff: 0x7f7f, 0xff7fffff: 0xff7f, 0x80000000: 0x8000, 0x00000001: 0,
	} {
		require.Equal(t, want, bfloat16(math.Float32frombits(bits)), "%#x", bits)
		many := make([]uint16, 35) // a few registers, and what is left
		roundHalves(cpu.BFloat16, many, slices.Repeat([]float32{math.Float32frombits(bits)}, len(many)))
		require.Equal(t, slices.Repeat([]uint16{want}, len(many)), many, "%#x", bits)
	}
}

func TestDenseMatricesOfAnImpossibleShapeOrFormatAreRefused(t *testing.T) {
	src := make([]byte, 16)
	panels := make([]byte, cpu.DenseBytes(cpu.DenseInt8, 2, 2))
	require.ErrorIs(t, PackDense(panels, make([]float32, 1), cpu.DenseInt8, F32, src, 2, 2), ErrShape)
	require.ErrorIs(t, PackDense(panels[1:], make([]float32, 2), cpu.DenseInt8, F32, src, 2, 2), ErrShape)
	require.ErrorIs(t, PackDense(panels, make([]float32, 2), cpu.DenseInt8, F32, src[1:], 2, 2), ErrShape)
	require.ErrorIs(t, PackDense(panels, make([]float32, 2), cpu.DenseInt8, "F64", src, 2, 2), ErrDType)
	require.ErrorIs(t, PackDense(panels, make([]float32, 2), 99, F32, src, 2, 2), ErrDType)
	_, err := NewDense(cpu.DenseF32, F32, src, 3, 2)
	require.ErrorIs(t, err, ErrShape)
	_, err = NewDense(99, F32, src, 2, 2)
	require.ErrorIs(t, err, ErrDType)
	require.ErrorIs(t, CheckDense(cpu.DenseInt8, 0, 2), ErrShape)
	for _, format := range []cpu.DenseFormat{cpu.DenseInt8, cpu.DenseInt4} {
		require.NoError(t, CheckDense(format, 1, cpu.MaxDenseIntCols))
		require.ErrorIs(t, CheckDense(format, 1, cpu.MaxDenseIntCols+1), ErrShape, "sums of more columns may not fit int32")
	}
	require.NoError(t, CheckDense(cpu.DenseBF16, 1, cpu.MaxDenseIntCols+1))
	_, err = CompareDense(&Dense{Rows: 3, Cols: 2}, F32, src)
	require.ErrorIs(t, err, ErrShape)
}
