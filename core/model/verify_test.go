package model_test

import (
	"context"
	"encoding/binary"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

func verify(t *testing.T, path string) *model.Verification {
	t.Helper()
	v, err := model.Verify(context.Background(), path, model.LoadOptions{}, nil)
	require.NoError(t, err)
	return v
}

func TestASoundModelHasNoProblemsInAnyFormat(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	for _, folder := range goldenFolders {
		source := filepath.Join(golden, folder)
		m := load(t, source, model.LoadOptions{})
		name := func(ext string) string { return filepath.Join(dir, folder+ext) }
		require.NoError(t, m.Save(name(".bitnet"), nil))
		require.NoError(t, m.SaveContext(ctx, name("-z.bitnet"), compressed))
		require.NoError(t, m.SaveContext(ctx, name("-shards"), model.SaveOptions{MaxShard: 200_000}))
		require.NoError(t, m.SaveGGUF(ctx, name(".gguf"), model.GGUFOptions{Type: "tq2_0"}))
		for format, paths := range map[string][]string{"safetensors": {source}, "native": {name(".bitnet"), name("-z.bitnet"), name("-shards")}, "gguf": {name(".gguf")}} {
			for _, path := range paths {
				v := verify(t, path)
				assert.Equal(t, format, v.Format)
				assert.Empty(t, v.Problems, path)
				assert.Empty(t, v.Warnings, path)
				assert.Positive(t, v.Bytes)
				assert.GreaterOrEqual(t, len(v.Norms), 2*m.Config.NumHiddenLayers+1)
				if format == "native" {
					assert.Equal(t, v.Tensors, v.Checksums)
				} else {
					assert.Zero(t, v.Checksums)
				}
			}
		}
	}
}

func TestVerifyKnowsTheNormsOfAGPT2(t *testing.T) {
	m := load(t, gpt2Folder, model.LoadOptions{})
	dir := t.TempDir()
	names := func(v *model.Verification) (norms, warned []string) {
		for _, n := range v.Norms {
			norms = append(norms, n.Name)
		}
		for _, w := range v.Warnings {
			warned = append(warned, w.Tensor)
		}
		require.Empty(t, v.Problems)
		return norms, warned
	}
	norms, warned := names(verify(t, gpt2Folder))
	assert.ElementsMatch(t, []string{"transformer.h.0.ln_1.weight", "transformer.h.0.ln_2.weight", "transformer.h.1.ln_1.weight", "transformer.h.1.ln_2.weight",
		"transformer.ln_f.weight"}, norms)
	assert.Empty(t, warned)
	for _, n := range []*nn.Norm{m.Blocks[0].InputNorm, m.Blocks[1].PostNorm, m.Head.Norm} {
		clear(n.Weight)
	}
	require.NoError(t, m.SaveHF(filepath.Join(dir, "hf")))
	require.NoError(t, m.Save(filepath.Join(dir, "m.bitnet"), nil))
	_, warned = names(verify(t, filepath.Join(dir, "hf")))
	assert.ElementsMatch(t, []string{"transformer.h.0.ln_1.weight", "transformer.h.1.ln_2.weight", "transformer.ln_f.weight"}, warned)
	_, warned = names(verify(t, filepath.Join(dir, "m.bitnet")))
	assert.ElementsMatch(t, []string{"model.layers.0.input_layernorm.weight", "model.layers.1.post_attention_layernorm.weight", "model.norm.weight"}, warned)
}

// Each of these is found by name, and a later problem beside an earlier one, unless what is wrong is not one of the tensors: then none is read.
func TestVerifyFindsWhatIsWrong(t *testing.T) {
	const q, norm, tok = "model.layers.2.self_attn.q_proj.weight", "model.norm.weight", "file/tokenizer.json"
	set := func(n *native, name string, at int, value float32) {
		binary.LittleEndian.PutUint32(n.tensor(name).Data[4*at:], math.Float32bits(value))
	}
	for _, tc := range []struct {
		name     string
		change   func(n *native)
		problems []model.Problem // without messages
	}{
		{"damaged tensors", func(n *native) {
			for _, name := range []string{q, norm, tok} {
				n.tensor(name).Data[5] ^= 1
			}
		}, []model.Problem{{Check: "checksum", Tensor: q}, {Check: "checksum", Tensor: norm}, {Check: "checksum", Tensor: tok}}},
		{"a norm that is no number", func(n *native) { set(n, norm, 3, float32(math.NaN())); n.sum(norm) }, []model.Problem{{Check: "values", Tensor: norm}}},
		{"code 3", func(n *native) { n.tensor(q).Data[9] = 0xff; n.sum(q) }, []model.Problem{{Check: "values", Tensor: q}}},
		{"no scale", func(n *native) { delete(n.index[q], "scale") }, []model.Problem{{Check: "structure", Tensor: q}, {Check: "values", Tensor: q}}},
		{"another shape", func(n *native) { n.index[q]["shape"] = []int{256, 512}; n.tensor(tok).Data[5] ^= 1 },
			[]model.Problem{{Check: "structure", Tensor: q}, {Check: "checksum", Tensor: tok}}},
		{"a layout of later days", func(n *native) { n.index[q]["layout"] = "panel99"; n.tensor(norm).Data[5] ^= 1 },
			[]model.Problem{{Check: "structure", Tensor: q}, {Check: "checksum", Tensor: norm}}},
		{"a missing norm", func(n *native) { n.remove(norm); n.tensor(tok).Data[5] ^= 1 }, []model.Problem{{Check: "structure", Tensor: norm}}},
		{"a later version", func(n *native) { n.meta["format_version"] = "3" }, []model.Problem{{Check: "structure"}}},
		{"no config", func(n *native) { n.meta["config"] = "{" }, []model.Problem{{Check: "structure"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := openNative(t, "bitnet_offline_packed")
			tc.change(n)
			n.write()
			v := verify(t, n.path)
			for i := range v.Problems {
				assert.NotEmpty(t, v.Problems[i].Message)
				v.Problems[i].Message = ""
			}
			assert.Equal(t, tc.problems, v.Problems)
		})
	}
	t.Run("zeros", func(t *testing.T) {
		n := openNative(t, "bitnet_offline_packed")
		for i := range n.tensor(q).Data {
			n.tensor(q).Data[i] = 0x55
		}
		clear(n.tensor(norm).Data)
		n.sum(q)
		n.sum(norm)
		n.write()
		v := verify(t, n.path)
		assert.Empty(t, v.Problems)
		require.Len(t, v.Warnings, 2)
		assert.Equal(t, []string{q, norm}, []string{v.Warnings[0].Tensor, v.Warnings[1].Tensor})
	})
	t.Run("a float checkpoint", func(t *testing.T) {
		dir := copyModel(t, "bitnet_online_bf16", t.TempDir())
		path := filepath.Join(dir, "model.safetensors")
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		content[len(content)-1], content[len(content)-2] = 0x7f, 0xc0 // a bfloat16 NaN, and a float32 one
		require.NoError(t, os.WriteFile(path, content, 0o600))
		v := verify(t, dir)
		require.NotEmpty(t, v.Problems)
		assert.Contains(t, v.Problems[len(v.Problems)-1].Message, "NaN")
	})
	t.Run("a file cut off", func(t *testing.T) {
		n := openNative(t, "bitnet_offline_packed")
		require.NoError(t, os.Truncate(n.path, 300_000))
		v := verify(t, n.path)
		require.Len(t, v.Problems, 1)
		assert.Equal(t, "structure", v.Problems[0].Check)
		assert.Empty(t, v.Format)
	})
	t.Run("nothing", func(t *testing.T) {
		_, err := model.Verify(context.Background(), filepath.Join(t.TempDir(), "m.bitnet"), model.LoadOptions{}, nil)
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
	t.Run("canceled", func(t *testing.T) {
		n := openNative(t, "bitnet_offline_packed")
		ctx, cancel := context.WithCancel(context.Background())
		_, err := model.Verify(ctx, n.path, model.LoadOptions{}, func(done, total int64) { cancel() })
		require.ErrorIs(t, err, context.Canceled)
		_, err = model.Verify(context.Background(), n.path, model.LoadOptions{I2SLayout: "mips"}, nil)
		require.ErrorIs(t, err, model.ErrOption)
	})
}

// Sound is what loading takes: the files as a whole, the tokenizer and sampling defaults beside the weights too.
func TestVerifyFindsWhatLoadingRefuses(t *testing.T) {
	const gate = "model.layers.1.mlp.gate_proj.weight"
	beside := func(name string, put func(t *testing.T, path string)) func(t *testing.T) string {
		return func(t *testing.T) string {
			dir := copyModel(t, "bitnet_offline_packed", t.TempDir())
			path := filepath.Join(dir, name)
			require.NoError(t, os.RemoveAll(path))
			put(t, path)
			return dir
		}
	}
	folder := func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o777)) }
	zero := func(t *testing.T, path string) { require.NoError(t, os.Symlink("/dev/zero", path)) }
	changed := func(change func(entries map[string]any, tensors map[string]*container.Tensor)) func(t *testing.T) string {
		return func(t *testing.T) string { return ggufParts(t, change) }
	}
	floats := func(kind string, change func(c *checkpoint)) func(t *testing.T) string {
		return func(t *testing.T) string {
			c := open(t, kind)
			change(c)
			return c.write()
		}
	}
	for _, tc := range []struct {
		name  string
		make  func(t *testing.T) string
		check string
		text  string
	}{
		{"a folder for tokenizer.json", beside("tokenizer.json", folder), "structure", "tokenizer.json: type: found d---------, expected a regular file"},
		{"/dev/zero for tokenizer.json", beside("tokenizer.json", zero), "structure", "expected a regular file"},
		{"a folder for generation_config.json", beside("generation_config.json", folder), "structure", "generation_config.json: type: found d"},
		{"a temperature that is NaN", changed(func(e map[string]any, _ map[string]*container.Tensor) {
			e["general.sampling.temp"] = float32(math.NaN())
		}),
			"structure", "general.sampling.temp: found NaN, expected a finite number"},
		{"a vocabulary of no known kind", changed(func(e map[string]any, _ map[string]*container.Tensor) {
			e["tokenizer.ggml.model"], e["tokenizer.ggml.tokens"] = "rwkv", []string{"a"}
		}), "structure", `tokenizer.ggml.model: found "rwkv", expected gpt2 or llama`},
		{"a token that is no UTF-8", changed(func(e map[string]any, _ map[string]*container.Tensor) {
			delete(e, "tokenizer.ggml.token_type")
			e["tokenizer.ggml.model"], e["tokenizer.ggml.tokens"] = "gpt2", []string{"\xff"}
		}), "structure", "expected UTF-8"},
		{"a matrix of zeros with the scale 0", changed(func(_ map[string]any, w map[string]*container.Tensor) { clear(w["blk.0.ffn_up.weight"].Data) }),
			"values", "a scale of 0: expected a positive number"},
		{"a layer of full precision", changed(func(_ map[string]any, w map[string]*container.Tensor) {
			up := w["blk.0.ffn_up.weight"]
			up.DType, up.Data = "F32", f32(make([]float32, up.Shape[0]*up.Shape[1])...)
			binary.LittleEndian.PutUint32(up.Data[8:], math.Float32bits(0.25))
			binary.LittleEndian.PutUint32(up.Data[80:], math.Float32bits(-0.5))
		}), "values", "this is a model of full precision"},
		{"codes as floats, and one of them a half", floats("bitnet_offline_packed", func(c *checkpoint) {
			rows, cols := 4*c.tensors[gate].Shape[0], c.tensors[gate].Shape[1]
			values := make([]float32, rows*cols)
			values[0], values[1], values[100] = 1, -1, 0.5
			c.put(gate, "F32", []int{rows, cols}, f32(values...))
		}), "values", "other numbers than -1, 0 and 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := tc.make(t)
			m, refused := model.Load(context.Background(), path, model.LoadOptions{})
			if refused == nil {
				require.NoError(t, m.Close())
				_, refused = model.Assets(path)
			}
			require.Error(t, refused)
			v := verify(t, path)
			require.Len(t, v.Problems, 1)
			assert.Equal(t, tc.check, v.Problems[0].Check)
			assert.Contains(t, v.Problems[0].Message, tc.text)
		})
	}
	t.Run("codes as floats", func(t *testing.T) {
		path := floats("bitnet_offline_packed", func(c *checkpoint) {
			rows, cols := 4*c.tensors[gate].Shape[0], c.tensors[gate].Shape[1]
			values := make([]float32, rows*cols)
			values[0], values[1] = 1, -1
			c.put(gate, "F32", []int{rows, cols}, f32(values...))
		})(t)
		load(t, path, model.LoadOptions{})
		assert.Empty(t, verify(t, path).Problems)
	})
}
