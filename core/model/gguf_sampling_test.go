package model

import (
	"encoding/json"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
)

func TestSamplingDefaultsHaveTheKeysOfLlamaCpp(t *testing.T) {
	entries, err := ggufSamplingEntries(map[string]string{generationName: `{"temperature": 0.6, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
		"repetition_penalty": 1.1, "typical_p": 0.5, "eos_token_id": [7, 8], "max_new_tokens": 5}`})
	require.NoError(t, err)
	require.Equal(t, []gguf.Entry{
		{Key: "general.sampling.temp", Value: float32(0.6)}, {Key: "general.sampling.top_k", Value: int32(40)},
		{Key: "general.sampling.top_p", Value: float32(0.9)}, {Key: "general.sampling.min_p", Value: float32(0.05)},
		{Key: "general.sampling.penalty_repeat", Value: float32(1.1)}, {Key: "general.sampling.penalty_last_n", Value: int32(-1)},
	}, entries)
	entries = append(entries, gguf.Entry{Key: "general.sampling.mirostat", Value: int32(2)})
	for name, id := range map[string]uint32{"bos": 1, "eos": 7, "eot": 8, "eom": 7, "padding": math.MaxUint32} {
		entries = append(entries, gguf.Entry{Key: "tokenizer.ggml." + name + "_token_id", Value: id})
	}
	text, err := generationOf(t, entries)
	require.NoError(t, err)
	var back map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &back))
	require.Equal(t, map[string]any{"temperature": 0.6, "top_k": 40.0, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.1,
		"do_sample": true, "bos_token_id": 1.0, "eos_token_id": []any{7.0, 8.0}}, back)
}

func TestWithoutSamplingDefaultsThereAreNone(t *testing.T) {
	for _, text := range []string{`{}`, `{"temperature": null, "eos_token_id": 2}`, `{"do_sample": false, "temperature": 0.6}`} {
		entries, err := ggufSamplingEntries(map[string]string{generationName: text})
		require.NoError(t, err)
		require.Empty(t, entries, text)
	}
	entries, err := ggufSamplingEntries(nil)
	require.NoError(t, err)
	require.Empty(t, entries)
	text, err := generationOf(t, []gguf.Entry{{Key: "tokenizer.ggml.eos_token_id", Value: uint32(2)}, {Key: "general.sampling.mirostat", Value: int32(2)}})
	require.NoError(t, err)
	require.Empty(t, text)
}

func TestSamplingDefaultsThatAreNoneAreRefused(t *testing.T) {
	for _, text := range []string{`[`, `[1]`, `{"temperature": "hot"}`, `{"top_p": [1]}`, `{"top_k": 1.5}`, `{"top_k": 4294967296}`} {
		_, err := ggufSamplingEntries(map[string]string{generationName: text})
		require.ErrorIs(t, err, ErrExport, text)
		require.ErrorContains(t, err, generationName)
	}
	for _, value := range []any{"hot", float32(math.NaN()), float32(math.Inf(1)), []float32{1}, true} {
		_, err := generationOf(t, []gguf.Entry{{Key: "general.sampling.temp", Value: value}})
		require.ErrorIs(t, err, container.ErrFormat, value)
		require.ErrorContains(t, err, "general.sampling.temp")
	}
}

func generationOf(t *testing.T, entries []gguf.Entry) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sampling.gguf")
	require.NoError(t, gguf.Write(path, entries, nil))
	file, err := gguf.Open(path)
	require.NoError(t, err)
	defer file.Close()
	return ggufGeneration(file.Metadata(), path)
}
