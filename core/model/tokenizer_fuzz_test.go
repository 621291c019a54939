package model

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
)

// ggufHeader renders a file that has entries and no tensors, without gguf.Write, which waits for the disk.
func ggufHeader(entries []gguf.Entry) []byte {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			if s, ok := v.(string); ok {
				_ = binary.Write(&b, binary.LittleEndian, uint64(len(s)))
				b.WriteString(s)
				continue
			}
			_ = binary.Write(&b, binary.LittleEndian, v)
		}
	}
	b.WriteString("GGUF")
	put(uint32(3), uint64(0), uint64(len(entries)))
	for _, e := range entries {
		put(e.Key)
		switch v := e.Value.(type) {
		case uint32:
			put(uint32(4), v)
		case bool:
			put(uint32(7), v)
		case string:
			put(uint32(8), v)
		case []string:
			put(uint32(9), uint32(8), uint64(len(v)))
			for _, s := range v {
				put(s)
			}
		case []int32:
			put(uint32(9), uint32(5), uint64(len(v)), v)
		case []float32:
			put(uint32(9), uint32(6), uint64(len(v)), v)
		}
	}
	return append(b.Bytes(), make([]byte, 32)...)
}

// FuzzTokenizerFromGGUF: whatever a file says of its tokenizer, the result is the JSON of a tokenizer that is not much larger than the
// file and goes back into metadata, unless its tokens are such that no file should have, or an error about the file.
func FuzzTokenizerFromGGUF(f *testing.F) {
	f.Add("gpt2", "llama-bpe", "a b ab c Ġ <|end|>", "a b,ab c", []byte{1, 1, 1, 1, 1, 3}, []byte(nil), uint32(5), true, "{{ messages }}")
	f.Add("gpt2", "qwen2", "a a a", "", []byte(nil), []byte(nil), uint32(1<<32-1), false, "")
	f.Add("llama", "", "<unk> <s> </s> ▁ a ▁a <0x00> aa aaa aaaa", "", []byte{2, 3, 3, 1, 1, 1, 6, 1, 1, 1}, []byte{0, 0, 0, 9, 8, 7, 0, 3, 2, 1}, uint32(1), true, "")
	f.Add("llama", "default", strings.Repeat("aaaaaaa ", 20)+"a aa aaa aaaa aaaaa", "", []byte(nil), []byte{1}, uint32(0), false, "\xff")
	f.Fuzz(func(t *testing.T, kind, pre, tokens, merges string, types, scores []byte, bos uint32, add bool, template string) {
		list := strings.Split(tokens, " ")
		entries := []gguf.Entry{{Key: ggufTokModel, Value: kind}, {Key: ggufTokens, Value: list}, {Key: ggufMerges, Value: strings.Split(merges, ",")},
			{Key: "tokenizer.ggml.bos_token_id", Value: bos}, {Key: "tokenizer.ggml.unknown_token_id", Value: bos}, {Key: ggufAddBOS, Value: add}, {Key: ggufAddPrefix, Value: add}}
		if pre != "" {
			entries = append(entries, gguf.Entry{Key: ggufTokPre, Value: pre})
		}
		if template != "" {
			entries = append(entries, gguf.Entry{Key: ggufTemplate, Value: template})
		}
		if len(types) > 0 {
			entries = append(entries, gguf.Entry{Key: ggufTypes, Value: widen(types, len(list), func(b byte) int32 { return int32(int8(b)) })})
		}
		if len(scores) > 0 {
			entries = append(entries, gguf.Entry{Key: ggufScores, Value: widen(scores, len(list), func(b byte) float32 {
				return []float32{float32(math.NaN()), float32(math.Inf(-1)), float32(b)}[min(b, 2)]
			})})
		}
		content := ggufHeader(entries)
		file, err := gguf.OpenBytes("fuzz", content)
		require.NoError(t, err)
		files, err := ggufTokenizerFiles(file.Metadata(), "fuzz")
		if err != nil {
			require.ErrorIs(t, err, container.ErrFormat)
			require.Less(t, len(err.Error()), 1200)
			return
		}
		size := 0
		for name, text := range files {
			require.True(t, json.Valid([]byte(text)), name)
			size += len(text)
		}
		require.Less(t, size, 6*3*maxMerges*(len(content)+1<<12), "six characters for a control character")
		again, err := ggufVocabulary(files, &Config{VocabSize: len(list)})
		if err != nil && distinct(list) != nil {
			require.ErrorIs(t, err, ErrExport)
			return
		}
		require.NoError(t, err)
		require.NotEmpty(t, again)
	})
}

// widen makes n numbers of the bytes, over and over.
func widen[T any](b []byte, n int, number func(byte) T) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = number(b[i%len(b)])
	}
	return out
}

// FuzzTokenizerToGGUF: whatever tokenizer.json and tokenizer_config.json hold, they become metadata that opens and makes a tokenizer
// again, or an error that matches ErrExport.
func FuzzTokenizerToGGUF(f *testing.F) {
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},"added_tokens":[{"id":3,"content":"<s>","special":true}],`+
		`"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[3]}}}}`),
		[]byte(`{"bos_token":"<s>","eos_token":{"content":"<s>"},"chat_template":"{{ messages }}"}`), uint16(4))
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"<0x00>":0,"b":99999999999},"merges":[["a","b"],["c"]],"byte_fallback":true},"normalizer":{"type":"Prepend"}}`),
		[]byte(`{"unk_token":"b"}`), uint16(9))
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]},"added_tokens":[{"id":-7,"content":"x"},{"id":4294967296,"content":"y"}],"pre_tokenizer":{"type":"ByteLevel"}}`),
		[]byte(`{"bos_token":"x","eos_token":"y"}`), uint16(3))
	f.Fuzz(func(t *testing.T, tokenizer, config []byte, vocab uint16) {
		files := map[string]string{"tokenizer.json": string(tokenizer), "tokenizer_config.json": string(config)}
		entries, err := ggufVocabulary(files, &Config{VocabSize: int(vocab)})
		if err != nil {
			require.ErrorIs(t, err, ErrExport)
			return
		}
		file, err := gguf.OpenBytes("fuzz", ggufHeader(entries))
		require.NoError(t, err)
		tokens, err := file.Metadata().Strings(ggufTokens)
		require.NoError(t, err)
		require.Len(t, tokens, int(vocab))
		for _, name := range []string{"bos", "eos", "padding", "unknown"} {
			if key := "tokenizer.ggml." + name + "_token_id"; file.Metadata().Has(key) {
				id, err := file.Metadata().Int(key)
				require.NoError(t, err)
				require.Less(t, id, int(vocab), key)
			}
		}
		if _, err := ggufTokenizerFiles(file.Metadata(), "fuzz"); err != nil {
			require.ErrorIs(t, err, container.ErrFormat)
		}
		for _, token := range tokens {
			require.True(t, utf8.ValidString(token))
		}
	})
}
