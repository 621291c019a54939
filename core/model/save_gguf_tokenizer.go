package model

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
)

// GGUF files name how texts are cut, and have no place for steps that no name stands for. What is written here is what ggufTokenizer makes
// the same tokenizer of again; anything else is an error that names the step.

// ggufVocabulary renders the tokenizer of a tokenizer.json; a model without one gets the special tokens of its config.
func ggufVocabulary(files map[string]string, c *Config) ([]gguf.Entry, error) {
	text, ok := files[tokenizerName]
	if !ok {
		special, err := (&hfTokenizer{}).special(files, c, template{})
		return append([]gguf.Entry{{Key: ggufTokModel, Value: "none"}}, special...), err
	}
	var t hfTokenizer
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return nil, fmt.Errorf("%w: tokenizer.json: %w", ErrExport, err)
	}
	return t.entries(files, c)
}

// hfTokenizer is what is read of a tokenizer.json.
type hfTokenizer struct {
	Added []added `json:"added_tokens"`
	Model struct {
		Type         string          `json:"type"`
		Vocab        map[string]int  `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
		Dropout      *float64        `json:"dropout"`
		Unknown      *string         `json:"unk_token"`
		Continuing   string          `json:"continuing_subword_prefix"`
		End          string          `json:"end_of_word_suffix"`
		FuseUnknown  bool            `json:"fuse_unk"`
		ByteFallback bool            `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
	} `json:"model"`
	Normalizer    any `json:"normalizer"`
	PreTokenizer  any `json:"pre_tokenizer"`
	PostProcessor any `json:"post_processor"`
	Decoder       any `json:"decoder"`
}

// lost is the error about a part of tokenizer.json that GGUF has no place for.
func lost(part string, found any, why string) error {
	text, _ := compactJSON(found) // of what JSON gave never fails
	return fmt.Errorf("%w: tokenizer.json: %s = %s: %s", ErrExport, part, container.Clip(text), why)
}

func (t *hfTokenizer) entries(files map[string]string, c *Config) ([]gguf.Entry, error) {
	if t.Model.Type != "BPE" || len(t.Model.Vocab) == 0 {
		return nil, fmt.Errorf("%w: tokenizer.json has a model of type %q; GGUF files have BPE", ErrExport, t.Model.Type)
	}
	if err := t.plain(c.VocabSize); err != nil {
		return nil, err
	}
	merges, err := t.merges()
	if err != nil {
		return nil, err
	}
	tokens, types := t.tokens(c.VocabSize)
	if err := distinct(tokens); err != nil {
		return nil, err
	}
	write := t.byteLevel
	if t.Model.ByteFallback {
		write = t.sentencePieces
	}
	out, err := write(tokens, merges)
	if err != nil {
		return nil, err
	}
	around, err := t.template()
	if err != nil {
		return nil, err
	}
	special, err := t.special(files, c, around)
	if err != nil {
		return nil, err
	}
	out = append(out, gguf.Entry{Key: ggufTokens, Value: tokens}, gguf.Entry{Key: ggufTypes, Value: types},
		gguf.Entry{Key: ggufAddBOS, Value: around.bos != nil}, gguf.Entry{Key: ggufAddEOS, Value: around.eos != nil})
	return append(out, special...), nil
}

