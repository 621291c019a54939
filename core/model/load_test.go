package model_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io/fs"
	"math"
	"os"
	"path/filepath"
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

func TestEveryGoldenFolderLoads(t *testing.T) {
	for _, folder := range goldenFolders {
		dir := filepath.Join(golden, folder)
		var dones, totals []int64
		m := load(t, dir, model.LoadOptions{Progress: func(done, total int64) { dones, totals = append(dones, done), append(totals, total) }})
		tied := folder != "llama_bitlinear_packed"
		assert.Equal(t, tied, m.Embed.Table == m.Head.Proj.Dense, folder)
		assert.Equal(t, tied, m.Blocks[0].Attn.SubNorm != nil, folder)
		assert.Equal(t, model.Info{Path: dir, Format: "hf", Parameters: m.Config.ParameterCount(), HeadFormat: "bfloat16", Packing: "2bit",
			WeightBytes: m.Config.WeightBytes(cpu.DenseBF16)}, m.Info)
		assert.IsIncreasing(t, dones)
		assert.Equal(t, totals[len(totals)-1], dones[len(dones)-1])
		for _, total := range totals {
			assert.Equal(t, totals[0], total)
		}
	}
}

func TestTheSameWeightsLoadTheSameFromEveryContainer(t *testing.T) {
	c := open(t, "llama_bitlinear_packed")
	want := load(t, filepath.Join(golden, "llama_bitlinear_packed"), model.LoadOptions{})
	dir := c.write()
	requireSame(t, want, load(t, filepath.Join(dir, safetensors.SingleName), model.LoadOptions{}))
	names, err := safetensors.WriteSharded(dir, c.list(), nil, 200_000)
	require.NoError(t, err)
	require.Greater(t, len(names), 3)
	requireSame(t, want, load(t, dir, model.LoadOptions{}))
	requireSame(t, want, load(t, filepath.Join(dir, safetensors.IndexName), model.LoadOptions{}))
}

func TestWeightScaleMultipliesOrDividesByLinearClass(t *testing.T) {
	c := open(t, "llama_bitlinear_packed")
	want := load(t, c.write(), model.LoadOptions{})
	for name, x := range c.tensors {
		if strings.HasSuffix(name, ".weight_scale") {
			c.put(name, safetensors.F32, []int{}, f32(1/widen(x)[0])) // a scalar will do too
		}
	}
	c.quantization()["linear_class"] = "autobitlinear"
	requireSame(t, want, load(t, c.write(), model.LoadOptions{}))
}

func TestTernaryCodesMayBeStoredAsFloats(t *testing.T) {
	c := open(t, "bitnet_offline_packed")
	want := load(t, c.write(), model.LoadOptions{})
	for i, dtype := range []string{safetensors.F32, safetensors.BF16, safetensors.F16} {
		one := []string{"\x00\x00\x80\x3f", "\x80\x3f", "\x00\x3c"}[i]
		codes := open(t, "bitnet_offline_packed")
		for name, x := range c.tensors {
			if x.DType != safetensors.U8 {
				continue
			}
			rows, cols := 4*x.Shape[0], x.Shape[1]
			data := make([]byte, rows*cols*len(one))
			for j := range rows * cols {
				code := x.Data[j%len(x.Data)] >> (2 * (j / len(x.Data))) & 3
				number := data[j*len(one):][:len(one)]
				if code != 1 {
					copy(number, one)
				}
				if code == 0 {
					number[len(one)-1] |= 0x80
				}
			}
			codes.put(name, dtype, []int{rows, cols}, data)
		}
		requireSame(t, want, load(t, codes.write(), model.LoadOptions{}))
	}
}

