package model

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const goldenDir = "../../tests_go/testdata/golden"

// hf renders a small Hugging Face config in which keys are replaced, added or (with a nil value) removed.
func hf(changes map[string]any) string {
	base := map[string]any{
		"architectures": []string{ArchBitNet}, "model_type": "bitnet", "vocab_size": 100, "hidden_size": 64,
		"intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
		"hidden_act": "relu2", "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
		"tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16",
		"quantization_config": map[string]any{"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"},
	}
	for k, v := range changes {
		if v == nil {
			delete(base, k)
		} else {
			base[k] = v
		}
	}
	out, err := json.Marshal(base)
	if err != nil {
		panic(err)
	}
	return string(out)
}

type changes = map[string]any

func TestEveryGoldenConfigParses(t *testing.T) {
	for folder, want := range map[string]Quantization{
		"bitnet_offline_packed":  {LinearClass: AutoBitLinear, Mode: ModeOffline, RMSNormEps: 1e-6},
		"bitnet_online_bf16":     {LinearClass: AutoBitLinear, Mode: ModeOnline, RMSNormEps: 1e-6},
		"llama_bitlinear_packed": {LinearClass: BitLinear, Mode: ModeOffline, RMSNormEps: 1e-6},
	} {
		c, err := LoadConfig(filepath.Join(goldenDir, folder))
		require.NoError(t, err, folder)
		assert.Equal(t, want, c.Quantization, folder)
		assert.Equal(t, []int{512, 256, 512, 4, 8, 2, 32}, []int{c.VocabSize, c.HiddenSize, c.IntermediateSize,
			c.NumHiddenLayers, c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim}, folder)
		assert.Equal(t, 500000.0, c.RopeTheta)
		assert.Nil(t, c.RopeScaling)
		assert.Equal(t, []int{1}, c.EOSTokenIDs)
		assert.Equal(t, "bfloat16", c.DType)
		assert.Equal(t, folder != "llama_bitlinear_packed", c.TieWordEmbeddings)
		assert.Equal(t, folder != "llama_bitlinear_packed", c.SubNorms())
	}
}

