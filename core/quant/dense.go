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
// int8 and is ignored for the other formats. float32 is exact, bfloat16 and
// float16 round half to even (saturating at the largest finite value), int8 is
// the symmetric per-row quantizer of Quantize, and int4 its fitted one for each
// cpu.Int4Group columns of a row.
//
// Errors: ErrShape, ErrDType, ErrNotFinite with the position.
func PackDense(dst []byte, rowScale []float32, f cpu.DenseFormat, dtype string, src []byte, rows, cols int) error {
	size, err := checkSource(dtype, src, rows, cols)
	if err != nil {
		return err
	}
	if dtype == F32 && f == cpu.DenseF32 || dtype == BF16 && f == cpu.DenseBF16 || dtype == F16 && f == cpu.DenseF16 {
		return packAsIs(dst, f, dtype, src, rows, cols, size)
	}
	return PackDenseRows(dst, rowScale, f, rows, cols, func(values []float32, row int) error {
		decode(values, dtype, src[row*cols*size:])
		return nil
	})
}

// PackDenseRows is PackDense for rows that read gives as float32, from several
// goroutines.
//
// Errors: ErrShape, ErrDType, ErrNotFinite with the position, the first of read.
func PackDenseRows(dst []byte, rowScale []float32, f cpu.DenseFormat, rows, cols int, read func(values []float32, row int) error) error {
	if err := checkPanels(dst, f, rows, cols); err != nil {
		return err
	}
	if Scaled(f) && len(rowScale) != rows {
		return fmt.Errorf("%w: found %d row scales, expected %d", ErrShape, len(rowScale), rows)
	}
	stride := cpu.DenseBytes(f, cpu.PanelRows, cols)
	return inChunks(len(dst)/stride, func(from, to int) error {
		w := rowPacker{f: f, cols: cols}
		for p := from; p < to; p++ {
			first := p * cpu.PanelRows
			w.begin(dst[p*stride : (p+1)*stride])
			for row := first; row < min(first+cpu.PanelRows, rows); row++ {
				values := w.row(row - first)
				if err := read(values, row); err != nil {
					return err
				}
				if !finite(F32, bytesOf(values)) {
					return notFinite(values, row*cols, cols)
				}
				if scale := w.pack(row-first, values); Scaled(f) {
					rowScale[row] = scale
				}
			}
			w.end(min(cpu.PanelRows, rows-first))
		}
		return nil
	})
}

func checkPanels(dst []byte, f cpu.DenseFormat, rows, cols int) error {
	if err := CheckDense(f, rows, cols); err != nil {
		return err
	}
	return checkBytes("panels", len(dst), cpu.DenseBytes(f, rows, cols), rows, cols)
}

// packAsIs packs numbers that the format holds as they are.
func packAsIs(dst []byte, f cpu.DenseFormat, dtype string, src []byte, rows, cols, size int) error {
	if err := checkPanels(dst, f, rows, cols); err != nil {
		return err
	}
	stride := cpu.DenseBytes(f, cpu.PanelRows, cols)
	return inChunks(len(dst)/stride, func(from, to int) error {
		for p := from; p < to; p++ {
			first, n := p*cpu.PanelRows, min(cpu.PanelRows, rows-p*cpu.PanelRows)
			part := src[first*cols*size:][:n*cols*size]
			if !finite(dtype, part) {
				values := make([]float32, n*cols)
				decode(values, dtype, part)
				return notFinite(values, first*cols, cols)
			}
			cpu.PackDenseRows(dst[p*stride:(p+1)*stride], f, part, cols*size, n, cols)
		}
		return nil
	})
}

// rowPacker fills panels with rows of float32. Those of the float formats are collected, and turned into a panel together.
type rowPacker struct {
	f      cpu.DenseFormat
	cols   int
	panel  []byte
	values []float32 // 16 rows for float32, else one
	halves []uint16  // 16 rows for bfloat16 and float16
	codes  []int8    // a row of integers
}

