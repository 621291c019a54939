package model

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
)

// gpt2 is the config.json of a GPT-2 as transformers writes it, changed; nil removes a key.
func gpt2(edit changes) string {
	c := changes{
		"architectures": []string{"GPT2LMHeadModel"}, "model_type": "gpt2", "activation_function": "gelu_new", "vocab_size": 100, "n_embd": 64,
		"n_layer": 2, "n_head": 4, "n_positions": 32, "n_inner": nil, "n_ctx": 32, "layer_norm_epsilon": 1e-5, "initializer_range": 0.02,
		"resid_pdrop": 0.1, "reorder_and_upcast_attn": false, "scale_attn_by_inverse_layer_idx": false, "scale_attn_weights": true,
		"add_cross_attention": false, "bos_token_id": 99, "eos_token_id": 99, "dtype": "float32",
	}
	maps.Copy(c, edit)
	text, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func TestAGPT2ConfigIsReadAndWrittenBack(t *testing.T) {
	c, err := ParseConfig([]byte(gpt2(nil)), "config.json")
	require.NoError(t, err)
	id := 99
	require.Equal(t, &Config{
		Architecture: ArchGPT2, VocabSize: 100, HiddenSize: 64, IntermediateSize: 256, NumHiddenLayers: 2, NumAttentionHeads: 4,
		NumKeyValueHeads: 4, HeadDim: 16, HiddenAct: ActGELUNew, MaxPositionEmbeddings: 32, RMSNormEps: 1e-5, RopeTheta: 10000,
		TieWordEmbeddings: true, AttentionBias: true, MLPBias: true, BOSTokenID: &id, EOSTokenIDs: []int{99}, InitializerRange: 0.02, DType: "float32",
		Quantization: Quantization{LinearClass: AutoBitLinear, Mode: ModeOnline, RMSNormEps: 1e-6, ModulesToNotConvert: []string{"model.layers"}},
	}, c)
	requireRoundTrips(t, c)
	text, err := json.Marshal(c)
	require.NoError(t, err)
	var written map[string]any
	require.NoError(t, json.Unmarshal(text, &written))
	require.EqualValues(t, 64, written["n_embd"])
	text, err = c.AllNames()
	require.NoError(t, err)
	var both map[string]any
	require.NoError(t, json.Unmarshal(text, &both))
	for common, name := range gpt2Names {
		require.NotContains(t, written, common, "files have GPT-2's names")
		require.Equal(t, both[name], both[common])
	}
	for _, name := range []string{"num_key_value_heads", "head_dim", "attention_bias", "mlp_bias"} {
		require.NotContains(t, written, name)
		require.Contains(t, both, name)
	}
	again, err := ParseConfig(text, "both.json")
	require.NoError(t, err)
	require.Equal(t, c, again)
	require.Equal(t, "gelu_new", written["activation_function"])
	require.EqualValues(t, 256, written["n_inner"])
	require.NotContains(t, written, "quantization_config")
	require.NotContains(t, written, "rope_theta")
	_, err = ParseYAMLConfig([]byte("architecture: GPT2LMHeadModel\nvocab_size: 9\nhidden_size: 8\nintermediate_size: 8\nnum_hidden_layers: 1\nnum_attention_heads: 2\nrope_theta: 5\n"), "own.yaml")
	requireConfigError(t, err, "own.yaml", "rope_theta", "", "unknown field")
}

func TestAGPT2IsTernaryWhereItsConfigSaysSo(t *testing.T) {
	quantization := changes{"quant_method": "bitnet", "modules_to_not_convert": []string{"down_proj"}}
	c, err := ParseConfig([]byte(gpt2(changes{"quantization_config": quantization})), "config.json")
	require.NoError(t, err)
	require.Equal(t, Quantization{LinearClass: AutoBitLinear, Mode: ModeOnline, RMSNormEps: 1e-6, ModulesToNotConvert: []string{"down_proj"}}, c.Quantization)
	requireRoundTrips(t, c)
	six := []string{"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}
	for _, patterns := range [][]string{{"model.layers", "x"}, {"_proj"}, {"model.layers"}, {"model.layers.0", "model.layers.1"}, six} { // float, whatever it is called
		for _, eps := range []float64{1e-6, 1e-5} {
			quantization["modules_to_not_convert"], quantization["rms_norm_eps"] = patterns, eps
			c, err := ParseConfig([]byte(gpt2(changes{"quantization_config": quantization})), "config.json")
			require.NoError(t, err)
			require.Equal(t, floatLayers(), c.Quantization)
			requireRoundTrips(t, c)
			c.Quantization.ModulesToNotConvert, c.Quantization.RMSNormEps = patterns, eps // of a config made in code
			text, err := json.Marshal(c)
			require.NoError(t, err)
			require.NotContains(t, string(text), "quantization_config")
		}
	}
	quantization["modules_to_not_convert"] = six[1:]
	c, err = ParseConfig([]byte(gpt2(changes{"quantization_config": quantization})), "config.json")
	require.NoError(t, err)
	require.Equal(t, six[1:], c.Quantization.ModulesToNotConvert)
	c, err = parseConfig([]byte(gpt2(nil)), "config.json", true)
	require.NoError(t, err)
	require.True(t, c.Quantization.Converts("model.layers.1.mlp.up_proj"))
	c, err = ParseYAMLConfig([]byte("architecture: GPT2LMHeadModel\nvocab_size: 100\nhidden_size: 64\nintermediate_size: 256\nnum_hidden_layers: 2\nnum_attention_heads: 4\n"), "config.yaml")
	require.NoError(t, err)
	require.True(t, c.Quantization.Converts("model.layers.1.mlp.up_proj"))
	require.True(t, c.TieWordEmbeddings && c.AttentionBias && c.MLPBias)
}

func TestTwoNamesOfAFieldMayWriteItsNumberInTwoWays(t *testing.T) {
	for _, tc := range []struct{ own, common string }{{"1e-5", "0.00001"}, {"1e-05", ` "1e-5" `}, {"0.00001", "1E-5"}} {
		text := []byte(`{"model_type": "gpt2", "vocab_size": 9, "n_embd": 64, "hidden_size": 64.0, "n_layer": 1, "n_head": 4, "layer_norm_epsilon": ` + tc.own +
			`, "rms_norm_eps": ` + tc.common + `}`)
		c, err := ParseConfig(text, "config.json")
		require.NoError(t, err)
		require.Equal(t, []any{64, 1e-5}, []any{c.HiddenSize, c.RMSNormEps})
	}
	_, err := ParseConfig([]byte(gpt2(changes{"rms_norm_eps": 1e-6})), "config.json")
	requireConfigError(t, err, "config.json", "layer_norm_epsilon", "0.00001", "must be 0.000001, the value of rms_norm_eps")
}

func TestWhatLooksLikeAGPT2AndIsNoneIsRefused(t *testing.T) {
	for i, tc := range []struct {
		edit                 changes
		field, value, reason string
	}{
		{changes{"scale_attn_by_inverse_layer_idx": true}, "scale_attn_by_inverse_layer_idx", "true", "must be false"},
		{changes{"scale_attn_weights": false}, "scale_attn_weights", "false", "must be true"},
		{changes{"add_cross_attention": true}, "add_cross_attention", "true", "must be false"},
		{changes{"activation_function": "tanh"}, "activation_function", "tanh", "must be one of relu2"},
		{changes{"architectures": []string{"GPT2DoubleHeadsModel"}}, "architectures", "GPT2DoubleHeadsModel", "GPT2LMHeadModel"},
		{changes{"n_embd": nil}, "n_embd", "", "missing"},
		{changes{"n_head": 5}, "n_embd", "64", "multiple of num_attention_heads = 5"},
		{changes{"n_layer": 0}, "n_layer", "0", "must be positive"},
		{changes{"n_positions": 0}, "n_positions", "0", "must be positive"},
		{changes{"layer_norm_epsilon": -1}, "layer_norm_epsilon", "-1", "above 0"},
		{changes{"num_hidden_layers": 3}, "n_layer", "2", "must be 3, the value of num_hidden_layers"},
		{changes{"num_key_value_heads": 2}, "num_key_value_heads", "2", "must be num_attention_heads = 4"},
		{changes{"head_dim": 32}, "head_dim", "32", "must be hidden_size / num_attention_heads = 64 / 4"},
		{changes{"mlp_bias": false}, "mlp_bias", "false", "must be true"},
		{changes{"quantization_config": changes{"quant_method": "bitnet", "quantization_mode": "offline"}}, "quantization_config.quantization_mode", "offline", "must be online"},
		{changes{"quantization_config": changes{"quant_method": "bitnet", "linear_class": "bitlinear"}}, "quantization_config.linear_class", "bitlinear", "must be autobitlinear"},
		{changes{"quantization_config": changes{"quant_method": "bitnet", "use_rms_norm": true}}, "quantization_config.use_rms_norm", "true", "must be false"},
		{changes{"quantization_config": changes{"quant_method": "gptq"}}, "quantization_config.quant_method", "gptq", `must be "bitnet"`},
	} {
		t.Run(fmt.Sprint(i, " ", tc.field), func(t *testing.T) {
			_, err := ParseConfig([]byte(gpt2(tc.edit)), "dir/config.json")
			requireConfigError(t, err, "dir/config.json", tc.field, tc.value, tc.reason)
		})
	}
}