// plain refuses the options that GGUF has no word for. Padding and truncation are none: whoever opens a tokenizer here switches them off.
func (t *hfTokenizer) plain(vocab int) error {
	for _, o := range []struct {
		part  string
		value any
		set   bool
	}{
		{"model.dropout", t.Model.Dropout, t.Model.Dropout != nil && *t.Model.Dropout != 0},
		{"model.continuing_subword_prefix", t.Model.Continuing, t.Model.Continuing != ""}, {"model.end_of_word_suffix", t.Model.End, t.Model.End != ""},
	} {
		if o.set {
			return lost(o.part, o.value, "GGUF has no place for it")
		}
	}
	normalizer := len(flatten(t.Normalizer, "normalizers")) > 0
	for _, a := range t.Added {
		for _, o := range []struct {
			name string
			set  bool
		}{{"lstrip", a.LStrip}, {"rstrip", a.RStrip}, {"single_word", a.SingleWord}, {"normalized", a.Normalized && normalizer}} {
			if o.set {
				return lost(fmt.Sprintf("added_tokens: %q: %s", container.Clip(a.Content), o.name), true, "GGUF has no place for it")
			}
		}
		if a.ID < 0 || a.ID >= vocab {
			return lost("added_tokens: id", a.ID, fmt.Sprintf("the model has %d tokens", vocab))
		}
	}
	for token, id := range t.Model.Vocab {
		if id < 0 || id >= vocab {
			return lost(fmt.Sprintf("model.vocab: %q", container.Clip(token)), id, fmt.Sprintf("the model has %d tokens", vocab))
		}
	}
	return nil
}

// byteLevel writes the byte-level BPE of GPT-2 and its heirs.
func (t *hfTokenizer) byteLevel(_ []string, merges [][2]string) ([]gguf.Entry, error) {
	names := sortedKeys(splits)
	i := slices.IndexFunc(names, func(name string) bool {
		return slices.Equal(flatten(t.PreTokenizer, "pretokenizers"), flatten(byteLevelSteps(name)["pre_tokenizer"], "pretokenizers"))
	})
	if i < 0 {
		return nil, lost("pre_tokenizer", t.PreTokenizer, fmt.Sprintf("it is none of %s, and readers of GGUF know them by name", strings.Join(names, ", ")))
	}
	steps := byteLevelSteps(names[i])
	if err := t.same("normalizer", "normalizers", t.Normalizer, steps); err != nil {
		return nil, err
	}
	if err := t.same("decoder", "decoders", t.Decoder, steps); err != nil {
		return nil, err
	}
	if t.Model.Unknown != nil && slices.ContainsFunc(byteAlphabet(), t.lacks) {
		return nil, lost("model.unk_token", t.Model.Unknown, "GGUF has no place for it beside a vocabulary that lacks bytes")
	}
	if whole := ignoresMerges(names[i]); whole != t.Model.IgnoreMerges {
		if token := t.unmerged(merges); token != "" {
			return nil, lost("model.ignore_merges", t.Model.IgnoreMerges, fmt.Sprintf("of %q it is %t, and no merges make the token %q", names[i], whole, container.Clip(token)))
		}
	}
	joined := make([]string, len(merges))
	for i, m := range merges {
		joined[i] = m[0] + " " + m[1]
	}
	return []gguf.Entry{{Key: ggufTokModel, Value: "gpt2"}, {Key: ggufTokPre, Value: names[i]}, {Key: ggufMerges, Value: joined}}, nil
}

// sentencePieces writes the BPE of SentencePiece.
func (t *hfTokenizer) sentencePieces(tokens []string, merges [][2]string) ([]gguf.Entry, error) {
	prefix := slices.Equal(flatten(t.Normalizer, "normalizers"), flatten(sentencePieceSteps(true)["normalizer"], "normalizers"))
	steps := sentencePieceSteps(prefix)
	for _, part := range []struct {
		name, list string
		value      any
	}{{"normalizer", "normalizers", t.Normalizer}, {"pre_tokenizer", "pretokenizers", t.PreTokenizer}, {"decoder", "decoders", t.Decoder}} {
		if err := t.same(part.name, part.list, part.value, steps); err != nil {
			return nil, err
		}
	}
	if t.Model.IgnoreMerges {
		return nil, lost("model.ignore_merges", true, "GGUF has no place for it beside byte_fallback")
	}
	if t.Model.Unknown != nil && !t.Model.FuseUnknown && slices.ContainsFunc(fallbackBytes(), t.lacks) {
		return nil, lost("model.fuse_unk", false, "GGUF has no place for it beside a vocabulary that lacks bytes")
	}
	return []gguf.Entry{{Key: ggufTokModel, Value: "llama"}, {Key: ggufScores, Value: t.scores(tokens, merges)}, {Key: ggufAddPrefix, Value: prefix}}, nil
}

