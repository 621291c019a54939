package model

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
)

// The architectures of GGUF files that hold ternary models. The activation is not stored in a file: it follows from the name.
const (
	ggufBitNet2B = "bitnet-b1.58" // bitnet.cpp's name of BitNetForCausalLM
	ggufBitNet25 = "bitnet-25"    // another converter's name of it
	ggufBitnet   = "bitnet"       // BitnetForCausalLM, the 1bitLLM models: SiLU
	ggufLlama    = "llama"        // query and key rows in the order of interleaved rotation, see unpermuted
)

var ggufArchitectures = map[string]string{ggufBitNet2B: ArchBitNet, ggufBitNet25: ArchBitNet, ggufBitnet: ArchBitnet, ggufLlama: ArchLlama}

// ggufConfig reads the config out of a file's metadata and the presence of tensors.
func ggufConfig(set gguf.Set) (*Config, error) {
	r := &ggufReader{set: set, meta: set.Metadata()}
	arch := r.text("general.architecture")
	if r.err != nil {
		return nil, r.err
	}
	known, ok := ggufArchitectures[arch]
	if !ok {
		return nil, r.invalid("general.architecture", fmt.Sprintf("%q", arch),
			fmt.Sprintf("must be one of %s, %s, %s, %s", ggufBitNet2B, ggufBitNet25, ggufBitnet, ggufLlama))
	}
	r.arch = arch + "."
	table, err := set.Tensor("token_embd.weight")
	if err != nil {
		return nil, err
	}
	if err := table.Check([]int{-1, -1}); err != nil {
		return nil, err
	}
	c := &Config{
		Architecture: known, VocabSize: table.Shape[0], HiddenSize: r.int("embedding_length"), IntermediateSize: r.int("feed_forward_length"),
		NumHiddenLayers: r.int("block_count"), NumAttentionHeads: r.int("attention.head_count"),
		NumKeyValueHeads: r.optional("attention.head_count_kv"), HeadDim: r.optional("attention.key_length"),
		MaxPositionEmbeddings: r.optional("context_length"), RMSNormEps: r.float("attention.layer_norm_rms_epsilon", true),
		RopeTheta: r.float("rope.freq_base", false), RopeScaling: r.ropeScaling(),
		TieWordEmbeddings: !set.Has("output.weight"), AttentionBias: set.Has("blk.0.attn_q.bias"), MLPBias: set.Has("blk.0.ffn_up.bias"),
		BOSTokenID: r.token("bos"), EOSTokenIDs: ggufEnds(r.token), PadTokenID: r.token("padding"), DType: ggufDTypes[table.DType],
	}
	if r.err != nil {
		return nil, r.err
	}
	out := c.WithDefaults()
	r.refuse(&out)
	if r.err != nil {
		return nil, r.err
	}
	if err := out.Validate(); err != nil {
		var ce *ConfigError
		if errors.As(err, &ce) {
			ce.File = set.Path()
		}
		return nil, err
	}
	return &out, nil
}

// ggufDTypes are the precisions of tables that are kept as they are; all others count as bfloat16, the default.
var ggufDTypes = map[string]string{gguf.F32: "float32", gguf.F16: "float16"}

// ggufReader remembers the first error.
type ggufReader struct {
	set  gguf.Set
	meta *gguf.Metadata
	arch string // "bitnet.", the prefix of the hyperparameters
	err  error
}

func (r *ggufReader) invalid(field string, value any, reason string) error {
	return &ConfigError{File: r.set.Path(), Field: field, Value: value, Reason: reason}
}

// note keeps the first error; one about the type of an entry becomes one about the config.
func (r *ggufReader) note(err error) {
	var e *container.Error
	if errors.As(err, &e) && (errors.Is(err, gguf.ErrMissing) || errors.Is(err, gguf.ErrType)) {
		reason := "must be " + e.Expected
		if e.Found != "" {
			err = r.invalid(e.Field, e.Found, reason)
		} else {
			err = r.invalid(e.Field, nil, "is missing: "+reason)
		}
	}
	if r.err == nil {
		r.err = err
	}
}

func (r *ggufReader) text(key string) string {
	s, err := r.meta.String(key)
	r.note(err)
	return s
}

func (r *ggufReader) int(key string) int {
	n, err := r.meta.Int(r.arch + key)
	if n > math.MaxInt32 {
		n = math.MaxInt32 // Validate refuses it with its bound
	}
	r.note(err)
	return n
}

// optional is 0 for an entry that is not there.
func (r *ggufReader) optional(key string) int {
	if !r.meta.Has(r.arch + key) {
		return 0
	}
	n := r.int(key)
	if n == 0 && r.err == nil {
		r.err = r.invalid(r.arch+key, 0, "must be positive")
	}
	return n
}

