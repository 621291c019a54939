package model_test

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

func TestAFloat16TableStaysShortWhereBFloat16HoldsIt(t *testing.T) {
	const table = "model.embed_tokens.weight"
	c := open(t, "bitnet_offline_packed")
	from := c.tensors[table]
	halves := make([]byte, len(from.Data))
	for i, v := range widen(from) {
		v = tensor.ToFloat16(v).Float32() // of very small numbers float16 has fewer digits
		binary.LittleEndian.PutUint16(halves[2*i:], uint16(tensor.ToFloat16(v)))
	}
	tiny := []uint16{0, 0x8000, 1, 3, 255, 510, 0x83fc, 0x7bf8} // numbers that bfloat16 holds, at the ends of float16's range
	for i, bits := range tiny {
		binary.LittleEndian.PutUint16(halves[2*i:], bits)
	}
	c.put(table, safetensors.F16, from.Shape, halves)
	short := load(t, c.write(), model.LoadOptions{})
	require.Equal(t, "bfloat16", short.Info.HeadFormat)
	requireSame(t, load(t, c.write(), model.LoadOptions{HeadFormat: "float32"}), short)

	for _, bits := range []uint16{0x3c01, 0x03ff, 257} { // a digit more
		binary.LittleEndian.PutUint16(halves[len(halves)-2:], bits)
		assert.Equal(t, "float32", load(t, c.write(), model.LoadOptions{}).Info.HeadFormat, "%#x", bits)
	}
}