func (t *hfTokenizer) lacks(token string) bool {
	_, ok := t.Model.Vocab[token]
	return !ok
}

// byteAlphabet are the characters that stand for the bytes in the vocabularies of GPT-2 and its heirs: printable ones for themselves, others
// from U+0100 on.
func byteAlphabet() []string {
	var out []string
	for b, next := rune(0), rune(256); b < 256; b++ {
		if b >= '!' && b <= '~' || b >= '¡' && b <= '¬' || b >= '®' {
			out = append(out, string(b))
		} else {
			out = append(out, string(next))
			next++
		}
	}
	return out
}

// fallbackBytes are the tokens of bytes in the vocabularies of SentencePiece.
func fallbackBytes() []string {
	out := make([]string, 256)
	for b := range out {
		out[b] = fmt.Sprintf("<0x%02X>", b)
	}
	return out
}

// unmerged is a token of the vocabulary that merges do not make of its characters, "" if there is none. Without such tokens it makes no
// difference whether words that are tokens are taken without looking at the merges.
func (t *hfTokenizer) unmerged(merges [][2]string) string {
	rank := make(map[[2]string]int, len(merges))
	for i, m := range slices.Backward(merges) {
		rank[m] = i
	}
	other := map[string]bool{} // found before texts are cut into words
	for _, a := range t.Added {
		other[a.Content] = true
	}
	for _, token := range sortedKeys(t.Model.Vocab) {
		if other[token] || len(token) > maxPiece {
			continue
		}
		var parts []string
		for _, r := range token {
			parts = append(parts, string(r))
		}
		for len(parts) > 1 {
			first, at := len(merges), 0
			for i := range len(parts) - 1 {
				if n, ok := rank[[2]string{parts[i], parts[i+1]}]; ok && n < first {
					first, at = n, i
				}
			}
			if first == len(merges) {
				return token
			}
			parts[at] += parts[at+1]
			parts = slices.Delete(parts, at+1, at+2)
		}
	}
	return ""
}

// same refuses the steps of a part that are not those which readers take.
func (t *hfTokenizer) same(part, list string, found any, steps jsonObject) error {
	have, want := flatten(found, list), flatten(steps[part], list)
	if slices.Equal(have, want) {
		return nil
	}
	for i, step := range have {
		if i >= len(want) || step != want[i] {
			return lost(part, json.RawMessage(step), "GGUF has no place for this step; readers take "+readable(want))
		}
	}
	return lost(part, found, "readers of GGUF take "+readable(want))
}

func readable(steps []string) string {
	return cmp.Or(strings.Join(steps, ", "), "none")
}

// flatten lists the steps of a normalizer, pre-tokenizer, post-processor or decoder, whose sequences may be nested, each as JSON without what
// makes no difference to ids and texts. list is how a sequence calls its steps.
func flatten(v any, list string) []string {
	object, ok := v.(jsonObject)
	if !ok {
		if v == nil {
			return nil
		}
		text, _ := compactJSON(v)
		return []string{text}
	}
	if object["type"] == "Sequence" {
		steps, _ := object[list].([]any)
		var out []string
		for _, step := range steps {
			out = append(out, flatten(step, list)...)
		}
		return out
	}
	if object["type"] == "ByteLevel" {
		switch list {
		case "processors": // changes offsets alone
			return nil
		case "decoders":
			object = jsonObject{"type": "ByteLevel"}
		default:
			with := func(option string) any {
				if value, ok := object[option]; ok {
					return value
				}
				return true
			}
			object = jsonObject{"type": "ByteLevel", "add_prefix_space": with("add_prefix_space"), "use_regex": with("use_regex")}
		}
	}
	text, _ := compactJSON(object)
	return []string{text}
}

