package tests_go

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// GPT-2 beside what the parity folders and the contract models say of it: forms on disk, training, and what is refused.

var gpt2Folders = []string{"gpt2_float32", "gpt2_bare_bfloat16", "gpt2_ternary"}

func gpt2Folder(name string) string { return filepath.Join(parityFolders, name) }

func TestAGPT2IsTheSameInEveryForm(t *testing.T) {
	ctx := context.Background()
	for _, folder := range gpt2Folders {
		t.Run(folder, func(t *testing.T) {
			m := loadModel(t, gpt2Folder(folder), model.LoadOptions{})
			want := logitsOf(t, m)
			native := filepath.Join(t.TempDir(), "model.bitnet")
			require.NoError(t, m.Save(native, nil))
			require.Equal(t, want, logitsOf(t, loadModel(t, native, model.LoadOptions{})), "native")
			require.Equal(t, want, logitsOf(t, loadModel(t, native, model.LoadOptions{Deferred: true})), "native, deferred")
			require.Equal(t, want, logitsOf(t, loadModel(t, gpt2Folder(folder), model.LoadOptions{Deferred: true})), "deferred")
			require.Equal(t, want, logitsOf(t, loadModel(t, native, model.LoadOptions{Trainable: true})), "trainable")

			dir := filepath.Join(t.TempDir(), "hf")
			require.ErrorIs(t, m.SaveHFContext(ctx, dir, model.HFOptions{LinearClass: model.BitLinear}), model.ErrOption)
			source := loadModel(t, gpt2Folder(folder), model.LoadOptions{Deferred: true})
			o := model.HFOptions{}
			if folder == "gpt2_ternary" {
				require.ErrorIs(t, source.SaveHFContext(ctx, dir, o), model.ErrExport)
				o.Masters = "float32"
			}
			require.NoError(t, source.SaveHFContext(ctx, dir, o))
			require.Equal(t, want, logitsOf(t, loadModel(t, dir, model.LoadOptions{})), "Hugging Face")
			requireSameTensors(t, gpt2Folder(folder), dir)
		})
	}
}

// requireSameTensors compares the files of two checkpoints, with and without "transformer." before their names.
func requireSameTensors(t *testing.T, want, got string) {
	t.Helper()
	read := func(dir string) map[string]string {
		set, err := safetensors.OpenSet(dir)
		require.NoError(t, err)
		defer func() { require.NoError(t, set.Close()) }()
		found := map[string]string{}
		for _, info := range set.Tensors() {
			v, err := set.Tensor(info.Name)
			require.NoError(t, err)
			values := make([]float32, v.Elements())
			for i := range values {
				if v.DType == safetensors.BF16 {
					values[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(v.Data[2*i:])) << 16)
				} else {
					values[i] = math.Float32frombits(binary.LittleEndian.Uint32(v.Data[4*i:]))
				}
			}
			text, err := json.Marshal(map[string]any{"shape": v.Shape, "values": values})
			require.NoError(t, err)
			found[strings.TrimPrefix(info.Name, "transformer.")] = string(text)
		}
		return found
	}
	require.Equal(t, read(want), read(got))
}

func TestAGPT2HasNoOtherForm(t *testing.T) {
	m := loadModel(t, gpt2Folder("gpt2_ternary"), model.LoadOptions{})
	dir := t.TempDir()
	for _, err := range []error{
		m.SaveGGUF(context.Background(), filepath.Join(dir, "m.gguf"), model.GGUFOptions{Type: "bf16"}),
		m.SaveONNXWeights(context.Background(), filepath.Join(dir, "m.safetensors"), model.ONNXInt2),
	} {
		require.ErrorIs(t, err, model.ErrExport)
		require.ErrorContains(t, err, "GPT2LMHeadModel")
		require.ErrorContains(t, err, "native format")
	}
	left, err := filepath.Glob(dir + "/*")
	require.NoError(t, err)
	require.Empty(t, left)
}

// Matrices [out, in], as nn.Linear has them, are told from Conv1D's by the fused one; they may do without biases.
func TestAGPT2OfLinearsIsThatOfConv1D(t *testing.T) {
	set, err := safetensors.OpenSet(gpt2Folder("gpt2_float32"))
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close()) }()
	config := []byte(`{"model_type": "gpt2", "vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "layer_norm_epsilon": 0.002}`)
	both := func(biased bool) (conv, linear []container.View) {
		for _, info := range set.Tensors() {
			v, err := set.Tensor(info.Name)
			require.NoError(t, err)
			zero := v
			if strings.HasSuffix(v.Name, ".bias") && !biased {
				zero.Data = make([]byte, len(v.Data))
				conv = append(conv, zero)
				continue
			}
			conv = append(conv, v)
			if strings.Contains(v.Name, ".c_") && len(v.Shape) == 2 {
				rows, cols := v.Shape[0], v.Shape[1]
				turned := make([]byte, len(v.Data))
				for i := range rows * cols {
					copy(turned[4*(i%cols*rows+i/cols):][:4], v.Data[4*i:])
				}
				v.Shape, v.Data = []int{cols, rows}, turned
			}
			linear = append(linear, v)
		}
		mask := container.View{Name: "transformer.h.0.attn.bias", DType: safetensors.F32, Shape: []int{1}, Data: make([]byte, 4)}
		return append(conv, mask), linear
	}
	logits := func(tensors []container.View, o model.LoadOptions) []float32 {
		m, err := model.FromTensors(context.Background(), config, container.NewMemory("memory", tensors), o)
		require.NoError(t, err)
		defer func() { require.NoError(t, m.Close()) }()
		return logitsOf(t, m)
	}
	for _, biased := range []bool{true, false} {
		conv, linear := both(biased)
		require.Equal(t, logits(conv, model.LoadOptions{}), logits(linear, model.LoadOptions{}))
		require.Equal(t, logits(conv, model.LoadOptions{}), logits(linear, model.LoadOptions{Trainable: true}))
	}
	_, linear := both(true)
	_, err = model.FromTensors(context.Background(), config, container.NewMemory("memory", linear[:len(linear)-1]), model.LoadOptions{})
	require.ErrorIs(t, err, container.ErrTensorMissing)
}

