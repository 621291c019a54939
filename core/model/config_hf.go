package model

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// architectures are those that this package builds.
var architectures = []string{ArchBitNet, ArchBitnet, ArchLlama, ArchGPT2}

// modelTypes is the fallback for a config without architectures.
var modelTypes = map[string]string{"bitnet": ArchBitNet, "llama": ArchLlama, "gpt2": ArchGPT2}

// isHF tells a Hugging Face config from our own by keys that only the former has.
func isHF(o *object) bool {
	return o.has("architectures") || o.has("model_type") || o.has("quantization_config") || o.has("transformers_version")
}

// parseHF reads a Hugging Face config.json. Keys it does not know are ignored, except those that would change
// the arithmetic without being noticed.
func parseHF(o *object) (*Config, error) {
	c := &Config{Architecture: hfArchitecture(o)}
	if c.Architecture == ArchGPT2 {
		o.gpt2Fields()
		c.readGPT2(o)
	}
	o.required(&c.VocabSize, "vocab_size")
	o.required(&c.HiddenSize, "hidden_size")
	if c.Architecture == ArchGPT2 && !o.has("intermediate_size") {
		c.IntermediateSize = 4 * c.HiddenSize
	} else {
		o.required(&c.IntermediateSize, "intermediate_size")
	}
	o.required(&c.NumHiddenLayers, "num_hidden_layers")
	o.required(&c.NumAttentionHeads, "num_attention_heads")
	o.integer(&c.NumKeyValueHeads, "num_key_value_heads")
	o.integer(&c.HeadDim, "head_dim")
	c.readShared(o)
	if c.Architecture == ArchGPT2 {
		c.dropDefaultIDs()
	}
	o.str(&c.DType, "dtype", "torch_dtype")
	c.DType = strings.TrimPrefix(c.DType, "torch.")
	if c.HiddenAct == "swish" {
		c.HiddenAct = ActSiLU
	}
	c.tieUnstated = c.Architecture != ArchGPT2 && !o.has("tie_word_embeddings")
	c.namesCode = o.has("auto_map")
	if !c.LearnedPositions() {
		c.readHFRope(o)
	}
	c.readHFQuantization(o)
	if o.err != nil {
		return nil, o.err
	}
	out := o.explicitZeros(*c)
	return &out, o.err
}

// explicitZeros fills the defaults, after refusing a zero that the file itself states: a default must not hide it.
func (o *object) explicitZeros(c Config) Config {
	for _, f := range []struct {
		name string
		zero bool
	}{
		{"num_key_value_heads", c.NumKeyValueHeads == 0},
		{"head_dim", c.HeadDim == 0},
		{"max_position_embeddings", c.MaxPositionEmbeddings == 0},
		{"rms_norm_eps", c.RMSNormEps == 0},
		{"rope_theta", c.RopeTheta == 0},
	} {
		if f.zero && o.has(f.name) {
			o.fail(f.name, 0, "must be positive")
		}
	}
	if c.LearnedPositions() { // files do not say these
		c.RopeTheta, c.RopeScaling = 0, nil
	}
	return c.WithDefaults()
}

// readShared reads the fields that have one spelling in both forms.
func (c *Config) readShared(o *object) {
	if c.Architecture == ArchGPT2 {
		c.TieWordEmbeddings, c.AttentionBias, c.MLPBias = true, true, true
	}
	o.str(&c.HiddenAct, "hidden_act")
	o.integer(&c.MaxPositionEmbeddings, "max_position_embeddings")
	o.number(&c.RMSNormEps, "rms_norm_eps")
	o.boolean(&c.TieWordEmbeddings, "tie_word_embeddings")
	o.boolean(&c.AttentionBias, "attention_bias")
	o.boolean(&c.MLPBias, "mlp_bias")
	o.optionalInt(&c.BOSTokenID, "bos_token_id")
	o.integers(&c.EOSTokenIDs, "eos_token_id")
	o.optionalInt(&c.PadTokenID, "pad_token_id")
	if c.PadTokenID != nil && *c.PadTokenID == -1 { // how older files say that there is none
		c.PadTokenID = nil
	}
	o.number(&c.InitializerRange, "initializer_range")
}

func hfArchitecture(o *object) string {
	var names []string
	o.strs(&names, "architectures")
	for _, n := range names {
		if slices.Contains(architectures, n) {
			return n
		}
	}
	if len(names) > 0 {
		reason := "unsupported; supported are " + strings.Join(architectures, ", ")
		if o.has("auto_map") {
			reason += "; code that comes with a checkpoint (auto_map) is never run"
		}
		o.fail("architectures", strings.Join(names, ", "), reason)
		return ""
	}
	var kind string
	o.str(&kind, "model_type")
	arch, ok := modelTypes[kind]
	if !ok && o.err == nil {
		if kind == "" {
			o.fail("architectures", nil, "missing, and model_type too; supported are "+strings.Join(architectures, ", "))
		} else {
			o.fail("model_type", kind, "unsupported; supported are "+strings.Join(sortedKeys(modelTypes), ", "))
		}
	}
	return arch
}

