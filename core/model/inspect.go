package model

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/format/onnx"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// FileInfo is what the files of a model hold, as they stand there: no model is built of them.
type FileInfo struct {
	Path     string         `json:"path"`     // of the file or directory
	Format   string         `json:"format"`   // "safetensors", "native", "gguf", "onnx" or "checkpoint"
	Metadata map[string]any `json:"metadata"` // of the header, by key
	Tensors  []TensorInfo   `json:"tensors"`  // in the order of the files
}

// TensorInfo is one tensor of a file.
type TensorInfo struct {
	Name   string `json:"name"`   // as the file has it
	DType  string `json:"dtype"`  // of a native file: the layout
	Shape  []int  `json:"shape"`  // the matrix's: of packed weights not that of the bytes
	Bytes  int64  `json:"bytes"`  // its size in the file
	Offset int64  `json:"offset"` // in bytes, from the start of the file's data
	File   string `json:"file"`   // without directories

	Ternary *TernaryStats `json:"ternary,omitempty"` // of codes; nil unless asked for
	Float   *FloatStats   `json:"float,omitempty"`   // of numbers; nil unless asked for
	Error   string        `json:"error,omitempty"`   // why there are no statistics
}

// Inspect lists what is in the files of a model: of anything that Load takes. With stats it reads every tensor, until ctx ends; then progress, when
// not nil, is called with the bytes read and their total.
//
// Errors: as of Load, for paths and containers; ErrOption for an i2sLayout by which nothing is read. What is wrong with the numbers of a tensor is its
// Error.
func Inspect(ctx context.Context, path string, stats bool, i2sLayout string, progress func(done, total int64)) (_ *FileInfo, err error) {
	if _, err := (&LoadOptions{I2SLayout: i2sLayout}).check(); err != nil {
		return nil, err
	}
	f, err := openInspected(path, i2sLayout)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.set.Close() }() // nothing of it is kept
	defer container.CatchFault(&err)
	if statesLayout(i2sLayout) {
		switch given := "'" + i2sLayout + "'"; {
		case !hasI2S(f.set, f.info.Format):
			return nil, unusedError("i2s_layout", given, path, noI2S(f.info.Format))
		case !stats:
			return nil, unusedError("i2s_layout", given, path, "is listed without the numbers of its tensors")
		}
	}
	read := &reading{tensors: f.set.Tensors(), progress: progress}
	read.count()
	f.info.Tensors = []TensorInfo{} // a list also of a file without any, such as a vocabulary's
	for _, t := range read.tensors {
		info := f.tensor(t)
		if stats {
			shown, rest := read.one(t)
			if err := f.stats(&scan{ctx: ctx, shown: shown}, &info); err != nil {
				return nil, err
			}
			rest()
		}
		f.info.Tensors = append(f.info.Tensors, info)
	}
	return f.info, nil
}

// RawTensor returns bytes of a tensor as they lie in the model's files: n of them from byte at on, fewer where it ends.
//
// Errors: as of Inspect; container.ErrTensorMissing; ErrOption for a place outside of the tensor.
func RawTensor(path, name string, at, n int) (data []byte, err error) {
	f, err := openInspected(path, gguf.I2SX86)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.set.Close() }() // the result is a copy
	defer container.CatchFault(&err)
	v, err := f.set.Tensor(name)
	if err != nil {
		return nil, err
	}
	if at < 0 || at > len(v.Data) || n < 0 {
		return nil, fmt.Errorf("%w: %d bytes from %d on: tensor %s has %d", ErrOption, n, at, container.Quote(name), len(v.Data))
	}
	return slices.Clone(v.Data[at:min(len(v.Data), at+min(n, len(v.Data)))]), nil
}

// inspected is a file of some format that is being listed.
type inspected struct {
	info     *FileInfo
	set      container.Set
	describe func(t *TensorInfo)                                         // corrects dtype and shape where the container does not know them
	codes    func(s *scan, v container.View) (*TernaryStats, error)      // of ternary matrices; nil: it is none
	numbers  func(s *scan, v container.View, each func([]float32)) error // of all others, in pieces

	// sum compares a tensor with its checksum; nil in formats that have none. plan assembles the model, as loading does before it reads the weights.
	sum  func(s *scan, name string) error
	plan func(ctx context.Context, l *loader) error

	// For files whose plan succeeds: doubt is what loading warns of, "" if nothing, and nil in formats that have nothing to doubt; refused is why
	// loading would not take a tensor with such numbers, nil if it would, and nil until there is a plan.
	doubt   func(ctx context.Context) (string, error)
	refused func(t *TensorInfo) error
}

