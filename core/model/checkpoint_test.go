package model_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
)

const golden = "../../tests_go/testdata/golden"

// gpt2Folder is a GPT-2 of float layers, of transformers.
const gpt2Folder = "../../tests_go/testdata/parity/gpt2_float32"

var goldenFolders = []string{"bitnet_offline_packed", "bitnet_online_bf16", "llama_bitlinear_packed"}

// checkpoint is a Hugging Face checkpoint that a test takes apart: its config and its tensors.
type checkpoint struct {
	t       *testing.T
	config  map[string]any
	tensors map[string]container.Tensor
	order   []string
}

// open reads a golden folder.
func open(t *testing.T, folder string) *checkpoint {
	t.Helper()
	dir := filepath.Join(golden, folder)
	c := &checkpoint{t: t, tensors: map[string]container.Tensor{}}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &c.config))
	set, err := safetensors.OpenSet(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close()) }()
	for _, info := range set.Tensors() {
		v, err := set.Tensor(info.Name)
		require.NoError(t, err)
		c.put(info.Name, v.DType, v.Shape, bytes.Clone(v.Data))
	}
	return c
}

func (c *checkpoint) put(name, dtype string, shape []int, data []byte) {
	if _, ok := c.tensors[name]; !ok {
		c.order = append(c.order, name)
	}
	c.tensors[name] = container.Tensor{Name: name, DType: dtype, Shape: shape, Data: data}
}

func (c *checkpoint) putFloats(name string, values ...float32) {
	c.put(name, safetensors.F32, []int{len(values)}, f32(values...))
}

func (c *checkpoint) remove(name string) {
	delete(c.tensors, name)
}

func (c *checkpoint) rename(from, to string) {
	x := c.tensors[from]
	c.remove(from)
	c.put(to, x.DType, x.Shape, x.Data)
}

// quantization is the config's quantization_config, to be changed in place.
func (c *checkpoint) quantization() map[string]any {
	return c.config["quantization_config"].(map[string]any)
}

func (c *checkpoint) list() []container.Tensor {
	var out []container.Tensor
	for _, name := range c.order {
		if x, ok := c.tensors[name]; ok {
			out = append(out, x)
		}
	}
	return out
}

// write puts the checkpoint into a fresh directory.
func (c *checkpoint) write() string {
	dir := c.t.TempDir()
	text, err := json.Marshal(c.config)
	require.NoError(c.t, err)
	require.NoError(c.t, os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600))
	require.NoError(c.t, safetensors.Write(filepath.Join(dir, safetensors.SingleName), c.list(), nil))
	return dir
}

func f32(values ...float32) []byte {
	var out []byte
	for _, v := range values {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
	}
	return out
}

// widen is the float32 values of a bfloat16 tensor.
func widen(x container.Tensor) []float32 {
	out := make([]float32, len(x.Data)/2)
	for i := range out {
		out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(x.Data[2*i:])) << 16)
	}
	return out
}

func load(t *testing.T, path string, o model.LoadOptions) *model.Model {
	t.Helper()
	m, err := model.Load(context.Background(), path, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// logits runs a fixed prompt.
func logits(t *testing.T, m *model.Model) []float32 {
	t.Helper()
	e := infer.NewEngine(m)
	defer e.Close()
	prompt := []int32{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5}
	for i := range prompt {
		prompt[i] %= int32(m.Config.VocabSize)
	}
	out := make([]float32, len(prompt)*m.Config.VocabSize)
	require.NoError(t, e.Forward(context.Background(), [][]int32{prompt}, out))
	return out
}

// requireSame compares two models by the bits of their logits.
func requireSame(t *testing.T, want, got *model.Model) {
	t.Helper()
	require.Equal(t, logits(t, want), logits(t, got))
}
