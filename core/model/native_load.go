package model

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// loadNative loads a native file. The model's weights are the mapping itself, which stays open as long as the model, except for
// a table whose format changes and for everything when the options ask for memory; see promote for what happens afterwards.
func loadNative(ctx context.Context, path string, l *loader) (*Model, error) {
	f, err := openNative(path)
	if err != nil {
		return nil, err
	}
	m, err := readNative(ctx, f, l)
	if err != nil {
		_ = f.Close() // the first error says more
		return nil, err
	}
	m.close = append(m.close, f.Close)
	m.Info.Path, m.Info.Format = path, "native"
	m.Info.Metadata = f.meta
	delete(m.Info.Metadata, keyConfig)
	delete(m.Info.Metadata, keyTensors)
	m.promote(l.mapped, l.opts.Pool, l.opts.Resident != ResidentMap)
	return m, nil
}

// nativeConfig reads only the config of a native file.
func nativeConfig(path string) (*Config, error) {
	f, err := openNative(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing of it is kept
	return f.config()
}

func (f *nativeFile) config() (*Config, error) {
	return ParseConfig([]byte(f.meta[keyConfig]), f.Path()+": metadata "+keyConfig)
}

func readNative(ctx context.Context, f *nativeFile, l *loader) (*Model, error) {
	cfg, err := f.config()
	if err != nil {
		return nil, err
	}
	l.wide = true
	src := &nativeSource{loader: l, file: f, cfg: cfg, used: map[string]bool{}}
	m, err := build(cfg, src)
	if err != nil {
		return nil, err
	}
	for _, t := range f.Tensors() {
		if !src.used[t.Name] && f.tensors[t.Name].Layout != layoutFile {
			return nil, &container.Error{Kind: ErrUnexpected, Path: f.Path(), Tensor: t.Name,
				Found: f.tensors[t.Name].Layout, Expected: "no such tensor in a " + cfg.Architecture}
		}
	}
	return m, l.finish(ctx, m)
}

// nativeSource is a native file as a source.
type nativeSource struct {
	*loader
	file *nativeFile
	cfg  *Config
	used map[string]bool
}

func (s *nativeSource) linear(name string, out, in int) (*nn.Linear, error) {
	l := &nn.Linear{Out: out, In: in}
	weight := name + ".weight"
	stated := s.file.tensors[weight].Layout
	if layout, ok := ternaryLayouts[stated]; ok {
		size := layout.Bytes(out, in)
		v, t, err := s.file.tensor(weight, stated, []int{out, in}, safetensors.U8, stored(size))
		if err != nil {
			return nil, err
		}
		l.Ternary = &quant.Ternary{Rows: out, Cols: in, Layout: layout}
		if l.Ternary.Scale, err = s.file.scaleOf(weight, t); err != nil {
			return nil, err
		}
		if want := s.opts.packed(layout); want != layout {
			l.Ternary.Layout = want
			s.repack(l.Ternary, v, layout)
		} else if err := s.panels(&l.Ternary.Data, v, size, s.checker(v, layout, in)); err != nil {
			return nil, err
		}
	} else if _, ok := denseLayouts[stated]; !ok && s.file.Has(weight) {
		return nil, s.layoutError(weight, append(slices.Sorted(maps.Keys(ternaryLayouts)), slices.Sorted(maps.Keys(denseLayouts))...))
	} else {
		t, err := s.table(name, out, in)
		if err != nil {
			return nil, err
		}
		l.Dense = t.Dense
	}
	return l, s.extras(l, name)
}

func (s *nativeSource) layoutError(weight string, expected []string) error {
	e := &container.Error{Kind: container.ErrMismatch, Path: s.file.Path(), Tensor: weight, Field: "layout",
		Found: abbreviate([]byte(s.file.tensors[weight].Layout)), Expected: "one of " + strings.Join(expected, ", ")}
	if slices.Contains(formerLayouts, e.Found) {
		e.Expected += " (an earlier bitnet_rust wrote the file: save the model again from the checkpoint it was made of)"
	}
	return e
}

// extras reads a linear's bias and its own norm.
func (s *nativeSource) extras(l *nn.Linear, name string) (err error) {
	if s.file.Has(name + ".bias") {
		if l.Bias, err = s.vector(name+".bias", l.Out); err != nil {
			return err
		}
	}
	if s.file.Has(name + ".rms_norm.weight") {
		l.Norm = &nn.RMSNorm{Eps: float32(s.cfg.Quantization.RMSNormEps)}
		l.Norm.Weight, err = s.norm(name+".rms_norm", l.In)
	}
	return err
}

func (s *nativeSource) norm(name string, dim int) ([]float32, error) {
	return s.vector(name+".weight", dim)
}

// vector reads a small tensor at once; it lives on the Go heap. Its checksum is always verified.
func (s *nativeSource) vector(name string, dim int) ([]float32, error) {
	v, _, err := s.file.tensor(name, layoutVector, []int{dim}, safetensors.F32, dim)
	if err != nil {
		return nil, err
	}
	s.used[name] = true
	if err := s.file.verify(context.Background(), v, nil); err != nil {
		return nil, err
	}
	out := make([]float32, dim)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(v.Data[4*i:]))
	}
	return out, nil
}

