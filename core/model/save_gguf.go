package model

import (
	"context"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// ggufFileTypes are the types that SaveGGUF writes ternary layers in, by the names that users give them, with general.file_type.
var ggufFileTypes = map[string]struct {
	dtype string
	file  uint32
}{"i2_s": {gguf.I2_S, 40}, "tq1_0": {gguf.TQ1_0, 36}, "tq2_0": {gguf.TQ2_0, 37}, "f16": {gguf.F16, 1}, "bf16": {gguf.BF16, 32}, "f32": {gguf.F32, 0}}

// GGUFTypes lists the types in which SaveGGUF writes ternary layers.
func GGUFTypes() []string { return sortedKeys(ggufFileTypes) }

// GGUFOptions steers SaveGGUF.
type GGUFOptions struct {
	// Type is that of ternary layers, one of GGUFTypes: I2_S, which only bitnet.cpp reads, keeps the scales as they are; TQ1_0 and
	// TQ2_0, which llama.cpp reads too, and f16 round them to float16; bf16 to bfloat16.
	Type string
	// MaxShard, when not 0, divides the tensors among files of at most so many bytes of them, unless one tensor alone has more; the
	// path is a directory then, by whose name the files are called: NAME-00001-of-0000N.gguf, or NAME.gguf if one is enough.
	MaxShard int64
	// Warn, when not nil, is told once of the layers that are not of Type.
	Warn func(text string)
}

// SaveGGUF writes the model to a .gguf file, or with MaxShard to a directory. Tables are written as they are, norms
// as float32. A ternary layer whose rows are no whole blocks of its type (128 columns for I2_S, 256 for TQ1_0 and TQ2_0) is F16, as llama.cpp's tools
// make it. The file appears complete or not at all, and so does the directory, which must be new or
// hold such a model and no other.
//
// Errors: ErrOption for a type or path; ErrExport for what GGUF has no place for: an activation that none of its architectures has, norms inside of linears, layers that stay float among
// ternary ones, a scale that float16 rounds to nothing, positions scaled in a way that readers would not find, a tokenizer with steps of which no reader would know, more than three tokens that end a text.
func (m *Model) SaveGGUF(ctx context.Context, path string, o GGUFOptions) error {
	t, ok := ggufFileTypes[strings.ToLower(o.Type)]
	if !ok {
		return fmt.Errorf("%w: type %q: must be one of %s", ErrOption, o.Type, strings.Join(GGUFTypes(), ", "))
	}
	name, err := o.name(path)
	if err != nil {
		return err
	}
	if err := m.refuseGPT2("GGUF"); err != nil {
		return err
	}
	arch := m.Config.ggufArchitecture()
	if arch == "" {
		return fmt.Errorf("%w: hidden_act = %s: GGUF has no architecture that is a %s with it: must be relu2 or silu in a BitNet model, silu in a Llama", ErrExport, m.Config.HiddenAct, m.Config.Architecture)
	}
	if err := m.acquireSound(ctx); err != nil {
		return err
	}
	defer m.Release()
	files, err := m.assets(nil)
	if err != nil {
		return err
	}
	w := &ggufWriter{ctx: ctx, model: m, cfg: m.Config, dtype: t.dtype}
	if err := m.eachWeight(w.linear, w.norm); err != nil {
		return err
	}
	if text := w.warning(path); text != "" && o.Warn != nil {
		o.Warn(text)
	}
	entries := ggufEntries(m, arch, name, t.file)
	vocabulary, err := ggufVocabulary(files, m.Config)
	if err != nil {
		return err
	}
	sampling, err := ggufSamplingEntries(files)
	if err != nil {
		return err
	}
	if err := w.ropeFactors(); err != nil {
		return err
	}
	own := func(file string) bool { return file == name+GGUFExt || gguf.SplitPrefix(file) == name }
	if o.MaxShard > 0 {
		if err := refuseOthers(path, own); err != nil {
			return err
		}
	}
	if planned(ctx, w.tensors) {
		return nil
	}
	entries = slices.Concat(entries, sampling, vocabulary)
	if o.MaxShard == 0 {
		return gguf.Write(path, entries, stoppable(ctx, w.tensors))
	}
	return writeDirectory(path, own, func(dir string) error {
		_, err := gguf.WriteSplit(dir, name, entries, stoppable(ctx, w.tensors), o.MaxShard)
		return err
	})
}

// name is what the model is called that is written to path.
func (o GGUFOptions) name(path string) (string, error) {
	isFile := strings.EqualFold(filepath.Ext(path), GGUFExt) && !isDir(path)
	switch {
	case o.MaxShard < 0:
		return "", fmt.Errorf("%w: max_shard_size = %d: expected at least 1 byte", ErrOption, o.MaxShard)
	case o.MaxShard > 0 && isFile:
		return "", container.Worded(ErrOption, "gguf: %s ends in %s: expected a directory with max_shard_size", path, GGUFExt)
	case o.MaxShard == 0 && !isFile:
		return "", container.Worded(ErrOption, "gguf: %s: expected a name that ends in %s, of no directory", path, GGUFExt)
	case isFile:
		return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), nil
	}
	dir, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("model: %w", err)
	}
	return filepath.Base(dir), nil
}

