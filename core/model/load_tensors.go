package model

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// tensorSource is what sources that read a container of named tensors have in common. Each tensor has to find its place in the
// model.
type tensorSource struct {
	*loader
	set      container.Set
	cfg      *Config
	converts func(module string) bool // the config's
	used     map[string]bool
	order    map[string]int // by tensor: its place in the files
	piece    int            // bytes of the source that one job of a table reads
}

func newTensorSource(l *loader, set container.Set, cfg *Config) tensorSource {
	s := tensorSource{loader: l, set: set, cfg: cfg, converts: cfg.Quantization.converter(), used: map[string]bool{}, order: map[string]int{}}
	var size int64
	for i, t := range set.Tensors() {
		s.order[t.Name] = i
		size += t.Size
	}
	s.piece = int(min(8<<20, max(128<<10, size/64)))
	return s
}

// view returns the tensor and notes that it has a place.
func (s *tensorSource) view(name string, shape ...int) (container.View, error) {
	v, err := s.set.Tensor(name)
	if err != nil {
		var f *container.Error
		if errors.As(err, &f) && f.Expected == "" {
			f.Found, f.Expected = "nothing", fmt.Sprintf("a tensor of shape %v", shape)
		}
		return v, err
	}
	s.used[name] = true
	return v, nil
}

// floats are the dtypes of master weights, tables and vectors.
var floats = []string{safetensors.BF16, safetensors.F16, safetensors.F32}

// vector reads a small tensor at once; it lives on the Go heap.
func (s *tensorSource) vector(name string, dim int) ([]float32, error) {
	v, err := s.view(name, dim)
	if err != nil {
		return nil, err
	}
	if err := v.Check([]int{dim}, floats...); err != nil {
		return nil, err
	}
	values := decodeFloats(v)
	for i, x := range values {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return nil, &container.Error{Kind: ErrValue, Path: v.Path(), Tensor: name, Field: fmt.Sprintf("element %d", i),
				Found: fmt.Sprint(x), Expected: "a finite number"}
		}
	}
	return values, nil
}

// number reads a tensor of one number.
func (s *tensorSource) number(name string) (container.View, float32, error) {
	v, err := s.view(name, 1)
	if err != nil {
		return v, 0, err
	}
	if err := v.Check(slices.Repeat([]int{1}, len(v.Shape)), floats...); err != nil {
		return v, 0, err
	}
	return v, decodeFloats(v)[0], nil
}

// checkScale refuses a scale of ternary weights, of which v holds what is stored.
func checkScale(v container.View, scale, stored float32) error {
	if !(scale > 0) || math.IsInf(float64(scale), 0) {
		return &container.Error{Kind: ErrValue, Path: v.Path(), Tensor: v.Name, Found: fmt.Sprint(stored), Expected: "a positive, finite scale"}
	}
	return nil
}

// ownNorm gives a ternary linear the norm of its own that models with use_rms_norm have.
func (c *Config) ownNorm(l *nn.Linear, read func() ([]float32, error)) error {
	if !c.Quantization.UseRMSNorm || l.Ternary == nil {
		return nil
	}
	weight, err := read()
	l.Norm = &nn.Norm{Weight: weight, Eps: float32(c.Quantization.RMSNormEps)}
	return err
}

// dense plans a float matrix, in pieces: it may be half of the checkpoint. decode reads a row of another dtype than floats; it is nil
// for these.
func (s *tensorSource) dense(w container.View, rows, cols int, format cpu.DenseFormat, decode func(dst []float32, dtype string, row []byte) error) (*quant.Dense, error) {
	if err := w.Check([]int{rows, cols}); err != nil {
		return nil, err
	}
	d := &quant.Dense{Rows: rows, Cols: cols, Format: format}
	s.reserve(&d.Panels, cpu.DenseBytes(format, rows, cols))
	if quant.Scaled(format) {
		d.RowScale = make([]float32, rows)
	}
	rowBytes := len(w.Data) / rows
	const most = 1 << 12 // pieces of one matrix, whose size a sparse file may make up
	step := max(1, s.piece/rowBytes/cpu.PanelRows, rows/most/cpu.PanelRows) * cpu.PanelRows
	for r := 0; r < rows; r += step {
		end := min(r+step, rows)
		v := part(w, r*rowBytes, end*rowBytes)
		s.plan(v, r, func() error {
			var scale []float32
			if d.RowScale != nil {
				scale = d.RowScale[r:end]
			}
			panels := d.Panels[cpu.DenseBytes(format, r, cols):cpu.DenseBytes(format, end, cols)]
			if decode == nil {
				return quant.PackDense(panels, scale, format, v.DType, v.Data, end-r, cols)
			}
			return quant.PackDenseRows(panels, scale, format, end-r, cols, func(values []float32, row int) error {
				return decode(values, v.DType, v.Data[row*rowBytes:][:rowBytes])
			})
		})
	}
	return d, nil
}

// fileMatrix is the weights of a layer [out, in] in a file: rows first to first+out of its rows, or turned: columns first to first+out of a
// matrix [in, width].
type fileMatrix struct {
	container.View
	turned       bool
	first, width int
}

// upright is the weights [out, in], a copy when they are turned.
func (m fileMatrix) upright(out, in int) []byte {
	size := len(m.Data) / (m.width * in)
	if !m.turned {
		return m.Data[m.first*in*size : (m.first+out)*in*size]
	}
	data := make([]byte, out*in*size)
	eachRows(out, func(first, rows int) {
		turnFloats(data[first*in*size:], in, m.Data[(m.first+first)*size:], m.width, in, rows, size)
	})
	return data
}