func TestMasterWeightsTernarizeFromAnyPrecision(t *testing.T) {
	want := load(t, filepath.Join(golden, "bitnet_online_bf16"), model.LoadOptions{})
	c := open(t, "bitnet_online_bf16")
	for name, x := range c.tensors {
		c.put(name, safetensors.F32, x.Shape, f32(widen(x)...))
	}
	m := load(t, c.write(), model.LoadOptions{})
	assert.Equal(t, "float32", m.Info.HeadFormat)
	requireSame(t, want, m)
	delete(c.config, "quantization_config") // which BitNet needs not say of master weights
	requireSame(t, want, load(t, c.write(), model.LoadOptions{}))
	c.config["quantization_config"] = map[string]any{"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
	requireSame(t, want, load(t, c.write(), model.LoadOptions{}))
}

func TestHalfPrecisionMasterWeightsLoad(t *testing.T) {
	c := open(t, "bitnet_online_bf16")
	for name, x := range c.tensors {
		var half []byte
		for range widen(x) {
			half = binary.LittleEndian.AppendUint16(half, 0x3c00) // 1
		}
		c.put(name, safetensors.F16, x.Shape, half)
	}
	m := load(t, c.write(), model.LoadOptions{})
	assert.Equal(t, "float16", m.Info.HeadFormat)
	assert.Equal(t, float32(1), m.Blocks[0].Attn.Q.Ternary.Scale)
	assert.Equal(t, float32(1), m.Head.Norm.Weight[7])
}

func TestTheOlderBitnetSpellsItsSubNormsDifferently(t *testing.T) {
	c := open(t, "bitnet_online_bf16")
	c.config["hidden_act"] = "silu"
	want := load(t, c.write(), model.LoadOptions{})
	for name := range c.tensors {
		old := strings.NewReplacer("self_attn.attn_sub_norm", "self_attn.inner_attn_ln", "mlp.ffn_sub_norm", "mlp.ffn_layernorm").Replace(name)
		if old != name {
			c.rename(name, old)
		}
	}
	c.put("model.layers.0.self_attn.rotary_emb.inv_freq", safetensors.F32, []int{1}, f32(1)) // which old checkpoints carry
	c.config["architectures"], c.config["model_type"] = []string{"BitnetForCausalLM"}, "llama"
	delete(c.config, "quantization_config")
	got := load(t, c.write(), model.LoadOptions{})
	assert.Equal(t, model.ArchBitnet, got.Config.Architecture)
	requireSame(t, want, got)
}

func TestTyingFollowsTheConfigAndThenTheFile(t *testing.T) {
	c := open(t, "bitnet_offline_packed")
	embed := c.tensors["model.embed_tokens.weight"]
	tied := load(t, c.write(), model.LoadOptions{})
	require.True(t, tied.Config.TieWordEmbeddings)

	delete(c.config, "tie_word_embeddings")
	m := load(t, c.write(), model.LoadOptions{})
	assert.True(t, m.Config.TieWordEmbeddings, "unstated, and no head stored")
	requireSame(t, tied, m)

	c.put("lm_head.weight", embed.DType, embed.Shape, embed.Data)
	m = load(t, c.write(), model.LoadOptions{})
	assert.False(t, m.Config.TieWordEmbeddings, "unstated, and a head stored")

	c.config["tie_word_embeddings"] = true
	m = load(t, c.write(), model.LoadOptions{})
	assert.True(t, m.Config.TieWordEmbeddings, "stated, and the stored head is a copy")
	assert.Same(t, m.Embed.Table, m.Head.Proj.Dense)

	other := append([]byte(nil), embed.Data...)
	other[1000] ^= 1
	c.put("lm_head.weight", embed.DType, embed.Shape, other)
	m = load(t, c.write(), model.LoadOptions{})
	assert.False(t, m.Config.TieWordEmbeddings, "stated, and the stored head is another one")
	c.put("lm_head.weight", safetensors.F32, embed.Shape, f32(widen(embed)...))
	assert.False(t, load(t, c.write(), model.LoadOptions{}).Config.TieWordEmbeddings)
}

func TestBiasesAreStoredAsTheyAreAdded(t *testing.T) {
	for _, tc := range []struct {
		folder, class string
		scaled        bool
	}{
		{"bitnet_offline_packed", "autobitlinear", true}, // (acc/s + bias) * weight_scale
		{"bitnet_offline_packed", "bitlinear", false},
		{"bitnet_online_bf16", "autobitlinear", false},
	} {
		c := open(t, tc.folder)
		c.config["attention_bias"], c.config["mlp_bias"] = true, true
		c.quantization()["linear_class"] = tc.class
		for name, x := range c.tensors {
			if base, ok := strings.CutSuffix(name, "_proj.weight"); ok {
				rows := x.Shape[0]
				if x.DType == safetensors.U8 {
					rows *= 4
				}
				bias := make([]float32, rows)
				bias[1] = 3
				c.putFloats(base+"_proj.bias", bias...)
			}
		}
		m := load(t, c.write(), model.LoadOptions{})
		for _, l := range []struct {
			bias  []float32
			scale float32
		}{{m.Blocks[1].Attn.K.Bias, m.Blocks[1].Attn.K.Ternary.Scale}, {m.Blocks[3].FFN.Down.Bias, m.Blocks[3].FFN.Down.Ternary.Scale}} {
			want := float32(3)
			if tc.scaled {
				want *= l.scale
			}
			assert.Equal(t, want, l.bias[1], tc.folder+" "+tc.class)
		}
	}
}

func TestLinearsMayHaveNormsOfTheirOwn(t *testing.T) {
	c := open(t, "bitnet_offline_packed")
	c.quantization()["use_rms_norm"], c.quantization()["rms_norm_eps"] = true, 0.25
	for name, x := range c.tensors {
		if base, ok := strings.CutSuffix(name, "_proj.weight"); ok {
			norm := make([]float32, x.Shape[1])
			norm[2] = 5
			c.putFloats(base+"_proj.rms_norm.weight", norm...)
		}
	}
	m := load(t, c.write(), model.LoadOptions{})
	n := m.Blocks[2].FFN.Down.Norm
	require.NotNil(t, n)
	assert.Equal(t, []any{float32(0.25), 512, float32(5)}, []any{n.Eps, len(n.Weight), n.Weight[2]})
}

func TestModulesThatAreNotConvertedStayFloat(t *testing.T) {
	c := open(t, "bitnet_online_bf16")
	c.quantization()["modules_to_not_convert"] = []string{"lm_head", "model.layers.1.self_attn", "o_proj"}
	m := load(t, c.write(), model.LoadOptions{HeadFormat: "int8"})
	assert.NotNil(t, m.Blocks[0].Attn.Q.Ternary)
	require.NotNil(t, m.Blocks[1].Attn.Q.Dense)
	require.NotNil(t, m.Blocks[0].Attn.O.Dense)
	assert.Equal(t, cpu.DenseBF16, m.Blocks[0].Attn.O.Dense.Format, "the head format is the head's alone")
	row := make([]float32, 256)
	m.Blocks[0].Attn.O.Dense.Row(row, 100)
	assert.Equal(t, widen(c.tensors["model.layers.0.self_attn.o_proj.weight"])[100*256:101*256], row)
	logits(t, m)
}

func TestTheHeadFormatIsTheHeadsAndATiedEmbeddings(t *testing.T) {
	for format, dense := range map[string]cpu.DenseFormat{"float32": cpu.DenseF32, "bfloat16": cpu.DenseBF16, "float16": cpu.DenseF16, "int8": cpu.DenseInt8, "int4": cpu.DenseInt4, "auto": cpu.DenseBF16} {
		tied := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{HeadFormat: format})
		assert.Same(t, tied.Embed.Table, tied.Head.Proj.Dense, "one table")
		assert.Equal(t, dense, tied.Embed.Table.Format)
		untied := load(t, filepath.Join(golden, "llama_bitlinear_packed"), model.LoadOptions{HeadFormat: format})
		assert.Equal(t, dense, untied.Head.Proj.Dense.Format)
		assert.Equal(t, cpu.DenseBF16, untied.Embed.Table.Format)
	}
}

