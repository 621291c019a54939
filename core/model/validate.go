package model

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode"
)

// Upper bounds of the sizes: a decade above the largest published models. With all of them at once, every
// product of sizes in this package stays below 2^62, so that no shape or byte count can overflow.
const (
	maxVocab        = 1 << 24
	maxHidden       = 1 << 17
	maxIntermediate = 1 << 18
	maxLayers       = 1 << 10
	maxHeads        = 1 << 12
	maxHeadDim      = 1 << 12
	maxPositions    = 1 << 27
	maxAttention    = 1 << 18 // heads * head_dim
	maxPattern      = 256     // bytes of a module pattern
	maxPatterns     = 1024
	maxExpressions  = 16 // patterns that are more than a name
)

// Validate reports the first field that no model can be built from, as a *ConfigError with the field's name
// in a config file, its value and the reason.
func (c *Config) Validate() error {
	checks := []func() error{c.checkSizes, c.checkHeads, c.checkArithmetic, c.checkTokens, c.checkQuantization, c.checkGPT2}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func invalid(field string, value any, format string, args ...any) error {
	return &ConfigError{Field: field, Value: value, Reason: fmt.Sprintf(format, args...)}
}

func oneOf(field, value string, accepted ...string) error {
	if slices.Contains(accepted, value) {
		return nil
	}
	return invalid(field, fmt.Sprintf("%q", value), "must be one of %s", strings.Join(accepted, ", "))
}

func (c *Config) checkSizes() error {
	if err := oneOf("architecture", c.Architecture, architectures...); err != nil {
		return err
	}
	for _, s := range []struct {
		field string
		value int
		most  int
	}{
		{"vocab_size", c.VocabSize, maxVocab},
		{"hidden_size", c.HiddenSize, maxHidden},
		{"intermediate_size", c.IntermediateSize, maxIntermediate},
		{"num_hidden_layers", c.NumHiddenLayers, maxLayers},
		{"num_attention_heads", c.NumAttentionHeads, maxHeads},
		{"num_key_value_heads", c.NumKeyValueHeads, maxHeads},
		{"max_position_embeddings", c.MaxPositionEmbeddings, maxPositions},
	} {
		if s.value <= 0 {
			return invalid(s.field, s.value, "must be positive")
		}
		if s.value > s.most {
			return invalid(s.field, s.value, "must be at most %d", s.most)
		}
	}
	return nil
}

func (c *Config) checkHeads() error {
	switch {
	case c.HeadDim == 0 && c.HiddenSize%c.NumAttentionHeads != 0:
		return invalid("hidden_size", c.HiddenSize, "must be a multiple of num_attention_heads = %d, unless head_dim is given", c.NumAttentionHeads)
	case c.HeadDim <= 0:
		return invalid("head_dim", c.HeadDim, "must be positive")
	case c.HeadDim > maxHeadDim:
		return invalid("head_dim", c.HeadDim, "must be at most %d", maxHeadDim)
	case c.HeadDim%2 != 0 && !c.LearnedPositions():
		return invalid("head_dim", c.HeadDim, "must be even: rotary embedding turns pairs")
	case c.NumAttentionHeads%c.NumKeyValueHeads != 0:
		return invalid("num_key_value_heads", c.NumKeyValueHeads, "must divide num_attention_heads = %d", c.NumAttentionHeads)
	case c.NumAttentionHeads*c.HeadDim > maxAttention:
		return invalid("head_dim", c.HeadDim, "times num_attention_heads = %d must be at most %d", c.NumAttentionHeads, maxAttention)
	case c.SubNorms() && c.NumAttentionHeads*c.HeadDim != c.HiddenSize:
		return invalid("head_dim", c.HeadDim, "times num_attention_heads = %d must be hidden_size = %d in %s, whose attention sub-norm spans both",
			c.NumAttentionHeads, c.HiddenSize, c.Architecture)
	}
	return nil
}

func (c *Config) checkArithmetic() error {
	if err := oneOf("hidden_act", c.HiddenAct, ActReLU2, ActSiLU, ActReLU, ActGELU, ActGELUNew, ActGELUTanh); err != nil {
		return err
	}
	if err := oneOf("dtype", c.DType, "bfloat16", "float16", "float32"); err != nil {
		return err
	}
	if err := positive("rms_norm_eps", c.RMSNormEps, 1); err != nil {
		return err
	}
	if err := positive("rope_theta", c.RopeTheta, 1e12); err != nil {
		return err
	}
	if err := positive("initializer_range", c.InitializerRange, 1e3); err != nil {
		return err
	}
	if c.RopeScaling != nil {
		return c.RopeScaling.check()
	}
	return nil
}

// positive demands 0 < value <= most, which also refuses NaN and infinities.
func positive(field string, value, most float64) error {
	if math.IsNaN(value) || value <= 0 || value > most {
		return invalid(field, value, "must be a finite number above 0 and at most %g", most)
	}
	return nil
}

func (s *RopeScaling) check() error {
	if err := oneOf("rope_scaling.rope_type", s.Type, RopeLinear, RopeLlama3); err != nil {
		return err
	}
	if math.IsNaN(s.Factor) || s.Factor < 1 || s.Factor > 1e6 {
		return invalid("rope_scaling.factor", s.Factor, "must be between 1 and 1e6")
	}
	if s.Type == RopeLinear {
		return nil
	}
	if err := positive("rope_scaling.low_freq_factor", s.LowFreqFactor, 1e6); err != nil {
		return err
	}
	if err := positive("rope_scaling.high_freq_factor", s.HighFreqFactor, 1e6); err != nil {
		return err
	}
	if s.HighFreqFactor <= s.LowFreqFactor {
		return invalid("rope_scaling.high_freq_factor", s.HighFreqFactor, "must be above low_freq_factor = %g", s.LowFreqFactor)
	}
	if s.OriginalMaxPositionEmbeddings <= 0 || s.OriginalMaxPositionEmbeddings > maxPositions {
		return invalid("rope_scaling.original_max_position_embeddings", s.OriginalMaxPositionEmbeddings, "must be between 1 and %d", maxPositions)
	}
	return nil
}

// checkGPT2 refuses what other architectures may have and GPT-2 has no place for.
func (c *Config) checkGPT2() error {
	if c.Architecture != ArchGPT2 {
		return nil
	}
	for _, f := range []struct {
		field     string
		value     any
		fits      bool
		condition string
	}{
		{"num_key_value_heads", c.NumKeyValueHeads, c.NumKeyValueHeads == c.NumAttentionHeads, fmt.Sprintf("num_attention_heads = %d", c.NumAttentionHeads)},
		{"head_dim", c.HeadDim, c.HeadDim*c.NumAttentionHeads == c.HiddenSize, fmt.Sprintf("hidden_size / num_attention_heads = %d / %d", c.HiddenSize, c.NumAttentionHeads)},
		{"rope_scaling", c.RopeScaling, c.RopeScaling == nil, "null: positions are learned"},
		{"attention_bias", c.AttentionBias, c.AttentionBias, "true"},
		{"mlp_bias", c.MLPBias, c.MLPBias, "true"},
		{"quantization_config.use_rms_norm", true, !c.Quantization.UseRMSNorm, "false"},
		{"quantization_config.linear_class", c.Quantization.LinearClass, c.Quantization.LinearClass == AutoBitLinear, AutoBitLinear},
		{"quantization_config.quantization_mode", c.Quantization.Mode, c.Quantization.Mode == ModeOnline, ModeOnline + ": its checkpoints have master weights"},
	} {
		if !f.fits {
			return invalid(f.field, f.value, "must be %s in a %s", f.condition, ArchGPT2)
		}
	}
	return nil
}

func (c *Config) checkTokens() error {
	check := func(field string, id int) error {
		if id < 0 || id >= c.VocabSize {
			return invalid(field, id, "must be a token id, 0 to %d", c.VocabSize-1)
		}
		return nil
	}
	for _, t := range []struct {
		field string
		id    *int
	}{{"bos_token_id", c.BOSTokenID}, {"pad_token_id", c.PadTokenID}} {
		if t.id != nil {
			if err := check(t.field, *t.id); err != nil {
				return err
			}
		}
	}
	for _, id := range c.EOSTokenIDs {
		if err := check("eos_token_id", id); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkQuantization() error {
	if err := oneOf("quantization_config.linear_class", c.Quantization.LinearClass, AutoBitLinear, BitLinear); err != nil {
		return err
	}
	if err := oneOf("quantization_config.quantization_mode", c.Quantization.Mode, ModeOffline, ModeOnline); err != nil {
		return err
	}
	if err := positive("quantization_config.rms_norm_eps", c.Quantization.RMSNormEps, 1); err != nil {
		return err
	}
	return c.Quantization.checkModules()
}

// checkModules bounds the patterns, so that matching them takes no time that matters whatever they are.
func (q *Quantization) checkModules() error {
	const field = "quantization_config.modules_to_not_convert"
	expressions := 0
	for _, pattern := range q.ModulesToNotConvert {
		value := fmt.Sprintf("%q", abbreviate([]byte(pattern)))
		if pattern == "" || len(pattern) > maxPattern || strings.ContainsFunc(pattern, func(r rune) bool { return r == '\uFFFD' || !unicode.IsPrint(r) }) {
			return invalid(field, value, "must hold names or patterns of 1 to %d printable characters", maxPattern)
		}
		if strings.Contains(pattern, "{") {
			return invalid(field, value, "counted repetition is not supported")
		}
		if !plainPattern(pattern) {
			if expressions++; expressions > maxExpressions {
				continue
			}
			if _, err := compilePattern(pattern); err != nil {
				return invalid(field, value, "must hold names or regular expressions: %v", err)
			}
		}
	}
	if n := len(q.ModulesToNotConvert); n > maxPatterns {
		return invalid(field, fmt.Sprintf("%d patterns", n), "must be at most %d", maxPatterns)
	}
	if expressions > maxExpressions {
		return invalid(field, fmt.Sprintf("%d regular expressions", expressions), "must be at most %d", maxExpressions)
	}
	return nil
}
