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

// Scaled says whether a format needs a scale per row. The scales of int4 are in its panels.
func Scaled(f cpu.DenseFormat) bool { return f == cpu.DenseInt8 }

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
// int8 and is ignored for the other formats. float32 is exact, bfloat16 rounds
// half to even (saturating at the largest finite value), int8 is the symmetric
// per-row quantizer of Quantize, and int4 its fitted one for each
// cpu.Int4Group columns of a row.
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
			cpu.ClearDense(f, panel, cols)
			for row := p * cpu.PanelRows; row < min((p+1)*cpu.PanelRows, rows); row++ {
				if f == cpu.DenseBF16 && dtype == BF16 {
					if source := src[row*cols*size:][:cols*size]; !packBF16Row(panel, row%cpu.PanelRows, source) {
						decode(values, dtype, source)
						return notFinite(values, row*cols, cols)
					}
					continue
				}
				if !decode(values, dtype, src[row*cols*size:]) {
					return notFinite(values, row*cols, cols)
				}
				switch f {
				case cpu.DenseInt8:
					rowScale[row] = quantizeGroup(codes, values, Options{Bits: 8})
				case cpu.DenseInt4:
					packInt4Scales(panel, row%cpu.PanelRows, values, codes)
				}
				packDenseRow(panel, f, row%cpu.PanelRows, values, codes)
			}
		}
		return nil
	})
}

// packInt4Scales makes the codes of a row and stores the scales of its groups.
func packInt4Scales(panel []byte, r int, values []float32, codes []int8) {
	for c := 0; c < len(values); c += cpu.Int4Group {
		end := min(c+cpu.Int4Group, len(values))
		scale := quantizeGroup(codes[c:end], values[c:end], Options{Bits: 4, FitClip: true})
		binary.LittleEndian.PutUint16(panel[cpu.Int4ScaleOffset(len(values), r, c):], uint16(math.Float32bits(scale)>>16))
	}
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
		at := 0
		for ; len(codes) >= 4; codes, at = codes[4:], at+cpu.BlockBytes {
			four := uint32(uint8(codes[0])) | uint32(uint8(codes[1]))<<8 | uint32(uint8(codes[2]))<<16 | uint32(uint8(codes[3]))<<24
			binary.LittleEndian.PutUint32(lane[at:], binary.LittleEndian.Uint32(lane[at:])^four)
		}
		for k, c := range codes {
			lane[at+k] ^= byte(c)
		}
	case cpu.DenseInt4:
		for k := 0; k < len(codes); k += 8 {
			four := panel[cpu.DenseOffset(f, len(codes), r, k):][:4]
			for j, c := range codes[k:min(k+8, len(codes))] {
				four[j%4] ^= byte(c) & 15 << (j / 4 * 4)
			}
		}
	}
}

// packBF16Row is packDenseRow for a row that has the panel's own numbers. It says whether all of them are finite.
func packBF16Row(panel []byte, r int, src []byte) bool {
	lane, at, bad := panel[4*r:], 0, uint32(0)
	for ; len(src) >= 4; src, at = src[4:], at+cpu.BlockBytes {
		x := binary.LittleEndian.Uint32(src)
		binary.LittleEndian.PutUint32(lane[at:], x)
		bad |= x&0x7fff7fff + 0x00800080
	}
	if len(src) == 2 {
		x := binary.LittleEndian.Uint16(src)
		binary.LittleEndian.PutUint16(lane[at:], x)
		bad |= uint32(x&0x7fff + 0x0080)
	}
	return bad&0x80008000 == 0
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