// template is what a post-processor puts around a text: ids, nil for none.
type template struct{ bos, eos *int }

// template reads the post-processor. That of pairs of texts is not kept: no program that reads GGUF has them.
func (t *hfTokenizer) template() (template, error) {
	var out template
	steps := flatten(t.PostProcessor, "processors")
	if len(steps) == 0 {
		return out, nil
	}
	var p struct {
		Type   string
		Single []struct {
			Special *struct{ ID string } `json:"SpecialToken"`
			Text    *struct{ ID string } `json:"Sequence"`
		}
		Special map[string]struct{ IDs []int } `json:"special_tokens"`
	}
	wrong := func() (template, error) {
		return template{}, lost("post_processor", json.RawMessage(steps[0]), "GGUF has a place for one token before a text and one behind it")
	}
	if json.Unmarshal([]byte(steps[0]), &p) != nil || p.Type != "TemplateProcessing" || len(steps) > 1 {
		return wrong()
	}
	texts := 0
	for _, piece := range p.Single {
		side := &out.bos
		if texts > 0 {
			side = &out.eos
		}
		switch {
		case piece.Text != nil && piece.Text.ID == "A" && texts == 0:
			texts++
		case piece.Special != nil && *side == nil && len(p.Special[piece.Special.ID].IDs) == 1:
			*side = &p.Special[piece.Special.ID].IDs[0]
		default:
			return wrong()
		}
	}
	if texts == 0 {
		return wrong()
	}
	return out, nil
}

// tokens lists the vocabulary by id, with fillers where there is no token, and the tokens' types.
func (t *hfTokenizer) tokens(vocab int) ([]string, []int32) {
	const normal, unused, byteToken = 1, 5, 6
	tokens, types := make([]string, vocab), make([]int32, vocab)
	put := func(i int, token string, kind int32) {
		if i >= 0 && i < vocab {
			tokens[i], types[i] = token, kind
		}
	}
	for token, i := range t.Model.Vocab {
		kind := int32(normal)
		if t.Model.ByteFallback && len(token) == 6 && strings.HasPrefix(token, "<0x") {
			kind = byteToken
		}
		put(i, token, kind)
	}
	for _, a := range t.Added {
		kind := int32(ggufUser)
		if a.Special {
			kind = ggufControl
		}
		put(a.ID, a.Content, kind)
	}
	taken := map[string]bool{}
	for _, token := range tokens {
		taken[token] = true
	}
	for i := range tokens {
		if types[i] == 0 {
			for tokens[i], types[i] = fmt.Sprintf("[PAD%d]", i), unused; taken[tokens[i]]; {
				tokens[i] = "[" + tokens[i] + "]"
			}
		}
	}
	return tokens, types
}

// distinct refuses a vocabulary that llama.cpp ends the process over: it takes a token for a text that U+0000 ends, and none may be there twice.
func distinct(tokens []string) error {
	ids := make(map[string]int, len(tokens))
	for i, token := range tokens {
		if strings.ContainsRune(token, 0) {
			return lost(fmt.Sprintf("token %d", i), token, "readers of GGUF end a token at U+0000")
		}
		if first, twice := ids[token]; twice && token != "" { // for those it makes up names
			return lost(fmt.Sprintf("token %d", i), token, fmt.Sprintf("it is token %d, too, and readers of GGUF have each token once", first))
		}
		ids[token] = i
	}
	return nil
}

// merges reads both spellings: ["a b", ...] and [["a", "b"], ...].
func (t *hfTokenizer) merges() ([][2]string, error) {
	var pairs [][2]string
	if err := json.Unmarshal(t.Model.Merges, &pairs); err == nil {
		return pairs, nil
	}
	var lines []string
	if err := json.Unmarshal(t.Model.Merges, &lines); err != nil {
		return nil, fmt.Errorf("%w: tokenizer.json: merges: %w", ErrExport, err)
	}
	pairs = nil // what the first attempt had left
	for _, line := range lines {
		left, right, _ := strings.Cut(line, " ")
		pairs = append(pairs, [2]string{left, right})
	}
	return pairs, nil
}