// ggufArchitecture is GGUF's name of a network with the activation of this one, "" if there is none. The two BitNet classes are one network, and
// differ there in their activation alone: a 1bitLLM model is a BitNetForCausalLM with SiLU where it went through transformers.
func (c *Config) ggufArchitecture() string {
	switch {
	case c.SubNorms() && c.HiddenAct == ActReLU2:
		return ggufBitNet2B
	case c.SubNorms() && c.HiddenAct == ActSiLU:
		return ggufBitnet
	case c.Architecture == ArchLlama && c.HiddenAct == ActSiLU:
		return ggufLlama
	}
	return ""
}

// ggufEntries are the hyperparameters.
func ggufEntries(m *Model, arch, name string, fileType uint32) []gguf.Entry {
	c := m.Config
	entries := []gguf.Entry{
		{Key: "general.architecture", Value: arch}, {Key: "general.type", Value: "model"}, {Key: "general.name", Value: name},
		{Key: "general.quantization_version", Value: uint32(2)}, {Key: "general.file_type", Value: fileType},
	}
	number := func(key string, n int) {
		entries = append(entries, gguf.Entry{Key: arch + "." + key, Value: uint32(n)})
	}
	number("vocab_size", c.VocabSize)
	number("context_length", c.MaxPositionEmbeddings)
	number("embedding_length", c.HiddenSize)
	number("block_count", c.NumHiddenLayers)
	number("feed_forward_length", c.IntermediateSize)
	number("attention.head_count", c.NumAttentionHeads)
	number("attention.head_count_kv", c.NumKeyValueHeads)
	number("attention.key_length", c.HeadDim)
	number("attention.value_length", c.HeadDim)
	number("rope.dimension_count", c.HeadDim)
	entries = append(entries, gguf.Entry{Key: arch + ".attention.layer_norm_rms_epsilon", Value: float32(c.RMSNormEps)},
		gguf.Entry{Key: arch + ".rope.freq_base", Value: float32(c.RopeTheta)})
	if s := c.RopeScaling; s != nil && s.Type == RopeLinear {
		entries = append(entries, gguf.Entry{Key: arch + ".rope.scaling.type", Value: "linear"},
			gguf.Entry{Key: arch + ".rope.scaling.factor", Value: float32(s.Factor)})
	} else if s != nil {
		number("rope.scaling.original_context_length", s.OriginalMaxPositionEmbeddings)
	}
	notes := m.notes()
	for _, key := range ggufNotes {
		if text := notes[key]; text != "" {
			entries = append(entries, gguf.Entry{Key: "general." + key, Value: text})
		}
	}
	return entries
}

// ggufWriter collects the tensors.
type ggufWriter struct {
	ctx     context.Context
	model   *Model
	cfg     *Config
	dtype   string
	tensors []container.Tensor
	rows    rowWriter
	ternary []string // layers
	ragged  []string // those of them whose rows are no whole blocks
}

// warning says which layers are not of the type that was asked for, "" if all are.
func (w *ggufWriter) warning(path string) string {
	if len(w.ragged) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: %d of %d ternary layers are F16 instead of %s, scales rounded to float16: their columns are no multiple of %d, the block of that type; the first is %s",
		path, len(w.ragged), len(w.ternary), w.dtype, ternaryBlock(w.dtype), w.ragged[0])
}

// ternaryBlock is how many columns a block of a type of ternary layers has, 1 for floats. I2_S is written in the layout of x86.
func ternaryBlock(dtype string) int {
	if dtype == gguf.I2_S {
		return 128
	}
	values, _ := gguf.Block(dtype)
	return values
}

func (w *ggufWriter) norm(name string, n *nn.Norm) error {
	w.vector(ggufName(name)+".weight", n.Weight)
	return nil
}

// vector writes a norm or bias as float32, which is what readers expect.
func (w *ggufWriter) vector(name string, values []float32) {
	w.tensors = append(w.tensors, container.Tensor{Name: name, DType: gguf.F32, Shape: []int{len(values)}, Data: appendFloats(nil, gguf.F32, values)})
}

func (w *ggufWriter) linear(name string, l *nn.Linear) error {
	if l.Norm != nil {
		return fmt.Errorf("%w: %s has a norm of its own, for which GGUF has no place", ErrExport, name)
	}
	stored := ggufName(name) + ".weight"
	order := ggufRows(w.cfg, name, l.Out)
	switch {
	case l.Ternary != nil:
		if err := w.codes(stored, name, l.Ternary, order); err != nil {
			return err
		}
	case name == "model.embed_tokens" || name == "lm_head":
		w.dense(stored, name, l.Dense, order)
	default:
		return fmt.Errorf("%w: %s is float (quantization_config.modules_to_not_convert), and readers of GGUF would make it ternary", ErrExport, name)
	}
	if l.Bias != nil {
		bias := make([]float32, l.Out)
		for i := range bias {
			bias[i] = l.Bias[order(i)]
		}
		w.vector(ggufName(name)+".bias", bias)
	}
	return nil
}

