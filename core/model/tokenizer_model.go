package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/format/sentencepiece"
)

// Checkpoints of before tokenizer.json, such as 1bitLLM's, have SentencePiece's tokenizer.model. Here it becomes the entries that converters put into
// GGUF files for it, and those the tokenizer.json of a Llama 2.

const (
	tokenizerName       = "tokenizer.json"
	sentencePieceName   = "tokenizer.model"
	tokenizerConfigName = "tokenizer_config.json"
)

// errTokenizerModel is a tokenizer.model, or what is beside it, that cannot become a tokenizer.json.
var errTokenizerModel = container.NewKind("tokenizer has no form here")

// TokenizerOfSentencePiece makes tokenizer.json of the files of a model, which have a tokenizer.model; path is for errors. It is that of transformers'
// LlamaTokenizer for them.
//
// Errors are container.ErrFormat, and *ConfigError for a file beside it that is not JSON.
func TokenizerOfSentencePiece(files map[string]string, path string) (string, error) {
	m, err := sentencepiece.Parse(path, []byte(files[sentencePieceName]))
	if err != nil {
		return "", err
	}
	var c sentencePieceConfig
	for _, beside := range []struct {
		name string
		to   any
	}{{"special_tokens_map.json", &c}, {tokenizerConfigName, &c}, {"added_tokens.json", &c.more}} {
		if text, ok := files[beside.name]; ok {
			if err := json.Unmarshal([]byte(text), beside.to); err != nil {
				return "", &ConfigError{File: path, Field: beside.name, Reason: "not as tokenizers have it: " + container.Clip(err.Error())}
			}
		}
	}
	for _, o := range []struct {
		field           string
		lost            bool
		found, expected string
	}{
		{"trainer_spec.model_type", m.Type != sentencepiece.BPE, fmt.Sprint(m.Type), "2, which is BPE"},
		{"normalizer_spec.precompiled_charsmap", m.CharsMap, "a map of characters", "none, as of Llama"},
		{"normalizer_spec.remove_extra_whitespaces", m.RemoveExtraSpaces, "true", "false, as of Llama"},
		{"normalizer_spec.escape_whitespaces", !m.EscapeSpaces, "false", "true, as of Llama"},
		{tokenizerConfigName + ": legacy", c.Legacy != nil && !*c.Legacy, "false", "true, or none"},
	} {
		if o.lost {
			return "", &container.Error{Kind: errTokenizerModel, Path: path, Field: o.field, Found: o.found, Expected: o.expected}
		}
	}
	entries, err := c.entries(m, path)
	if err != nil {
		return "", err
	}
	meta, err := gguf.NewMetadata(path, entries)
	if err != nil {
		return "", err
	}
	made, err := ggufTokenizerFiles(meta, path)
	return made[tokenizerName], err
}

// sentencePieceConfig is what the files beside a tokenizer.model say.
type sentencePieceConfig struct {
	AddBOS    *bool                  `json:"add_bos_token"`
	AddEOS    bool                   `json:"add_eos_token"`
	AddPrefix *bool                  `json:"add_prefix_space"`
	Legacy    *bool                  `json:"legacy"`
	BOS       tokenText              `json:"bos_token"`
	EOS       tokenText              `json:"eos_token"`
	Unknown   tokenText              `json:"unk_token"`
	Pad       tokenText              `json:"pad_token"`
	Added     map[int]addedTokenText `json:"added_tokens_decoder"`
	more      map[string]int         // added_tokens.json
}

type addedTokenText struct {
	Content string `json:"content"`
	Special bool   `json:"special"`
}

// tokenText is a token as files name it: its text, or an object with that in it.
type tokenText string

// UnmarshalJSON reads both.
func (t *tokenText) UnmarshalJSON(data []byte) error {
	var long addedTokenText
	err := json.Unmarshal(data, (*string)(t))
	var other *json.UnmarshalTypeError
	if errors.As(err, &other) {
		err = json.Unmarshal(data, &long)
		*t = tokenText(long.Content)
	}
	return err
}

// entries are those of a GGUF file for the same tokenizer.
func (c *sentencePieceConfig) entries(m *sentencepiece.Model, path string) ([]gguf.Entry, error) {
	var tokens []string
	var types []int32
	var scores []float32
	for _, p := range m.Pieces {
		tokens, types, scores = append(tokens, p.Text), append(types, p.Kind), append(scores, p.Score)
	}
	added := map[int]addedTokenText{}
	for text, id := range c.more {
		added[id] = addedTokenText{text, slices.Contains([]tokenText{c.BOS, c.EOS, c.Unknown, c.Pad}, tokenText(text))}
	}
	for id, one := range c.Added { // the newer form
		added[id] = one
	}
	for range added { // those behind the vocabulary, in the order of their ids
		one, ok := added[len(tokens)]
		if !ok {
			break
		}
		kind := int32(ggufUser)
		if one.Special {
			kind = ggufControl
		}
		tokens, types, scores = append(tokens, one.Content), append(types, kind), append(scores, 0)
	}
	for id, one := range added {
		if id < 0 || id >= len(tokens) || one.Content == "" || tokens[id] != one.Content {
			return nil, &container.Error{Kind: errTokenizerModel, Path: path, Field: "added token " + container.Quote(one.Content), Found: fmt.Sprintf("id %d", id),
				Expected: fmt.Sprintf("one that continues the %d pieces, or that piece", len(m.Pieces))}
		}
	}
	id := func(text tokenText, other int) int {
		if at := slices.Index(tokens, string(text)); at >= 0 {
			return at
		}
		return other
	}
	entries := []gguf.Entry{
		{Key: ggufTokModel, Value: "llama"}, {Key: ggufTokens, Value: tokens}, {Key: ggufTypes, Value: types}, {Key: ggufScores, Value: scores},
		{Key: ggufAddBOS, Value: c.AddBOS == nil || *c.AddBOS}, {Key: ggufAddEOS, Value: c.AddEOS},
		{Key: ggufAddPrefix, Value: m.DummyPrefix && (c.AddPrefix == nil || *c.AddPrefix)},
	}
	for _, special := range []struct {
		name string
		id   int
	}{{"bos", id(c.BOS, m.BeginID)}, {"eos", id(c.EOS, m.EndID)}, {"unknown", id(c.Unknown, m.UnknownID)}, {"padding", id(c.Pad, m.PadID)}} {
		if special.id >= 0 {
			entries = append(entries, gguf.Entry{Key: "tokenizer.ggml." + special.name + "_token_id", Value: uint32(special.id)})
		}
	}
	return entries, nil
}
