package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// The architectures this package builds. The names are the class names that a Hugging Face config.json
// lists under "architectures".
const (
	// ArchBitNet is microsoft/bitnet-b1.58-2B-4T and its kin: sub-norms before o_proj and down_proj,
	// squared-ReLU gating ("BitNet b1.58 2B4T Technical Report", arXiv:2504.12285).
	ArchBitNet = "BitNetForCausalLM"
	// ArchBitnet (lower-case n) is the 1bitLLM reproduction of the first b1.58 paper (arXiv:2402.17764):
	// the same layer with SiLU, master weights, and other names for the sub-norms.
	ArchBitnet = "BitnetForCausalLM"
	// ArchLlama is a Llama whose projections are ternary (Llama3-8B-1.58, Falcon3-*-1.58bit): no sub-norms.
	ArchLlama = "LlamaForCausalLM"
	// ArchGPT2 is GPT-2 ("Language Models are Unsupervised Multitask Learners", Radford et al. 2019), with float or ternary
	// projections: LayerNorm, a table of learned positions, a feed-forward network without a gate, biases everywhere.
	ArchGPT2 = "GPT2LMHeadModel"
)

// The activation functions of the feed-forward network, under the names of transformers.
const (
	ActReLU2    = "relu2"             // max(x, 0)^2
	ActSiLU     = "silu"              // x * sigmoid(x)
	ActReLU     = "relu"              // max(x, 0)
	ActGELU     = "gelu"              // x * P(N <= x), N standard normal
	ActGELUNew  = "gelu_new"          // GPT-2's approximation of that by tanh
	ActGELUTanh = "gelu_pytorch_tanh" // the same
)

// The two linear classes of Hugging Face's bitnet integration. They differ in what the checkpoint's
// weight_scale means, and in where a bias is added.
const (
	AutoBitLinear = "autobitlinear" // weight_scale = mean|W|, multiplies
	BitLinear     = "bitlinear"     // weight_scale = 1/mean|W|, divides
)

// What a checkpoint stores for a ternary linear layer.
const (
	ModeOffline = "offline" // packed ternary codes and a scale
	ModeOnline  = "online"  // float master weights, ternarized at load
)

// The rotary scaling schemes.
const (
	RopeDefault = "default" // inv_freq = theta^(-2i/head_dim), unscaled
	RopeLinear  = "linear"  // inv_freq / factor
	RopeLlama3  = "llama3"  // low frequencies / factor, high ones kept, a ramp between
)

// Config describes a model: everything that fixes the shapes and the arithmetic of a forward pass.
// The field names are those of a Hugging Face config.json. A Config comes from a file (ParseConfig,
// LoadConfig), from the registry (Lookup), or from code; in the last case WithDefaults fills what was
// left zero, and Validate says whether the rest can be built.
type Config struct {
	// Architecture is ArchBitNet, ArchBitnet, ArchLlama or ArchGPT2.
	Architecture string

	VocabSize         int // rows of the embedding and of the head
	HiddenSize        int // width of the residual stream
	IntermediateSize  int // width of the feed-forward network
	NumHiddenLayers   int // transformer layers
	NumAttentionHeads int // query heads
	NumKeyValueHeads  int // key and value heads; divides NumAttentionHeads
	HeadDim           int // width of one head, even; Hidden/heads unless the file says otherwise

	HiddenAct             string // one of the Act constants
	MaxPositionEmbeddings int    // longest context the model was trained for, in tokens; rows of a table of learned positions

	RMSNormEps  float64      // of the norms, LayerNorm too
	RopeTheta   float64      // of rotary positions
	RopeScaling *RopeScaling // nil: unscaled

	TieWordEmbeddings bool // embedding and head are one table
	AttentionBias     bool // q, k, v and o have a bias
	MLPBias           bool // gate, up and down have a bias

	BOSTokenID  *int  // nil: the model has none
	EOSTokenIDs []int // any of them ends a text
	PadTokenID  *int  // nil: the model has none

	InitializerRange float64 // standard deviation of fresh float weights
	DType            string  // precision of the checkpoint's float tensors: "bfloat16", "float16", "float32"

	Quantization Quantization // of the layers' weights

	// tieUnstated: the file said nothing about tie_word_embeddings, so that the tensors decide at load.
	tieUnstated bool
	// namesCode: the file names Python code that comes with the checkpoint (auto_map), which nothing here runs.
	namesCode bool

	// quantized: its linears are ternary because of LoadOptions.Quantize, and not because the file says so.
	quantized bool
}

