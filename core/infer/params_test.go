package infer

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestDefaultsAreValidAndGreedy(t *testing.T) {
	p := DefaultSamplingParams()
	assert.NoError(t, p.Validate(1))
	assert.True(t, p.Greedy())
	parsed, err := ParseSamplingParams([]byte(`{}`), 10)
	require.NoError(t, err)
	assert.Equal(t, p, parsed)
	parsed, err = ParseSamplingParams([]byte(`{"seed": null, "temperature": null, "logit_bias": null, "top_p": null}`), 10)
	require.NoError(t, err)
	assert.Equal(t, p, parsed, "null is the default")
}

func TestEveryFieldIsReadBySnakeCaseName(t *testing.T) {
	p, err := ParseSamplingParams([]byte(`{"max_new_tokens": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.8,
		"repetition_penalty": 1.2, "presence_penalty": -0.5, "frequency_penalty": 2, "logit_bias": {"4": -Infinity, "5": 2.5},
		"seed": 18446744073709551615, "stop_token_ids": [1, 2], "ignore_eos": true, "logprobs": 4,
		"prompt_lookup_num_tokens": 8}`), 10)
	require.NoError(t, err)
	seed := uint64(math.MaxUint64)
	assert.Equal(t, SamplingParams{MaxNewTokens: 7, Temperature: 0.5, TopK: 3, TopP: 0.9, MinP: 0.1, TypicalP: 0.8,
		RepetitionPenalty: 1.2, PresencePenalty: -0.5, FrequencyPenalty: 2, LogitBias: LogitBias{4: float32(math.Inf(-1)), 5: 2.5},
		Seed: &seed, StopTokenIDs: []int32{1, 2}, IgnoreEOS: true, Logprobs: 4, PromptLookup: 8}, p)
}

func TestABadValueIsRefusedWithFieldValueAndExpectation(t *testing.T) {
	const vocab = 10
	for _, c := range []struct{ json, field, value, reason string }{
		{`{"temperature": NaN}`, "temperature", "NaN", "expected a finite number >= 0"},
		{`{"temperature": Infinity}`, "temperature", "+Inf", "expected a finite number >= 0"},
		{`{"temperature": -Infinity}`, "temperature", "-Inf", "expected a finite number >= 0"},
		{`{"temperature": -0.1}`, "temperature", "-0.1", "expected a finite number >= 0"},
		{`{"temperature": 1e999}`, "temperature", "1e999", "expected a number"},
		{`{"temperature": "hot"}`, "temperature", `"hot"`, "expected a number"},
		{`{"temperature": true}`, "temperature", "true", "expected a number"},
		{`{"temperature": [0]}`, "temperature", "[0]", "expected a number"},
		{`{"top_k": -1}`, "top_k", "-1", "expected an integer >= 0"},
		{`{"top_k": 2.0}`, "top_k", "2.0", "expected an integer"},
		{`{"top_k": NaN}`, "top_k", `"NaN"`, "expected an integer"},
		{`{"top_k": 99999999999999999999}`, "top_k", "99999999999999999999", "expected an integer"},
		{`{"top_p": 0}`, "top_p", "0", "(0, 1]"},
		{`{"top_p": 1.01}`, "top_p", "1.01", "(0, 1]"},
		{`{"top_p": NaN}`, "top_p", "NaN", "(0, 1]"},
		{`{"min_p": -0.5}`, "min_p", "-0.5", "[0, 1]"},
		{`{"min_p": NaN}`, "min_p", "NaN", "[0, 1]"},
		{`{"typical_p": 0}`, "typical_p", "0", "(0, 1]"},
		{`{"repetition_penalty": 0}`, "repetition_penalty", "0", "[0.01, 100]"},
		{`{"repetition_penalty": NaN}`, "repetition_penalty", "NaN", "[0.01, 100]"},
		{`{"presence_penalty": 2.5}`, "presence_penalty", "2.5", "[-2, 2]"},
		{`{"frequency_penalty": NaN}`, "frequency_penalty", "NaN", "[-2, 2]"},
		{`{"max_new_tokens": 0}`, "max_new_tokens", "0", "[1, 1073741824]"},
		{`{"logprobs": 11}`, "logprobs", "11", "[-1, 10]"},
		{`{"prompt_lookup_num_tokens": 17}`, "prompt_lookup_num_tokens", "17", "[0, 16]"},
		{`{"logprobs": -2}`, "logprobs", "-2", "[-1, 10]"},
		{`{"seed": -1}`, "seed", "-1", "[0, 2^64)"},
		{`{"seed": 1.5}`, "seed", "1.5", "[0, 2^64)"},
		{`{"ignore_eos": 1}`, "ignore_eos", "1", "true or false"},
		{`{"stop_token_ids": 3}`, "stop_token_ids", "3", "list of token ids"},
		{`{"stop_token_ids": [1, "x"]}`, "stop_token_ids[1]", `"x"`, "expected a token id"},
		{`{"stop_token_ids": [1, 10]}`, "stop_token_ids[1]", "10", "[0, 10)"},
		{`{"stop_token_ids": [-1]}`, "stop_token_ids[0]", "-1", "[0, 10)"},
		{`{"logit_bias": [1]}`, "logit_bias", "[1]", "expected an object"},
		{`{"logit_bias": {"x": 1}}`, `logit_bias["x"]`, "1", "token id as key"},
		{`{"logit_bias": {"3": "y"}}`, `logit_bias["3"]`, `"y"`, "expected a number"},
		{`{"logit_bias": {"3": 1, "3": 2}}`, `logit_bias["3"]`, "2", "given twice"},
		{`{"logit_bias": {"10": 1}}`, `logit_bias["10"]`, "1", "[0, 10)"},
		{`{"logit_bias": {"1": 101}}`, `logit_bias["1"]`, "101", "[-100, 100]"},
		{`{"logit_bias": {"1": NaN}}`, `logit_bias["1"]`, "NaN", "[-100, 100]"},
		{`{"logit_bias": {"1": Infinity}}`, `logit_bias["1"]`, "+Inf", "[-100, 100]"},
		{`{"temprature": 1}`, "temprature", "1", "unknown sampling parameter; expected one of frequency_penalty,"},
		{`{"top_k": 1, "top_k": 2}`, "top_k", "2", "given twice"},
		{`[]`, "sampling parameters", "[]", "expected a JSON object"},
		{``, "sampling parameters", "", "expected a JSON object"},
		{`{"top_k": 1`, "sampling parameters", "unexpected EOF", "expected valid JSON"},
		{`{"top_k": nope}`, "sampling parameters", "", "expected valid JSON"},
		{`{"logit_bias": {"1": }}`, "sampling parameters", "", "expected valid JSON"},
		{`{"top_k": 1} {}`, "sampling parameters", "", "nothing after it"},
	} {
		t.Run(c.json, func(t *testing.T) {
			_, err := ParseSamplingParams([]byte(c.json), vocab)
			require.ErrorIs(t, err, ErrArgument)
			var arg *ArgumentError
			require.ErrorAs(t, err, &arg)
			assert.Equal(t, c.field, arg.Field)
			assert.Contains(t, arg.Error(), c.field+" = "+c.value)
			assert.Contains(t, arg.Reason, c.reason)
		})
	}
}

