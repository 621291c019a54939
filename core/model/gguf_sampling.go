package model

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
)

// GGUF files may say how their model is sampled unless a user says otherwise. Here that is the generation_config.json of Hugging Face.

const generationName = "generation_config.json"

// ggufSampling are the keys under general.sampling and the fields that mean the same. Others, such as mirostat, have no field; the window of
// the penalty has none either, which there is the last 64 tokens unless said and here the whole text.
var ggufSampling = []struct{ key, field string }{
	{"temp", "temperature"}, {"top_k", "top_k"}, {"top_p", "top_p"}, {"min_p", "min_p"}, {"penalty_repeat", "repetition_penalty"},
}

const ggufWindow, wholeContext = "penalty_last_n", int32(-1)

// ggufSamplingEntries renders the fields of generation_config.json; one that does not sample has none.
func ggufSamplingEntries(files map[string]string) ([]gguf.Entry, error) {
	text, ok := files[generationName]
	if !ok {
		return nil, nil
	}
	var fields jsonObject
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrExport, generationName, err)
	}
	if fields["do_sample"] == false {
		return nil, nil
	}
	var out []gguf.Entry
	for _, s := range ggufSampling {
		value := fields[s.field]
		if value == nil {
			continue
		}
		x, ok := value.(float64)
		whole := x == math.Trunc(x) && math.Abs(x) <= math.MaxInt32
		if !ok || s.key == "top_k" && !whole {
			return nil, fmt.Errorf("%w: %s: %s = %v: must be a number that GGUF has a place for", ErrExport, generationName, s.field, container.Clip(fmt.Sprint(value)))
		}
		entry := gguf.Entry{Key: "general.sampling." + s.key, Value: float32(x)}
		if s.key == "top_k" {
			entry.Value = int32(x)
		}
		out = append(out, entry)
		if s.key == "penalty_repeat" {
			out = append(out, gguf.Entry{Key: "general.sampling." + ggufWindow, Value: wholeContext})
		}
	}
	return out, nil
}

// ggufGeneration makes generation_config.json of a file's metadata, "" where they say nothing of sampling; path is for errors.
func ggufGeneration(m *gguf.Metadata, path string) (string, error) {
	fields := jsonObject{}
	for _, s := range ggufSampling {
		key := "general.sampling." + s.key
		if !m.Has(key) {
			continue
		}
		x, err := m.Float(key)
		if err != nil {
			return "", err
		}
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return "", &container.Error{Kind: gguf.ErrValue, Path: path, Field: key, Found: fmt.Sprint(x), Expected: "a finite number"}
		}
		fields[s.field] = shortest(x)
	}
	if len(fields) == 0 {
		return "", nil
	}
	fields["do_sample"] = true
	token := func(name string) *int {
		id, _ := ggufToken(m, name) // one of another type is an error of the config
		return id
	}
	for field, id := range map[string]*int{"bos_token_id": token("bos"), "pad_token_id": token("padding")} {
		if id != nil {
			fields[field] = *id
		}
	}
	if ends := (&Config{EOSTokenIDs: ggufEnds(token)}).eosValue(); ends != nil {
		fields["eos_token_id"] = ends
	}
	text, err := json.MarshalIndent(fields, "", "  ")
	if err != nil {
		return "", fmt.Errorf("model: %w", err)
	}
	return string(text) + "\n", nil
}