// What does not fit is refused by the name that the file has for it.
func TestAGPT2OfOtherShapesIsRefused(t *testing.T) {
	set, err := safetensors.OpenSet(gpt2Folder("gpt2_float32"))
	require.NoError(t, err)
	defer func() { require.NoError(t, set.Close()) }()
	for name, edit := range map[string]string{
		"transformer.wpe.weight":             `"n_positions": 41`,
		"transformer.wte.weight":             `"vocab_size": 98`,
		"transformer.h.2.ln_1.weight":        `"n_layer": 3`,
		"transformer.h.1.attn.c_attn.bias":   `"n_layer": 1`,
		"transformer.h.0.mlp.c_fc.weight":    `"n_inner": 64`,
		"transformer.h.0.attn.c_attn.weight": `"n_embd": 32, "n_inner": 128`,
	} {
		fields := map[string]any{"model_type": "gpt2", "vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
		require.NoError(t, json.Unmarshal([]byte("{"+edit+"}"), &fields))
		config, err := json.Marshal(fields)
		require.NoError(t, err)
		var tensors []container.View
		for _, info := range set.Tensors() {
			v, err := set.Tensor(info.Name)
			require.NoError(t, err)
			if name == v.Name && strings.HasSuffix(name, "c_attn.weight") { // fewer keys and values than queries, [in, out]
				v.Shape, v.Data = []int{32, 64}, v.Data[:4*32*64]
			}
			tensors = append(tensors, v)
		}
		_, err = model.FromTensors(context.Background(), config, container.NewMemory("memory", tensors), model.LoadOptions{})
		require.ErrorIs(t, err, container.ErrFormat)
		require.ErrorContains(t, err, name)
	}
}

// A position beyond the table is refused before any work, and what was read before stays.
func TestAGPT2HasNoPositionBeyondItsTable(t *testing.T) {
	m := loadModel(t, gpt2Folder("gpt2_float32"), model.LoadOptions{})
	e := infer.NewEngine(m)
	defer e.Close()
	ids := randomIDs(rand.New(rand.NewPCG(1, 1)), 41, m.Config.VocabSize)
	var bad *infer.ArgumentError
	require.ErrorAs(t, e.Forward(context.Background(), [][]int32{ids}, make([]float32, 41*97)), &bad)
	require.ErrorContains(t, bad, "max_position_embeddings = 40")
	seq := e.NewSequence()
	defer seq.Close()
	require.NoError(t, e.Step(context.Background(), []infer.Chunk{{Seq: seq, IDs: ids[:40]}}, nil))
	require.ErrorAs(t, e.Step(context.Background(), []infer.Chunk{{Seq: seq, IDs: ids[40:]}}, nil), &bad)
	require.Equal(t, 40, seq.Len())
	p := infer.DefaultSamplingParams()
	p.MaxNewTokens, p.IgnoreEOS = 100, true
	require.Len(t, generate(t, e, [][]int32{ids[:36]}, p)[0], 5, "as many tokens as there are positions to read them at, and one")
}

// A GPT-2 is trained like every model: what training computes is what inference does, recomputation changes nothing, the loss falls.
func TestAGPT2IsTrained(t *testing.T) {
	for _, folder := range []string{"gpt2_float32", "gpt2_ternary"} {
		t.Run(folder, func(t *testing.T) {
			m := loadModel(t, gpt2Folder(folder), model.LoadOptions{Trainable: true})
			names := map[string]bool{}
			for _, p := range m.Params() {
				names[p.Name] = true
			}
			for _, name := range []string{"model.embed_positions.weight", "model.norm.bias", "model.layers.1.input_layernorm.bias", "model.layers.0.mlp.up_proj.bias"} {
				require.True(t, names[name], name)
			}
			ids := randomIDs(rand.New(rand.NewPCG(2, 2)), 40, 97)
			batch := train.Batch{IDs: ids[:39], Targets: ids[1:], Length: 39}
			gradients := func(o train.EngineOptions) (train.Score, [][]float32) {
				e, err := train.NewEngine(m, o)
				require.NoError(t, err)
				defer e.Close()
				score, err := e.Accumulate(context.Background(), batch, 1)
				require.NoError(t, err)
				var all [][]float32
				for _, p := range e.Params() {
					all = append(all, append([]float32(nil), p.Grad...))
					clear(p.Grad)
				}
				return score, all
			}
			score, want := gradients(train.EngineOptions{})
			again, recomputed := gradients(train.EngineOptions{GradientCheckpointing: true})
			require.Equal(t, score, again)
			require.Equal(t, want, recomputed)
			engine := infer.NewEngine(m)
			defer engine.Close()
			sum, n, err := engine.LogLikelihood(context.Background(), ids, 40, 39)
			require.NoError(t, err)
			require.Equal(t, -sum/float64(n), score.Loss())

			losses := practice(t, m, 30)
			require.Less(t, losses[29], losses[0]-0.5)
			path := filepath.Join(t.TempDir(), "model.bitnet")
			require.NoError(t, m.Save(path, nil))
			require.Equal(t, logitsOf(t, m), logitsOf(t, loadModel(t, path, model.LoadOptions{HeadFormat: "float32"})))
		})
	}
}
