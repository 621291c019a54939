package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds of a YAML config: far above any real one, low enough that no input keeps the parser, which is quadratic in
// places, busy for long.
const (
	maxYAMLBytes = 16 << 10
	maxYAMLDepth = 32
)

// ParseYAMLConfig reads a config in our own form from YAML (the same fields may be written as JSON):
//
//	preset: bitnet-2b          # optional: start from a registered preset and change fields of it
//	architecture: BitNetForCausalLM
//	vocab_size: 512
//	hidden_size: 256
//	intermediate_size: 512
//	num_hidden_layers: 4
//	num_attention_heads: 8
//	num_key_value_heads: 2     # default: num_attention_heads
//	head_dim: 32               # default: hidden_size / num_attention_heads
//	hidden_act: relu2
//	max_position_embeddings: 256
//	rms_norm_eps: 1e-5
//	rope_theta: 500000
//	rope_scaling: {rope_type: llama3, factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192}
//	tie_word_embeddings: true
//	attention_bias: false
//	mlp_bias: false
//	bos_token_id: 0
//	eos_token_id: [1, 2]
//	pad_token_id: null
//	initializer_range: 0.02
//	dtype: bfloat16
//	quantization: {linear_class: autobitlinear, mode: offline, use_rms_norm: false, rms_norm_eps: 1e-6, modules_to_not_convert: []}
//
// What is left out takes the default of Config.WithDefaults. A field that is not in this list is an
// error that proposes the name it may have meant. A Hugging Face config written as YAML is read too.
// Every error matches ErrConfig.
func ParseYAMLConfig(data []byte, name string) (*Config, error) {
	text, err := YAMLToJSON(data, name)
	if err != nil {
		return nil, err
	}
	return ParseConfig(text, name)
}

// YAMLToJSON reads one YAML document of at most 16 KiB, without aliases and not deeply nested, as JSON; name is for errors, which
// match ErrConfig.
func YAMLToJSON(data []byte, name string) ([]byte, error) {
	if len(data) > maxYAMLBytes {
		return nil, &ConfigError{File: name, Reason: fmt.Sprintf("longer than %d bytes", maxYAMLBytes)}
	}
	if err := checkYAML(data, name); err != nil {
		return nil, err
	}
	text, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, yamlError(err, name)
	}
	return text, nil
}

// checkYAML refuses what a config never needs and an attacker likes: deep nesting and aliases, which
// can expand without bound.
func checkYAML(data []byte, name string) error {
	depth, deepest := 0, 0
	for _, b := range data {
		switch b {
		case '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ']', '}':
			depth--
		}
	}
	if deepest > maxYAMLDepth || bytes.Contains(data, bytes.Repeat([]byte("- "), maxYAMLDepth)) {
		return &ConfigError{File: name, Reason: fmt.Sprintf("nested deeper than %d", maxYAMLDepth)}
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return yamlError(err, name)
	}
	if len(file.Docs) > 1 {
		return &ConfigError{File: name, Reason: fmt.Sprintf("holds %d YAML documents, not one", len(file.Docs))}
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return &ConfigError{File: name, Reason: "holds no YAML document"}
	}
	if len(ast.Filter(ast.AliasType, file.Docs[0].Body)) > 0 {
		return &ConfigError{File: name, Reason: "YAML aliases (*name) are not supported"}
	}
	return nil
}

func yamlError(err error, name string) error {
	message := err.Error()
	var syntax yaml.Error
	if errors.As(err, &syntax) {
		message = syntax.GetMessage()
		if t := syntax.GetToken(); t != nil && t.Position != nil {
			message = fmt.Sprintf("line %d, column %d: %s", t.Position.Line, t.Position.Column, message)
		}
	}
	return &ConfigError{File: name, Reason: "not YAML: " + strings.TrimSpace(message)}
}

