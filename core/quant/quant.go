// Package quant turns float weights and activations into the integers that the
// kernels multiply, and back.
//
// The heart is the ternary linear layer of BitNet b1.58 (Ma et al. 2024,
// arXiv:2402.17764), whose arithmetic is exact:
//
//	weights, one scale per matrix:      m = max(mean|W|, 1e-5)    t = clamp(roundHalfEven(W/m), -1, 1)
//	activations, one scale per token:   s = 127 / max(max|x|, 1e-5)    q = clamp(roundHalfEven(x*s), -128, 127)
//	product:                            y = (sum_k q_k*t_k) * m / s, the sum an exact int32
//
// Ternary matrices live in the kernels' own layout, panel16 of accel/cpu, two
// bits a weight. The package gets them there from every source a checkpoint
// has: float master weights (Ternarize), Hugging Face's packed bytes (PackHF),
// plain codes (NewTernary). What stays dense (embeddings, output head) is
// packed by PackDense in float32, bfloat16, float16, int8 or int4; int8 (a scale a row)
// and int4 (a scale for each 64 columns) go through the quantizers of Quantize, which also give 2 and 1 bits
// and the error measures to choose between them. Activations meet int8 and int4
// weights as 16-bit integers (QuantizeActivations16), so that these sums are
// exact as well.
//
// Bulk conversions run on the kernels' worker pool, work row by row without a
// dense copy of the matrix, and give the same bits whatever the thread count.
package quant

