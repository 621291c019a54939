package quant

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// NewDense packs a row-major float matrix into a dense16 format.
func NewDense(f cpu.DenseFormat, dtype string, src []byte, rows, cols int) (*Dense, error) {
	if _, err := checkSource(dtype, src, rows, cols); err != nil {
		return nil, err
	}
	if err := CheckDense(f, rows, cols); err != nil {
		return nil, err
	}
	d := &Dense{Rows: rows, Cols: cols, Format: f, Panels: make([]byte, cpu.DenseBytes(f, rows, cols))}
	if Scaled(f) {
		d.RowScale = make([]float32, rows)
	}
	return d, PackDense(d.Panels, d.RowScale, f, dtype, src, rows, cols)
}

// Scaled says whether a format needs a scale per row.
func Scaled(f cpu.DenseFormat) bool { return f.Integer() }

// CheckDense refuses matrices that the kernels of a dense format do not take: int8
// and int4 ones have at most cpu.MaxDenseIntCols columns, so that sums stay within
// int32.
//
// Errors: ErrShape, ErrDType.
func CheckDense(f cpu.DenseFormat, rows, cols int) error {
	if err := checkShape(rows, cols); err != nil {
		return err
	}
	if f > cpu.DenseInt4 {
		return fmt.Errorf("%w: unknown dense format %v", ErrDType, f)
	}
	if f.Integer() && cols > cpu.MaxDenseIntCols {
		return fmt.Errorf("%w: found %d columns, expected at most %d in %v", ErrShape, cols, cpu.MaxDenseIntCols, f)
	}
	return nil
}

// PackDense converts a row-major rows x cols matrix of F32, F16 or BF16 into
// dense16: dst is cpu.DenseBytes long; rowScale has one element per row for
// int8 and int4 and is ignored for the float formats. float32 is exact,
// bfloat16 rounds half to even (saturating at the largest finite value), int8
// and int4 are the symmetric per-row quantizers of Quantize.
//
// Errors: ErrShape, ErrDType, ErrNotFinite with the position.
func PackDense(dst []byte, rowScale []float32, f cpu.DenseFormat, dtype string, src []byte, rows, cols int) error {
	size, err := checkSource(dtype, src, rows, cols)
	if err != nil {
		return err
	}
	if err := CheckDense(f, rows, cols); err != nil {
		return err
	}
	if err := checkBytes("panels", len(dst), cpu.DenseBytes(f, rows, cols), rows, cols); err != nil {
		return err
	}
	if Scaled(f) && len(rowScale) != rows {
		return fmt.Errorf("%w: found %d row scales, expected %d", ErrShape, len(rowScale), rows)
	}
	stride := cpu.DenseBytes(f, cpu.PanelRows, cols)
	return inChunks(len(dst)/stride, func(from, to int) error {
		values, codes := make([]float32, cols), make([]int8, cols)
		for p := from; p < to; p++ {
			panel := dst[p*stride : (p+1)*stride]
			fill(panel, cpu.DenseZero(f))
			for row := p * cpu.PanelRows; row < min((p+1)*cpu.PanelRows, rows); row++ {
				if !decode(values, dtype, src[row*cols*size:]) {
					return notFinite(values, row*cols, cols)
				}
				if Scaled(f) {
					rowScale[row] = quantizeGroup(codes, values, denseOptions(f))
				}
				packDenseRow(panel, f, row%cpu.PanelRows, values, codes)
			}
		}
		return nil
	})
}

func denseOptions(f cpu.DenseFormat) Options {
	if f == cpu.DenseInt4 {
		return Options{Bits: 4, Granularity: PerRow}
	}
	return Options{Bits: 8, Granularity: PerRow}
}

// packDenseRow scatters one row into its panel: cpu.DenseOffset, unrolled along
// the columns. The panel holds zeros before: integers are stored with half of their
// range added, which is their exclusive or with a stored zero.
func packDenseRow(panel []byte, f cpu.DenseFormat, r int, values []float32, codes []int8) {
	lane := panel[4*r:]
	switch f {
	case cpu.DenseF32:
		for k, v := range values {
			binary.LittleEndian.PutUint32(lane[64*k:], math.Float32bits(v))
		}
	case cpu.DenseBF16:
		for k, v := range values {
			binary.LittleEndian.PutUint16(lane[k/2*64+k%2*2:], bfloat16(v))
		}
	case cpu.DenseInt8:
		for k, c := range codes {
			lane[k/4*64+k%4] ^= byte(c)
		}
	case cpu.DenseInt4:
		for k, c := range codes {
			lane[k/8*64+k%4] ^= byte(c) & 15 << (k / 4 % 2 * 4)
		}
	}
}

func fill(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}

// bfloat16 rounds a finite float32 half to even.
func bfloat16(v float32) uint16 {
	bits := math.Float32bits(v)
	rounded := uint16((bits + 0x7fff + bits>>16&1) >> 16)
	if rounded&0x7fff == 0x7f80 {
		rounded-- // the largest finite value of the same sign
	}
	return rounded
}

// CompareDense measures the error of a packed matrix against its source.
func CompareDense(d *Dense, dtype string, src []byte) (Metrics, error) {
	size, err := checkSource(dtype, src, d.Rows, d.Cols)
	if err != nil {
		return Metrics{}, err
	}
	var m Meter
	want, got := make([]float32, d.Cols), make([]float32, d.Cols)
	for r := range d.Rows {
		decode(want, dtype, src[r*d.Cols*size:])
		d.Row(got, r)
		m.Add(want, got)
	}
	return m.Metrics(), nil
}
