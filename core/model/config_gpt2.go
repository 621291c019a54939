package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// gpt2Names are the fields that a GPT-2's config.json calls otherwise than those of other architectures. MarshalJSON writes its own
// names, and AllNames both, so that a config can be asked for its hidden_size whatever its architecture.
var gpt2Names = map[string]string{
	"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "max_position_embeddings": "n_positions",
	"intermediate_size": "n_inner", "hidden_act": "activation_function", "rms_norm_eps": "layer_norm_epsilon",
}

// floatLayers is the quantization of a GPT-2 whose file states none: every projection is float.
func floatLayers() Quantization {
	return Quantization{LinearClass: AutoBitLinear, Mode: ModeOnline, RMSNormEps: 1e-6, ModulesToNotConvert: []string{"model.layers"}}
}

// hasTernary says whether any projection is ternary, by whatever its patterns match. Files say nothing of the quantization of a GPT-2 that
// has none.
func (c *Config) hasTernary() bool {
	converts := c.Quantization.converter()
	for layer := range c.NumHiddenLayers {
		for _, l := range c.linearShapes() {
			if converts(layerName(layer) + l.Name) {
				return true
			}
		}
	}
	return false
}

// gpt2Fields gives the fields of a GPT-2's config.json the names that they have elsewhere; errors go on to call them as the file does. Two
// names with two values are refused.
func (o *object) gpt2Fields() {
	o.renamed = map[string]string{}
	for _, common := range sortedKeys(gpt2Names) {
		name := gpt2Names[common]
		v, _ := o.raw(name)
		other, _ := o.raw(common)
		switch {
		case v == nil && other != nil:
			continue
		case v != nil && other != nil && !sameValue(other, v):
			o.fail(name, abbreviate(v), fmt.Sprintf("must be %s, the value of %s, which is the same field", abbreviate(other), common))
		case v != nil:
			o.fields[common] = v
		}
		o.renamed[common] = name
	}
}

// sameValue says whether two fields have one value: numbers may be written in two ways, 1e-5 and 0.00001.
func sameValue(a, b json.RawMessage) bool {
	if bytes.Equal(bytes.TrimSpace(a), bytes.TrimSpace(b)) {
		return true
	}
	number := func(v json.RawMessage) (float64, error) {
		return strconv.ParseFloat(string(bytes.Trim(v, "\" \t\r\n")), 64)
	}
	x, errX := number(a)
	y, errY := number(b)
	return errX == nil && errY == nil && x == y
}

// readGPT2 takes the defaults of transformers' GPT2Config, and refuses what looks like GPT-2 and computes something else.
func (c *Config) readGPT2(o *object) {
	c.MaxPositionEmbeddings = 1024
	for _, f := range []struct {
		name   string
		value  bool // that a GPT-2 has
		reason string
	}{
		{"scale_attn_weights", true, "must be true: scores are divided by sqrt(head_dim)"},
		{"scale_attn_by_inverse_layer_idx", false, "must be false: scores of every layer are scaled alike"},
		{"add_cross_attention", false, "must be false: a language model has no encoder to attend to"},
	} {
		found := f.value
		if o.boolean(&found, f.name); found != f.value {
			o.fail(f.name, found, f.reason)
		}
	}
}

// gpt2EndOfText is the bos_token_id and eos_token_id that GPT2Config has unless it is told others, and so says of small vocabularies too.
const gpt2EndOfText = 50256

// dropDefaultIDs forgets ids that nobody stated: a vocabulary without them has no such tokens, and transformers runs such a model.
func (c *Config) dropDefaultIDs() {
	if c.VocabSize > gpt2EndOfText {
		return
	}
	if c.BOSTokenID != nil && *c.BOSTokenID == gpt2EndOfText {
		c.BOSTokenID = nil
	}
	c.EOSTokenIDs = slices.DeleteFunc(c.EOSTokenIDs, func(id int) bool { return id == gpt2EndOfText })
}