import (
	"errors"
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// Errors of this package; messages name the position, what was found and what
// was expected.
var (
	ErrShape     = errors.New("quant: shape") // sizes that do not fit together, or that no kernel takes
	ErrDType     = errors.New("quant: dtype")
	ErrCode      = errors.New("quant: code is not ternary")     // two-bit code 3 in packed weights
	ErrNotFinite = errors.New("quant: weight is not finite")    // NaN or infinity among weights
	ErrOption    = errors.New("quant: impossible quantization") // bits, granularity or group size
)

// ValueError is a weight that cannot be: where it is and what it is. Kind is
// ErrCode or ErrNotFinite, which errors.Is sees.
type ValueError struct {
	Kind     error
	Row, Col int    // where it is
	Found    string // what it is
	Expected string // what it may be
}

// Error renders the position and the value.
func (e *ValueError) Error() string {
	return fmt.Sprintf("%v: row %d, column %d: found %s, expected %s", e.Kind, e.Row, e.Col, e.Found, e.Expected)
}

// Unwrap gives the kind.
func (e *ValueError) Unwrap() error { return e.Kind }

// Ternary is a matrix W = Scale * t with t in {-1, 0, 1}.
type Ternary struct {
	Rows, Cols int // of the matrix
	Scale      float32
	Layout     Layout // how the codes lie
	Data       []byte // the codes, Layout.Bytes(Rows, Cols) long
}

// Layout is how the codes of a ternary matrix lie in memory.
type Layout uint8

// The layouts. Lines suit matrices of which rows, or columns, are often skipped: the up and down projections of a feed-forward layer whose
// activation is zero for many neurons.
const (
	Panel16     Layout = iota // rows in panels of 16, see cpu.PackTernary
	RowLines                  // row by row, see cpu.TernaryDotLines
	ColumnLines               // column by column, see cpu.TernaryAddLines
	Base3                     // panels of 1.6 bits a weight, see cpu.PackBase3
)

// Bytes is the size of the codes of a rows x cols matrix.
func (l Layout) Bytes(rows, cols int) int {
	switch l {
	case RowLines:
		return cpu.LinesBytes(rows, cols)
	case ColumnLines:
		return cpu.LinesBytes(cols, rows)
	case Base3:
		return cpu.Base3Bytes(rows, cols)
	}
	return cpu.TernaryBytes(rows, cols)
}

// FromPanels fills Data with the codes of panels, which are in the layout Panel16, on the worker pool.
func (t *Ternary) FromPanels(panels []byte) {
	size := cpu.TernaryBytes(cpu.PanelRows, t.Cols)
	_ = t.fill(func(dst []byte, p0, p1 int) error {
		copy(dst, panels[p0*size:p1*size])
		return nil
	})
}

// fill makes Data of panels, a few at a time on the worker pool: pack writes the panels p0 to p1, in the layout Panel16, to dst. The first
// error ends it.
func (t *Ternary) fill(pack func(dst []byte, p0, p1 int) error) error {
	size, n, group := cpu.TernaryBytes(cpu.PanelRows, t.Cols), t.panels(), 1
	if t.Layout == ColumnLines {
		group = 16
	}
	return inChunks((n+group-1)/group, func(from, to int) error {
		var dst []byte
		if t.Layout != Panel16 {
			dst = make([]byte, group*size)
		}
		for g := from; g < to; g++ {
			p0, p1 := g*group, min((g+1)*group, n)
			if t.Layout == Panel16 {
				dst = t.Data[p0*size : p1*size]
			}
			if err := pack(dst, p0, p1); err != nil {
				return err
			}
			t.putPanels(dst, p0, p1)
		}
		return nil
	})
}

// putPanels brings the panels p0 to p1, which begin at src, to their places. For ColumnLines p0 is a multiple of 16.
func (t *Ternary) putPanels(src []byte, p0, p1 int) {
	switch t.Layout {
	case RowLines:
		first := p0 * cpu.PanelRows
		cpu.PanelsToLines(t.Data[first*cpu.LineBytes(t.Cols):], src, min(p1*cpu.PanelRows, t.Rows)-first, t.Cols)
	case ColumnLines:
		cpu.ColumnPanelsToLines(t.Data, src, t.Cols, t.Rows, p0, p1)
	case Base3:
		cpu.PackBase3(t.Data, src, t.Cols, p0, p1)
	}
}

// Panels gives the codes in the layout Panel16: Data itself when that is its layout.
func (t *Ternary) Panels() []byte {
	if t.Layout == Panel16 {
		return t.Data
	}
	n := t.panels()
	panels := make([]byte, cpu.PanelSpace(n, t.Cols))
	t.panelRange(panels, 0, n)
	return panels[:cpu.TernaryBytes(t.Rows, t.Cols)]
}

// panelRange makes the panels p0 to p1 of a matrix with another layout than Panel16. dst has [cpu.PanelSpace] bytes, and p0 is a multiple of 16.
func (t *Ternary) panelRange(dst []byte, p0, p1 int) {
	switch t.Layout {
	case RowLines:
		cpu.LinesToPanels(dst, t.Data, t.Rows, t.Cols, p0, p1)
	case ColumnLines:
		cpu.LinesToColumnPanels(dst, t.Data, t.Cols, t.Rows, p0, p1)
	case Base3:
		cpu.UnpackBase3(dst, t.Data, t.Cols, p0, p1)
	default:
		panic("quant: panelRange of panels")
	}
}

// Repack fills Data with the codes of from, a matrix of the same shape, on the worker pool: of one in Panel16 in base 3, or the other way round.
func (t *Ternary) Repack(from *Ternary) {
	if t.Layout == Base3 {
		t.FromPanels(from.Data)
		return
	}
	_ = t.fill(func(dst []byte, p0, p1 int) error {
		from.panelRange(dst, p0, p1)
		return nil
	})
}

func (t *Ternary) panels() int { return (t.Rows + cpu.PanelRows - 1) / cpu.PanelRows }

// NewTernary packs row-major codes of -1, 0 and 1 (checked: ErrCode).
func NewTernary(codes []int8, scale float32, rows, cols int) (*Ternary, error) {
	if err := checkShape(rows, cols); err != nil {
		return nil, err
	}
	if len(codes) != rows*cols {
		return nil, fmt.Errorf("%w: found %d codes, expected %d x %d", ErrShape, len(codes), rows, cols)
	}
	for i, c := range codes {
		if c < -1 || c > 1 {
			return nil, &ValueError{Kind: ErrCode, Row: i / cols, Col: i % cols, Found: fmt.Sprint(c), Expected: "-1, 0 or 1"}
		}
	}
	t := &Ternary{Rows: rows, Cols: cols, Scale: scale, Data: make([]byte, cpu.TernaryBytes(rows, cols))}
	cpu.PackTernary(t.Data, codes, rows, cols)
	return t, nil
}

// Codes writes the row-major codes to dst, or to a new slice when dst is nil.
func (t *Ternary) Codes(dst []int8) []int8 {
	if dst == nil {
		dst = make([]int8, t.Rows*t.Cols)
	}
	cpu.UnpackTernary(dst, t.Panels(), t.Rows, t.Cols)
	return dst
}

// RowReader gives a function that writes the codes of row r, Cols of them, to dst. It takes the memory of some panels, and is fast for rows that
// ascend; it is for one goroutine.
func (t *Ternary) RowReader() func(dst []int8, r int) {
	if t.Layout == Panel16 {
		return func(dst []int8, r int) { cpu.TernaryRow(dst, t.Data, t.Cols, r) }
	}
	const group = 16 // panels that are made at a time
	panels, first := make([]byte, cpu.PanelSpace(group, t.Cols)), -1
	return func(dst []int8, r int) {
		if p := r / (group * cpu.PanelRows) * group; p != first {
			t.panelRange(panels, p, min(p+group, t.panels()))
			first = p
		}
		cpu.TernaryRow(dst, panels, t.Cols, r-first*cpu.PanelRows)
	}
}

// Dequantize writes the row-major weights Scale*t to dst, or to a new slice
// when dst is nil.
func (t *Ternary) Dequantize(dst []float32) []float32 {
	if dst == nil {
		dst = make([]float32, t.Rows*t.Cols)
	}
	for i, c := range t.Codes(nil) {
		dst[i] = float32(c) * t.Scale
	}
	return dst
}

// Bytes is the memory of the packed weights.
func (t *Ternary) Bytes() int { return len(t.Data) }

// Dense is a matrix in one of the dense16 formats of accel/cpu.
type Dense struct {
	Rows, Cols int             // of the matrix
	Format     cpu.DenseFormat // of its elements
	Panels     []byte          // cpu.DenseBytes(Format, Rows, Cols) long
	RowScale   []float32       // one factor per row for int8, else nil
}

// Row writes row r as float32 to dst, which has Cols elements.
func (d *Dense) Row(dst []float32, r int) {
	cpu.DenseRow(dst, d.Format, d.Panels, d.RowScale, d.Cols, r)
}

// Bytes is the memory of the packed weights and their scales.
func (d *Dense) Bytes() int { return len(d.Panels) + 4*len(d.RowScale) }

// checkShape refuses matrices that no kernel takes.
func checkShape(rows, cols int) error {
	if rows < 1 || cols < 1 || cols > cpu.MaxTernaryCols || rows > math.MaxInt32 {
		return fmt.Errorf("%w: found %d x %d, expected 1 to 2^31-1 rows and 1 to %d columns", ErrShape, rows, cols, cpu.MaxTernaryCols)
	}
	return nil
}

// checkBytes refuses a buffer of another size than the matrix needs.
func checkBytes(name string, found, expected, rows, cols int) error {
	if found != expected {
		return fmt.Errorf("%w: %s of a %d x %d matrix: found %d bytes, expected %d", ErrShape, name, rows, cols, found, expected)
	}
	return nil
}

// task makes a function a cpu.Task.
type task func(chunk int)

// Run does the chunk.
func (f task) Run(chunk int) { f(chunk) }

// inChunks calls fn on the worker pool with ranges that cover 0..n, and returns
// the error of the lowest range that has one: the same for any thread count.
// Ranges are few, so that fn may allocate its scratch.
func inChunks(n int, fn func(from, to int) error) error {
	const most = 64
	chunks := min(n, most)
	errs := make([]error, chunks)
	cpu.Parallel(chunks, task(func(c int) { errs[c] = fn(c*n/chunks, (c+1)*n/chunks) }))
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