// RopeScaling stretches the rotary frequencies of a model beyond the context it was first trained for.
type RopeScaling struct {
	Type   string  // RopeLinear or RopeLlama3
	Factor float64 // at least 1

	// Only RopeLlama3 reads these: wavelengths above Original/Low are divided by Factor, those below
	// Original/High are kept.
	LowFreqFactor                 float64
	HighFreqFactor                float64
	OriginalMaxPositionEmbeddings int
}

// Quantization is the quantization_config of a checkpoint: how the ternary linears are stored.
type Quantization struct {
	LinearClass string // AutoBitLinear or BitLinear
	Mode        string // ModeOffline or ModeOnline
	// UseRMSNorm gives each ternary linear a norm of its own, `<linear>.rms_norm.weight`, applied to
	// its input before the activations are quantized.
	UseRMSNorm bool
	// RMSNormEps is the eps of those norms; 1e-6 unless stated.
	RMSNormEps float64
	// ModulesToNotConvert names the linears that stay float. See Converts.
	ModulesToNotConvert []string
}

// SubNorms reports whether the layer has attn_sub_norm (before o_proj) and ffn_sub_norm (before down_proj):
// the two BitNet architectures do, Llama does not.
func (c *Config) SubNorms() bool {
	return c.Architecture == ArchBitNet || c.Architecture == ArchBitnet
}

// LayerNorm reports whether the model's norms subtract the mean and have a bias (LayerNorm) and are not RMSNorm.
func (c *Config) LayerNorm() bool { return c.Architecture == ArchGPT2 }

// LearnedPositions reports whether positions are a table of max_position_embeddings rows, added to the embedding, and not rotations.
func (c *Config) LearnedPositions() bool { return c.Architecture == ArchGPT2 }

// Gated reports whether the feed-forward network has a gate beside its up projection.
func (c *Config) Gated() bool { return c.Architecture != ArchGPT2 }

// WithDefaults returns a copy in which every field left zero has its architecture's default, where one
// exists: BitNetForCausalLM itself, key-value heads = heads, head_dim = hidden_size / heads, activation, eps,
// rope theta, context 2048, bfloat16, autobitlinear. Sizes have no default. Booleans and token ids are
// taken as they stand.
func (c Config) WithDefaults() Config {
	setDefault(&c.Architecture, ArchBitNet)
	theta, eps, act, class := 10000.0, 1e-5, ActSiLU, AutoBitLinear
	switch c.Architecture {
	case ArchBitNet:
		theta, act = 500000, ActReLU2
	case ArchLlama:
		eps, class = 1e-6, BitLinear
	case ArchGPT2:
		act = ActGELUNew
	}
	mode := ModeOffline
	if c.Architecture == ArchBitnet || c.Architecture == ArchGPT2 {
		mode = ModeOnline
	}
	setDefault(&c.NumKeyValueHeads, c.NumAttentionHeads)
	if c.HeadDim == 0 && c.NumAttentionHeads > 0 && c.HiddenSize%c.NumAttentionHeads == 0 {
		c.HeadDim = c.HiddenSize / c.NumAttentionHeads
	}
	setDefault(&c.HiddenAct, act)
	setDefault(&c.MaxPositionEmbeddings, defaultContext)
	setDefault(&c.RMSNormEps, eps)
	setDefault(&c.RopeTheta, theta)
	setDefault(&c.InitializerRange, 0.02)
	setDefault(&c.DType, "bfloat16")
	setDefault(&c.Quantization.LinearClass, class)
	setDefault(&c.Quantization.Mode, mode)
	setDefault(&c.Quantization.RMSNormEps, 1e-6)
	return c
}

// defaultContext is the max_position_embeddings of a config that states none.
const defaultContext = 2048

func setDefault[T comparable](dst *T, value T) {
	var zero T
	if *dst == zero {
		*dst = value
	}
}

// ErrConfig is what every ConfigError matches with errors.Is.
var ErrConfig = errors.New("invalid model config")

// ConfigError says which field of which file cannot be used, the value found there, and why.
type ConfigError struct {
	File   string // file name or source; empty for a Config built in code
	Field  string // name as spelled in the file, "quantization_config.quant_method"; empty when the file itself is at fault
	Value  any    // what was found; nil when the field is missing or the reason says all
	Reason string // why not
}

// Error has the file, the field, its value and the reason.
func (e *ConfigError) Error() string {
	var b strings.Builder
	b.WriteString("config")
	if e.File != "" {
		b.WriteString(" " + e.File)
	}
	if e.Field != "" {
		b.WriteString(": " + container.Clip(e.Field))
	}
	if e.Value != nil {
		b.WriteString(" = " + container.Clip(fmt.Sprint(e.Value)))
	}
	b.WriteString(": " + e.Reason)
	return b.String()
}

// Is makes errors.Is(err, ErrConfig) true for every ConfigError.
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