// float plans a matrix that stays float: in pieces where its rows are rows in the file, and else as a whole.
func (s *tensorSource) float(w fileMatrix, rows, cols int, format cpu.DenseFormat) (*quant.Dense, error) {
	if err := w.Check([]int{-1, -1}, floats...); err != nil {
		return nil, err
	}
	if !w.turned && w.width == rows {
		return s.dense(w.View, rows, cols, format, nil)
	}
	d := &quant.Dense{Rows: rows, Cols: cols, Format: format}
	s.reserve(&d.Panels, cpu.DenseBytes(format, rows, cols))
	if quant.Scaled(format) {
		d.RowScale = make([]float32, rows)
	}
	s.planPart(w, rows, func() error {
		return quant.PackDense(d.Panels, d.RowScale, format, w.DType, w.upright(rows, cols), rows, cols)
	})
	return d, nil
}

// ternary is the matrix of the linear of the given full name, whose codes and scale are to come.
func (s *tensorSource) ternary(name string, out, in int) *quant.Ternary {
	return &quant.Ternary{Rows: out, Cols: in, Layout: s.opts.packed(s.cfg.layout(name, s.converts))}
}

// ternarize plans a linear that is ternarized at load.
func (s *tensorSource) ternarize(l *nn.Linear, name string, w fileMatrix) {
	l.Ternary = s.ternary(name, l.Out, l.In)
	fill := s.codes(l.Ternary)
	s.planPart(w, l.Out, func() error {
		return fill(func(panels []byte) (err error) {
			l.Ternary.Scale, err = quant.Ternarize(panels, w.DType, w.upright(l.Out, l.In), l.Out, l.In)
			return err
		})
	})
}

// plan adds a job that converts w, a tensor or its rows from first on, names it in its error, and gives its pages back.
func (s *tensorSource) plan(w container.View, first int, convert func() error) {
	s.planBytes(w, len(w.Data), first, convert)
}

// planPart is plan for a layer of so many rows, which may be one of several in a matrix.
func (s *tensorSource) planPart(w fileMatrix, rows int, convert func() error) {
	s.planBytes(w.View, len(w.Data)/w.width*rows, 0, convert)
}

func (s *tensorSource) planBytes(w container.View, size, first int, convert func() error) {
	s.add(job{order: s.order[w.Name], bytes: int64(size), work: func(context.Context) error {
		if err := convert(); err != nil {
			return weightError(w, first, err)
		}
		return w.ReleasePages()
	}})
}

// settle ends the planning. It refuses tensors that the model has no place for: a checkpoint with more in it is another
// model. And it gives back what reading the small vectors made resident: the system reads ahead into their neighbours.
func (s *tensorSource) settle(model string, ignored func(name string) bool) error {
	var names []string
	var first container.Info
	for _, t := range s.set.Tensors() {
		v, err := s.set.Tensor(t.Name)
		if err != nil {
			return err
		}
		if err := v.ReleasePages(); err != nil {
			return err
		}
		if s.used[t.Name] || ignored(t.Name) {
			continue
		}
		if len(names) == 0 {
			first = t
		}
		names = append(names, t.Name)
	}
	if len(names) == 0 {
		return nil
	}
	e := &container.Error{Kind: ErrUnexpected, Path: first.Path, Tensor: first.Name,
		Found: fmt.Sprintf("%s %v", first.DType, first.Shape), Expected: "no such tensor in " + model}
	if more := len(names) - 1; more > 0 {
		e.Found += fmt.Sprintf(" (and %d more)", more)
	}
	return e
}

// part is the view of bytes from to to (cut to what is there) of a tensor.
func part(v container.View, from, to int) container.View {
	v.Data = v.Data[from:min(to, len(v.Data))]
	return v
}

// weightError names file and tensor of a weight that quant refused; quant counts rows from first. Too little memory is no fault of the file.
func weightError(w container.View, first int, err error) error {
	if errors.Is(err, pool.ErrOutOfMemory) {
		return err
	}
	e := &container.Error{Kind: ErrValue, Path: w.Path(), Tensor: w.Name, Found: err.Error()}
	var v *quant.ValueError
	if errors.As(err, &v) {
		e.Field, e.Found, e.Expected = fmt.Sprintf("row %d, column %d", first+v.Row, v.Col), v.Found, v.Expected
	}
	return e
}

// natural is the format that keeps the numbers of a float matrix.
func natural(dtype string) cpu.DenseFormat {
	switch dtype {
	case safetensors.BF16:
		return cpu.DenseBF16
	case safetensors.F16:
		return cpu.DenseF16
	}
	return cpu.DenseF32
}

// decodeFloats widens a tensor of one of the floats dtypes.
func decodeFloats(v container.View) []float32 {
	out := make([]float32, v.Elements())
	for i := range out {
		out[i] = decodeFloat(v.DType, v.Data[i*len(v.Data)/len(out):])
	}
	return out
}

// dtypeBytes is the size of a number of one of the floats dtypes.
func dtypeBytes(dtype string) int {
	if dtype == safetensors.F32 {
		return 4
	}
	return 2
}

// decodeFloat widens the first number of data.
func decodeFloat(dtype string, data []byte) float32 {
	switch dtype {
	case safetensors.F32:
		return math.Float32frombits(binary.LittleEndian.Uint32(data))
	case safetensors.BF16:
		return tensor.BFloat16Bits(binary.LittleEndian.Uint16(data)).Float32()
	default:
		return tensor.Float16Bits(binary.LittleEndian.Uint16(data)).Float32()
	}
}