func TestHuggingFaceVariantsMeanTheSame(t *testing.T) {
	llama3 := changes{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
	with := func(m changes, key string, v any) changes {
		out := maps.Clone(m)
		out[key] = v
		return out
	}
	scaling := &RopeScaling{Type: RopeLlama3, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 64}
	for _, tc := range []struct {
		name  string
		json  string
		check func(*testing.T, *Config)
	}{
		{"rope theta at the top", hf(nil), func(t *testing.T, c *Config) { assert.Equal(t, 500000.0, c.RopeTheta) }},
		{"rope_parameters", hf(changes{"rope_theta": nil, "rope_parameters": changes{"rope_type": "default", "rope_theta": 12345.0}}), func(t *testing.T, c *Config) {
			assert.Equal(t, 12345.0, c.RopeTheta)
			assert.Nil(t, c.RopeScaling)
		}},
		{"rope_parameters with llama3 scaling", hf(changes{"rope_theta": nil, "rope_parameters": with(llama3, "rope_theta", 7e5)}), func(t *testing.T, c *Config) {
			assert.Equal(t, 7e5, c.RopeTheta)
			assert.Equal(t, scaling, c.RopeScaling)
		}},
		{"rope_scaling with llama3", hf(changes{"rope_scaling": llama3}), func(t *testing.T, c *Config) {
			assert.Equal(t, 500000.0, c.RopeTheta)
			assert.Equal(t, scaling, c.RopeScaling)
		}},
		{"rope_scaling under its old key", `{"rope_scaling": {"type": "linear", "factor": 2}, ` + hf(nil)[1:], func(t *testing.T, c *Config) {
			assert.Equal(t, &RopeScaling{Type: RopeLinear, Factor: 2}, c.RopeScaling)
		}},
		{"rope_scaling instead of rope_parameters", hf(changes{"rope_parameters": changes{"rope_type": "linear", "factor": 4, "rope_theta": 7.0}, "rope_scaling": changes{"rope_type": "default"}}), func(t *testing.T, c *Config) {
			assert.Nil(t, c.RopeScaling)
			assert.Equal(t, 500000.0, c.RopeTheta)
		}},
		{"rope_scaling that says nothing", hf(changes{"rope_parameters": with(llama3, "rope_theta", 7e5), "rope_scaling": changes{}}), func(t *testing.T, c *Config) {
			assert.Equal(t, scaling, c.RopeScaling)
			assert.Equal(t, 7e5, c.RopeTheta)
		}},
		{"llama3 from the model's context", hf(changes{"rope_scaling": with(llama3, "original_max_position_embeddings", nil)}), func(t *testing.T, c *Config) {
			assert.Equal(t, 128, c.RopeScaling.OriginalMaxPositionEmbeddings)
		}},
		{"llama3 from a context at the top", hf(changes{"original_max_position_embeddings": 32, "rope_scaling": llama3}), func(t *testing.T, c *Config) {
			assert.Equal(t, 32, c.RopeScaling.OriginalMaxPositionEmbeddings)
		}},
		{"rope_scaling null", `{"rope_scaling": null, ` + hf(nil)[1:], func(t *testing.T, c *Config) { assert.Nil(t, c.RopeScaling) }},
		{"rope_scaling default", hf(changes{"rope_scaling": changes{"rope_type": "default"}}), func(t *testing.T, c *Config) { assert.Nil(t, c.RopeScaling) }},
		{"dtype", hf(changes{"torch_dtype": nil, "dtype": "float16"}), func(t *testing.T, c *Config) { assert.Equal(t, "float16", c.DType) }},
		{"torch_dtype with its prefix", hf(changes{"torch_dtype": "torch.float32"}), func(t *testing.T, c *Config) { assert.Equal(t, "float32", c.DType) }},
		{"no dtype", hf(changes{"torch_dtype": nil}), func(t *testing.T, c *Config) { assert.Equal(t, "bfloat16", c.DType) }},
		{"kv heads null", strings.Replace(hf(nil), `"num_key_value_heads":2`, `"num_key_value_heads":null`, 1), func(t *testing.T, c *Config) { assert.Equal(t, 4, c.NumKeyValueHeads) }},
		{"kv heads absent", hf(changes{"num_key_value_heads": nil}), func(t *testing.T, c *Config) { assert.Equal(t, 4, c.NumKeyValueHeads) }},
		{"head_dim absent", hf(nil), func(t *testing.T, c *Config) { assert.Equal(t, 16, c.HeadDim) }},
		{"head_dim that differs", hf(changes{"architectures": []string{ArchLlama}, "head_dim": 32}), func(t *testing.T, c *Config) { assert.Equal(t, 32, c.HeadDim) }},
		{"eos list", hf(changes{"eos_token_id": []int{1, 5}}), func(t *testing.T, c *Config) { assert.Equal(t, []int{1, 5}, c.EOSTokenIDs) }},
		{"eos absent", hf(changes{"eos_token_id": nil}), func(t *testing.T, c *Config) { assert.Empty(t, c.EOSTokenIDs) }},
		{"pad -1", hf(changes{"pad_token_id": -1}), func(t *testing.T, c *Config) { assert.Nil(t, c.PadTokenID) }},
		{"whole numbers written as floats", hf(changes{"hidden_size": json.Number("64.0")}), func(t *testing.T, c *Config) { assert.Equal(t, 64, c.HiddenSize) }},
		{"swish is silu", hf(changes{"hidden_act": "swish"}), func(t *testing.T, c *Config) { assert.Equal(t, ActSiLU, c.HiddenAct) }},
		{"act absent in BitNet", hf(changes{"hidden_act": nil}), func(t *testing.T, c *Config) { assert.Equal(t, ActReLU2, c.HiddenAct) }},
		{"act absent in Llama", hf(changes{"hidden_act": nil, "architectures": []string{ArchLlama}}), func(t *testing.T, c *Config) { assert.Equal(t, ActSiLU, c.HiddenAct) }},
		{"tie absent", hf(changes{"tie_word_embeddings": nil}), func(t *testing.T, c *Config) {
			assert.False(t, c.TieWordEmbeddings)
			assert.True(t, c.tieUnstated)
		}},
		{"model_type alone", hf(changes{"architectures": nil, "model_type": "llama"}), func(t *testing.T, c *Config) { assert.Equal(t, ArchLlama, c.Architecture) }},
		{"quantization defaults", hf(changes{"quantization_config": changes{"quant_method": "bitnet"}}), func(t *testing.T, c *Config) {
			assert.Equal(t, Quantization{LinearClass: BitLinear, Mode: ModeOffline, RMSNormEps: 1e-6}, c.Quantization)
		}},
		{"quantization in full", hf(changes{"quantization_config": changes{"quant_method": "bitnet", "linear_class": "bitlinear",
			"quantization_mode": "online", "use_rms_norm": true, "rms_norm_eps": 1e-5, "modules_to_not_convert": []string{"lm_head"}}}), func(t *testing.T, c *Config) {
			assert.Equal(t, Quantization{BitLinear, ModeOnline, true, 1e-5, []string{"lm_head"}}, c.Quantization)
		}},
		{"1bitLLM has no quantization_config", hf(changes{"architectures": []string{ArchBitnet}, "model_type": "llama", "quantization_config": nil,
			"hidden_act": "silu", "weight_bits": 1, "input_bits": 8}), func(t *testing.T, c *Config) {
			assert.Equal(t, Quantization{LinearClass: AutoBitLinear, Mode: ModeOnline, RMSNormEps: 1e-6}, c.Quantization)
			assert.True(t, c.SubNorms())
		}},
		{"unknown keys", hf(changes{"some_new_key": []int{1}, "pretraining_tp": 1}), func(*testing.T, *Config) {}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := ParseConfig([]byte(tc.json), "config.json")
			require.NoError(t, err)
			tc.check(t, c)
			requireRoundTrips(t, c)
		})
	}
}