// gpt2Config is what MarshalJSON writes of a GPT-2: the fields that transformers reads.
type gpt2Config struct {
	Architectures      []string        `json:"architectures"`
	ModelType          string          `json:"model_type"`
	DType              string          `json:"dtype"`
	TorchDType         string          `json:"torch_dtype"`
	VocabSize          int             `json:"vocab_size"`
	Embd               int             `json:"n_embd"`
	Layer              int             `json:"n_layer"`
	Head               int             `json:"n_head"`
	Positions          int             `json:"n_positions"`
	Inner              int             `json:"n_inner"`
	ActivationFunction string          `json:"activation_function"`
	LayerNormEpsilon   decimal         `json:"layer_norm_epsilon"`
	InitializerRange   decimal         `json:"initializer_range"`
	TieWordEmbeddings  bool            `json:"tie_word_embeddings"`
	BOSTokenID         *int            `json:"bos_token_id"`
	EOSTokenID         any             `json:"eos_token_id"`
	PadTokenID         *int            `json:"pad_token_id"`
	UseCache           bool            `json:"use_cache"`
	Quantization       *hfQuantization `json:"quantization_config,omitempty"` // nil where no layer is ternary
}

// gpt2AllNames is gpt2Config and, by the names that they have elsewhere, its fields and those that follow from them.
type gpt2AllNames struct {
	gpt2Config
	HiddenSize            int     `json:"hidden_size"`
	NumHiddenLayers       int     `json:"num_hidden_layers"`
	NumAttentionHeads     int     `json:"num_attention_heads"`
	NumKeyValueHeads      int     `json:"num_key_value_heads"`
	HeadDim               int     `json:"head_dim"`
	MaxPositionEmbeddings int     `json:"max_position_embeddings"`
	IntermediateSize      int     `json:"intermediate_size"`
	HiddenAct             string  `json:"hidden_act"`
	RMSNormEps            decimal `json:"rms_norm_eps"`
	AttentionBias         bool    `json:"attention_bias"`
	MLPBias               bool    `json:"mlp_bias"`
}

// AllNames is MarshalJSON that says the fields of a GPT-2, which has names of its own for them, by the common names too.
func (c Config) AllNames() ([]byte, error) {
	if c.Architecture != ArchGPT2 {
		return c.MarshalJSON()
	}
	return marshalConfig(gpt2AllNames{
		gpt2Config: c.gpt2(), HiddenSize: c.HiddenSize, NumHiddenLayers: c.NumHiddenLayers, NumAttentionHeads: c.NumAttentionHeads,
		NumKeyValueHeads: c.NumKeyValueHeads, HeadDim: c.HeadDim, MaxPositionEmbeddings: c.MaxPositionEmbeddings, IntermediateSize: c.IntermediateSize,
		HiddenAct: c.HiddenAct, RMSNormEps: decimal(c.RMSNormEps), AttentionBias: c.AttentionBias, MLPBias: c.MLPBias,
	})
}

func (c *Config) gpt2() gpt2Config {
	out := gpt2Config{
		Architectures: []string{c.Architecture}, ModelType: "gpt2", DType: c.DType, TorchDType: c.DType, VocabSize: c.VocabSize,
		Embd: c.HiddenSize, Layer: c.NumHiddenLayers, Head: c.NumAttentionHeads, Positions: c.MaxPositionEmbeddings, Inner: c.IntermediateSize,
		ActivationFunction: c.HiddenAct, LayerNormEpsilon: decimal(c.RMSNormEps), InitializerRange: decimal(c.InitializerRange),
		TieWordEmbeddings: c.TieWordEmbeddings, BOSTokenID: c.BOSTokenID, EOSTokenID: c.eosValue(), PadTokenID: c.PadTokenID, UseCache: true,
	}
	if c.hasTernary() {
		out.Quantization = c.Quantization.hf()
	}
	return out
}
