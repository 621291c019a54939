package model

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
)

// GGUF files carry their tokenizer in the metadata. Here it becomes the tokenizer.json of Hugging Face's tokenizers, so that a model
// from a GGUF file is like any other: only that package splits texts.

// The keys of the tokenizer.
const (
	ggufTokModel  = "tokenizer.ggml.model"
	ggufTokPre    = "tokenizer.ggml.pre"
	ggufTokens    = "tokenizer.ggml.tokens"
	ggufTypes     = "tokenizer.ggml.token_type"
	ggufScores    = "tokenizer.ggml.scores"
	ggufMerges    = "tokenizer.ggml.merges"
	ggufAddBOS    = "tokenizer.ggml.add_bos_token"
	ggufAddEOS    = "tokenizer.ggml.add_eos_token"
	ggufAddPrefix = "tokenizer.ggml.add_space_prefix"
	ggufTemplate  = "tokenizer.chat_template"
)

// The types of tokens that matter here.
const (
	ggufUnknown = 2
	ggufControl = 3 // such as <|end|>: found in texts, left out of decoded ones
	ggufUser    = 4 // found in texts
)

// splits are the regular expressions by which byte-level BPE cuts a text into words, one after the other, by the names of tokenizer.ggml.pre;
// none stands for the one of GPT-2, which byte-level pre-tokenizers have built in.
var splits = map[string][]string{
	"gpt-2":     nil,
	"default":   {`[\p{P}\$\+<=>\^~\|]+`, `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`, `\p{N}+`, `[0-9][0-9][0-9]`},
	"llama-bpe": {`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`},
	"qwen2":     {`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`},
}

// splitNames are other names of these.
var splitNames = map[string]string{"llama3": "llama-bpe", "llama-v3": "llama-bpe", "falcon3": "llama-bpe", "falcon-h1": "llama-bpe"}

// ggufAssets makes the files of a tokenizer and generation_config.json from a GGUF file's metadata; a file without them gives none.
func ggufAssets(path string) (map[string]string, error) {
	set, err := gguf.OpenSet(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = set.Close() }() // the texts are copies
	files, err := ggufTokenizerFiles(set.Metadata(), path)
	if err != nil {
		return nil, err
	}
	generation, err := ggufGeneration(set.Metadata(), path)
	if err != nil {
		return nil, err
	}
	if generation != "" {
		files[generationName] = generation
	}
	return files, nil
}

// ggufTokenizerFiles makes them of the metadata alone; path is for errors.
func ggufTokenizerFiles(m *gguf.Metadata, path string) (map[string]string, error) {
	files := map[string]string{}
	if !m.Has(ggufTokens) {
		return files, nil
	}
	t, err := newGGUFTokenizer(m, path)
	if err != nil {
		return nil, err
	}
	tokenizer, err := t.json()
	if err != nil {
		return nil, err
	}
	files[tokenizerName] = tokenizer
	config := jsonObject{"tokenizer_class": "PreTrainedTokenizerFast"}
	for _, name := range []string{"bos", "eos", "unk", "pad"} {
		if id := t.id(name); id >= 0 {
			config[name+"_token"] = t.tokens[id]
		}
	}
	if m.Has(ggufTemplate) {
		if config["chat_template"], err = m.String(ggufTemplate); err != nil {
			return nil, err
		}
	}
	files[tokenizerConfigName], err = compactJSON(config)
	return files, err
}

// ggufTokenizer is the tokenizer in a file's metadata.
type ggufTokenizer struct {
	meta   *gguf.Metadata
	path   string
	model  string // "gpt2" or "llama"
	tokens []string
	types  []int32
}

