package model_test

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// A table in float16 computes what it does as float32, and goes through every format as it is.
func TestAFloat16TableStaysFloat16(t *testing.T) {
	const table = "model.embed_tokens.weight"
	c := open(t, "bitnet_offline_packed")
	from := c.tensors[table]
	halves := make([]byte, len(from.Data))
	for i, v := range widen(from) {
		binary.LittleEndian.PutUint16(halves[2*i:], uint16(tensor.ToFloat16(v*(1+0x1p-9)))) // with a digit more than bfloat16 has
	}
	for i, bits := range []uint16{0, 0x8000, 1, 3, 0x3ff, 0x83ff, 0x7bff, 0x3c01} { // at the ends of the range, and numbers below normal ones
		binary.LittleEndian.PutUint16(halves[2*i:], bits)
	}
	c.put(table, safetensors.F16, from.Shape, halves)
	dir := c.write()
	m := load(t, dir, model.LoadOptions{})
	require.Equal(t, "float16", m.Info.HeadFormat)
	requireSame(t, load(t, dir, model.LoadOptions{HeadFormat: "float32"}), m)

	out, ctx := t.TempDir(), context.Background()
	for name, save := range map[string]func(path string) error{
		"m.bitnet": func(path string) error { return m.Save(path, nil) },
		"m.gguf":   func(path string) error { return m.SaveGGUF(ctx, path, model.GGUFOptions{Type: "i2_s"}) },
		"hf":       m.SaveHF,
	} {
		path := filepath.Join(out, name)
		require.NoError(t, save(path))
		back := load(t, path, model.LoadOptions{})
		require.Equal(t, "float16", back.Info.HeadFormat, name)
		require.Equal(t, m.Embed.Table.Panels, back.Embed.Table.Panels, name)
		requireSame(t, m, back)
	}
}