func TestAModelWithoutTokensIsRefused(t *testing.T) {
	assert.ErrorIs(t, DefaultSamplingParams().Validate(0), ErrArgument)
}

func TestALongValueIsCutInTheMessage(t *testing.T) {
	long := `{"top_k": "` + strings.Repeat("7", 1000) + `"}`
	_, err := ParseSamplingParams([]byte(long), 10)
	require.ErrorIs(t, err, ErrArgument)
	assert.Less(t, len(err.Error()), 150)
}

func TestParametersSurviveJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const vocab = 100
		p := DefaultSamplingParams()
		p.MaxNewTokens = rapid.IntRange(1, 1<<30).Draw(t, "max_new_tokens")
		p.Temperature = rapid.Float64Range(0, 100).Draw(t, "temperature")
		p.TopK = rapid.IntRange(0, 1000).Draw(t, "top_k")
		p.TopP = rapid.Float64Range(1e-9, 1).Draw(t, "top_p")
		p.MinP = rapid.Float64Range(0, 1).Draw(t, "min_p")
		p.FrequencyPenalty = rapid.Float64Range(-2, 2).Draw(t, "frequency_penalty")
		p.IgnoreEOS = rapid.Bool().Draw(t, "ignore_eos")
		p.PromptLookup = rapid.IntRange(0, maxDraft).Draw(t, "prompt lookup")
		p.Logprobs = rapid.IntRange(-1, vocab).Draw(t, "logprobs")
		if rapid.Bool().Draw(t, "seeded") {
			seed := rapid.Uint64().Draw(t, "seed")
			p.Seed = &seed
		}
		if bias := rapid.MapOfN(rapid.Int32Range(0, vocab-1), rapid.Float32Range(-100, 100), 1, 5).Draw(t, "logit_bias"); rapid.Bool().Draw(t, "biased") {
			p.LogitBias = bias
			p.LogitBias[0] = float32(math.Inf(-1))
		}
		data, err := json.Marshal(p)
		require.NoError(t, err)
		back, err := ParseSamplingParams(data, vocab)
		require.NoError(t, err)
		require.Equal(t, p, back)

		var plain SamplingParams
		require.NoError(t, json.Unmarshal(data, &plain))
		require.Equal(t, p, plain)
	})
}

func TestABiasThatJSONCannotHoldIsRefused(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1)} {
		_, err := json.Marshal(LogitBias{1: float32(v)})
		assert.ErrorIs(t, err, ErrArgument)
	}
}

func TestNonFiniteWordsAreQuotedOutsideStringsOnly(t *testing.T) {
	for in, want := range map[string]string{
		`{"a": NaN, "b": [-Infinity,Infinity]}`:          `{"a": "NaN", "b": ["-Infinity","Infinity"]}`,
		`{"NaN": "Infinity", "x\"NaN": "a\\", "c": NaN}`: `{"NaN": "Infinity", "x\"NaN": "a\\", "c": "NaN"}`,
		`{"plain": 1}`: `{"plain": 1}`,
		`"NaN\`:        `"NaN\`,
	} {
		assert.Equal(t, want, string(quoteNonFinite([]byte(in))))
	}
}

func FuzzParseSamplingParams(f *testing.F) {
	for _, seed := range []string{`{}`, `{"temperature": NaN}`, `{"logit_bias": {"1": -Infinity}}`, `{"stop_token_ids": [1,2], "seed": 3}`, `{"a`, `[]`, "{\"top_k\": \"\\"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseSamplingParams(data, 100)
		if err != nil {
			require.ErrorIs(t, err, ErrArgument)
			return
		}
		require.NoError(t, p.Validate(100))
		_, err = NewSampler(p, 100)
		require.NoError(t, err)
	})
}
