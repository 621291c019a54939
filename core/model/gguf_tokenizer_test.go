package model

import (
	"encoding/json"
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
