package model

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Files of version 1 that were written before there were compression and shards. Whoever changes the format
// must not write them again: they show that what people have on their disks still loads.
var firstVersion = map[string]struct{ digest, head string }{
	"v1-bitnet-int8.bitnet":      {"e553d3e4bc073b4e7db2d9d7aebdad82", "int8"},
	"v1-llama-base3-int4.bitnet": {"b8069a0af6356fb3c67b34fc459d0afd", "int4"},
	"v1-llama-float32.bitnet":    {"308c2b6856d84af29a06636ac1a184a7", "float32"},
}

func TestFilesOfTheFirstVersionStillLoad(t *testing.T) {
	for name, want := range firstVersion {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", "native", name)
			for _, o := range []LoadOptions{{}, {Resident: ResidentCopy}, {Packing: Packing2Bit}, {Verify: VerifyNow}} {
				m, err := Load(context.Background(), path, o)
				require.NoError(t, err)
				assert.Equal(t, want.digest, digest(t, m))
				assert.Equal(t, want.head, m.Info.HeadFormat)
				require.NoError(t, m.Close())
			}
			files, err := Assets(path)
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"tokenizer.json": `{"version": "1.0", "note": "é"}`, "generation_config.json": `{"eos_token_id": 2}`}, files)
		})
	}
}