func newGGUFTokenizer(m *gguf.Metadata, path string) (*ggufTokenizer, error) {
	t := &ggufTokenizer{meta: m, path: path}
	var err error
	if t.model, err = m.String(ggufTokModel); err != nil {
		return nil, err
	}
	if t.model != "gpt2" && t.model != "llama" {
		return nil, t.wrong(ggufTokModel, fmt.Sprintf("%q", t.model), "gpt2 or llama")
	}
	if t.tokens, err = m.Strings(ggufTokens); err != nil {
		return nil, err
	}
	t.types = make([]int32, len(t.tokens))
	if m.Has(ggufTypes) {
		types, ok := m.Any(ggufTypes).([]int32)
		if !ok || len(types) != len(t.tokens) {
			return nil, t.wrong(ggufTypes, fmt.Sprintf("%d entries", m.Len(ggufTypes)), fmt.Sprintf("an int32 for each of %d tokens", len(t.tokens)))
		}
		t.types = types
	}
	for i, token := range t.tokens {
		if !utf8.ValidString(token) {
			return nil, t.wrong(ggufTokens, fmt.Sprintf("token %d: %q", i, token), "UTF-8")
		}
	}
	return t, nil
}

func (t *ggufTokenizer) wrong(key, found, expected string) error {
	return &container.Error{Kind: gguf.ErrValue, Path: t.path, Field: key, Found: container.Clip(found), Expected: expected}
}