// ggufRows says which row of a layer is row i of the file: the reverse of ggufRowOrder.
func ggufRows(c *Config, name string, rows int) func(i int) int {
	from := c.ggufRowOrder(name)
	if from == nil {
		return func(i int) int { return i }
	}
	order := make([]int, rows)
	for r := range order {
		order[from(r)] = r
	}
	return func(i int) int { return order[i] }
}

// dense streams a table in its own float type.
func (w *ggufWriter) dense(stored, name string, d *quant.Dense, order func(int) int) {
	dtype := floatType(d)
	size, _ := gguf.Bytes(dtype, d.Cols, d.Cols)
	w.add(stored, name, dtype, d.Rows, d.Cols, func(out io.Writer) error {
		return w.rows.write(out, d.Rows, size, func(text []byte, first, rows int) {
			row := make([]float32, d.Cols)
			for i := range rows {
				d.Row(row, order(first+i))
				appendFloats(text[i*size:i*size], dtype, row)
			}
		})
	})
}

// add notes a matrix; stream is called when its module is in memory.
func (w *ggufWriter) add(stored, name, dtype string, rows, cols int, stream func(out io.Writer) error) {
	w.tensors = append(w.tensors, container.Tensor{Name: stored, DType: dtype, Shape: []int{rows, cols}, Stream: func(out io.Writer) error {
		return w.model.with(w.ctx, name, func() error { return stream(out) })
	}})
}

// codes streams a ternary matrix.
func (w *ggufWriter) codes(stored, name string, t *quant.Ternary, order func(int) int) error {
	dtype := w.dtype
	w.ternary = append(w.ternary, name)
	if t.Cols%ternaryBlock(dtype) != 0 {
		dtype = gguf.F16
		w.ragged = append(w.ragged, fmt.Sprintf("%s with %d", name, t.Cols))
	}
	bits := uint16(tensor.ToFloat16(t.Scale))
	if s := tensor.Float16Bits(bits).Float32(); (dtype == gguf.TQ1_0 || dtype == gguf.TQ2_0 || dtype == gguf.F16) && (s == 0 || math.IsInf(float64(s), 0)) {
		return fmt.Errorf("%w: the scale of %s is %v, which float16 does not hold", ErrExport, name, t.Scale)
	}
	size, _ := gguf.Bytes(dtype, t.Cols, t.Cols)
	if dtype == gguf.I2_S {
		size = t.Cols / 4 // the scale stands behind all rows
	}
	put := func(text []byte, codes []int8) { putValues(text, dtype, codes, t.Scale) }
	switch dtype {
	case gguf.I2_S:
		put = gguf.PutI2SRow
	case gguf.TQ1_0, gguf.TQ2_0:
		put = func(text []byte, codes []int8) { gguf.PutCodes(text, dtype, codes, bits) }
	}
	w.add(stored, name, dtype, t.Rows, t.Cols, func(out io.Writer) error {
		panels := t.Panels()
		err := w.rows.write(out, t.Rows, size, func(text []byte, first, rows int) {
			codes := make([]int8, t.Cols)
			for i := range rows {
				cpu.TernaryRow(codes, panels, t.Cols, order(first+i))
				put(text[i*size:(i+1)*size], codes)
			}
		})
		if err == nil && dtype == gguf.I2_S {
			_, err = out.Write(gguf.I2STail(t.Scale))
		}
		return err
	})
	return nil
}

// putValues writes codes times a scale as numbers of a float type.
func putValues(text []byte, dtype string, codes []int8, scale float32) {
	var values [3][]byte // of -1, 0 and 1
	for i := range values {
		values[i] = appendFloats(nil, dtype, []float32{float32(i-1) * scale})
	}
	text = text[:0]
	for _, c := range codes {
		text = append(text, values[c+1]...)
	}
}

// ropeFactors adds the tensor of Llama 3's scaling. Readers find its factor there, at the slowest frequency, and know the other numbers.
func (w *ggufWriter) ropeFactors() error {
	s := w.cfg.RopeScaling
	if s == nil || s.Type != RopeLlama3 {
		return nil
	}
	var values []float32
	for _, f := range llama3Factors(s, w.cfg.RopeTheta, w.cfg.HeadDim/2) {
		values = append(values, float32(f))
	}
	if s.LowFreqFactor != 1 || s.HighFreqFactor != 4 || slices.Max(values) != float32(s.Factor) {
		return fmt.Errorf("%w: rope_scaling = llama3 with factor %v, low_freq_factor %v, high_freq_factor %v, and a slowest frequency that is divided by %v: GGUF has the divisors alone: must be low_freq_factor 1, high_freq_factor 4, and a frequency that is divided by factor",
			ErrExport, s.Factor, s.LowFreqFactor, s.HighFreqFactor, slices.Max(values))
	}
	w.vector(ropeFactors, values)
	return nil
}