// openInspected opens the files of a model of any format.
func openInspected(path, i2sLayout string) (*inspected, error) {
	if !isDir(path) && fileKindOf(path) == kindCheckpoint {
		return inspectSnapshot(path)
	}
	native, err := nativePath(path)
	switch {
	case err != nil:
		return nil, err
	case native != "":
		return inspectNative(native)
	case onnxPath(path) != "":
		return inspectONNX(onnxPath(path))
	}
	if file, err := ggufPath(path); err != nil {
		return nil, err
	} else if file != "" {
		return inspectGGUF(file, i2sLayout)
	}
	return inspectHF(path)
}

// tensor describes one tensor.
func (f *inspected) tensor(t container.Info) TensorInfo {
	info := TensorInfo{Name: t.Name, DType: t.DType, Shape: t.Shape, Bytes: t.Size, Offset: t.Offset, File: filepath.Base(t.Path)}
	if f.describe != nil {
		f.describe(&info)
	}
	return info
}

// stats reads one tensor. What is wrong with it is noted in it.
func (f *inspected) stats(s *scan, t *TensorInfo) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	v, err := f.set.Tensor(t.Name)
	if err != nil {
		return err
	}
	t.Ternary, err = f.codes(s, v)
	switch {
	case err != nil:
	case t.Ternary == nil:
		var m moments
		if err = f.numbers(s, v, m.add); err == nil && (m.n > 0 || m.NotFinite > 0) {
			t.Float = m.stats()
		}
	case t.Ternary.Scale-t.Ternary.Scale != 0: // infinity, NaN
		err = fmt.Errorf("a scale of %v: expected a finite number", t.Ternary.Scale)
	}
	if canceled := s.ctx.Err(); canceled != nil {
		return canceled
	}
	if err != nil {
		t.Ternary, t.Error = nil, err.Error()
	}
	return v.ReleasePages()
}

// inspectHF lists a checkpoint. Its packed matrices are the U8 tensors with a weight_scale beside them.
func inspectHF(path string) (*inspected, error) {
	set, err := safetensors.OpenSet(path)
	if err != nil {
		return nil, err
	}
	f := &inspected{info: &FileInfo{Path: path, Format: "safetensors", Metadata: map[string]any{}}, set: set, numbers: (*scan).floats}
	for key, value := range set.(interface{ Metadata() map[string]string }).Metadata() {
		f.info.Metadata[key] = value
	}
	config, err := hfConfigOf(hfDir(path), false)
	if err != nil {
		config = &Config{Quantization: Quantization{LinearClass: AutoBitLinear}}
	}
	src := hfSource{newTensorSource(nil, set, config)}
	var mu sync.Mutex // src notes what was asked for
	packed := func(t string, dtype string, shape []int) bool {
		return dtype == safetensors.U8 && len(shape) == 2 && strings.HasSuffix(t, ".weight") && set.Has(t+"_scale")
	}
	f.describe = func(t *TensorInfo) {
		if packed(t.Name, t.DType, t.Shape) {
			t.Shape = []int{4 * t.Shape[0], t.Shape[1]}
		}
	}
	f.plan = func(ctx context.Context, l *loader) error {
		cfg, err := hfConfigOf(hfDir(path), l.opts.Quantize)
		if err != nil {
			return err
		}
		_, _, err = planHF(ctx, set, cfg, l)
		planned := hfSource{newTensorSource(l, set, cfg)}
		f.refused = func(t *TensorInfo) error {
			module, weight := strings.CutSuffix(t.Name, ".weight")
			if weight && t.Float != nil && planned.converts(module) && planned.storesCodes(module, t.DType) {
				return t.Float.codes()
			}
			return nil
		}
		return err
	}
	f.codes = func(s *scan, v container.View) (*TernaryStats, error) {
		if !packed(v.Name, v.DType, v.Shape) {
			return nil, nil
		}
		mu.Lock()
		scale, err := src.weightScale(strings.TrimSuffix(v.Name, ".weight"))
		mu.Unlock()
		if err != nil {
			return nil, err
		}
		count, err := quant.NewHFCount(len(v.Data), 4*v.Shape[0], v.Shape[1])
		if err != nil {
			return nil, err
		}
		if err := s.pieces(v, 1, func(_ int, piece []byte) error { count.Add(piece); return nil }); err != nil {
			return nil, err
		}
		n, err := count.Counts()
		return (*codeCount)(&n).stats(scale), err
	}
	return f, nil
}

