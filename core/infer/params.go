package infer

import (
	"fmt"
	"math"
	"slices"
)

// Accepted ranges that are narrower than "finite". The penalties have OpenAI's range; the others keep a logit of any real model
// far from overflow.
const (
	maxNewTokensLimit    = 1 << 30
	maxDraft             = 16
	maxPenalty           = 2
	maxLogitBias         = 100
	minRepetitionPenalty = 0.01
	maxRepetitionPenalty = 100
)

// SamplingParams says how a continuation is chosen and when it ends. JSON spells the fields in snake_case.
//
// Start from DefaultSamplingParams: greedy, every filter and penalty off. The zero value is not valid (its top_p would keep nothing).
type SamplingParams struct {
	// MaxNewTokens ends the continuation after so many tokens; at least 1.
	MaxNewTokens int `json:"max_new_tokens"`

	// Temperature divides the logits before the softmax. 0 is greedy: the largest logit after penalties and bias wins, ties go to
	// the lowest id, and the four filters below and the seed have no effect.
	Temperature float64 `json:"temperature"`
	// TopK keeps the k most probable tokens; 0 is off.
	TopK int `json:"top_k"`
	// TopP keeps the smallest set of most probable tokens whose probability reaches p, 0 < p <= 1; 1 is off.
	// (Nucleus sampling: Holtzman et al. 2019, arXiv 1904.09751.)
	TopP float64 `json:"top_p"`
	// MinP keeps the tokens that are at least p times as probable as the most probable one, 0 <= p <= 1; 0 is off.
	// (Nguyen et al. 2024, arXiv 2407.01082.)
	MinP float64 `json:"min_p"`
	// TypicalP keeps the smallest set of tokens, those whose information is nearest to the entropy first, whose probability
	// reaches p, 0 < p <= 1; 1 is off. (Locally typical sampling: Meister et al. 2022, arXiv 2202.00666.)
	TypicalP float64 `json:"typical_p"`

	// RepetitionPenalty divides a positive logit and multiplies a negative one if its token is in the prompt or the continuation;
	// 1 is off. (CTRL: Keskar et al. 2019, arXiv 1909.05858; as in Hugging Face transformers.)
	RepetitionPenalty float64 `json:"repetition_penalty"`
	// PresencePenalty is subtracted once from the logits of tokens in the continuation, in [-2, 2]; 0 is off. (As in OpenAI's API.)
	PresencePenalty float64 `json:"presence_penalty"`
	// FrequencyPenalty is subtracted from a logit as many times as its token is in the continuation, in [-2, 2]; 0 is off.
	FrequencyPenalty float64 `json:"frequency_penalty"`
	// LogitBias is added to the logits of single tokens: a number in [-100, 100], or -inf, which bans the token.
	LogitBias LogitBias `json:"logit_bias,omitempty"`

	// Seed fixes the random numbers: equal parameters, logits and seed give equal tokens. Nil takes a seed from the system.
	Seed *uint64 `json:"seed,omitempty"`

	// StopTokenIDs end the continuation, besides the model's own end-of-sequence ids.
	StopTokenIDs []int32 `json:"stop_token_ids,omitempty"`
	// IgnoreEOS keeps the model's own end-of-sequence ids from ending the continuation.
	IgnoreEOS bool `json:"ignore_eos"`

	// PromptLookup is how many tokens are guessed at most, as what followed the last tokens the time before, and checked in one step
	// (prompt lookup decoding, Saxena 2023; speculative decoding, Leviathan et al. 2022, arXiv 2211.17192); 0 is off. The continuation is
	// the same with and without, token for token: it is only faster where text repeats itself.
	PromptLookup int `json:"prompt_lookup_num_tokens"`
	// Logprobs asks for log-probabilities: -1 none, 0 of the chosen token, n > 0 of the chosen token and of the n most probable ones.
	// They are the log-softmax of the model's own logits, before bias, penalties, temperature and filters.
	Logprobs int `json:"logprobs"`
}

// LogitBias maps token ids to what is added to their logits.
type LogitBias map[int32]float32

// DefaultSamplingParams returns greedy decoding of up to 128 tokens without log-probabilities.
func DefaultSamplingParams() SamplingParams {
	return SamplingParams{MaxNewTokens: 128, TopP: 1, TypicalP: 1, RepetitionPenalty: 1, Logprobs: -1}
}

// Greedy reports whether the parameters choose the most probable token, without random numbers.
func (p SamplingParams) Greedy() bool { return p.Temperature == 0 }

