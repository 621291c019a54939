package model

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParseConfig: whatever the bytes, parsing ends with a valid config that survives being written and read
// again in both forms, or with an error that matches ErrConfig.
func FuzzParseConfig(f *testing.F) {
	for _, folder := range []string{"bitnet_offline_packed", "llama_bitlinear_packed"} {
		data, err := os.ReadFile(filepath.Join(goldenDir, folder, "config.json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, false)
	}
	f.Add([]byte(hf(nil)), false)
	f.Add([]byte(gpt2(nil)), false)
	f.Add([]byte(gpt2(changes{"quantization_config": changes{"quant_method": "bitnet"}, "hidden_size": 64})), false)
	f.Add([]byte(ownYAML), true)
	f.Add([]byte("preset: tiny\nnum_hidden_layers: 2\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, isYAML bool) {
		parse := ParseConfig
		if isYAML {
			parse = ParseYAMLConfig
		}
		c, err := parse(data, "fuzz")
		if err != nil {
			require.ErrorIs(t, err, ErrConfig)
			return
		}
		require.NoError(t, c.Validate())
		require.Positive(t, c.ParameterCount())
		requireRoundTrips(t, c)
	})
}