func (s *nativeSource) table(name string, rows, cols int) (*nn.Linear, error) {
	weight := name + ".weight"
	layout := s.file.tensors[weight].Layout
	have, ok := denseLayouts[layout]
	if !ok && s.file.Has(weight) {
		return nil, s.layoutError(weight, slices.Sorted(maps.Keys(denseLayouts)))
	}
	if have.Integer() && cols > cpu.MaxDenseIntCols {
		return nil, &container.Error{Kind: container.ErrMismatch, Path: s.file.Path(), Tensor: weight, Field: "layout",
			Found: layout, Expected: fmt.Sprintf("a float layout for more than %d columns", cpu.MaxDenseIntCols)}
	}
	v, _, err := s.file.tensor(weight, layout, []int{rows, cols}, safetensors.U8, stored(cpu.DenseBytes(have, rows, cols)))
	if err != nil {
		return nil, err
	}
	d := &quant.Dense{Rows: rows, Cols: cols, Format: have}
	if quant.Scaled(have) {
		if d.RowScale, err = s.vector(weight+".row_scale", rows); err != nil {
			return nil, err
		}
	}
	l := &nn.Linear{Out: rows, In: cols, Dense: d}
	isHead := name == "lm_head" || name == "model.embed_tokens" && s.cfg.TieWordEmbeddings
	if want := s.head.or(have); isHead && want != have {
		s.used[weight] = true
		l.Dense = s.convert(v, d, want)
		return l, nil
	}
	return l, s.panels(&d.Panels, v, cpu.DenseBytes(have, rows, cols), s.checker(v, notTernary, cols))
}

// panels makes the first n bytes of v the matrix *dst: in place, or copied when the options ask for memory.
func (s *nativeSource) panels(dst *[]byte, v container.View, n int, check checker) error {
	s.used[v.Name] = true
	if uintptr(unsafe.Pointer(unsafe.SliceData(v.Data)))%nativeAlign != 0 {
		return &container.Error{Kind: container.ErrMismatch, Path: s.file.Path(), Tensor: v.Name, Field: "data_offsets",
			Found: "an unaligned tensor", Expected: fmt.Sprintf("a multiple of %d bytes", nativeAlign)}
	}
	if s.opts.Resident == ResidentCopy {
		s.reserve(dst, n)
		s.add(job{bytes: int64(len(v.Data)), work: func(ctx context.Context) error { return s.copied(ctx, v, *dst, check) }})
		return nil
	}
	*dst = v.Data[:n:n]
	x := mapped{dst: dst, view: v}
	switch {
	case s.opts.Verify == VerifyNever:
	case s.opts.Verify != VerifyNow && s.file.Size() >= promoteFrom:
		x.check = check
	default:
		s.add(job{bytes: int64(len(v.Data)), work: func(ctx context.Context) error { return check(ctx, nil) }})
	}
	s.mapped = append(s.mapped, x)
	return nil
}

// checker compares a matrix with its checksum, looks for codes that are no weights, and shows each piece to visit unless that is nil.
type checker func(ctx context.Context, visit func(at int, piece []byte) error) error