// largest is how many of the model's largest logits the choice of a token depends on; 0 is all.
func (p SamplingParams) largest() int {
	switch {
	case p.Logprobs >= 0 || p.RepetitionPenalty != 1 || p.PresencePenalty != 0 || p.FrequencyPenalty != 0 || len(p.LogitBias) > 0:
		return 0
	case p.Greedy():
		return 1
	}
	return p.TopK
}

// Validate checks every field for a model with vocab tokens. The error is an *ArgumentError that names the field, its value and
// what is accepted.
func (p SamplingParams) Validate(vocab int) error {
	if vocab < 1 {
		return &ArgumentError{"vocab", vocab, "expected at least one token"}
	}
	for _, check := range []struct {
		field  string
		value  any
		ok     bool
		reason string
	}{
		{"max_new_tokens", p.MaxNewTokens, p.MaxNewTokens >= 1 && p.MaxNewTokens <= maxNewTokensLimit,
			fmt.Sprintf("expected an integer in [1, %d]", maxNewTokensLimit)},
		{"temperature", p.Temperature, p.Temperature >= 0 && !math.IsInf(p.Temperature, 1),
			"expected a finite number >= 0 (0 is greedy)"},
		{"top_k", p.TopK, p.TopK >= 0, "expected an integer >= 0 (0 is off)"},
		{"top_p", p.TopP, p.TopP > 0 && p.TopP <= 1, "expected a number in (0, 1] (1 is off)"},
		{"min_p", p.MinP, p.MinP >= 0 && p.MinP <= 1, "expected a number in [0, 1] (0 is off)"},
		{"typical_p", p.TypicalP, p.TypicalP > 0 && p.TypicalP <= 1, "expected a number in (0, 1] (1 is off)"},
		{"repetition_penalty", p.RepetitionPenalty,
			p.RepetitionPenalty >= minRepetitionPenalty && p.RepetitionPenalty <= maxRepetitionPenalty,
			fmt.Sprintf("expected a number in [%v, %v] (1 is off)", minRepetitionPenalty, maxRepetitionPenalty)},
		{"presence_penalty", p.PresencePenalty, math.Abs(p.PresencePenalty) <= maxPenalty,
			fmt.Sprintf("expected a number in [-%d, %d] (0 is off)", maxPenalty, maxPenalty)},
		{"frequency_penalty", p.FrequencyPenalty, math.Abs(p.FrequencyPenalty) <= maxPenalty,
			fmt.Sprintf("expected a number in [-%d, %d] (0 is off)", maxPenalty, maxPenalty)},
		{"prompt_lookup_num_tokens", p.PromptLookup, p.PromptLookup >= 0 && p.PromptLookup <= maxDraft,
			fmt.Sprintf("expected an integer in [0, %d] (0 is off)", maxDraft)},
		{"logprobs", p.Logprobs, p.Logprobs >= -1 && p.Logprobs <= vocab,
			fmt.Sprintf("expected an integer in [-1, %d] (-1 is off; the vocabulary has %d tokens)", vocab, vocab)},
	} {
		if !check.ok {
			return &ArgumentError{check.field, check.value, check.reason}
		}
	}
	for i, id := range p.StopTokenIDs {
		if id < 0 || int(id) >= vocab {
			return &ArgumentError{fmt.Sprintf("stop_token_ids[%d]", i), id, fmt.Sprintf("expected a token id in [0, %d)", vocab)}
		}
	}
	return p.LogitBias.validate(vocab)
}

// validate checks the ids in ascending order, so that the same mistake gives the same message.
func (b LogitBias) validate(vocab int) error {
	for _, id := range b.ids() {
		field := fmt.Sprintf("logit_bias[%q]", fmt.Sprint(id))
		if id < 0 || int(id) >= vocab {
			return &ArgumentError{field, b[id], fmt.Sprintf("expected a token id in [0, %d)", vocab)}
		}
		if v := float64(b[id]); !(math.Abs(v) <= maxLogitBias) && !math.IsInf(v, -1) {
			return &ArgumentError{field, b[id],
				fmt.Sprintf("expected a number in [-%d, %d], or -inf to ban the token", maxLogitBias, maxLogitBias)}
		}
	}
	return nil
}

// ids returns the biased token ids in ascending order.
func (b LogitBias) ids() []int32 {
	ids := make([]int32, 0, len(b))
	for id := range b {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