// scores gives each token the number of the first merge that makes it, negative: the order in which SentencePiece merges.
func (t *hfTokenizer) scores(tokens []string, merges [][2]string) []float32 {
	rank := map[string]int{}
	for i, m := range merges {
		if whole := m[0] + m[1]; rank[whole] == 0 {
			rank[whole] = i + 1
		}
	}
	scores := make([]float32, len(tokens))
	for i, token := range tokens {
		scores[i] = -float32(rank[token])
	}
	return scores
}

// special names the special tokens, by the post-processor and the config or else by tokenizer_config.json, and adds the chat template.
func (t *hfTokenizer) special(files map[string]string, c *Config, around template) ([]gguf.Entry, error) {
	var config map[string]any
	_ = json.Unmarshal([]byte(cmp.Or(files[tokenizerConfigName], "{}")), &config) // one that cannot be read says nothing
	ids := map[string]int{}
	for _, a := range t.Added {
		ids[a.Content] = a.ID
	}
	find := func(name string) *int {
		token, _ := config[name].(string)
		if object, ok := config[name].(map[string]any); ok {
			token, _ = object["content"].(string)
		}
		if id, ok := ids[token]; ok {
			return &id
		}
		return nil
	}
	unknown := find("unk_token")
	if t.Model.ByteFallback {
		if t.Model.Unknown != nil {
			id, ok := t.Model.Vocab[*t.Model.Unknown]
			if !ok {
				return nil, lost("model.unk_token", t.Model.Unknown, "it is not in the vocabulary")
			}
			unknown = &id
		} else if slices.ContainsFunc(fallbackBytes(), t.lacks) {
			unknown = nil // readers would put it where a byte is missing
		}
	}
	var ends [3]*int
	if len(c.EOSTokenIDs) > len(ends) {
		return nil, fmt.Errorf("%w: eos_token_id = %v: GGUF has a place for three tokens that end a text", ErrExport, c.EOSTokenIDs)
	}
	for i := range c.EOSTokenIDs {
		ends[i] = &c.EOSTokenIDs[i]
	}
	bos, eos := c.BOSTokenID, ends[0]
	for _, side := range []struct {
		name  string
		added *int
		id    **int
	}{{"bos_token_id", around.bos, &bos}, {"eos_token_id", around.eos, &eos}} {
		if side.added != nil && *side.id != nil && *side.added != **side.id {
			return nil, lost("post_processor", *side.added, fmt.Sprintf("GGUF has a place for the token %s alone, which is %d", side.name, **side.id))
		}
		*side.id = cmp.Or(*side.id, side.added)
	}
	var out []gguf.Entry
	for _, e := range []struct {
		key string
		id  *int
	}{{"bos", cmp.Or(bos, find("bos_token"))}, {"eos", cmp.Or(eos, find("eos_token"))}, {"eot", ends[1]}, {"eom", ends[2]},
		{"padding", cmp.Or(c.PadTokenID, find("pad_token"))}, {"unknown", unknown}} {
		if e.id != nil {
			if *e.id < 0 || *e.id >= c.VocabSize {
				return nil, lost("the token "+e.key, *e.id, fmt.Sprintf("the model has %d tokens", c.VocabSize))
			}
			out = append(out, gguf.Entry{Key: "tokenizer.ggml." + e.key + "_token_id", Value: uint32(*e.id)})
		}
	}
	chat, _ := config["chat_template"].(string)
	if chat = cmp.Or(files["chat_template.jinja"], chat); chat != "" {
		out = append(out, gguf.Entry{Key: ggufTemplate, Value: chat})
	}
	return out, nil
}
