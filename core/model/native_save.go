package model

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// saveNative writes one file, or with a limit of shards the files of a directory.
func (m *Model) saveNative(ctx context.Context, path string, files map[string]string, o SaveOptions) error {
	w := nativeWriter{ctx: ctx, model: m, converts: m.Config.Quantization.converter()}
	if err := m.eachWeight(w.linear, w.norm); err != nil {
		return err
	}
	size := 0
	for _, name := range sortedKeys(files) {
		if size += len(files[name]); size > maxAssetBytes {
			return fmt.Errorf("%w: files of %d bytes up to %s: must be at most %d in all", ErrOption, size, name, maxAssetBytes)
		}
		w.parts = append(w.parts, nativePart{name: filePrefix + name, dtype: safetensors.U8, data: func() []byte { return []byte(files[name]) }, size: len(files[name]),
			entry: nativeTensor{Layout: layoutFile, Shape: []int{len(files[name])}}})
	}
	if err := w.sum(); err != nil {
		return err
	}
	if o.Compression != "" {
		if err := w.compress(); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Panels as they are, all multiples of 64 bytes, before vectors, whose addresses are multiples of 4, before what may have any size.
	slices.SortStableFunc(w.parts, func(a, b nativePart) int { return a.rank() - b.rank() })
	tensors := make([]container.Tensor, len(w.parts))
	for i := range w.parts {
		tensors[i] = w.tensor(&w.parts[i])
	}
	shards := 1
	if o.MaxShard > 0 {
		var err error
		if shards, err = safetensors.Shards(tensors, o.MaxShard); err != nil {
			return err
		}
	}
	meta, err := m.nativeMetadata(ctx, w.parts, shards, o)
	if err != nil {
		return err
	}
	if err := checkHeader(tensors, meta); err != nil {
		return err
	}
	if planned(ctx, tensors) {
		return nil
	}
	tensors = stoppable(ctx, tensors)
	if o.MaxShard > 0 {
		_, err = safetensors.WriteShards(path, NativeExt, tensors, meta, o.MaxShard)
		return err
	}
	return safetensors.Write(path, tensors, meta)
}

// checkHeader refuses what no reader would take.
func checkHeader(tensors []container.Tensor, meta map[string]string) error {
	if err := safetensors.CheckHeader(tensors, meta, nativeLimits); err != nil {
		return fmt.Errorf("%w: metadata and a list of %d tensors that no reader would take: %w", ErrOption, len(tensors), err)
	}
	return nil
}

// nativeMetadata is the metadata of all files. Programs of the first version read what needs no later one.
func (m *Model) nativeMetadata(ctx context.Context, parts []nativePart, shards int, o SaveOptions) (map[string]string, error) {
	config, err := json.Marshal(m.Config)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	meta, err := m.metadata(ctx, o.Metadata)
	if err != nil {
		return nil, err
	}
	version, entries := plainVersion, make(map[string]nativeTensor, len(parts))
	for _, p := range parts {
		entries[p.name] = p.entry
		if p.entry.Compression != "" {
			version = NativeVersion
		}
	}
	if shards > 1 {
		version = NativeVersion
		meta[keyShards] = strconv.Itoa(shards)
	}
	tensors, err := json.Marshal(entries)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	meta[keyFormat] = nativeFormat
	meta[keyVersion] = strconv.Itoa(version)
	meta[keyProducer] = nativeProducer
	meta[keyCreated] = time.Now().UTC().Format(time.RFC3339)
	meta[keyConfig] = string(config)
	meta[keyTensors] = string(tensors)
	return meta, nil
}

// nativePart is a tensor of a native file: its data, while its module is in memory, and zeros up to size.
type nativePart struct {
	name   string
	module string // "" of what always is
	dtype  string
	data   func() []byte
	size   int
	entry  nativeTensor

	compressed int // bytes, if entry.Compression says so
}

// rank is the place of a part: see saveNative. Within a rank the order of the forward pass stays.
func (p *nativePart) rank() int {
	switch {
	case p.entry.Layout == layoutFile || p.entry.Compression != "":
		return 2
	case p.entry.Layout == layoutVector:
		return 1
	}
	return 0
}

// nativeWriter collects the tensors of a native file, and is the task that computes their checksums.
type nativeWriter struct {
	ctx      context.Context
	model    *Model
	converts func(module string) bool
	parts    []nativePart
	zstd     *compressor // nil: nothing is compressed
}

// sum computes the checksums, of all parts at once if they are in memory.
func (w *nativeWriter) sum() error {
	if w.model.deferred == nil {
		cpu.Parallel(len(w.parts), w)
		return w.ctx.Err()
	}
	for i := range w.parts {
		if err := w.with(&w.parts[i], func([]byte) error { w.Run(i); return nil }); err != nil {
			return err
		}
	}
	return w.ctx.Err()
}

// with does work while a part's data are in memory.
func (w *nativeWriter) with(p *nativePart, work func(data []byte) error) error {
	return w.model.with(w.ctx, p.module, func() error { return work(p.data()) })
}

// Run computes one checksum.
func (w *nativeWriter) Run(i int) {
	if w.ctx.Err() != nil {
		return
	}
	p := &w.parts[i]
	data := p.data()
	var zeros [nativeAlign]byte
	p.entry.CRC32C.update(data)
	p.entry.CRC32C.update(zeros[:p.size-len(data)])
}

// compress measures what compression makes of matrices and files, and notes it where it gains. They are compressed again when they are
// written, rather than kept.
func (w *nativeWriter) compress() (err error) {
	if w.zstd, err = newCompressor(); err != nil {
		return err
	}
	for i := range w.parts {
		p := &w.parts[i]
		if p.entry.Layout == layoutVector {
			continue
		}
		var n counter
		if err := w.with(p, func(data []byte) error { return w.zstd.write(contextWriter{w.ctx, &n, nil}, data, p.size) }); err != nil {
			return err
		}
		if int(n) < p.size && !p.entry.growsTooMuch(p.size, int(n)) {
			p.entry.Compression, p.compressed = CompressionZstd, int(n)
		}
	}
	return nil
}

// tensor is a part as the container has it.
func (w *nativeWriter) tensor(p *nativePart) container.Tensor {
	t := container.Tensor{Name: p.name, DType: p.dtype, Shape: []int{p.size}}
	write := func(out io.Writer, data []byte) error { return writePadded(out, data, p.size) }
	switch {
	case p.entry.Compression != "":
		t.Shape = []int{p.compressed}
		write = func(out io.Writer, data []byte) error { return w.zstd.write(out, data, p.size) }
	case p.entry.Layout == layoutVector:
		t.Shape = p.entry.Shape
	}
	t.Stream = func(out io.Writer) error {
		return w.with(p, func(data []byte) error { return write(out, data) })
	}
	return t
}

// panels adds a matrix in kernel layout, of n bytes.
func (w *nativeWriter) panels(module string, n int, data func() []byte, e nativeTensor) {
	w.parts = append(w.parts, nativePart{name: module + ".weight", module: module, dtype: safetensors.U8, data: data, size: stored(n), entry: e})
}

// vector adds n numbers. values is asked when they are in memory.
func (w *nativeWriter) vector(name, module string, n int, values func() []float32) {
	data := func() []byte {
		data := make([]byte, 0, 4*n)
		for _, v := range values() {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
		}
		return data
	}
	w.parts = append(w.parts, nativePart{name: name, module: module, dtype: safetensors.F32, data: data, size: 4 * n, entry: nativeTensor{Layout: layoutVector, Shape: []int{n}}})
}

// kept adds a vector that is always in memory.
func (w *nativeWriter) kept(name string, values []float32) {
	w.vector(name, "", len(values), func() []float32 { return values })
}

func (w *nativeWriter) norm(name string, n *nn.Norm) error {
	w.kept(name+".weight", n.Weight)
	if n.Bias != nil {
		w.kept(name+".bias", n.Bias)
	}
	return nil
}

func (w *nativeWriter) linear(name string, l *nn.Linear) error {
	shape := []int{l.Out, l.In}
	if t := l.Ternary; t != nil {
		layout := t.Layout
		data := func() []byte { return t.Data }
		if own := w.model.Config.layout(name, w.converts); layout != own && layout != quant.Base3 { // of a model that was trained
			layout = own
			data = func() []byte {
				codes := &quant.Ternary{Rows: t.Rows, Cols: t.Cols, Scale: t.Scale, Layout: own, Data: make([]byte, own.Bytes(t.Rows, t.Cols))}
				codes.FromPanels(t.Panels())
				return codes.Data
			}
		}
		w.panels(name, layout.Bytes(t.Rows, t.Cols), data, nativeTensor{Layout: layoutName(ternaryLayouts, layout), Shape: shape, Scale: &t.Scale})
	} else {
		d := l.Dense
		w.panels(name, cpu.DenseBytes(d.Format, d.Rows, d.Cols), func() []byte { return d.Panels }, nativeTensor{Layout: layoutName(denseLayouts, d.Format), Shape: shape})
		if d.RowScale != nil {
			w.vector(name+".weight.row_scale", name, len(d.RowScale), func() []float32 { return d.RowScale })
		}
	}
	if l.Bias != nil {
		w.kept(name+".bias", l.Bias)
	}
	if l.Norm != nil {
		w.kept(name+".rms_norm.weight", l.Norm.Weight)
	}
	return nil
}

// writePadded writes data and the zeros up to size, less than nativeAlign.
func writePadded(w io.Writer, data []byte, size int) error {
	if _, err := w.Write(data); err != nil {
		return err
	}
	var zeros [nativeAlign]byte
	_, err := w.Write(zeros[:size-len(data)])
	return err
}

// counter counts what is written to it.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