// readHFRope reads theta and scaling from wherever the writer's version put them: rope_parameters (transformers
// 5), or rope_theta and rope_scaling (before). As in transformers, a rope_scaling that says anything replaces
// rope_parameters whole, a theta beside the scheme goes before the one at the top, and a llama3 scaling that does not say
// from how long a context it stretches starts from what the config's top level says, last of all from the model's own.
func (c *Config) readHFRope(o *object) {
	o.number(&c.RopeTheta, "rope_theta")
	r := o.child("rope_scaling")
	if r == nil || len(r.fields) == 0 {
		r = o.child("rope_parameters")
	}
	if r == nil {
		return
	}
	c.readRopeObject(r)
	if s := c.RopeScaling; s != nil && s.Type == RopeLlama3 {
		if top := "original_max_position_embeddings"; o.has(top) {
			o.integer(&s.OriginalMaxPositionEmbeddings, top)
		} else if !r.has(top) {
			s.OriginalMaxPositionEmbeddings = cmp.Or(c.MaxPositionEmbeddings, defaultContext)
		}
	}
	o.adopt(r)
}

func (c *Config) readRopeObject(r *object) {
	kind, partial := RopeDefault, 1.0
	r.str(&kind, "rope_type", "type")
	r.number(&c.RopeTheta, "rope_theta")
	if r.has("rope_theta") && c.RopeTheta == 0 {
		r.fail("rope_theta", 0, "must be positive")
	}
	r.number(&partial, "partial_rotary_factor")
	if partial != 1 {
		r.fail("partial_rotary_factor", partial, "must be 1: every dimension of a head is rotated")
	}
	if kind == RopeDefault {
		return
	}
	s := &RopeScaling{Type: kind}
	r.number(&s.Factor, "factor")
	r.number(&s.LowFreqFactor, "low_freq_factor")
	r.number(&s.HighFreqFactor, "high_freq_factor")
	r.integer(&s.OriginalMaxPositionEmbeddings, "original_max_position_embeddings")
	if kind == RopeLinear { // transformers writes only the factor, and reads only that
		*s = RopeScaling{Type: kind, Factor: s.Factor}
	}
	c.RopeScaling = s
}

func (c *Config) readHFQuantization(o *object) {
	q := o.child("quantization_config")
	if q == nil {
		// Without it the linears of both BitNet classes are master weights: their code ternarizes on the fly. Those of a GPT-2 are floats.
		c.Quantization = Quantization{LinearClass: AutoBitLinear, Mode: ModeOnline}
		switch c.Architecture {
		case ArchGPT2:
			c.Quantization = floatLayers()
		case ArchLlama:
			o.fail("quantization_config", nil, `missing: a Llama without it has full-precision linears; pass quantize=True (on the command line --quantize) to make them ternary, or for ternary master weights add `+
				`{"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}`)
		}
		return
	}
	method := "bitnet"
	if c.Architecture == ArchLlama {
		method = ""
	}
	c.Quantization = Quantization{LinearClass: BitLinear, Mode: ModeOffline}
	if c.Architecture == ArchGPT2 {
		c.Quantization = Quantization{LinearClass: AutoBitLinear, Mode: ModeOnline}
	}
	q.str(&method, "quant_method")
	if method != "bitnet" {
		q.fail("quant_method", method, `must be "bitnet"`)
	}
	q.str(&c.Quantization.LinearClass, "linear_class")
	q.str(&c.Quantization.Mode, "quantization_mode")
	q.boolean(&c.Quantization.UseRMSNorm, "use_rms_norm")
	q.number(&c.Quantization.RMSNormEps, "rms_norm_eps")
	q.strs(&c.Quantization.ModulesToNotConvert, "modules_to_not_convert")
	o.adopt(q)
}