// float is 0 for an entry that is not there and need not be. Files have it as float32: the shortest decimal is what was meant.
func (r *ggufReader) float(key string, required bool) float64 {
	if !required && !r.meta.Has(r.arch+key) {
		return 0
	}
	x, err := r.meta.Float(r.arch + key)
	r.note(err)
	return shortest(x)
}

func (r *ggufReader) token(name string) *int {
	id, err := ggufToken(r.meta, name)
	r.note(err)
	return id
}

// ggufToken is the id of a special token, nil if there is none.
func ggufToken(m *gguf.Metadata, name string) (*int, error) {
	key := "tokenizer.ggml." + name + "_token_id"
	if !m.Has(key) {
		return nil, nil
	}
	id, err := m.Int(key)
	if err != nil || id == math.MaxUint32 { // how some writers say that there is none
		return nil, err
	}
	return &id, nil
}

// ggufEnds are the ids of the tokens that end a text.
func ggufEnds(token func(name string) *int) []int {
	var ids []int
	for _, name := range []string{"eos", "eot", "eom"} {
		if id := token(name); id != nil && !slices.Contains(ids, *id) {
			ids = append(ids, *id)
		}
	}
	return ids
}

// ropeScaling reads the entries of rope.scaling, and the factors that Llama 3's scaling has in a tensor.
func (r *ggufReader) ropeScaling() *RopeScaling {
	const key = "rope.scaling.type"
	kind := "none"
	if r.meta.Has(r.arch + key) {
		kind = r.text(r.arch + key)
	}
	switch kind {
	case "none":
	case "linear":
		return &RopeScaling{Type: RopeLinear, Factor: r.float("rope.scaling.factor", true)}
	default:
		r.note(r.invalid(r.arch+key, fmt.Sprintf("%q", kind), "must be none or linear"))
	}
	if !r.set.Has(ropeFactors) {
		return nil
	}
	v, err := r.set.Tensor(ropeFactors)
	if err == nil {
		err = v.Check([]int{-1}, gguf.F32)
	}
	if err != nil {
		r.note(err)
		return nil
	}
	original := r.optional("rope.scaling.original_context_length")
	if original == 0 {
		original = 8192
	}
	factors := decodeFloats(v)
	s := &RopeScaling{Type: RopeLlama3, Factor: float64(slices.Max(factors)), LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: original}
	theta := r.float("rope.freq_base", false)
	for i, want := range llama3Factors(s, theta, len(factors)) {
		if math.Abs(float64(factors[i])/want-1) > 1e-4 {
			r.note(&container.Error{Kind: ErrValue, Path: v.Path(), Tensor: ropeFactors, Field: fmt.Sprintf("element %d", i), Found: fmt.Sprint(factors[i]),
				Expected: fmt.Sprintf("%v, the scaling of Llama 3.1 from %d positions by %v", float32(want), original, s.Factor)})
		}
	}
	return s
}

// ropeFactors is the tensor of the factors that divide the rotary frequencies.
const ropeFactors = "rope_freqs.weight"

// llama3Factors are the factors by which Llama 3's scaling divides n rotary frequencies.
func llama3Factors(s *RopeScaling, theta float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		wavelength := 2 * math.Pi * math.Pow(theta, float64(i)/float64(n))
		turns := float64(s.OriginalMaxPositionEmbeddings) / wavelength
		switch {
		case turns > s.HighFreqFactor:
			out[i] = 1
		case turns < s.LowFreqFactor:
			out[i] = s.Factor
		default:
			smooth := (turns - s.LowFreqFactor) / (s.HighFreqFactor - s.LowFreqFactor)
			out[i] = 1 / ((1-smooth)/s.Factor + smooth)
		}
	}
	return out
}

// refuse reports what would change the arithmetic without being noticed.
func (r *ggufReader) refuse(c *Config) {
	for _, e := range []struct {
		key  string
		want int
		why  string
	}{
		{"rope.dimension_count", c.HeadDim, "must be the width of a head: partial rotation is not supported"},
		{"attention.value_length", c.HeadDim, "must be the width of a key"},
		{"expert_count", 0, "must be 0: mixtures of experts are not supported"},
		{"attention.sliding_window", 0, "must be 0: sliding windows are not supported"},
	} {
		if r.meta.Has(r.arch + e.key) {
			if n := r.int(e.key); r.err == nil && n != e.want {
				r.err = r.invalid(r.arch+e.key, n, e.why)
			}
		}
	}
}

// shortest is the decimal that x, a float32, was made of.
func shortest(x float64) float64 {
	if float64(float32(x)) != x {
		return x
	}
	var out float64
	if _, err := fmt.Sscan(fmt.Sprint(float32(x)), &out); err != nil {
		return x
	}
	return out
}