// parseOwn reads our own form; the list of its fields stands at ParseYAMLConfig.
func parseOwn(o *object) (*Config, error) {
	c := &Config{}
	var preset string
	o.str(&preset, "preset")
	if preset != "" {
		p, err := Find(preset)
		if err != nil {
			return nil, &ConfigError{File: o.file, Field: "preset", Value: preset, Reason: err.Error()}
		}
		base := p.Config.clone()
		c = &base
		if o.has("hidden_size") || o.has("num_attention_heads") { // a new shape has a new head size, unless stated
			c.HeadDim = 0
		}
		if o.has("num_attention_heads") {
			c.NumKeyValueHeads = 0
		}
	}
	o.str(&c.Architecture, "architecture")
	for _, f := range []struct {
		dst  *int
		name string
	}{
		{&c.VocabSize, "vocab_size"},
		{&c.HiddenSize, "hidden_size"},
		{&c.IntermediateSize, "intermediate_size"},
		{&c.NumHiddenLayers, "num_hidden_layers"},
		{&c.NumAttentionHeads, "num_attention_heads"},
	} {
		if preset == "" {
			o.required(f.dst, f.name)
		} else {
			o.integer(f.dst, f.name)
		}
	}
	o.integer(&c.NumKeyValueHeads, "num_key_value_heads")
	o.integer(&c.HeadDim, "head_dim")
	c.readShared(o)
	o.str(&c.DType, "dtype")
	if !c.LearnedPositions() {
		c.readOwnRope(o)
	}
	if q := o.child("quantization"); q != nil {
		q.str(&c.Quantization.LinearClass, "linear_class")
		q.str(&c.Quantization.Mode, "mode")
		q.boolean(&c.Quantization.UseRMSNorm, "use_rms_norm")
		q.number(&c.Quantization.RMSNormEps, "rms_norm_eps")
		q.strs(&c.Quantization.ModulesToNotConvert, "modules_to_not_convert")
		q.refuseUnknown()
		o.adopt(q)
	}
	o.refuseUnknown()
	if o.err != nil {
		return nil, o.err
	}
	out := o.explicitZeros(*c)
	return &out, o.err
}

func (c *Config) readOwnRope(o *object) {
	o.number(&c.RopeTheta, "rope_theta")
	if r := o.child("rope_scaling"); r != nil {
		c.readRopeObject(r)
		r.refuseUnknown()
		o.adopt(r)
	} else if _, stated := o.fields["rope_scaling"]; stated { // null removes a preset's scaling
		c.RopeScaling = nil
	}
}

// MarshalYAML writes the config in our own form, every field stated, so that ParseYAMLConfig gives it back. Values are
// written as JSON, which YAML includes.
func (c Config) MarshalYAML() ([]byte, error) {
	type field struct {
		name  string
		value any
	}
	fields := []field{
		{"architecture", c.Architecture},
		{"vocab_size", c.VocabSize},
		{"hidden_size", c.HiddenSize},
		{"intermediate_size", c.IntermediateSize},
		{"num_hidden_layers", c.NumHiddenLayers},
		{"num_attention_heads", c.NumAttentionHeads},
		{"num_key_value_heads", c.NumKeyValueHeads},
		{"head_dim", c.HeadDim},
		{"hidden_act", c.HiddenAct},
		{"max_position_embeddings", c.MaxPositionEmbeddings},
		{"rms_norm_eps", c.RMSNormEps},
		{"rope_theta", c.RopeTheta},
		{"rope_scaling", c.RopeScaling.fields()},
		{"tie_word_embeddings", c.TieWordEmbeddings},
		{"attention_bias", c.AttentionBias},
		{"mlp_bias", c.MLPBias},
		{"bos_token_id", c.BOSTokenID},
		{"eos_token_id", c.eosValue()},
		{"pad_token_id", c.PadTokenID},
		{"initializer_range", c.InitializerRange},
		{"dtype", c.DType},
		{"quantization", map[string]any{"linear_class": c.Quantization.LinearClass, "mode": c.Quantization.Mode,
			"use_rms_norm": c.Quantization.UseRMSNorm, "rms_norm_eps": c.Quantization.RMSNormEps, "modules_to_not_convert": c.Quantization.ModulesToNotConvert}},
	}
	var b bytes.Buffer
	for _, f := range fields {
		if c.LearnedPositions() && strings.HasPrefix(f.name, "rope_") {
			continue
		}
		value, err := json.Marshal(f.value)
		if err != nil {
			return nil, fmt.Errorf("config: %s: %w", f.name, err)
		}
		fmt.Fprintf(&b, "%s: %s\n", f.name, value)
	}
	return b.Bytes(), nil
}