// hfConfig is what MarshalJSON writes: the fields that transformers reads, in the order it writes them.
// RoPE and dtype stand there in both spellings, so that releases before and after 5.0 agree.
type hfConfig struct {
	Architectures         []string        `json:"architectures"`
	ModelType             string          `json:"model_type"`
	DType                 string          `json:"dtype"`
	TorchDType            string          `json:"torch_dtype"`
	VocabSize             int             `json:"vocab_size"`
	HiddenSize            int             `json:"hidden_size"`
	IntermediateSize      int             `json:"intermediate_size"`
	NumHiddenLayers       int             `json:"num_hidden_layers"`
	NumAttentionHeads     int             `json:"num_attention_heads"`
	NumKeyValueHeads      int             `json:"num_key_value_heads"`
	HeadDim               int             `json:"head_dim"`
	HiddenAct             string          `json:"hidden_act"`
	MaxPositionEmbeddings int             `json:"max_position_embeddings"`
	InitializerRange      decimal         `json:"initializer_range"`
	RMSNormEps            decimal         `json:"rms_norm_eps"`
	TieWordEmbeddings     bool            `json:"tie_word_embeddings"`
	AttentionBias         bool            `json:"attention_bias"`
	MLPBias               bool            `json:"mlp_bias"`
	BOSTokenID            *int            `json:"bos_token_id"`
	EOSTokenID            any             `json:"eos_token_id"`
	PadTokenID            *int            `json:"pad_token_id"`
	RopeTheta             decimal         `json:"rope_theta"`
	RopeScaling           map[string]any  `json:"rope_scaling"`
	RopeParameters        map[string]any  `json:"rope_parameters"`
	UseCache              bool            `json:"use_cache"`
	Quantization          *hfQuantization `json:"quantization_config"`
}

// decimal is a float64 that JSON shows with a decimal point: transformers warns about a factor of 8 that is not 8.0.
type decimal float64

// MarshalJSON adds the point to whole numbers.
func (d decimal) MarshalJSON() ([]byte, error) {
	text, err := json.Marshal(float64(d))
	if err == nil && !bytes.ContainsAny(text, ".e") {
		text = append(text, ".0"...)
	}
	return text, err
}

type hfQuantization struct {
	QuantMethod         string   `json:"quant_method"`
	LinearClass         string   `json:"linear_class"`
	Mode                string   `json:"quantization_mode"`
	UseRMSNorm          bool     `json:"use_rms_norm"`
	RMSNormEps          decimal  `json:"rms_norm_eps"`
	ModulesToNotConvert []string `json:"modules_to_not_convert"`
}

func (q *Quantization) hf() *hfQuantization {
	return &hfQuantization{QuantMethod: "bitnet", LinearClass: q.LinearClass, Mode: q.Mode,
		UseRMSNorm: q.UseRMSNorm, RMSNormEps: decimal(q.RMSNormEps), ModulesToNotConvert: q.ModulesToNotConvert}
}

// MarshalJSON writes the config as a Hugging Face config.json, which transformers and ParseConfig both read
// back to the same model.
func (c Config) MarshalJSON() ([]byte, error) {
	if c.Architecture == ArchGPT2 {
		return marshalConfig(c.gpt2())
	}
	out := hfConfig{
		Architectures: []string{c.Architecture}, ModelType: "bitnet", DType: c.DType, TorchDType: c.DType,
		VocabSize: c.VocabSize, HiddenSize: c.HiddenSize, IntermediateSize: c.IntermediateSize,
		NumHiddenLayers: c.NumHiddenLayers, NumAttentionHeads: c.NumAttentionHeads,
		NumKeyValueHeads: c.NumKeyValueHeads, HeadDim: c.HeadDim, HiddenAct: c.HiddenAct,
		MaxPositionEmbeddings: c.MaxPositionEmbeddings, InitializerRange: decimal(c.InitializerRange),
		RMSNormEps: decimal(c.RMSNormEps), TieWordEmbeddings: c.TieWordEmbeddings, AttentionBias: c.AttentionBias, MLPBias: c.MLPBias,
		BOSTokenID: c.BOSTokenID, EOSTokenID: c.eosValue(), PadTokenID: c.PadTokenID,
		RopeTheta: decimal(c.RopeTheta), RopeParameters: map[string]any{"rope_type": RopeDefault, "rope_theta": decimal(c.RopeTheta)},
		UseCache: true, Quantization: c.Quantization.hf(),
	}
	if c.Architecture == ArchLlama {
		out.ModelType = "llama"
	}
	if out.RopeScaling = c.RopeScaling.fields(); out.RopeScaling != nil {
		out.RopeParameters = c.RopeScaling.fields()
		out.RopeParameters["rope_theta"] = decimal(c.RopeTheta)
	}
	return marshalConfig(out)
}

func marshalConfig(fields any) ([]byte, error) {
	data, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return data, nil
}

// eosValue is the one id, the list of ids, or nil: what eos_token_id holds in each case.
func (c *Config) eosValue() any {
	switch len(c.EOSTokenIDs) {
	case 0:
		return nil
	case 1:
		return c.EOSTokenIDs[0]
	default:
		return c.EOSTokenIDs
	}
}

// fields is the scaling as both file forms spell it, nil for none.
func (s *RopeScaling) fields() map[string]any {
	if s == nil {
		return nil
	}
	m := map[string]any{"rope_type": s.Type, "factor": decimal(s.Factor)}
	if s.Type == RopeLlama3 {
		m["low_freq_factor"] = decimal(s.LowFreqFactor)
		m["high_freq_factor"] = decimal(s.HighFreqFactor)
		m["original_max_position_embeddings"] = s.OriginalMaxPositionEmbeddings
	}
	return m
}
