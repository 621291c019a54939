package model_test

import (
	"bufio"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// mapped is the bytes of a file that are resident in this process's mappings of it.
func mapped(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	total, inside := int64(0), false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case strings.Contains(fields[0], "-"):
			inside = strings.HasSuffix(lines.Text(), path)
		case inside && fields[0] == "Rss:":
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			require.NoError(t, err)
			total += kib << 10
		}
	}
	return total
}

// While a checkpoint loads, the pages of its file that are resident plus the pool's memory stay within 1.3 times what the model
// takes in the end: half of this one is one table, of which no more than pieces may be held.
func TestLoadingTakesLittleMoreMemoryThanTheModel(t *testing.T) {
	threads := cpu.NumThreads() // each holds a piece, of which sixteen are half of this small model
	require.NoError(t, cpu.SetNumThreads(2))
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(threads)) })
	cfg := model.Config{VocabSize: 16000, HiddenSize: 768, IntermediateSize: 3072, NumHiddenLayers: 4, NumAttentionHeads: 8, TieWordEmbeddings: true}
	random, err := model.NewRandom(&cfg, 1, model.LoadOptions{Pool: pool.New(pool.Options{})})
	require.NoError(t, err)
	packed := filepath.Join(t.TempDir(), "packed")
	require.NoError(t, random.SaveHF(packed))
	native := filepath.Join(t.TempDir(), "m.bitnet")
	require.NoError(t, random.Save(native, nil))
	require.NoError(t, random.Close())

	for _, tc := range []struct {
		name, path, file string
		o                model.LoadOptions
	}{
		{"packed", packed, filepath.Join(packed, safetensors.SingleName), model.LoadOptions{}},
		{"packed, int8 head", packed, filepath.Join(packed, safetensors.SingleName), model.LoadOptions{HeadFormat: "int8"}},
		{"master weights", masters(t), "", model.LoadOptions{}},
		{"native into memory", native, native, model.LoadOptions{Resident: model.ResidentCopy}},
		{"native with another head", native, native, model.LoadOptions{HeadFormat: "int8"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.file == "" {
				tc.file = filepath.Join(tc.path, safetensors.SingleName)
			}
			tc.o.Pool = pool.New(pool.Options{})
			peak := int64(0)
			tc.o.Progress = func(_, _ int64) { peak = max(peak, mapped(t, tc.file)) }
			m := load(t, tc.path, tc.o)
			reserved := tc.o.Pool.Stats().PeakInUse
			t.Logf("file %d + pool %d bytes for a model of %d", peak, reserved, m.Info.WeightBytes)
			assert.LessOrEqual(t, float64(peak+reserved), 1.3*float64(m.Info.WeightBytes))
		})
	}
}

// masters is a checkpoint of float32 master weights, sixteen times the size of what they become.
func masters(t *testing.T) string {
	t.Helper()
	c := open(t, "bitnet_online_bf16")
	const layers, hidden, ffn, kv = 4, 512, 1024, 128
	c.config["hidden_size"], c.config["intermediate_size"], c.config["num_hidden_layers"] = hidden, ffn, layers
	c.config["vocab_size"] = 4096
	c.tensors, c.order = map[string]container.Tensor{}, nil
	add := func(name string, shape ...int) {
		n := 1
		for _, d := range shape {
			n *= d
		}
		data := make([]byte, 0, 4*n)
		for i := range n {
			data = binary.LittleEndian.AppendUint32(data, 0x3c000000|uint32(i%3)<<31)
		}
		c.put(name, safetensors.F32, shape, data)
	}
	add("model.embed_tokens.weight", 4096, hidden)
	add("model.norm.weight", hidden)
	for i := range layers {
		p := "model.layers." + strconv.Itoa(i) + "."
		add(p+"input_layernorm.weight", hidden)
		add(p+"post_attention_layernorm.weight", hidden)
		add(p+"self_attn.attn_sub_norm.weight", hidden)
		add(p+"mlp.ffn_sub_norm.weight", ffn)
		add(p+"self_attn.q_proj.weight", hidden, hidden)
		add(p+"self_attn.k_proj.weight", kv, hidden)
		add(p+"self_attn.v_proj.weight", kv, hidden)
		add(p+"self_attn.o_proj.weight", hidden, hidden)
		add(p+"mlp.gate_proj.weight", ffn, hidden)
		add(p+"mlp.up_proj.weight", ffn, hidden)
		add(p+"mlp.down_proj.weight", hidden, ffn)
	}
	return c.write()
}