func (w *rowPacker) begin(panel []byte) {
	w.panel = panel
	if w.f.Integer() {
		cpu.ClearDense(w.f, panel, w.cols)
	}
	if w.values != nil {
		return
	}
	switch w.f {
	case cpu.DenseF32:
		w.values = make([]float32, cpu.PanelRows*w.cols)
		return
	case cpu.DenseBF16, cpu.DenseF16:
		w.halves = make([]uint16, cpu.PanelRows*w.cols)
	default:
		w.codes = make([]int8, w.cols)
	}
	w.values = make([]float32, w.cols)
}

// row is where the values of row r go.
func (w *rowPacker) row(r int) []float32 {
	if w.f != cpu.DenseF32 {
		r = 0
	}
	return w.values[r*w.cols : (r+1)*w.cols]
}

// pack takes the values of row r, which row has given, and returns their scale, which int8 has.
func (w *rowPacker) pack(r int, values []float32) (scale float32) {
	switch w.f {
	case cpu.DenseBF16:
		roundHalves(cpu.BFloat16, w.halves[r*w.cols:], values)
	case cpu.DenseF16:
		roundHalves(cpu.Float16, w.halves[r*w.cols:], values)
	case cpu.DenseInt8:
		scale = quantizeGroup(w.codes, values, Options{Bits: 8})
		packInt8Row(w.panel[4*r:], w.codes)
	case cpu.DenseInt4:
		packInt4Scales(w.panel, r, values, w.codes)
		packInt4Row(w.panel, r, w.codes)
	}
	return scale
}

// end finishes a panel of so many rows.
func (w *rowPacker) end(rows int) {
	switch w.f {
	case cpu.DenseF32:
		cpu.PackDenseRows(w.panel, w.f, bytesOf(w.values), 4*w.cols, rows, w.cols)
	case cpu.DenseBF16, cpu.DenseF16:
		cpu.PackDenseRows(w.panel, w.f, bytesOf(w.halves), 2*w.cols, rows, w.cols)
	}
}

// packInt4Scales makes the codes of a row and stores the scales of its groups.
func packInt4Scales(panel []byte, r int, values []float32, codes []int8) {
	for c := 0; c < len(values); c += cpu.Int4Group {
		end := min(c+cpu.Int4Group, len(values))
		scale := quantizeGroup(codes[c:end], values[c:end], Options{Bits: 4, FitClip: true})
		binary.LittleEndian.PutUint16(panel[cpu.Int4ScaleOffset(len(values), r, c):], uint16(math.Float32bits(scale)>>16))
	}
}

// Integers are stored with half of their range added: their exclusive or with a stored zero, which the panel holds before.

// packInt8Row scatters a row into its lanes.
func packInt8Row(lane []byte, codes []int8) {
	at := 0
	for ; len(codes) >= 4; codes, at = codes[4:], at+cpu.BlockBytes {
		four := uint32(uint8(codes[0])) | uint32(uint8(codes[1]))<<8 | uint32(uint8(codes[2]))<<16 | uint32(uint8(codes[3]))<<24
		binary.LittleEndian.PutUint32(lane[at:], binary.LittleEndian.Uint32(lane[at:])^four)
	}
	for k, c := range codes {
		lane[at+k] ^= byte(c)
	}
}

// packInt4Row scatters row r, between its scales.
func packInt4Row(panel []byte, r int, codes []int8) {
	for k := 0; k < len(codes); k += 8 {
		four := panel[cpu.DenseOffset(cpu.DenseInt4, len(codes), r, k):][:4]
		for j, c := range codes[k:min(k+8, len(codes))] {
			four[j%4] ^= byte(c) & 15 << (j / 4 * 4)
		}
	}
}

// bfloat16 rounds a finite float32 half to even; what would become infinite is the largest finite value of its sign.
func bfloat16(v float32) uint16 {
	var h [1]uint16
	roundHalves(cpu.BFloat16, h[:], []float32{v})
	return h[0]
}

// roundHalves is bfloat16 for many, in either format.
func roundHalves(f cpu.Half, dst []uint16, values []float32) {
	dtype, infinity := BF16, uint16(0x7f80)
	if f == cpu.Float16 {
		dtype, infinity = F16, 0x7c00
	}
	dst = dst[:len(values)]
	cpu.ToHalves(f, dst, values)
	if finite(dtype, bytesOf(dst)) {
		return
	}
	for i, h := range dst {
		if h&0x7fff == infinity {
			dst[i]--
		}
	}
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