// id is a special token's, -1 if there is none.
func (t *ggufTokenizer) id(name string) int {
	key := map[string]string{"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}[name]
	id, err := t.meta.Int("tokenizer.ggml." + key + "_token_id")
	if err != nil || id < 0 || id >= len(t.tokens) {
		return -1
	}
	return id
}

// The parts of a tokenizer.json that are written here.
type (
	jsonObject = map[string]any
	added      struct {
		ID         int    `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
		Special    bool   `json:"special"`
	}
)

func (t *ggufTokenizer) json() (string, error) {
	out := jsonObject{"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": t.added(), "post_processor": t.postProcessor()}
	var model jsonObject
	var merges func(text []byte) []byte
	var err error
	if t.model == "gpt2" {
		model, merges, err = t.byteLevel(out)
	} else {
		model, merges, err = t.sentencePieces(out)
	}
	if err != nil {
		return "", err
	}
	whole, err := compactJSON(out)
	if err != nil {
		return "", err
	}
	small, err := compactJSON(model)
	if err != nil {
		return "", err
	}
	// Vocabulary and merges are nearly all of the text, and go behind the rest: encoding/json would sort the one and reflect on the others.
	text := slices.Grow([]byte(whole[:len(whole)-1]), len(small)+t.meta.Size(ggufTokens)+t.meta.Size(ggufMerges))
	text = append(append(text, `,"model":`...), small[:len(small)-1]...)
	text = t.appendVocab(append(text, `,"vocab":`...))
	text = append(merges(append(text, `,"merges":`...)), "}}"...)
	return unsafe.String(unsafe.SliceData(text), len(text)), nil // it is large, and nobody else has text
}

// added are the tokens that are found in a text before it is split.
func (t *ggufTokenizer) added() []added {
	out := []added{}
	for i, kind := range t.types {
		if kind == ggufControl || kind == ggufUser || kind == ggufUnknown {
			out = append(out, added{ID: i, Content: t.tokens[i], Special: kind != ggufUser})
		}
	}
	return out
}

// postProcessor puts the first token before a text and the last one behind it, where the file wants them.
func (t *ggufTokenizer) postProcessor() any {
	wanted := func(key, name string, unsaid bool) int {
		add, err := t.meta.Bool(key)
		if err != nil {
			add = unsaid
		}
		if !add {
			return -1
		}
		return t.id(name)
	}
	bos := wanted(ggufAddBOS, "bos", t.model == "llama" || t.split() == "llama-bpe")
	eos := wanted(ggufAddEOS, "eos", false)
	if bos < 0 && eos < 0 {
		if t.model == "gpt2" {
			return jsonObject{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true}
		}
		return nil
	}
	tokens := jsonObject{}
	around := func(text string, kind int) []any {
		token := func(id int) []any {
			if id < 0 {
				return nil
			}
			name := t.tokens[id]
			tokens[name] = jsonObject{"id": name, "ids": []int{id}, "tokens": []string{name}}
			return []any{jsonObject{"SpecialToken": jsonObject{"id": name, "type_id": kind}}}
		}
		return slices.Concat(token(bos), []any{jsonObject{"Sequence": jsonObject{"id": text, "type_id": kind}}}, token(eos))
	}
	return jsonObject{"type": "TemplateProcessing", "single": around("A", 0), "pair": slices.Concat(around("A", 0), around("B", 1)), "special_tokens": tokens}
}

// split is the name of how words are cut. bitnet.cpp's files of the 2B model do not say, and are of Llama 3's kind.
func (t *ggufTokenizer) split() string {
	name, err := t.meta.String(ggufTokPre)
	if err != nil {
		return "llama-bpe"
	}
	return cmp.Or(splitNames[name], name)
}

// byteLevel fills in the byte-level BPE of GPT-2 and its heirs, and returns its model without vocabulary and merges, and what appends these.
func (t *ggufTokenizer) byteLevel(out jsonObject) (model jsonObject, merges func(text []byte) []byte, err error) {
	lines, err := t.meta.Strings(ggufMerges)
	if err != nil {
		return nil, nil, err
	}
	name := t.split()
	if _, known := splits[name]; !known {
		return nil, nil, t.wrong(ggufTokPre, fmt.Sprintf("%q", name), "one of "+strings.Join(append(sortedKeys(splits), sortedKeys(splitNames)...), ", "))
	}
	maps.Copy(out, byteLevelSteps(name))
	model = jsonObject{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
		"fuse_unk": false, "byte_fallback": false, "ignore_merges": ignoresMerges(name)}
	return model, func(text []byte) []byte { return appendJSONList(text, lines, appendJSONString) }, nil
}

// byteLevelSteps are the steps around the BPE of a way to cut words.
func byteLevelSteps(name string) jsonObject {
	steps := []any{}
	for _, expression := range splits[name] {
		steps = append(steps, jsonObject{"type": "Split", "pattern": jsonObject{"Regex": expression}, "behavior": "Isolated", "invert": false})
	}
	byteLevel := jsonObject{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": len(steps) == 0}
	out := jsonObject{"pre_tokenizer": byteLevel, "normalizer": nil,
		"decoder": jsonObject{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}}
	if len(steps) > 0 {
		out["pre_tokenizer"] = jsonObject{"type": "Sequence", "pretokenizers": append(steps, byteLevel)}
	}
	if name == "qwen2" {
		out["normalizer"] = jsonObject{"type": "NFC"}
	}
	return out
}

// ignoresMerges says whether words that are tokens are taken without looking at the merges.
func ignoresMerges(name string) bool { return name == "llama-bpe" }

// sentencePieces fills in the BPE of SentencePiece, as in Llama 2, which has a score for each token in place of merges; it returns what byteLevel does.
func (t *ggufTokenizer) sentencePieces(out jsonObject) (model jsonObject, merges func(text []byte) []byte, err error) {
	scores, ok := t.meta.Any(ggufScores).([]float32)
	if !ok || len(scores) != len(t.tokens) {
		return nil, nil, t.wrong(ggufScores, fmt.Sprintf("%d entries", t.meta.Len(ggufScores)), fmt.Sprintf("a float32 for each of %d tokens", len(t.tokens)))
	}
	prefix, err := t.meta.Bool(ggufAddPrefix)
	maps.Copy(out, sentencePieceSteps(err != nil || prefix))
	pairs, err := t.merges(scores)
	if err != nil {
		return nil, nil, err
	}
	model = jsonObject{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
		"fuse_unk": true, "byte_fallback": true, "ignore_merges": false}
	if unk := t.id("unk"); unk >= 0 {
		model["unk_token"] = t.tokens[unk]
	}
	return model, func(text []byte) []byte {
		return appendJSONList(text, pairs, func(text []byte, pair [2]string) []byte { return appendJSONList(text, pair[:], appendJSONString) })
	}, nil
}

// sentencePieceSteps are the steps around the BPE of SentencePiece; prefix says whether texts begin with a space that is not in them.
func sentencePieceSteps(prefix bool) jsonObject {
	steps := []any{jsonObject{"type": "Replace", "pattern": jsonObject{"String": " "}, "content": "▁"}}
	decoders := []any{jsonObject{"type": "Replace", "pattern": jsonObject{"String": "▁"}, "content": " "}, jsonObject{"type": "ByteFallback"}, jsonObject{"type": "Fuse"}}
	if prefix {
		steps = slices.Insert(steps, 0, any(jsonObject{"type": "Prepend", "prepend": "▁"}))
		decoders = append(decoders, jsonObject{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	return jsonObject{"normalizer": jsonObject{"type": "Sequence", "normalizers": steps}, "pre_tokenizer": nil, "decoder": jsonObject{"type": "Sequence", "decoders": decoders}}
}

// merges recovers the merges of a scored vocabulary: of a token every cut into two tokens, tokens of a high score first.
func (t *ggufTokenizer) merges(scores []float32) ([][2]string, error) {
	ids, size := make(map[string]int, len(t.tokens)), 0
	for i, token := range t.tokens {
		ids[token] = i
		size += len(token)
	}
	room := maxMerges*size + 1<<16
	type merge struct {
		left, right, whole int
	}
	var found []merge
	for i, token := range t.tokens {
		if t.types[i] == ggufControl || t.types[i] == ggufUnknown || len(token) > maxPiece {
			continue
		}
		for at := range token {
			left, ok := ids[token[:at]]
			right, ok2 := ids[token[at:]]
			if at == 0 || !ok || !ok2 {
				continue
			}
			if room -= len(token); room < 0 {
				return nil, t.wrong(ggufTokens, fmt.Sprintf("%d tokens that can be put together from others in more ways than words can", len(t.tokens)), "a vocabulary")
			}
			found = append(found, merge{left, right, i})
		}
	}
	slices.SortStableFunc(found, func(a, b merge) int {
		return cmp.Or(cmp.Compare(scores[b.whole], scores[a.whole]), cmp.Compare(a.left, b.left), cmp.Compare(a.right, b.right))
	})
	out := make([][2]string, len(found))
	for i, m := range found {
		out[i] = [2]string{t.tokens[m.left], t.tokens[m.right]}
	}
	return out, nil
}

const (
	// maxPiece is the longest token that is cut into two: real ones have a few dozen bytes, and a hostile one would cost its square.
	maxPiece = 256
	// maxMerges is how many times the bytes of the vocabulary its merges may have. It is about 2 of published ones; of one that holds
	// a, aa, aaa, ... it grows with the longest.
	maxMerges = 8
)

// appendVocab renders the ids by token, from the last to the first: of tokens that are equal the first then counts, as readers take the last of
// equal keys.
func (t *ggufTokenizer) appendVocab(text []byte) []byte {
	text = append(text, '{')
	for i, token := range slices.Backward(t.tokens) {
		text = append(appendJSONString(text, token), ':')
		text = strconv.AppendInt(text, int64(i), 10)
		if i > 0 {
			text = append(text, ',')
		}
	}
	return append(text, '}')
}

// appendJSONList renders a list, each of its elements with one.
func appendJSONList[T any](text []byte, list []T, one func(text []byte, v T) []byte) []byte {
	text = append(text, '[')
	for i, v := range list {
		if i > 0 {
			text = append(text, ',')
		}
		text = one(text, v)
	}
	return append(text, ']')
}

// appendJSONString renders a string without escaping HTML characters. What is no UTF-8 becomes U+FFFD.
func appendJSONString(text []byte, s string) []byte {
	plain := utf8.ValidString(s)
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] != '"' && s[i] != '\\'
	}
	if !plain {
		quoted, _ := compactJSON(s) // of a string never fails
		return append(text, quoted...)
	}
	return append(append(append(text, '"'), s...), '"')
}

// compactJSON renders without escaping HTML characters.
func compactJSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("model: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}