// requireRoundTrips writes a config in both forms and reads it back.
func requireRoundTrips(t require.TestingT, c *Config) {
	want := c.clone()
	want.tieUnstated = false // what is written states it
	text, err := json.Marshal(c)
	require.NoError(t, err)
	back, err := ParseConfig(text, "back.json")
	require.NoError(t, err, "%s", text)
	require.Equal(t, &want, back)
	text, err = yaml.Marshal(c)
	require.NoError(t, err)
	back, err = ParseYAMLConfig(text, "back.yaml")
	require.NoError(t, err, "%s", text)
	require.Equal(t, &want, back)
}

func TestFloatsAreWrittenWithADecimalPoint(t *testing.T) {
	c, err := ParseConfig([]byte(hf(changes{"rope_scaling": changes{"type": "linear", "factor": 2}})), "")
	require.NoError(t, err)
	text, err := json.Marshal(c)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"rope_theta":500000.0,`)
	assert.Contains(t, string(text), `"rope_scaling":{"factor":2.0,`)
	assert.Contains(t, string(text), `"rms_norm_eps":0.00001`)
}

func TestBadConfigsNameFileFieldValueAndReason(t *testing.T) {
	quant := func(key string, v any) changes {
		return changes{"quantization_config": changes{"quant_method": "bitnet", key: v}}
	}
	rope := func(key string, v any) changes {
		m := changes{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
		m[key] = v
		return changes{"rope_scaling": m}
	}
	llama := []string{ArchLlama}
	for _, tc := range []struct {
		name, json           string
		field, value, reason string
	}{
		{"empty file", "", "", "", "not JSON"},
		{"cut off", `{"vocab_size": 1`, "", "", "not JSON"},
		{"syntax", `{"vocab_size": 1,,}`, "", "", "at byte 18"},
		{"a list", `[1, 2]`, "", "", "JSON array, not an object"},
		{"null", `null`, "", "", "null"},
		{"text behind", hf(nil) + "{}", "", "", "text after the JSON object"},
		{"NaN", `{"rms_norm_eps": NaN}`, "", "", "not JSON"},
		{"architecture unknown", hf(changes{"architectures": []string{"MistralForCausalLM"}}), "architectures", "MistralForCausalLM", "supported are BitNetForCausalLM"},
		{"architecture not a list", hf(changes{"architectures": 5}), "architectures", "5", "a list of strings"},
		{"architecture list with null", `{"architectures": [null]}`, "architectures", "[null]", "a list of strings"},
		{"model_type unknown", hf(changes{"architectures": nil, "model_type": "opt"}), "model_type", "opt", "unsupported"},
		{"neither", `{"transformers_version": "5"}`, "architectures", "", "missing"},
		{"vocab missing", hf(changes{"vocab_size": nil}), "vocab_size", "", "missing"},
		{"hidden missing", hf(changes{"hidden_size": nil}), "hidden_size", "", "missing"},
		{"vocab a string", hf(changes{"vocab_size": "many"}), "vocab_size", `"many"`, "must be a whole number"},
		{"vocab zero", hf(changes{"vocab_size": 0}), "vocab_size", "0", "must be positive"},
		{"hidden negative", hf(changes{"hidden_size": -64}), "hidden_size", "-64", "must be positive"},
		{"hidden huge", hf(changes{"hidden_size": 1 << 40}), "hidden_size", "1099511627776", "at most"},
		{"hidden beyond int64", hf(changes{"hidden_size": json.Number("1e30")}), "hidden_size", "1e30", "must be a whole number"},
		{"hidden fractional", hf(changes{"hidden_size": 64.5}), "hidden_size", "64.5", "must be a whole number"},
		{"layers huge", hf(changes{"num_hidden_layers": 1000000000}), "num_hidden_layers", "1000000000", "at most"},
		{"hidden not divisible", hf(changes{"hidden_size": 66}), "hidden_size", "66", "multiple of num_attention_heads = 4"},
		{"kv heads zero", hf(changes{"num_key_value_heads": 0}), "num_key_value_heads", "0", "positive"},
		{"kv heads not a divisor", hf(changes{"num_key_value_heads": 3}), "num_key_value_heads", "3", "must divide num_attention_heads = 4"},
		{"head_dim odd", hf(changes{"architectures": llama, "head_dim": 15}), "head_dim", "15", "even"},
		{"head_dim zero", hf(changes{"head_dim": 0}), "head_dim", "0", "positive"},
		{"head_dim negative", hf(changes{"head_dim": -2}), "head_dim", "-2", "positive"},
		{"head_dim huge", hf(changes{"architectures": llama, "head_dim": 8192}), "head_dim", "8192", "at most"},
		{"heads times head_dim huge", hf(changes{"architectures": llama, "num_attention_heads": 4096, "head_dim": 4096}), "head_dim", "4096", "at most 262144"},
		{"head_dim against sub-norm", hf(changes{"head_dim": 32}), "head_dim", "32", "must be hidden_size = 64"},
		{"act unknown", hf(changes{"hidden_act": "swiglu"}), "hidden_act", `"swiglu"`, "must be one of relu2, silu"},
		{"context zero", hf(changes{"max_position_embeddings": 0}), "max_position_embeddings", "0", "positive"},
		{"eps zero", hf(changes{"rms_norm_eps": 0}), "rms_norm_eps", "0", "positive"},
		{"eps negative", hf(changes{"rms_norm_eps": -1e-5}), "rms_norm_eps", "-1e-05", "above 0"},
		{"eps a string", hf(changes{"rms_norm_eps": "tiny"}), "rms_norm_eps", `"tiny"`, "a finite number"},
		{"eps infinite", hf(changes{"rms_norm_eps": json.Number("1e999")}), "rms_norm_eps", "1e999", "a finite number"},
		{"theta zero", hf(changes{"rope_theta": 0}), "rope_theta", "0", "positive"},
		{"nested theta zero", hf(changes{"rope_theta": nil, "rope_parameters": changes{"rope_theta": 0}}), "rope_parameters.rope_theta", "0", "positive"},
		{"dtype unknown", hf(changes{"torch_dtype": "int3"}), "dtype", `"int3"`, "must be one of bfloat16"},
		{"initializer negative", hf(changes{"initializer_range": -1}), "initializer_range", "-1", "above 0"},
		{"tie a string", hf(changes{"tie_word_embeddings": "yes"}), "tie_word_embeddings", `"yes"`, "true or false"},
		{"bos out of range", hf(changes{"bos_token_id": 100}), "bos_token_id", "100", "0 to 99"},
		{"eos negative", hf(changes{"eos_token_id": -1}), "eos_token_id", "-1", "0 to 99"},
		{"eos list out of range", hf(changes{"eos_token_id": []int{1, 128001}}), "eos_token_id", "128001", "0 to 99"},
		{"eos a string", hf(changes{"eos_token_id": "eos"}), "eos_token_id", `"eos"`, "a whole number or a list"},
		{"pad out of range", hf(changes{"pad_token_id": -2}), "pad_token_id", "-2", "0 to 99"},
		{"rope type unknown", hf(rope("rope_type", "yarn")), "rope_scaling.rope_type", `"yarn"`, "must be one of linear, llama3"},
		{"rope factor", hf(rope("factor", 0.5)), "rope_scaling.factor", "0.5", "between 1"},
		{"rope low", hf(rope("low_freq_factor", 0)), "rope_scaling.low_freq_factor", "0", "above 0"},
		{"rope high", hf(rope("high_freq_factor", -4)), "rope_scaling.high_freq_factor", "-4", "above 0"},
		{"rope high below low", hf(rope("high_freq_factor", 1)), "rope_scaling.high_freq_factor", "1", "above low_freq_factor"},
		{"rope original", hf(rope("original_max_position_embeddings", 0)), "rope_scaling.original_max_position_embeddings", "0", "between 1"},
		{"rope partial", hf(rope("partial_rotary_factor", 0.5)), "rope_scaling.partial_rotary_factor", "0.5", "must be 1"},
		{"rope not an object", hf(changes{"rope_scaling": "linear"}), "rope_scaling", `"linear"`, "an object"},
		{"quantization not an object", hf(changes{"quantization_config": true}), "quantization_config", "true", "an object"},
		{"other quantizer", hf(quant("quant_method", "gptq")), "quantization_config.quant_method", "gptq", `must be "bitnet"`},
		{"quantizer unnamed", hf(changes{"architectures": llama, "quantization_config": changes{}}), "quantization_config.quant_method", "", `must be "bitnet"`},
		{"linear class", hf(quant("linear_class", "linear")), "quantization_config.linear_class", `"linear"`, "autobitlinear, bitlinear"},
		{"mode", hf(quant("quantization_mode", "later")), "quantization_config.quantization_mode", `"later"`, "offline, online"},
		{"linear norm eps", hf(quant("rms_norm_eps", -1)), "quantization_config.rms_norm_eps", "-1", "above 0"},
		{"modules", hf(quant("modules_to_not_convert", "lm_head")), "quantization_config.modules_to_not_convert", `"lm_head"`, "a list of strings"},
		{"empty module pattern", hf(quant("modules_to_not_convert", []string{""})), "quantization_config.modules_to_not_convert", `""`, "printable"},
		{"counted repetition", hf(quant("modules_to_not_convert", []string{"a{1000}"})), "quantization_config.modules_to_not_convert", "a{1000}", "counted repetition"},
		{"not an expression", hf(quant("modules_to_not_convert", []string{"lm_head", "(mlp"})), "quantization_config.modules_to_not_convert", "(mlp", "regular expressions: error parsing"},
		{"an expression of another language", hf(quant("modules_to_not_convert", []string{"(?!mlp)x"})), "quantization_config.modules_to_not_convert", "(?!mlp)x", "invalid or unsupported"},
		{"too many patterns", hf(quant("modules_to_not_convert", slices.Repeat([]string{"a"}, 2000))), "quantization_config.modules_to_not_convert", "2000", "at most 1024"},
		{"too many expressions", hf(quant("modules_to_not_convert", slices.Repeat([]string{"a.*b"}, 20))), "quantization_config.modules_to_not_convert", "20", "at most 16"},
		{"plain Llama", hf(changes{"architectures": llama, "quantization_config": nil}), "quantization_config", "", "full-precision linears"},
		{"long value", hf(changes{"hidden_act": strings.Repeat("x", 500)}), "hidden_act", "xxx", "must be one of"},
		{"too long", strings.Repeat(" ", maxConfigBytes+1), "", "", "longer than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseConfig([]byte(tc.json), "dir/config.json")
			requireConfigError(t, err, "dir/config.json", tc.field, tc.value, tc.reason)
		})
	}
}

func requireConfigError(t *testing.T, err error, file, field, value, reason string) {
	t.Helper()
	require.ErrorIs(t, err, ErrConfig)
	var ce *ConfigError
	require.ErrorAs(t, err, &ce)
	assert.Equal(t, file, ce.File)
	assert.Equal(t, field, ce.Field)
	if value != "" {
		assert.Contains(t, fmt.Sprint(ce.Value), value)
	}
	assert.Contains(t, ce.Reason, reason)
	for _, part := range []string{file, field, value, reason} {
		assert.Contains(t, err.Error(), part)
	}
}

const ownYAML = `
architecture: BitNetForCausalLM
vocab_size: 512
hidden_size: 256
intermediate_size: 512
num_hidden_layers: 4
num_attention_heads: 8
num_key_value_heads: 2
eos_token_id: [1, 2]
pad_token_id: null
rope_scaling: {rope_type: llama3, factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64}
quantization:
  linear_class: bitlinear
  mode: online
`

func TestOurOwnFormReadsFromYAMLAndJSON(t *testing.T) {
	c, err := ParseYAMLConfig([]byte(ownYAML), "m.yaml")
	require.NoError(t, err)
	assert.Equal(t, 32, c.HeadDim)
	assert.Equal(t, []int{1, 2}, c.EOSTokenIDs)
	assert.Equal(t, ActReLU2, c.HiddenAct)
	assert.Equal(t, RopeLlama3, c.RopeScaling.Type)
	assert.Equal(t, Quantization{LinearClass: BitLinear, Mode: ModeOnline, RMSNormEps: 1e-6}, c.Quantization)
	requireRoundTrips(t, c)

	asJSON, err := yaml.YAMLToJSON([]byte(ownYAML))
	require.NoError(t, err)
	same, err := ParseConfig(asJSON, "m.json")
	require.NoError(t, err)
	assert.Equal(t, c, same)

	hfAsYAML, err := yaml.JSONToYAML([]byte(hf(nil)))
	require.NoError(t, err)
	c, err = ParseYAMLConfig(hfAsYAML, "hf.yaml")
	require.NoError(t, err)
	assert.Equal(t, 100, c.VocabSize)
}

func TestAPresetIsAStartingPointForAFile(t *testing.T) {
	c, err := ParseYAMLConfig([]byte("preset: llama3-8b-1.58\nnum_hidden_layers: 3\n"), "m.yaml")
	require.NoError(t, err)
	assert.Equal(t, 3, c.NumHiddenLayers)
	assert.Equal(t, 4096, c.HiddenSize)
	assert.Equal(t, 8, c.NumKeyValueHeads)

	c, err = ParseYAMLConfig([]byte("preset: falcon3-1b\nhidden_size: 512\nnum_attention_heads: 8\nrope_scaling: null\n"), "m.yaml")
	require.NoError(t, err)
	assert.Equal(t, 64, c.HeadDim, "a new width has a new head size")
	assert.Equal(t, 8, c.NumKeyValueHeads)
}

func TestOurOwnFormIsStrict(t *testing.T) {
	for _, tc := range []struct{ name, yaml, field, value, reason string }{
		{"misspelled", "hiden_size: 256\n" + ownYAML, "hiden_size", "", `did you mean "hidden_size"?`},
		{"misspelled inside", strings.Replace(ownYAML, "mode:", "mod:", 1), "quantization.mod", "", `did you mean "quantization.mode"?`},
		{"misspelled in rope", strings.Replace(ownYAML, "low_freq", "lo_freq", 1), "rope_scaling.lo_freq_factor", "", `did you mean "rope_scaling.low_freq_factor"?`},
		{"unlike anything", "zzzzzzzzzzzz: 1\n" + ownYAML, "zzzzzzzzzzzz", "", "unknown field"},
		{"missing", strings.Replace(ownYAML, "vocab_size: 512", "", 1), "vocab_size", "", "missing"},
		{"unknown preset", "preset: bitnet-2c\n", "preset", "bitnet-2c", "bitnet-2b"},
		{"wrong kind", strings.Replace(ownYAML, "512", "lots", 1), "vocab_size", `"lots"`, "a whole number"},
		{"invalid", strings.Replace(ownYAML, "vocab_size: 512", "vocab_size: 0", 1), "vocab_size", "0", "positive"},
		{"twice", "vocab_size: 1\n" + ownYAML, "", "", "not YAML"},
		{"not YAML", "a: [1, 2\nb: }", "", "", "not YAML"},
		{"a list", "- 1\n- 2\n", "", "", "JSON array, not an object"},
		{"empty", "", "", "", "no YAML document"},
		{"comment only", "# nothing\n", "", "", ""},
		{"two documents", ownYAML + "---\n" + ownYAML, "", "", "2 YAML documents"},
		{"aliases", "a: &x [1]\nb: *x\n", "", "", "aliases"},
		{"flow nesting", strings.Repeat("[", 1000), "", "", "nested deeper"},
		{"block nesting", strings.Repeat("- ", 1000), "", "", "nested deeper"},
		{"too long", strings.Repeat("#", maxYAMLBytes+1), "", "", "longer than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseYAMLConfig([]byte(tc.yaml), "m.yaml")
			requireConfigError(t, err, "m.yaml", tc.field, tc.value, tc.reason)
		})
	}
}

func TestLoadConfigFindsTheFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	for _, path := range []string{write("config.json", hf(nil)), write("a.YAML", ownYAML), write("b.yml", ownYAML), dir} {
		_, err := LoadConfig(path)
		require.NoError(t, err, path)
	}
	_, err := LoadConfig(filepath.Join(dir, "absent.json"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "absent.json")
	_, err = LoadConfig(t.TempDir())
	require.ErrorIs(t, err, fs.ErrNotExist)
	path := write("config.toml", "")
	_, err = LoadConfig(path)
	requireConfigError(t, err, path, "", "", ".json, .yaml, .yml or .bitnet")
	path = write("long.json", strings.Repeat(" ", maxConfigBytes+1))
	_, err = LoadConfig(path)
	requireConfigError(t, err, path, "", "", "longer than")
	path = write("bad.yaml", "hidden_size: -1")
	_, err = LoadConfig(path)
	require.ErrorIs(t, err, ErrConfig)
}

func TestAConfigFromCodeIsCompletedByWithDefaults(t *testing.T) {
	c := Config{VocabSize: 10, HiddenSize: 32, IntermediateSize: 48, NumHiddenLayers: 1, NumAttentionHeads: 2}
	require.Error(t, c.Validate())
	full := c.WithDefaults()
	require.NoError(t, full.Validate())
	assert.Equal(t, Config{
		Architecture: ArchBitNet, VocabSize: 10, HiddenSize: 32, IntermediateSize: 48, NumHiddenLayers: 1, NumAttentionHeads: 2,
		NumKeyValueHeads: 2, HeadDim: 16, HiddenAct: ActReLU2, MaxPositionEmbeddings: 2048, RMSNormEps: 1e-5, RopeTheta: 500000,
		InitializerRange: 0.02, DType: "bfloat16", Quantization: Quantization{LinearClass: AutoBitLinear, Mode: ModeOffline, RMSNormEps: 1e-6},
	}, full)
	llama := Config{Architecture: ArchLlama}.WithDefaults()
	assert.Equal(t, []any{ActSiLU, 1e-6, 10000.0, BitLinear}, []any{llama.HiddenAct, llama.RMSNormEps, llama.RopeTheta, llama.Quantization.LinearClass})

	full.RMSNormEps = math.NaN()
	requireConfigError(t, full.Validate(), "", "rms_norm_eps", "NaN", "finite")
	full.RMSNormEps, full.Architecture = 1e-5, "X"
	requireConfigError(t, full.Validate(), "", "architecture", `"X"`, "must be one of")
}

func TestAConfigStandsInsideOtherJSON(t *testing.T) {
	var doc struct{ Model Config }
	require.NoError(t, json.Unmarshal([]byte(`{"Model": `+hf(nil)+`}`), &doc))
	assert.Equal(t, 100, doc.Model.VocabSize)
	require.ErrorIs(t, json.Unmarshal([]byte(`{"Model": {"model_type": "x"}}`), &doc), ErrConfig)
	doc.Model.RMSNormEps = math.NaN()
	_, err := doc.Model.MarshalJSON()
	require.Error(t, err)
}

func TestModulesToNotConvertMatchesAsInTransformers(t *testing.T) {
	q := Quantization{ModulesToNotConvert: []string{"lm_head", "model.layers.1.", `model\.layers\.3\..*proj`, "down_proj", "model.layers.2",
		"model.layers.4.mlp.gate", `model\.layers\.5\.(mlp\.up|mlp|self_attn\.)`}}
	for name, converted := range map[string]bool{
		"lm_head":                           false,
		"model.layers.0.mlp.up_proj":        true,
		"model.layers.1.mlp.up_proj":        false,
		"model.layers.11.mlp.up_proj":       false, // the pattern's last dot matches the second 1
		"model.layers.2.mlp.up_proj":        false,
		"model.layers.21.mlp.up_proj":       true, // a pattern ends where a module does
		"model.layers.3.self_attn.q_proj":   false,
		"model.layers.4.mlp.gate_proj":      true,
		"model.layers.5.mlp.up_proj":        false, // the shorter alternative ends on a border
		"model.layers.5.self_attn.q_proj":   false,
		"model.layers.0.mlp.down_proj":      false,
		"model.layers.0.mlp.down_proj.norm": true,
	} {
		assert.Equal(t, converted, q.Converts(name), name)
	}
}
