package model

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
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
	m, err := buildNative(ctx, f, l)
	if err != nil {
		return nil, err
	}
	m.Info.Path = path
	return m, nil
}

// LoadReader is Load for a native file of size bytes wherever it is: in an archive, in memory, on a server. Name stands for it in errors. It is read
// once, from the first weight to the last, after the header, the files inside and the small vectors; nothing is read after the return, and so
// the weights cannot be deferred. What else is in the file, such as the tokenizer, is the model's: see Assets.
func LoadReader(ctx context.Context, r io.ReaderAt, size int64, name string, o LoadOptions) (*Model, error) {
	head, err := o.check()
	if err != nil {
		return nil, err
	}
	if o.Deferred {
		return nil, fmt.Errorf("%w: deferred: the weights of %s are no file of this machine: they are read before the return", ErrOption, name)
	}
	load := func(ctx context.Context, o LoadOptions) (*Model, error) {
		file, err := container.OpenReader(name, r, size)
		if err != nil {
			return nil, err
		}
		f, err := readNative(file)
		if err != nil {
			return nil, notNative(r, name, err)
		}
		files := map[string]string{}
		if err := f.assets(ctx, files); err != nil {
			_ = f.Close() // the first error says more
			return nil, err
		}
		l := newLoader(o, head)
		m, err := buildNative(ctx, f, l)
		if err != nil {
			return nil, err
		}
		return m, m.SetAssets(files)
	}
	start, wanted := time.Now(), load
	if o.Trainable {
		wanted = func(ctx context.Context, o LoadOptions) (*Model, error) { return loadTrainable(ctx, o, load) }
	}
	m, err := wanted(ctx, o)
	if err == nil {
		m.logLoaded(name, start)
	}
	return m, err
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

// buildNative makes the model of a file, which stays open as long as the model needs it.
func buildNative(ctx context.Context, f *nativeFile, l *loader) (*Model, error) {
	m, err := planNative(ctx, f, l)
	if err == nil {
		err = l.finish(ctx, m)
	}
	if err != nil || len(l.mapped) == 0 && !l.opts.Deferred {
		if ended := f.Close(); err == nil && ended != nil {
			return nil, errors.Join(ended, m.Close())
		}
	} else {
		m.close = append(m.close, f.Close)
	}
	if err != nil {
		return nil, err
	}
	m.Info.Format = "native"
	m.Info.Metadata = f.meta
	for _, key := range []string{keyConfig, keyTensors, keyShards} {
		delete(m.Info.Metadata, key)
	}
	m.promote(l.mapped, l.opts.Pool, l.opts.Resident != ResidentMap && !l.opts.Deferred)
	return m, nil
}

// planNative assembles the model, and leaves the weights to the loader.
func planNative(ctx context.Context, f *nativeFile, l *loader) (*Model, error) {
	cfg, err := f.config()
	if err != nil {
		return nil, err
	}
	if l.opts.Quantize && !cfg.hasTernary() {
		return nil, fmt.Errorf("%w: quantize: the layers of %s are float, and a native file is loaded as it is: take the Hugging Face checkpoint "+
			`that it was made of, or save one with format="hf"`, ErrOption, f.Path())
	}
	l.wide = true
	src := &nativeSource{loader: l, ctx: ctx, file: f, cfg: cfg, used: map[string]bool{}, order: map[string]int{}}
	tensors := f.Tensors()
	for i, t := range tensors {
		src.order[t.Name] = i
	}
	m, err := build(cfg, src)
	if err != nil {
		return nil, err
	}
	for _, t := range tensors {
		if !src.used[t.Name] && f.tensors[t.Name].Layout != layoutFile {
			return nil, &container.Error{Kind: ErrUnexpected, Path: t.Path, Tensor: t.Name,
				Found: container.Clip(f.tensors[t.Name].Layout), Expected: "no such tensor in a " + cfg.Architecture}
		}
	}
	return m, l.checkUse(f, "native", false)
}

// nativeSource is a native file as a source.
type nativeSource struct {
	*loader
	ctx   context.Context
	file  *nativeFile
	cfg   *Config
	used  map[string]bool
	order map[string]int // by tensor: its place in the files
}

// plan adds a job that reads n bytes of v as the file has them. Files that are not in memory are read from front to back.
func (s *nativeSource) plan(v nativeView, n int, work func(context.Context) error) {
	s.wide = s.wide && v.File.Mapped()
	s.add(job{order: s.order[v.Name], bytes: int64(n), work: work})
}

func (s *nativeSource) linear(name string, out, in int) (*nn.Linear, error) {
	l := &nn.Linear{Out: out, In: in}
	weight := name + ".weight"
	stated := s.file.tensors[weight].Layout
	if layout, ok := ternaryLayouts[stated]; ok {
		size := layout.Bytes(out, in)
		v, err := s.file.tensor(weight, stated, []int{out, in}, safetensors.U8, stored(size))
		if err != nil {
			return nil, err
		}
		l.Ternary = &quant.Ternary{Rows: out, Cols: in, Layout: layout}
		if l.Ternary.Scale, err = s.file.scaleOf(weight, v.entry); err != nil {
			return nil, err
		}
		if want := s.opts.packed(layout); want != layout {
			l.Ternary.Layout = want
			s.repack(l.Ternary, v, layout)
		} else if err := s.panels(&l.Ternary.Data, v, size, s.checker(v, layout, in)); err != nil {
			return nil, err
		}
	} else if _, ok := denseLayouts[stated]; !ok && s.file.Has(weight) {
		return nil, s.file.layoutError(weight, matrixLayouts())
	} else {
		t, err := s.table(name, out, in)
		if err != nil {
			return nil, err
		}
		l.Dense = t.Dense
	}
	return l, s.extras(l, name)
}

// extras reads a linear's bias and its own norm.
func (s *nativeSource) extras(l *nn.Linear, name string) (err error) {
	if s.file.Has(name + ".bias") {
		if l.Bias, err = s.vector(name+".bias", l.Out); err != nil {
			return err
		}
	}
	if s.file.Has(name + ".rms_norm.weight") {
		l.Norm = &nn.Norm{Eps: float32(s.cfg.Quantization.RMSNormEps)}
		l.Norm.Weight, err = s.norm(name+".rms_norm", "weight", l.In)
	}
	return err
}

func (s *nativeSource) norm(name, part string, dim int) ([]float32, error) {
	return s.vector(name+"."+part, dim)
}

// vector reads a small tensor at once; it lives on the Go heap. Its checksum is always verified.
func (s *nativeSource) vector(name string, dim int) ([]float32, error) {
	v, err := s.file.tensor(name, layoutVector, []int{dim}, safetensors.F32, dim)
	if err != nil {
		return nil, err
	}
	s.used[name] = true
	data, err := v.bytes(s.ctx, true)
	if err != nil {
		return nil, err
	}
	out := make([]float32, dim)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return out, nil
}

func (s *nativeSource) table(name string, rows, cols int) (*nn.Linear, error) {
	weight := name + ".weight"
	layout := s.file.tensors[weight].Layout
	have, ok := denseLayouts[layout]
	if !ok && s.file.Has(weight) {
		return nil, s.file.layoutError(weight, sortedKeys(denseLayouts))
	}
	if have.Integer() && cols > cpu.MaxDenseIntCols {
		return nil, &container.Error{Kind: container.ErrMismatch, Path: s.file.Path(), Tensor: weight, Field: "layout",
			Found: layout, Expected: fmt.Sprintf("a float layout for more than %d columns", cpu.MaxDenseIntCols)}
	}
	v, err := s.file.tensor(weight, layout, []int{rows, cols}, safetensors.U8, stored(cpu.DenseBytes(have, rows, cols)))
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
	if want := s.head.or(have); s.cfg.isHead(name) && want != have {
		s.used[weight] = true
		l.Dense = s.convert(v, d, want)
		return l, nil
	}
	return l, s.panels(&d.Panels, v, cpu.DenseBytes(have, rows, cols), s.checker(v, notTernary, cols))
}

// panels makes the first n bytes of v the matrix *dst: in place, or copied when the options ask for memory or the file does not have them so.
func (s *nativeSource) panels(dst *[]byte, v nativeView, n int, check checker) error {
	s.used[v.Name] = true
	if v.plain() && uintptr(unsafe.Pointer(unsafe.SliceData(v.Data)))%nativeAlign != 0 {
		return &container.Error{Kind: container.ErrMismatch, Path: v.Path(), Tensor: v.Name, Field: "data_offsets",
			Found: "an unaligned tensor", Expected: fmt.Sprintf("a multiple of %d bytes", nativeAlign)}
	}
	if !v.plain() && s.opts.Resident == ResidentMap {
		return fmt.Errorf("%w: resident %q: must be %s or %s for %s, whose weights are compressed or no file of this machine", ErrOption, ResidentMap, ResidentAuto, ResidentCopy, v.Path())
	}
	if !v.plain() || s.opts.Resident == ResidentCopy {
		s.reserve(dst, n)
		s.plan(v, v.Size(), func(ctx context.Context) error { return s.copied(ctx, v, *dst, check) })
		return nil
	}
	*dst = v.Data[:n:n]
	x := mapped{dst: dst, view: v.View}
	switch {
	case s.opts.Verify == VerifyNever:
	case s.opts.Verify != VerifyNow && s.file.size >= promoteFrom:
		x.check = check
	default:
		s.plan(v, v.Size(), func(ctx context.Context) error { return check(ctx, nil) })
	}
	s.mapped = append(s.mapped, x)
	return nil
}

// checker compares a matrix with its checksum, looks for codes that are no weights, and shows each piece to visit unless that is nil.
type checker func(ctx context.Context, visit func(at int, piece []byte) error) error

// notTernary stands for the layout of a dense matrix.
const notTernary = quant.Layout(255)

func (s *nativeSource) checker(v nativeView, layout quant.Layout, cols int) checker {
	return func(ctx context.Context, visit func(at int, piece []byte) error) error {
		return v.check(ctx, layout, cols, visit)
	}
}

// check is the checker of a matrix. A file that was cut short after it had been opened is a damaged one.
func (v nativeView) check(ctx context.Context, layout quant.Layout, cols int, visit func(at int, piece []byte) error) (err error) {
	defer container.CatchFault(&err)
	bad := false
	if err := v.read(ctx, true, func(at int, piece []byte) error {
		bad = bad || layout != notTernary && badCodes(layout, cols, piece, at) // before a visitor gives the pages back
		if visit == nil {
			return nil
		}
		return visit(at, piece)
	}); err != nil {
		return err
	}
	if bad {
		return badCodesError(v.View, layout)
	}
	return nil
}

// copied copies a matrix, and compares it with its checksum unless that is never done.
func (s *nativeSource) copied(ctx context.Context, v nativeView, dst []byte, check checker) error {
	if s.opts.Verify == VerifyNever {
		check = func(ctx context.Context, visit func(int, []byte) error) error { return v.read(ctx, false, visit) }
	}
	return check(ctx, func(at int, piece []byte) error {
		if at < len(dst) {
			copy(dst[at:], piece)
		}
		if v.plain() {
			return release(v.View, piece)
		}
		return nil
	})
}

// whole gives a matrix for reading it in any order, checked unless that is never done: the mapping, or memory of the pool that done gives back.
func (s *nativeSource) whole(ctx context.Context, v nativeView, check checker) (data []byte, done func(), err error) {
	if v.plain() {
		if s.opts.Verify != VerifyNever {
			err = check(ctx, nil)
		}
		return v.Data, func() { _ = v.ReleasePages() }, err // only costs memory if it fails
	}
	b, err := s.opts.Pool.AllocUninit(v.size, "weights")
	if err != nil {
		return nil, nil, fmt.Errorf("model: %w", err)
	}
	if err := s.copied(ctx, v, b.Bytes(), check); err != nil {
		b.Release()
		return nil, nil, err
	}
	return b.Bytes(), b.Release, nil
}

// release gives the pages of a piece of v back.
func release(v container.View, piece []byte) error {
	v.Data = piece
	return v.ReleasePages()
}

// convert plans a dense matrix of another format than the file's.
func (s *nativeSource) convert(v nativeView, have *quant.Dense, want cpu.DenseFormat) *quant.Dense {
	d := &quant.Dense{Rows: have.Rows, Cols: have.Cols, Format: want}
	s.reserve(&d.Panels, cpu.DenseBytes(want, d.Rows, d.Cols))
	if quant.Scaled(want) {
		d.RowScale = make([]float32, d.Rows)
	}
	step := max(1, (2<<20)/cpu.DenseBytes(have.Format, cpu.PanelRows, d.Cols)) * cpu.PanelRows
	if !v.plain() {
		s.plan(v, v.Size(), func(ctx context.Context) error {
			data, done, err := s.whole(ctx, v, s.checker(v, notTernary, have.Cols))
			if err != nil {
				return err
			}
			defer done()
			have.Panels = data
			for r := 0; r < d.Rows && err == nil; r += step {
				if err = ctx.Err(); err == nil {
					err = convertRows(d, have, v.View, r, min(r+step, d.Rows))
				}
			}
			return err
		})
		return d
	}
	have.Panels = v.Data
	if s.opts.Verify != VerifyNever {
		s.plan(v, v.Size(), func(ctx context.Context) error {
			return v.read(ctx, true, func(_ int, piece []byte) error { return release(v.View, piece) })
		})
	}
	for r := 0; r < d.Rows; r += step {
		end := min(r+step, d.Rows)
		from, to := cpu.DenseBytes(have.Format, r, d.Cols), cpu.DenseBytes(have.Format, end, d.Cols)
		s.plan(v, to-from, func(context.Context) error {
			if err := convertRows(d, have, v.View, r, end); err != nil {
				return err
			}
			return release(v.View, v.Data[from:to])
		})
	}
	return d
}

// convertRows fills rows from to end, whole panels, of d from the same matrix in another format, that of v.
func convertRows(d, src *quant.Dense, v container.View, from, end int) error {
	var scale []float32
	if d.RowScale != nil {
		scale = d.RowScale[from:end]
	}
	panels := d.Panels[cpu.DenseBytes(d.Format, from, d.Cols):cpu.DenseBytes(d.Format, end, d.Cols)]
	err := quant.PackDenseRows(panels, scale, d.Format, end-from, d.Cols, func(values []float32, row int) error {
		src.Row(values, from+row)
		return nil
	})
	if err != nil {
		return weightError(v, from, err)
	}
	return nil
}