func TestBadCheckpointsNameFileTensorFoundAndExpected(t *testing.T) {
	const q, scale, norm, embed = "model.layers.2.self_attn.q_proj.weight", "model.layers.2.self_attn.q_proj.weight_scale", "model.norm.weight", "model.embed_tokens.weight"
	for _, tc := range []struct {
		name   string
		change func(c *checkpoint)
		kind   error
		tensor string
		words  []string
	}{
		{"missing weight", func(c *checkpoint) { c.remove(q) }, container.ErrTensorMissing, q, []string{"[256 256]"}},
		{"missing scale", func(c *checkpoint) { c.remove(scale) }, container.ErrTensorMissing, scale, nil},
		{"missing norm", func(c *checkpoint) { c.remove(norm) }, container.ErrTensorMissing, norm, []string{"[256]"}},
		{"missing embedding", func(c *checkpoint) { c.remove(embed) }, container.ErrTensorMissing, embed, []string{"[512 256]"}},
		{"missing head", func(c *checkpoint) { c.config["tie_word_embeddings"] = false }, container.ErrTensorMissing, "lm_head.weight", nil},
		{"missing bias", func(c *checkpoint) { c.config["attention_bias"] = true }, container.ErrTensorMissing, "model.layers.0.self_attn.q_proj.bias", nil},
		{"missing linear norm", func(c *checkpoint) { c.quantization()["use_rms_norm"] = true }, container.ErrTensorMissing, "model.layers.0.self_attn.q_proj.rms_norm.weight", nil},
		{"packed shape", func(c *checkpoint) { c.put(q, safetensors.U8, []int{32, 512}, c.tensors[q].Data) }, container.ErrMismatch, q, []string{"[32 512]", "[64 256]"}},
		{"packed dtype", func(c *checkpoint) { c.put(q, safetensors.I8, []int{64, 256}, c.tensors[q].Data) }, container.ErrMismatch, q, []string{"I8", "U8", "BF16"}},
		{"float shape", func(c *checkpoint) { c.put(q, safetensors.BF16, []int{32, 256}, c.tensors[q].Data) }, container.ErrMismatch, q, []string{"[32 256]", "[256 256]"}},
		{"scale shape", func(c *checkpoint) { c.put(scale, safetensors.BF16, []int{2}, make([]byte, 4)) }, container.ErrMismatch, scale, []string{"[2]", "[1]"}},
		{"scale dtype", func(c *checkpoint) { c.put(scale, safetensors.U8, []int{1}, []byte{1}) }, container.ErrMismatch, scale, []string{"U8"}},
		{"scale zero", func(c *checkpoint) { c.putFloats(scale, 0) }, model.ErrValue, scale, []string{"0", "positive"}},
		{"scale NaN", func(c *checkpoint) { c.putFloats(scale, float32(math.NaN())) }, model.ErrValue, scale, []string{"NaN", "positive"}},
		{"scale infinite", func(c *checkpoint) { c.putFloats(scale, float32(math.Inf(1))) }, model.ErrValue, scale, []string{"+Inf"}},
		{"code 3", func(c *checkpoint) { c.tensors[q].Data[5*256+7] |= 3 << 2 }, model.ErrValue, q, []string{"row 69, column 7", "code 3"}},
		{"float that is no code", func(c *checkpoint) {
			c.put(q, safetensors.F16, []int{256, 256}, bytes.Repeat([]byte{0, 0x3c, 0, 0xbc, 0, 0x80, 0, 0}, 256*64))
			c.tensors[q].Data[2*(3*256+5)+1] = 0x38
		}, model.ErrValue, q, []string{"row 3, column 5", "found 0.5", "-1, 0 or 1"}},
		{"codes of another linear class", func(c *checkpoint) {
			c.quantization()["linear_class"] = "bitlinear"
			c.put(q, safetensors.BF16, []int{256, 256}, make([]byte, 2*256*256))
		}, model.ErrUnexpected, scale, []string{"BF16 [1]"}},
		{"norm shape", func(c *checkpoint) { c.putFloats(norm, 1, 2, 3) }, container.ErrMismatch, norm, []string{"[3]", "[256]"}},
		{"norm NaN", func(c *checkpoint) {
			v := make([]float32, 256)
			v[9] = float32(math.NaN())
			c.putFloats(norm, v...)
		}, model.ErrValue, norm, []string{"element 9", "NaN"}},
		{"embedding shape", func(c *checkpoint) { c.config["vocab_size"] = 511 }, container.ErrMismatch, embed, []string{"[512 256]", "[511 256]"}},
		{"embedding NaN", func(c *checkpoint) { copy(c.tensors[embed].Data[2*(300*256+4):], "\xff\x7f") }, model.ErrValue, embed, []string{"row 300, column 4", "NaN"}},
		{"more layers than the config", func(c *checkpoint) { c.config["num_hidden_layers"] = 3 }, model.ErrUnexpected, "model.layers.3.", []string{"more)", "BitNetForCausalLM"}},
		{"a tensor without a place", func(c *checkpoint) { c.putFloats("model.extra", 1) }, model.ErrUnexpected, "model.extra", []string{"F32 [1]"}},
		{"packed although not converted", func(c *checkpoint) { c.quantization()["modules_to_not_convert"] = []string{"q_proj"} }, container.ErrMismatch, "model.layers.0.self_attn.q_proj.weight", []string{"U8"}},
		{"rows no multiple of 4", func(c *checkpoint) { c.config["intermediate_size"] = 510 }, container.ErrMismatch, "model.layers.0.mlp.gate_proj.weight", []string{"510 rows", "multiple of 4"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := open(t, "bitnet_offline_packed")
			tc.change(c)
			dir := c.write()
			p := pool.New(pool.Options{})
			_, err := model.Load(context.Background(), dir, model.LoadOptions{Pool: p})
			require.ErrorIs(t, err, container.ErrFormat)
			require.ErrorIs(t, err, tc.kind)
			var fe *container.Error
			require.ErrorAs(t, err, &fe)
			assert.Equal(t, filepath.Join(dir, safetensors.SingleName), fe.Path)
			assert.Contains(t, fe.Tensor, tc.tensor)
			for _, word := range append(tc.words, fe.Path, fe.Tensor) {
				assert.Contains(t, err.Error(), word)
			}
			assert.Zero(t, p.Stats().LiveBlocks, "nothing is left in memory")
		})
	}
}

