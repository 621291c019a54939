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
	w := nativeWriter{ctx: ctx, cfg: m.Config, converts: m.Config.Quantization.converter()}
	if err := m.eachWeight(w.linear, w.norm); err != nil {
		return err
	}
	for _, name := range sortedKeys(files) {
		w.parts = append(w.parts, nativePart{name: filePrefix + name, dtype: safetensors.U8, data: []byte(files[name]), size: len(files[name]),
			entry: nativeTensor{Layout: layoutFile, Shape: []int{len(files[name])}}})
	}
	cpu.Parallel(len(w.parts), &w)
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
	tensors = stoppable(ctx, tensors)
	if o.MaxShard > 0 {
		_, err = safetensors.WriteShards(path, NativeExt, tensors, meta, o.MaxShard)
		return err
	}
	return safetensors.Write(path, tensors, meta)
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

// nativePart is a tensor of a native file: its data and zeros up to size.
type nativePart struct {
	name  string
	dtype string
	data  []byte
	size  int
	entry nativeTensor

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
	cfg      *Config
	converts func(module string) bool
	parts    []nativePart
	zstd     *compressor // nil: nothing is compressed
}

// Run computes one checksum.
func (w *nativeWriter) Run(i int) {
	if w.ctx.Err() != nil {
		return
	}
	p := &w.parts[i]
	var zeros [nativeAlign]byte
	p.entry.CRC32C.update(p.data)
	p.entry.CRC32C.update(zeros[:p.size-len(p.data)])
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
		if err := w.zstd.write(contextWriter{w.ctx, &n}, p); err != nil {
			return err
		}
		if int(n) < p.size && !growsTooMuch(p.size, int(n)) {
			p.entry.Compression, p.compressed = CompressionZstd, int(n)
		}
	}
	return nil
}

// tensor is a part as the container has it.
func (w *nativeWriter) tensor(p *nativePart) container.Tensor {
	switch {
	case p.entry.Compression != "":
		return container.Tensor{Name: p.name, DType: safetensors.U8, Shape: []int{p.compressed}, Stream: func(out io.Writer) error { return w.zstd.write(out, p) }}
	case p.entry.Layout == layoutVector || p.entry.Layout == layoutFile:
		return container.Tensor{Name: p.name, DType: p.dtype, Shape: p.entry.Shape, Data: p.data}
	}
	return container.Tensor{Name: p.name, DType: p.dtype, Shape: []int{p.size}, Stream: func(out io.Writer) error { return writePadded(out, p.data) }}
}

// panels adds a matrix in kernel layout.
func (w *nativeWriter) panels(name string, data []byte, e nativeTensor) {
	w.parts = append(w.parts, nativePart{name: name, dtype: safetensors.U8, data: data, size: stored(len(data)), entry: e})
}

func (w *nativeWriter) vector(name string, values []float32) {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	w.parts = append(w.parts, nativePart{name: name, dtype: safetensors.F32, data: data, size: len(data), entry: nativeTensor{Layout: layoutVector, Shape: []int{len(values)}}})
}

func (w *nativeWriter) norm(name string, n *nn.RMSNorm) error {
	w.vector(name+".weight", n.Weight)
	return nil
}

func (w *nativeWriter) linear(name string, l *nn.Linear) error {
	weight, shape := name+".weight", []int{l.Out, l.In}
	if t := l.Ternary; t != nil {
		if layout := w.cfg.layout(name, w.converts); t.Layout != layout && t.Layout != quant.Base3 { // of a model that was trained
			codes := &quant.Ternary{Rows: t.Rows, Cols: t.Cols, Scale: t.Scale, Layout: layout, Data: make([]byte, layout.Bytes(t.Rows, t.Cols))}
			codes.FromPanels(t.Panels())
			t = codes
		}
		w.panels(weight, t.Data, nativeTensor{Layout: layoutName(ternaryLayouts, t.Layout), Shape: shape, Scale: &t.Scale})
	} else {
		w.panels(weight, l.Dense.Panels, nativeTensor{Layout: layoutName(denseLayouts, l.Dense.Format), Shape: shape})
		if l.Dense.RowScale != nil {
			w.vector(weight+".row_scale", l.Dense.RowScale)
		}
	}
	if l.Bias != nil {
		w.vector(name+".bias", l.Bias)
	}
	if l.Norm != nil {
		w.vector(name+".rms_norm.weight", l.Norm.Weight)
	}
	return nil
}

// writePadded writes panels and the zeros up to their stored size.
func writePadded(w io.Writer, panels []byte) error {
	if _, err := w.Write(panels); err != nil {
		return err
	}
	var zeros [nativeAlign]byte
	_, err := w.Write(zeros[:stored(len(panels))-len(panels)])
	return err
}

// counter counts what is written to it.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