// inspectGGUF lists a GGUF file.
func inspectGGUF(path, i2sLayout string) (*inspected, error) {
	set, err := gguf.OpenSet(path)
	if err != nil {
		return nil, err
	}
	f := &inspected{info: &FileInfo{Path: path, Format: "gguf", Metadata: map[string]any{}}, set: set}
	for _, key := range set.Metadata().Keys() {
		f.info.Metadata[key] = jsonable(set.Metadata().Any(key))
	}
	f.plan = func(_ context.Context, l *loader) error {
		m, src, err := planGGUF(set, l)
		if err != nil {
			return err
		}
		f.doubt = func(ctx context.Context) (string, error) {
			return checkI2SLayout(ctx, set, m.Config.NumHiddenLayers, i2sLayout)
		}
		linears := map[string]bool{}
		f.refused = func(t *TensorInfo) error {
			if !linears[t.Name] {
				return nil
			}
			return src.refused(t)
		}
		return m.eachLinear(func(name string, l *nn.Linear) error {
			linears[ggufName(name)+".weight"] = l.Ternary != nil
			return nil
		})
	}
	f.codes = func(s *scan, v container.View) (*TernaryStats, error) {
		if !gguf.IsTernary(v.DType) {
			return nil, nil
		}
		var n codeCount
		scale, err := gguf.EachCodes(v.DType, i2sLayout, v.Data, v.Elements(), v.Shape[len(v.Shape)-1], func(codes []int8, _, read int) error {
			n.add(codes)
			return s.passed(v, read)
		})
		return n.stats(scale), err
	}
	f.numbers = func(s *scan, v container.View, each func([]float32)) error {
		if !gguf.Decodes(v.DType) {
			return nil
		}
		values, size := gguf.Block(v.DType)
		var numbers [4096]float32 // of whole blocks
		return s.pieces(v, size, func(_ int, piece []byte) error {
			for blocks := range slices.Chunk(piece, len(numbers)/values*size) {
				decoded := numbers[:len(blocks)/size*values]
				if err := gguf.Dequantize(decoded, v.DType, blocks); err != nil {
					return err
				}
				each(decoded)
			}
			return nil
		})
	}
	return f, nil
}

// inspectONNX lists an ONNX model: its initializers under their own names and in their own order. What is multiplied by an activation is
// [in, out] there.
func inspectONNX(path string) (*inspected, error) {
	file, err := onnx.Open(path)
	if err != nil {
		return nil, err
	}
	operations := map[string]int{}
	for _, n := range file.Nodes {
		operations[n.Op]++
	}
	f := &inspected{info: &FileInfo{Path: path, Format: "onnx", Metadata: map[string]any{
		"producer": file.Producer, "opset": file.Opset, "operations": operations, "inputs": valueNames(file.Inputs), "outputs": valueNames(file.Outputs),
	}}, set: file, numbers: (*scan).floats}
	for key, value := range file.Metadata {
		f.info.Metadata[key] = value
	}
	scales := map[string]string{} // by tensor, where the graph says so
	f.plan = func(ctx context.Context, l *loader) error {
		_, src, err := planONNX(ctx, file, l)
		if err != nil {
			return err
		}
		for module, m := range src.graph.matrices {
			scales[m.tensor] = cmp.Or(m.scale, module+".weight_scale")
		}
		return nil
	}
	f.codes = func(s *scan, v container.View) (*TernaryStats, error) {
		scale, err := file.Tensor(cmp.Or(scales[v.Name], v.Name+"_scale"))
		if err != nil || len(v.Shape) != 2 || v.DType != onnx.I8 && v.DType != onnx.I2 {
			return nil, nil
		}
		if err := scale.Check([]int{1}, floats...); err != nil {
			return nil, err
		}
		var n codeCount
		if err := n.addONNX(s, v); err != nil {
			return nil, err
		}
		return n.stats(decodeFloats(scale)[0]), nil
	}
	return f, nil
}

// addONNX counts the codes of a matrix, as onnxCodes reads them.
func (n *codeCount) addONNX(s *scan, v container.View) error {
	perByte := 1
	if v.DType == onnx.I2 {
		perByte = 4
	}
	split := make([]byte, 0, perByte*4096)
	return s.pieces(v, 1, func(at int, piece []byte) error {
		first := at * perByte
		for numbers := range slices.Chunk(piece, 4096) {
			if perByte > 1 {
				numbers = appendInt2(split, numbers)
				numbers = numbers[:min(len(numbers), v.Elements()-first)]
			}
			codes := unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(numbers))), len(numbers))
			if err := checkCodes(codes, first, v.Shape[1]); err != nil {
				return err
			}
			n.add(codes)
			first += len(codes)
		}
		return nil
	})
}

func valueNames(values []onnx.Value) []string {
	names := make([]string, len(values))
	for i, v := range values {
		names[i] = v.Name
	}
	return names
}

// jsonable turns numbers that JSON does not have into texts: "NaN", "+Inf", "-Inf".
func jsonable(v any) any {
	switch v := v.(type) {
	case float32:
		if v-v != 0 {
			return fmt.Sprint(v)
		}
	case float64:
		if v-v != 0 {
			return fmt.Sprint(v)
		}
	case []float32:
		return jsonables(v)
	case []float64:
		return jsonables(v)
	case []any:
		return jsonables(v)
	}
	return v
}

func jsonables[T any](v []T) []any {
	out := make([]any, len(v))
	for i, x := range v {
		out[i] = jsonable(x)
	}
	return out
}
