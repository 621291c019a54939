package model

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/format/onnx"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// FileInfo is what the files of a model hold, as they stand there: no model is built of them.
type FileInfo struct {
	Path     string         `json:"path"`     // of the file or directory
	Format   string         `json:"format"`   // "safetensors", "native", "gguf" or "onnx"
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

// TernaryStats count the codes of a ternary matrix.
type TernaryStats struct {
	Minus int     `json:"minus"` // weights -1
	Zero  int     `json:"zero"`  // weights 0
	Plus  int     `json:"plus"`  // weights 1
	Scale float32 `json:"scale"` // mean|W|
}

// FloatStats describe the numbers of a tensor; Min to Std are of the finite ones.
type FloatStats struct {
	Min       float64 `json:"min"`
	Max       float64 `json:"max"`  // the largest
	Mean      float64 `json:"mean"` // of them
	Std       float64 `json:"std"`
	Zeros     int     `json:"zeros"`      // how many are 0
	NotFinite int     `json:"not_finite"` // NaN and infinities
}

// Inspect lists what is in the files of a model: of anything that Load takes. With stats it reads every tensor, until ctx ends.
//
// Errors: as of Load, for paths and containers. What is wrong with the numbers of a tensor is its Error.
func Inspect(ctx context.Context, path string, stats bool, i2sLayout string) (_ *FileInfo, err error) {
	f, err := openInspected(path, i2sLayout)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.set.Close() }() // nothing of it is kept
	defer container.CatchFault(&err)
	f.info.Tensors = []TensorInfo{} // a list also of a file without any, such as a vocabulary's
	for _, t := range f.set.Tensors() {
		info := f.tensor(t)
		if stats {
			if err := f.stats(ctx, &info); err != nil {
				return nil, err
			}
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
	describe func(t *TensorInfo)                                // corrects dtype and shape where the container does not know them
	codes    func(v container.View) ([]int8, float32, error)    // of ternary matrices; nil codes: it is none
	numbers  func(v container.View, each func([]float32)) error // of all others, in pieces

	// sum compares a tensor with its checksum; nil in formats that have none. plan assembles the model, as loading does before it reads the weights.
	sum  func(ctx context.Context, name string) error
	plan func(ctx context.Context, l *loader) error

	// doubt is what loading warns of, "" if nothing; for files whose plan succeeds. nil in formats that have nothing to doubt.
	doubt func() (string, error)
}

// openInspected opens the files of a model of any format.
func openInspected(path, i2sLayout string) (inspected, error) {
	native, err := nativePath(path)
	switch {
	case err != nil:
		return inspected{}, err
	case native != "":
		return inspectNative(native)
	case onnxPath(path) != "":
		return inspectONNX(onnxPath(path))
	}
	if file, err := ggufPath(path); err != nil {
		return inspected{}, err
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
func (f *inspected) stats(ctx context.Context, t *TensorInfo) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v, err := f.set.Tensor(t.Name)
	if err != nil {
		return err
	}
	codes, scale, err := f.codes(v)
	switch {
	case err != nil:
		t.Error = err.Error()
	case codes != nil && scale-scale != 0: // infinity, NaN
		t.Error = fmt.Sprintf("a scale of %v: expected a finite number", scale)
	case codes != nil:
		t.Ternary = countCodes(codes, scale)
	default:
		var m moments
		if err := f.numbers(v, m.add); err != nil {
			t.Error = err.Error()
		} else if m.n > 0 || m.NotFinite > 0 {
			t.Float = m.stats()
		}
	}
	return v.ReleasePages()
}

func countCodes(codes []int8, scale float32) *TernaryStats {
	var n [3]int
	for _, c := range codes {
		n[c+1]++
	}
	return &TernaryStats{Minus: n[0], Zero: n[1], Plus: n[2], Scale: scale}
}

// moments adds numbers up.
type moments struct {
	FloatStats
	n, sum, squares float64
}

func (m *moments) add(values []float32) {
	for _, v := range values {
		x := float64(v)
		if math.IsNaN(x) || math.IsInf(x, 0) {
			m.NotFinite++
			continue
		}
		if m.n == 0 {
			m.Min, m.Max = x, x
		}
		if x == 0 {
			m.Zeros++
		}
		m.Min, m.Max = min(m.Min, x), max(m.Max, x)
		m.n++
		m.sum += x
		m.squares += float64(x * x)
	}
}

func (m *moments) stats() *FloatStats {
	if m.n > 0 {
		m.Mean = m.sum / m.n
		m.Std = math.Sqrt(max(0, m.squares/m.n-float64(m.Mean*m.Mean)))
	}
	return &m.FloatStats
}

// floatPieces decodes F32, F16 and BF16; other dtypes have no numbers that are weights.
func floatPieces(v container.View, each func([]float32)) error {
	if !slices.Contains(floats, v.DType) {
		return nil
	}
	size := len(v.Data) / max(1, v.Elements())
	var piece [4096]float32
	for at := 0; at < len(v.Data); at += size * len(piece) {
		data := v.Data[at:min(at+size*len(piece), len(v.Data))]
		for i := range len(data) / size {
			piece[i] = decodeFloat(v.DType, data[i*size:])
		}
		each(piece[:len(data)/size])
	}
	return nil
}

// inspectHF lists a checkpoint. Its packed matrices are the U8 tensors with a weight_scale beside them.
func inspectHF(path string) (inspected, error) {
	set, err := safetensors.OpenSet(path)
	if err != nil {
		return inspected{}, err
	}
	f := inspected{info: &FileInfo{Path: path, Format: "safetensors", Metadata: map[string]any{}}, set: set, numbers: floatPieces}
	for key, value := range set.(interface{ Metadata() map[string]string }).Metadata() {
		f.info.Metadata[key] = value
	}
	src := hfSource{tensorSource: newTensorSource(nil, set), cfg: &Config{Quantization: Quantization{LinearClass: AutoBitLinear}}}
	if c, err := hfConfigOf(hfDir(path), false); err == nil {
		src.cfg = c
	}
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
		if err == nil {
			_, _, err = planHF(ctx, set, cfg, l)
		}
		return err
	}
	f.codes = func(v container.View) ([]int8, float32, error) {
		if !packed(v.Name, v.DType, v.Shape) {
			return nil, 0, nil
		}
		mu.Lock()
		scale, err := src.weightScale(strings.TrimSuffix(v.Name, ".weight"))
		mu.Unlock()
		if err != nil {
			return nil, 0, err
		}
		codes := make([]int8, 4*len(v.Data))
		return codes, scale, quant.UnpackHF(codes, v.Data, 4*v.Shape[0], v.Shape[1])
	}
	return f, nil
}

// inspectGGUF lists a GGUF file.
func inspectGGUF(path, i2sLayout string) (inspected, error) {
	set, err := gguf.OpenSet(path)
	if err != nil {
		return inspected{}, err
	}
	f := inspected{info: &FileInfo{Path: path, Format: "gguf", Metadata: map[string]any{}}, set: set}
	for _, key := range set.Metadata().Keys() {
		f.info.Metadata[key] = jsonable(set.Metadata().Any(key))
	}
	layers := 0
	f.plan = func(_ context.Context, l *loader) error {
		m, _, err := planGGUF(set, l)
		if err == nil {
			layers = m.Config.NumHiddenLayers
		}
		return err
	}
	f.doubt = func() (string, error) { return checkI2SLayout(set, layers, i2sLayout) }
	f.codes = func(v container.View) ([]int8, float32, error) {
		switch v.DType {
		case gguf.I2_S:
			codes := make([]int8, v.Elements())
			cols := v.Shape[len(v.Shape)-1]
			scale, err := gguf.I2S(codes, i2sLayout, v.Data, len(codes)/cols, cols)
			return codes, scale, err
		case gguf.TQ1_0, gguf.TQ2_0:
			codes := make([]int8, v.Elements())
			scale, err := gguf.Codes(codes, v.DType, v.Data)
			return codes, scale, err
		case gguf.IQ1_BN, gguf.IQ2_BN:
			codes := make([]int8, v.Elements())
			scale, err := gguf.RowCodes(codes, v.DType, v.Data, v.Shape[len(v.Shape)-1])
			return codes, scale, err
		}
		return nil, 0, nil
	}
	f.numbers = func(v container.View, each func([]float32)) error {
		values, size := gguf.Block(v.DType)
		if !gguf.Decodes(v.DType) {
			return nil
		}
		var block [256]float32
		for at := 0; at < len(v.Data); at += size {
			if err := gguf.Dequantize(block[:values], v.DType, v.Data[at:at+size]); err != nil {
				return err
			}
			each(block[:values])
		}
		return nil
	}
	return f, nil
}

// inspectONNX lists an ONNX model: its initializers under their own names and in their own order. What is multiplied by an activation is
// [in, out] there.
func inspectONNX(path string) (inspected, error) {
	file, err := onnx.Open(path)
	if err != nil {
		return inspected{}, err
	}
	operations := map[string]int{}
	for _, n := range file.Nodes {
		operations[n.Op]++
	}
	f := inspected{info: &FileInfo{Path: path, Format: "onnx", Metadata: map[string]any{
		"producer": file.Producer, "opset": file.Opset, "operations": operations, "inputs": valueNames(file.Inputs), "outputs": valueNames(file.Outputs),
	}}, set: file, numbers: floatPieces}
	for key, value := range file.Metadata {
		f.info.Metadata[key] = value
	}
	f.plan = func(_ context.Context, l *loader) error {
		_, _, err := planONNX(file, l)
		return err
	}
	f.codes = func(v container.View) ([]int8, float32, error) {
		scale, err := file.Tensor(v.Name + "_scale")
		if err != nil || len(v.Shape) != 2 || v.DType != onnx.I8 && v.DType != onnx.I2 {
			return nil, 0, nil
		}
		if err := scale.Check([]int{1}, floats...); err != nil {
			return nil, 0, err
		}
		codes, err := onnxCodes(v, false, v.Shape[0], v.Shape[1])
		return codes, decodeFloats(scale)[0], err
	}
	return f, nil
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

// inspectNative lists a native file, by what its metadata says of its tensors.
func inspectNative(path string) (inspected, error) {
	file, err := openNative(path)
	if err != nil {
		return inspected{}, err
	}
	f := inspected{info: &FileInfo{Path: path, Format: "native", Metadata: map[string]any{}}, set: file}
	for key, value := range file.meta {
		if key != keyTensors {
			f.info.Metadata[key] = value
		}
	}
	f.describe = func(t *TensorInfo) {
		said := file.tensors[t.Name]
		t.DType, t.Shape = said.Layout, said.Shape
	}
	f.plan = func(ctx context.Context, l *loader) error {
		_, err := planNative(ctx, file, l)
		return err
	}
	f.sum = func(ctx context.Context, name string) error {
		v, err := file.listed(name)
		if err != nil {
			return err
		}
		return v.read(ctx, true, nil)
	}
	f.codes = func(v container.View) ([]int8, float32, error) {
		said := file.tensors[v.Name]
		layout, ok := ternaryLayouts[said.Layout]
		if !ok {
			return nil, 0, nil
		}
		whole, err := file.listed(v.Name)
		if err != nil {
			return nil, 0, err
		}
		rows, cols := said.Shape[0], said.Shape[1]
		data, err := whole.bytes(context.Background(), false)
		if err != nil {
			return nil, 0, err
		}
		scale, err := file.scaleOf(v.Name, said)
		if err != nil {
			return nil, 0, err
		}
		if badCodes(layout, cols, data, 0) {
			return nil, 0, badCodesError(v, layout)
		}
		t := quant.Ternary{Rows: rows, Cols: cols, Scale: scale, Layout: layout, Data: data[:layout.Bytes(rows, cols)]}
		return t.Codes(nil), scale, nil
	}
	f.numbers = func(v container.View, each func([]float32)) error {
		said := file.tensors[v.Name]
		format, ok := denseLayouts[said.Layout]
		if !ok && said.Layout != layoutVector {
			return nil
		}
		whole, err := file.listed(v.Name)
		if err != nil {
			return err
		}
		data, err := whole.bytes(context.Background(), false)
		if err != nil {
			return err
		}
		if said.Layout == layoutVector {
			return floatPieces(container.View{DType: safetensors.F32, Shape: said.Shape, Data: data}, each)
		}
		rows, cols := said.Shape[0], said.Shape[1]
		d := quant.Dense{Rows: rows, Cols: cols, Format: format, Panels: data[:cpu.DenseBytes(format, rows, cols)]}
		if quant.Scaled(format) {
			scales, err := file.tensor(v.Name+".row_scale", layoutVector, []int{rows}, safetensors.F32, rows)
			if err != nil {
				return err
			}
			numbers, err := scales.bytes(context.Background(), false)
			if err != nil {
				return err
			}
			d.RowScale = decodeFloats(container.View{DType: safetensors.F32, Shape: []int{rows}, Data: numbers})
		}
		row := make([]float32, cols)
		for r := range rows {
			d.Row(row, r)
			each(row)
		}
		return nil
	}
	return f, nil
}