func TestMasterWeightsThatAreNotFiniteAreRefused(t *testing.T) {
	const name = "model.layers.0.mlp.up_proj.weight"
	c := open(t, "bitnet_online_bf16")
	copy(c.tensors[name].Data[2*(7*256+3):], "\x80\x7f")
	_, err := model.Load(context.Background(), c.write(), model.LoadOptions{})
	require.ErrorIs(t, err, model.ErrValue)
	require.ErrorContains(t, err, name)
	require.ErrorContains(t, err, "row 7, column 3")
}

func TestLoadSaysWhatIsNotThere(t *testing.T) {
	try := func(path string, o model.LoadOptions) error {
		m, err := model.Load(context.Background(), path, o)
		require.Error(t, err)
		require.Nil(t, m)
		return err
	}
	dir := t.TempDir()
	require.ErrorIs(t, try(filepath.Join(dir, "absent"), model.LoadOptions{}), fs.ErrNotExist)
	err := try(dir, model.LoadOptions{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.EqualError(t, err, "model: directory "+dir+" holds none of model.bitnet, model.bitnet.index.json, model.safetensors, model.safetensors.index.json, model.onnx, and no .gguf file")

	c := open(t, "bitnet_offline_packed")
	noConfig := c.write()
	require.NoError(t, os.Remove(filepath.Join(noConfig, "config.json")))
	err = try(noConfig, model.LoadOptions{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "config.json")

	c.config["architectures"] = []string{"GPT2LMHeadModel"}
	require.ErrorIs(t, try(c.write(), model.LoadOptions{}), model.ErrConfig)

	other := filepath.Join(dir, "model.txt")
	require.NoError(t, os.WriteFile(other, nil, 0o600))
	err = try(other, model.LoadOptions{})
	require.ErrorIs(t, err, model.ErrOption)
	require.EqualError(t, err, "model: "+other+" is no model: expected a directory, or a file that ends in .bitnet, .safetensors, .gguf or .onnx")
	pickle := filepath.Join(dir, "pytorch_model.bin")
	require.NoError(t, os.WriteFile(pickle, nil, 0o600))
	for _, path := range []string{pickle, dir} {
		err = try(path, model.LoadOptions{})
		require.ErrorIs(t, err, model.ErrPickle)
		require.ErrorContains(t, err, pickle)
		require.ErrorContains(t, err, "safetensors")
	}
	empty := filepath.Join(dir, "model.gguf")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	require.ErrorIs(t, try(empty, model.LoadOptions{}), container.ErrFormat)

	good := filepath.Join(golden, "bitnet_offline_packed")
	err = try(good, model.LoadOptions{HeadFormat: "int3"})
	require.ErrorIs(t, err, model.ErrOption)
	require.ErrorContains(t, err, `"int3"`)
	require.ErrorContains(t, err, "bfloat16")

	sharded := open(t, "bitnet_offline_packed").write()
	names, err := safetensors.WriteSharded(sharded, open(t, "bitnet_offline_packed").list(), nil, 300_000)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(sharded, names[1])))
	err = try(sharded, model.LoadOptions{})
	require.ErrorIs(t, err, safetensors.ErrShardMissing)
	require.ErrorContains(t, err, names[1])

	cut := open(t, "bitnet_offline_packed").write()
	require.NoError(t, os.Truncate(filepath.Join(cut, safetensors.SingleName), 500_000))
	require.ErrorIs(t, try(cut, model.LoadOptions{}), container.ErrFormat)
}

func TestLoadingObeysTheMemoryBudget(t *testing.T) {
	p := pool.New(pool.Options{Budget: 256 << 10})
	_, err := model.Load(context.Background(), filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{Pool: p})
	require.ErrorIs(t, err, pool.ErrOutOfMemory)
	assert.Zero(t, p.Stats().LiveBlocks)
}

func TestLoadingStopsWhenItsContextEnds(t *testing.T) {
	p := pool.New(pool.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	steps := 0
	_, err := model.Load(ctx, filepath.Join(golden, "bitnet_online_bf16"), model.LoadOptions{Pool: p, Progress: func(done, total int64) {
		if steps++; done > total/2 {
			cancel()
		}
	}})
	require.ErrorIs(t, err, context.Canceled)
	assert.Greater(t, steps, 3)
	assert.Zero(t, p.Stats().LiveBlocks)
	_, err = model.Load(ctx, filepath.Join(golden, "bitnet_online_bf16"), model.LoadOptions{Pool: p})
	require.ErrorIs(t, err, context.Canceled)
	c := open(t, "bitnet_offline_packed")
	c.put("lm_head.weight", safetensors.BF16, []int{512, 256}, c.tensors["model.embed_tokens.weight"].Data)
	_, err = model.Load(ctx, c.write(), model.LoadOptions{Pool: p})
	require.ErrorIs(t, err, context.Canceled)
}

func TestAClosedModelGivesItsMemoryBack(t *testing.T) {
	p := pool.New(pool.Options{})
	m, err := model.Load(context.Background(), filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{Pool: p})
	require.NoError(t, err)
	assert.EqualValues(t, 1, p.Stats().LiveBlocks)
	require.NoError(t, m.Close())
	assert.Zero(t, p.Stats().LiveBlocks)
	require.ErrorIs(t, m.Save(t.TempDir(), nil), model.ErrClosed)
	require.ErrorIs(t, m.SaveHF(t.TempDir()), model.ErrClosed)
}