// notTernary stands for the layout of a dense matrix.
const notTernary = quant.Layout(255)

func (s *nativeSource) checker(v container.View, layout quant.Layout, cols int) checker {
	return func(ctx context.Context, visit func(at int, piece []byte) error) error {
		bad := false
		if err := s.file.verify(ctx, v, func(at int, piece []byte) error {
			bad = bad || layout != notTernary && badCodes(layout, cols, piece, at) // before a visitor gives the pages back
			if visit == nil {
				return nil
			}
			return visit(at, piece)
		}); err != nil {
			return err
		}
		if bad {
			found, expected := "a ternary code 3", "codes 0, 1 and 2"
			if layout == quant.Base3 {
				found, expected = "a byte that stands for no five weights", "bytes below 243, and codes 0, 1 and 2 at the ends of panels"
			}
			return &container.Error{Kind: ErrValue, Path: s.file.Path(), Tensor: v.Name, Found: found, Expected: expected}
		}
		return nil
	}
}

// copied copies a matrix, and compares it with its checksum unless that is never done.
func (s *nativeSource) copied(ctx context.Context, v container.View, dst []byte, check checker) error {
	if s.opts.Verify == VerifyNever {
		copy(dst, v.Data)
		return v.ReleasePages()
	}
	return check(ctx, func(at int, piece []byte) error {
		if at < len(dst) {
			copy(dst[at:], piece)
		}
		return release(v, piece)
	})
}

// release gives the pages of a piece of v back.
func release(v container.View, piece []byte) error {
	v.Data = piece
	return v.ReleasePages()
}

// convert plans a dense matrix of another format than the file's.
func (s *nativeSource) convert(v container.View, have *quant.Dense, want cpu.DenseFormat) *quant.Dense {
	d := &quant.Dense{Rows: have.Rows, Cols: have.Cols, Format: want}
	s.reserve(&d.Panels, cpu.DenseBytes(want, d.Rows, d.Cols))
	if quant.Scaled(want) {
		d.RowScale = make([]float32, d.Rows)
	}
	have.Panels = v.Data
	if s.opts.Verify != VerifyNever {
		s.add(job{bytes: int64(len(v.Data)), work: func(ctx context.Context) error {
			return s.file.verify(ctx, v, func(_ int, piece []byte) error { return release(v, piece) })
		}})
	}
	step := max(1, (2<<20)/cpu.DenseBytes(have.Format, cpu.PanelRows, d.Cols)) * cpu.PanelRows
	for r := 0; r < d.Rows; r += step {
		end := min(r+step, d.Rows)
		from, to := cpu.DenseBytes(have.Format, r, d.Cols), cpu.DenseBytes(have.Format, end, d.Cols)
		s.add(job{bytes: int64(to - from), work: func(context.Context) error {
			if err := convertRows(d, have, r, end); err != nil {
				return err
			}
			return release(v, v.Data[from:to])
		}})
	}
	return d
}

// convertRows fills rows from to end, whole panels, of d from the same matrix in another format.
func convertRows(d, src *quant.Dense, from, end int) error {
	row := make([]float32, d.Cols)
	buffer := make([]byte, 0, 4*(end-from)*d.Cols)
	for r := from; r < end; r++ {
		src.Row(row, r)
		buffer = appendFloats(buffer, safetensors.F32, row)
	}
	var scale []float32
	if d.RowScale != nil {
		scale = d.RowScale[from:end]
	}
	panels := d.Panels[cpu.DenseBytes(d.Format, from, d.Cols):cpu.DenseBytes(d.Format, end, d.Cols)]
	return quant.PackDense(panels, scale, d.Format, safetensors.F32, buffer, end-from, d.Cols)
}

// hasCode3 looks for the one two-bit code that is no weight: kernels rely on its absence. len(panels) is a multiple of 64.
func hasCode3(panels []byte) bool {
	var bad uint64
	for ; len(panels) >= 8; panels = panels[8:] {
		x := binary.LittleEndian.Uint64(panels)
		bad |= x & (x >> 1)
	}
	return bad&0x5555555555555555 != 0
}
