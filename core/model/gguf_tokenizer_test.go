package model

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
)

func TestTokensOfAnyTextKeepTheirIdsInTokenizerJSON(t *testing.T) {
	odd := []string{"a", `"`, `\`, "\x00\n\t", "<&>", "\u2028", "👋", "Ġ", "", strings.Repeat("ü", 300), "a", "b"} // a twice: the first counts
	for _, kind := range []string{"gpt2", "llama"} {
		file, err := gguf.OpenBytes("odd", ggufHeader([]gguf.Entry{
			{Key: ggufTokModel, Value: kind}, {Key: ggufTokens, Value: odd}, {Key: ggufScores, Value: make([]float32, len(odd))},
			{Key: ggufMerges, Value: []string{`" \`, "a \n", "x \xff"}},
		}))
		require.NoError(t, err)
		files, err := ggufTokenizerFiles(file.Metadata(), "odd")
		require.NoError(t, err)
		var tokenizer struct {
			Model struct {
				Vocab  map[string]int
				Merges []any
			}
		}
		require.NoError(t, json.Unmarshal([]byte(files["tokenizer.json"]), &tokenizer))
		want := map[string]int{}
		for i, token := range odd {
			if _, twice := want[token]; !twice {
				want[token] = i
			}
		}
		require.Equal(t, want, tokenizer.Model.Vocab)
		if kind == "gpt2" {
			require.Equal(t, []any{`" \`, "a \n", "x \ufffd"}, tokenizer.Model.Merges)
		} else {
			require.Empty(t, tokenizer.Model.Merges)
		}
	}
}

func TestWaysToCutWordsHaveSeveralNames(t *testing.T) {
	made := func(pre string) string {
		file, err := gguf.OpenBytes("names", ggufHeader([]gguf.Entry{
			{Key: ggufTokModel, Value: "gpt2"}, {Key: ggufTokPre, Value: pre}, {Key: ggufTokens, Value: []string{"a", "<s>"}},
			{Key: ggufMerges, Value: []string{}}, {Key: "tokenizer.ggml.bos_token_id", Value: uint32(1)},
		}))
		require.NoError(t, err)
		files, err := ggufTokenizerFiles(file.Metadata(), "names")
		require.NoError(t, err)
		return files["tokenizer.json"]
	}
	for _, name := range []string{"llama3", "llama-v3", "falcon3", "falcon-h1"} {
		require.Equal(t, made("llama-bpe"), made(name))
	}
	require.Contains(t, made("llama-bpe"), "TemplateProcessing")
	require.NotEqual(t, made("gpt-2"), made("default"))
	require.Equal(t, 4, strings.Count(made("default"), `"Split"`), "one after the other")
}

func TestOtherStepsOfATokenizerHaveNoPlaceInGGUF(t *testing.T) {
	const whole = `{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]%s},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"}%s}`
	write := func(model, more string) error {
		_, err := ggufVocabulary(map[string]string{"tokenizer.json": fmt.Sprintf(whole, model, more)}, &Config{VocabSize: 3})
		return err
	}
	require.NoError(t, write("", ""))
	require.NoError(t, write(`,"ignore_merges":true`, ""), "its merges make every token")
	require.NoError(t, write(`,"unk_token":null,"dropout":0,"continuing_subword_prefix":"","end_of_word_suffix":""`, `,"post_processor":{"type":"ByteLevel"},"padding":{"strategy":"BatchLongest"},"truncation":{"max_length":5}`))
	for _, c := range []struct{ model, more, says string }{
		{`,"dropout":0.1`, "", "model.dropout = 0.1"},
		{`,"continuing_subword_prefix":"##"`, "", `model.continuing_subword_prefix = "##"`},
		{`,"end_of_word_suffix":"</w>"`, "", `model.end_of_word_suffix = "</w>"`},
		{`,"unk_token":"a"`, "", `model.unk_token = "a"`},
		{"", `,"added_tokens":[{"id":3,"content":"<s>"}]`, "added_tokens: id = 3: the model has 3 tokens"},
		{"", `,"added_tokens":[{"id":1,"content":"b\u0000"}]`, `token 1 = "b\u0000": readers of GGUF end a token at U+0000`},
		{"", `,"added_tokens":[{"id":2,"content":"a"}]`, `token 2 = "a": it is token 0, too`},
		{"", `,"added_tokens":[{"id":1,"content":"b","single_word":true}]`, `"b": single_word = true`},
		{"", `,"normalizer":{"type":"NFC"},"added_tokens":[{"id":1,"content":"b","normalized":true}]`, `"b": normalized = true`},
		{"", `,"post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B"}}],"special_tokens":{}}`, "post_processor = "},
		{"", `,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"z"}},{"Sequence":{"id":"A"}}],"special_tokens":{"z":{"ids":[0,1]}}}`, "post_processor = "},
		{"", `,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"z"}},{"Sequence":{"id":"A"}}],"special_tokens":{"z":{"ids":[9]}}}`, "the token bos = 9: the model has 3 tokens"},
	} {
		err := write(c.model, c.more)
		require.ErrorIs(t, err, ErrExport, c.says)
		require.ErrorContains(t, err, c.says)
	}
	entries, err := ggufVocabulary(map[string]string{"tokenizer.json": fmt.Sprintf(whole, "", `,"added_tokens":[{"id":1,"content":"[PAD4]"}]`)}, &Config{VocabSize: 5})
	require.NoError(t, err)
	require.Contains(t, entries, gguf.Entry{Key: ggufTokens, Value: []string{"a", "[PAD4]", "ab", "[PAD3]", "[[PAD4]]"}}, "fillers are no other token")
	files := map[string]string{"tokenizer.json": fmt.Sprintf(whole, "", `,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"b"}},{"Sequence":{"id":"A"}}],"special_tokens":{"b":{"ids":[1]}}}`)}
	two := 2
	_, err = ggufVocabulary(files, &Config{VocabSize: 3, BOSTokenID: &two})
	require.ErrorContains(t, err, "post_processor = 1: GGUF has a place for the token bos_token_id alone, which is 2")
}