// maxConfigBytes bounds what is read of a config file. Published ones are a few KiB.
const maxConfigBytes = 1 << 20

// LoadConfig reads the config of a model from a file ending in .json, .yaml, .yml or .bitnet, or from the config.json
// (failing that, the model.bitnet) of a model directory. The result is validated. A missing file matches fs.ErrNotExist, anything
// wrong in it ErrConfig (container.ErrFormat for a native file).
func LoadConfig(path string) (*Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if info.IsDir() {
		if native := nativeIn(path); native != "" && !exists(filepath.Join(path, "config.json")) {
			return nativeConfig(native)
		}
		return LoadConfig(filepath.Join(path, "config.json"))
	}
	if isNative(path) {
		return nativeConfig(path)
	}
	ext := strings.ToLower(filepath.Ext(path))
	switch ext {
	case ".json", ".yaml", ".yml":
	default:
		return nil, &ConfigError{File: path, Reason: "a config file ends in .json, .yaml, .yml or " + NativeExt}
	}
	data, err := readLimited(path, maxConfigBytes)
	if err != nil {
		return nil, err
	}
	if ext != ".json" {
		return ParseYAMLConfig(data, path)
	}
	return ParseConfig(data, path)
}

// readLimited reads a whole small file, and refuses one that is longer than limit.
func readLimited(path string, limit int64) ([]byte, error) {
	return readPieces(path, limit, func(int, []byte) error { return nil })
}

// readPieces is readLimited that asks check about every piece, with its place in the file, before it reads the next.
func readPieces(path string, limit int64, check func(at int, piece []byte) error) ([]byte, error) {
	info, err := os.Stat(path) // before opening, which would wait for the other end of a pipe
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, &container.Error{Kind: container.ErrNotRegular, Path: path, Field: "type", Found: info.Mode().Type().String(), Expected: "a regular file"}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer func() { _ = f.Close() }()
	long := &ConfigError{File: path, Reason: fmt.Sprintf("longer than %d bytes", limit)}
	if info.Size() > limit {
		return nil, long
	}
	data := make([]byte, 0, info.Size()+1) // it is not touched before it is read
	for {
		n, err := f.Read(data[len(data):min(cap(data), len(data)+readPiece)])
		if err := check(len(data), data[len(data):len(data)+n]); err != nil {
			return nil, err
		}
		data = data[:len(data)+n]
		switch {
		case errors.Is(err, io.EOF):
			return data, nil
		case err != nil:
			return nil, fmt.Errorf("config %s: %w", path, err)
		case int64(len(data)) > limit:
			return nil, long
		case len(data) == cap(data): // it has grown
			data = append(data, 0)[:len(data)]
		}
	}
}

// ParseConfig reads a config from JSON: a Hugging Face config.json in any of its variants, or our own form
// (see ParseYAMLConfig for its fields). The two are told apart by the keys that only Hugging Face writes:
// architectures, model_type, quantization_config, transformers_version. Unknown keys are ignored in the first
// (they are many) and refused in the second (they are typing errors). name stands for the file in errors.
// The result is validated; every error matches ErrConfig.
func ParseConfig(data []byte, name string) (*Config, error) { return parseConfig(data, name, false) }

// parseConfig is ParseConfig; with quantize, a Hugging Face config of full-precision linears is one of ternary master weights.
func parseConfig(data []byte, name string, quantize bool) (*Config, error) {
	if len(data) > maxConfigBytes {
		return nil, &ConfigError{File: name, Reason: fmt.Sprintf("longer than %d bytes", maxConfigBytes)}
	}
	root, err := readObject(name, "", data)
	if err != nil {
		return nil, err
	}
	quantize = quantize && isHF(root) && !root.has("quantization_config")
	if quantize {
		root.fields["quantization_config"] = json.RawMessage(`{"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}`)
	}
	var c *Config
	if isHF(root) {
		c, err = parseHF(root)
	} else {
		c, err = parseOwn(root)
	}
	if err != nil {
		return nil, root.asWritten(err)
	}
	if err := c.Validate(); err != nil {
		var ce *ConfigError
		if errors.As(err, &ce) {
			ce.File = name
		}
		return nil, root.asWritten(err)
	}
	if c.Architecture == ArchGPT2 && !c.hasTernary() {
		c.Quantization = floatLayers()
	}
	c.quantized = quantize
	return c, nil
}

// UnmarshalJSON is ParseConfig, so that a Config can stand inside other JSON documents.
func (c *Config) UnmarshalJSON(data []byte) error {
	parsed, err := ParseConfig(data, "")
	if err != nil {
		return err
	}
	*c = *parsed
	return nil
}
