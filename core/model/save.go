package model

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/atomicfile"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// Save writes the model in the native format. To a path ending in .bitnet it writes that one file; any other path is a directory
// (made if need be) that gets model.bitnet, and beside it config.json and the files, for people and programs that look
// for them. files are tokenizer and other texts by plain file name, which also go into the native file; nil takes
// those of the place that the model was loaded from. Each file appears complete or not at all.
func (m *Model) Save(path string, files map[string]string) error {
	return m.SaveContext(context.Background(), path, files)
}

// SaveContext is Save until ctx ends; then the error is that of ctx, and the file that was being written does not appear.
func (m *Model) SaveContext(ctx context.Context, path string, files map[string]string) error {
	if err := m.sound(ctx); err != nil { // checksums of what is damaged would be right ever after
		return err
	}
	if err := m.Acquire(); err != nil {
		return err
	}
	defer m.Release()
	files, err := m.assets(files)
	if err != nil {
		return err
	}
	if strings.EqualFold(filepath.Ext(path), NativeExt) && !isDir(path) {
		return m.saveNative(ctx, path, files)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("model: %w", err)
	}
	if err := m.saveNative(ctx, filepath.Join(path, NativeName), files); err != nil {
		return err
	}
	if exists(filepath.Join(path, safetensors.SingleName)) || exists(filepath.Join(path, safetensors.IndexName)) {
		return nil // config and files are those of the checkpoint that lies there
	}
	return writeTexts(path, m.Config, files)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// assets is files, or what SetAssets said, or what belongs to the place the model came from. Names are checked.
func (m *Model) assets(files map[string]string) (map[string]string, error) {
	if own := m.files.Load(); files == nil && own != nil {
		files = *own
	}
	if files == nil && m.Info.Path != "" {
		found, err := Assets(m.Info.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the place may be gone, the model is not
			return nil, err
		}
		files = found
	}
	for name := range files {
		if !plainFileName(name) {
			return nil, fmt.Errorf("%w: file name %q: must be a name without directories", ErrOption, name)
		}
	}
	return files, nil
}

// writeTexts writes config.json and the files into a directory.
func writeTexts(dir string, c *Config, files map[string]string) error {
	compact, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	indented, err := json.MarshalIndent(json.RawMessage(compact), "", "  ")
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	write := func(name, text string) error {
		return atomicfile.Write(filepath.Join(dir, name), func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		})
	}
	for name, text := range files {
		if err := write(name, text); err != nil {
			return err
		}
	}
	return write("config.json", string(indented)+"\n")
}

func (m *Model) saveNative(ctx context.Context, path string, files map[string]string) error {
	w := nativeWriter{ctx: ctx, cfg: m.Config, converts: m.Config.Quantization.converter(), entries: map[string]nativeTensor{}}
	if err := m.eachWeight(w.linear, w.norm); err != nil {
		return err
	}
	for _, name := range sortedKeys(files) {
		w.bytes(filePrefix+name, safetensors.U8, []byte(files[name]), nativeTensor{Layout: layoutFile, Shape: []int{len(files[name])}})
	}
	cpu.Parallel(len(w.sums), &w)
	if err := ctx.Err(); err != nil {
		return err
	}
	for i, name := range w.summed {
		e := w.entries[name]
		e.CRC32C = w.sums[i]
		w.entries[name] = e
	}
	meta, err := m.nativeMetadata(w.entries)
	if err != nil {
		return err
	}
	// Panels, all multiples of 64 bytes, before everything else.
	slices.SortStableFunc(w.tensors, func(a, b container.Tensor) int { return w.rank(a) - w.rank(b) })
	return safetensors.Write(path, stoppable(ctx, w.tensors), meta)
}

// stoppable makes the tensors' streams fail once ctx has ended.
func stoppable(ctx context.Context, tensors []container.Tensor) []container.Tensor {
	for i := range tensors {
		if stream := tensors[i].Stream; stream != nil {
			tensors[i].Stream = func(w io.Writer) error { return stream(contextWriter{ctx, w}) }
		}
	}
	return tensors
}

// contextWriter writes in pieces, as long as ctx has not ended.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (n int, err error) {
	const piece = 4 << 20
	for n < len(p) && err == nil {
		if err = c.ctx.Err(); err == nil {
			var k int
			k, err = c.w.Write(p[n:min(n+piece, len(p))])
			n += k
		}
	}
	return n, err
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (m *Model) nativeMetadata(entries map[string]nativeTensor) (map[string]string, error) {
	config, err := json.Marshal(m.Config)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	tensors, err := json.Marshal(entries)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	meta := map[string]string{}
	for k, v := range m.Info.Metadata {
		meta[k] = v
	}
	meta[keyFormat] = nativeFormat
	meta[keyVersion] = strconv.Itoa(NativeVersion)
	meta[keyProducer] = nativeProducer
	meta[keyCreated] = time.Now().UTC().Format(time.RFC3339)
	meta[keyConfig] = string(config)
	meta[keyTensors] = string(tensors)
	return meta, nil
}

// nativeWriter collects the tensors of a native file, and is the task that computes their checksums.
type nativeWriter struct {
	cfg *Config

	converts func(module string) bool
	ctx      context.Context
	tensors  []container.Tensor
	entries  map[string]nativeTensor
	summed   []string // names, by chunk
	data     [][]byte
	sums     []checksum
}

// Run computes one checksum.
func (w *nativeWriter) Run(i int) {
	if w.ctx.Err() != nil {
		return
	}
	w.sums[i].update(w.data[i])
	if w.entries[w.summed[i]].Layout != layoutVector && w.entries[w.summed[i]].Layout != layoutFile {
		var zeros [nativeAlign]byte
		w.sums[i].update(zeros[:stored(len(w.data[i]))-len(w.data[i])])
	}
}

func (w *nativeWriter) note(name string, data []byte, e nativeTensor) {
	w.entries[name] = e
	w.summed, w.data, w.sums = append(w.summed, name), append(w.data, data), append(w.sums, 0)
}

// bytes adds a tensor that is stored as it is.
func (w *nativeWriter) bytes(name, dtype string, data []byte, e nativeTensor) {
	w.tensors = append(w.tensors, container.Tensor{Name: name, DType: dtype, Shape: e.Shape, Data: data})
	w.note(name, data, e)
}

// panels adds a matrix in kernel layout.
func (w *nativeWriter) panels(name string, data []byte, e nativeTensor) {
	w.tensors = append(w.tensors, container.Tensor{Name: name, DType: safetensors.U8, Shape: []int{stored(len(data))},
		Stream: func(out io.Writer) error { return writePadded(out, data) }})
	w.note(name, data, e)
}

func (w *nativeWriter) vector(name string, values []float32) {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	w.bytes(name, safetensors.F32, data, nativeTensor{Layout: layoutVector, Shape: []int{len(values)}})
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

// rank orders panels before vectors before files; within a rank the order of the forward pass stays.
func (w *nativeWriter) rank(t container.Tensor) int {
	switch w.entries[t.Name].Layout {
	case layoutVector:
		return 1
	case layoutFile:
		return 2
	}
	return 0
}
