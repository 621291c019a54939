package model_test

import (
	"context"
	"encoding/binary"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// ggufParts are the entries and tensors of a small file that loads; change alters them before they are written.
func ggufParts(t *testing.T, change func(entries map[string]any, tensors map[string]*container.Tensor)) string {
	t.Helper()
	m, err := model.Load(context.Background(), filepath.Join(golden, "llama_bitlinear_packed"), model.LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	return changedGGUF(t, m, change)
}

// changedGGUF is ggufParts of a model.
func changedGGUF(t *testing.T, m *model.Model, change func(entries map[string]any, tensors map[string]*container.Tensor)) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "model.gguf")
	require.NoError(t, m.SaveGGUF(context.Background(), path, model.GGUFOptions{Type: "tq2_0"}))
	f, err := gguf.Open(path)
	require.NoError(t, err)
	defer f.Close()
	entries, tensors := map[string]any{}, map[string]*container.Tensor{}
	for _, key := range f.Metadata().Keys() {
		entries[key] = f.Metadata().Any(key)
	}
	for _, info := range f.Tensors() {
		v, err := f.Tensor(info.Name)
		require.NoError(t, err)
		tensors[info.Name] = &container.Tensor{Name: v.Name, DType: v.DType, Shape: v.Shape, Data: slices.Clone(v.Data)}
	}
	change(entries, tensors)
	var list []gguf.Entry
	for key, v := range entries {
		list = append(list, gguf.Entry{Key: key, Value: v})
	}
	var all []container.Tensor
	for _, tensor := range tensors {
		all = append(all, *tensor)
	}
	changed := filepath.Join(dir, "changed.gguf")
	require.NoError(t, gguf.Write(changed, list, all))
	return changed
}

func TestGGUFFilesThatAreNoModelOfOursAreRefusedByName(t *testing.T) {
	type parts = func(e map[string]any, w map[string]*container.Tensor)
	for name, c := range map[string]struct {
		change parts
		want   error
		text   string
	}{
		"another architecture": {func(e map[string]any, _ map[string]*container.Tensor) { e["general.architecture"] = "gemma" }, model.ErrConfig,
			`general.architecture = "gemma": must be one of bitnet-b1.58, bitnet-25, bitnet, llama`},
		"no architecture": {func(e map[string]any, _ map[string]*container.Tensor) { delete(e, "general.architecture") }, model.ErrConfig, "general.architecture: is missing"},
		"a size of no type": {func(e map[string]any, _ map[string]*container.Tensor) { e["llama.block_count"] = "three" }, model.ErrConfig,
			"llama.block_count = string: must be an integer"},
		"negative heads": {func(e map[string]any, _ map[string]*container.Tensor) { e["llama.attention.head_count"] = int32(-4) }, model.ErrConfig, "num_attention_heads = -4"},
		"huge layers":    {func(e map[string]any, _ map[string]*container.Tensor) { e["llama.block_count"] = uint64(1 << 62) }, model.ErrConfig, "num_hidden_layers"},
		"zero kv heads": {func(e map[string]any, _ map[string]*container.Tensor) { e["llama.attention.head_count_kv"] = uint32(0) }, model.ErrConfig,
			"llama.attention.head_count_kv = 0: must be positive"},
		"experts": {func(e map[string]any, _ map[string]*container.Tensor) { e["llama.expert_count"] = uint32(8) }, model.ErrConfig, "mixtures of experts"},
		"partial rotation": {func(e map[string]any, _ map[string]*container.Tensor) { e["llama.rope.dimension_count"] = uint32(16) }, model.ErrConfig,
			"partial rotation"},
		"yarn": {func(e map[string]any, _ map[string]*container.Tensor) { e["llama.rope.scaling.type"] = "yarn" }, model.ErrConfig, "must be none or linear"},
		"NaN eps": {func(e map[string]any, _ map[string]*container.Tensor) {
			e["llama.attention.layer_norm_rms_epsilon"] = float32(math.NaN())
		}, model.ErrConfig, "rms_norm_eps"},
		"no embedding":    {func(_ map[string]any, w map[string]*container.Tensor) { delete(w, "token_embd.weight") }, container.ErrTensorMissing, "token_embd.weight"},
		"no layer tensor": {func(_ map[string]any, w map[string]*container.Tensor) { delete(w, "blk.1.ffn_up.weight") }, container.ErrTensorMissing, "blk.1.ffn_up.weight"},
		"an extra tensor": {func(_ map[string]any, w map[string]*container.Tensor) {
			w["blk.0.attn_q_norm.weight"] = &container.Tensor{Name: "blk.0.attn_q_norm.weight", DType: gguf.F32, Shape: []int{1}, Data: make([]byte, 4)}
		}, model.ErrUnexpected, "blk.0.attn_q_norm.weight"},
		"another shape": {func(_ map[string]any, w map[string]*container.Tensor) {
			w["blk.0.attn_norm.weight"].Shape, w["blk.0.attn_norm.weight"].Data = []int{128}, make([]byte, 512)
		}, container.ErrMismatch, "blk.0.attn_norm.weight"},
		"weights of four bits": {func(_ map[string]any, w map[string]*container.Tensor) {
			v := w["blk.0.ffn_up.weight"]
			v.DType, v.Data = gguf.Q4_0, make([]byte, v.Shape[0]*v.Shape[1]/32*18)
		}, container.ErrMismatch, "blk.0.ffn_up.weight"},
		"scales that differ": {func(_ map[string]any, w map[string]*container.Tensor) {
			binary.LittleEndian.PutUint16(w["blk.0.ffn_up.weight"].Data[64:], 0x4000)
		}, model.ErrValue, "blk.0.ffn_up.weight"},
		"a model of full precision": {func(_ map[string]any, w map[string]*container.Tensor) {
			v := w["blk.0.ffn_up.weight"]
			v.DType, v.Data = gguf.F32, make([]byte, 4*v.Shape[0]*v.Shape[1])
			for i := range v.Shape[0] * v.Shape[1] {
				binary.LittleEndian.PutUint32(v.Data[4*i:], math.Float32bits(float32(i%7)-3))
			}
		}, model.ErrValue, "quantize=True"},
		"a norm with a NaN": {func(_ map[string]any, w map[string]*container.Tensor) {
			binary.LittleEndian.PutUint32(w["output_norm.weight"].Data, math.Float32bits(float32(math.NaN())))
		}, model.ErrValue, "output_norm.weight"},
		"other rotary factors": {func(_ map[string]any, w map[string]*container.Tensor) {
			data := make([]byte, 4*32)
			for i := range 32 {
				binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(i+1)))
			}
			w["rope_freqs.weight"] = &container.Tensor{Name: "rope_freqs.weight", DType: gguf.F32, Shape: []int{32}, Data: data}
		}, model.ErrValue, "rope_freqs.weight"},
	} {
		path := ggufParts(t, c.change)
		_, err := model.Load(context.Background(), path, model.LoadOptions{})
		require.ErrorIs(t, err, c.want, name)
		require.ErrorContains(t, err, c.text, name)
		require.ErrorContains(t, err, "changed.gguf", name)
	}
}

func TestAGGUFFileMayHaveItsTablesInBlocks(t *testing.T) {
	path := ggufParts(t, func(_ map[string]any, w map[string]*container.Tensor) {
		table := w["token_embd.weight"]
		table.DType, table.Data = gguf.Q8_0, make([]byte, table.Shape[0]*table.Shape[1]/32*34)
		for i := range table.Data {
			table.Data[i] = byte(i * 7)
		}
		for at := 0; at < len(table.Data); at += 34 {
			binary.LittleEndian.PutUint16(table.Data[at:], 0x2000)
		}
	})
	m, err := model.Load(context.Background(), path, model.LoadOptions{})
	require.NoError(t, err)
	defer m.Close()
	f, err := gguf.Open(path)
	require.NoError(t, err)
	defer f.Close()
	v, err := f.Tensor("token_embd.weight")
	require.NoError(t, err)
	want, got := make([]float32, v.Elements()), make([]float32, v.Shape[1])
	require.NoError(t, gguf.Dequantize(want, gguf.Q8_0, v.Data))
	for r := range v.Shape[0] {
		m.Embed.Table.Row(got, r)
		for c, x := range got { // bfloat16
			require.InDelta(t, want[r*v.Shape[1]+c], x, math.Abs(float64(x))/256)
		}
	}
}

// A model of ik_llama.cpp's two bits is that of the same codes in TQ2_0, rows of queries and keys in their order.
// Queries too, whose rows lie in another order in the file.
func TestMasterWeightsInBlocksAreThoseThatTheyStandFor(t *testing.T) {
	const name = "blk.1.attn_q.weight"
	read := func(widen bool) []float32 {
		path := ggufParts(t, func(_ map[string]any, w map[string]*container.Tensor) {
			q := w[name]
			n := q.Shape[0] * q.Shape[1]
			q.DType, q.Data = gguf.Q8_0, make([]byte, n/32*34)
			for i := range q.Data {
				if q.Data[i] = byte(i * i * 7 / 3); i%34 < 2 {
					q.Data[i] = 0x2c // a scale of 0.0665
				}
			}
			if widen {
				values := make([]float32, n)
				require.NoError(t, gguf.Dequantize(values, gguf.Q8_0, q.Data))
				q.DType, q.Data = gguf.F32, f32(values...)
			}
		})
		m := load(t, path, model.LoadOptions{Trainable: true, Quantize: true})
		weights, err := m.ReadWeight("model.layers.1.self_attn.q_proj.weight")
		require.NoError(t, err)
		return weights
	}
	require.Equal(t, read(true), read(false))
}

// A layer in blocks is widened in the pool's memory: where that has too little, the file is not at fault.
func TestTooLittleMemoryForALayerInBlocksIsNoFaultOfTheFile(t *testing.T) {
	path := ggufParts(t, func(_ map[string]any, w map[string]*container.Tensor) {
		up := w["blk.0.ffn_up.weight"]
		up.DType, up.Data = gguf.Q8_0, make([]byte, up.Shape[0]*up.Shape[1]/32*34)
	})
	for budget := load(t, path, model.LoadOptions{Quantize: true}).Info.WeightBytes; ; budget += 64 << 10 { // from less than the model alone takes
		p := pool.New(pool.Options{Budget: budget})
		m, err := model.Load(context.Background(), path, model.LoadOptions{Quantize: true, Pool: p})
		if err == nil {
			require.NoError(t, m.Close())
			break
		}
		require.ErrorIs(t, err, pool.ErrOutOfMemory)
		require.NotErrorIs(t, err, container.ErrFormat)
		require.Zero(t, p.Stats().LiveBlocks)
	}
}

func TestIQ2BNLoadsLikeTheSameCodesInAnotherType(t *testing.T) {
	saved := func(change func(w *container.Tensor)) []byte {
		path := ggufParts(t, func(_ map[string]any, tensors map[string]*container.Tensor) {
			for _, w := range tensors {
				if w.DType == gguf.TQ2_0 {
					change(w)
				}
			}
		})
		m, err := model.Load(context.Background(), path, model.LoadOptions{})
		require.NoError(t, err)
		defer m.Close()
		again := filepath.Join(t.TempDir(), "again.gguf")
		require.NoError(t, m.SaveGGUF(context.Background(), again, model.GGUFOptions{Type: "i2_s"}))
		content, err := os.ReadFile(again)
		require.NoError(t, err)
		return content
	}
	want := saved(func(*container.Tensor) {})
	require.Equal(t, want, saved(func(w *container.Tensor) {
		rows, cols := w.Shape[0], w.Shape[1]
		codes := make([]int8, rows*cols)
		scale, err := gguf.Codes(codes, w.DType, w.Data)
		require.NoError(t, err)
		w.DType, w.Data = gguf.IQ2_BN, nil
		for row := range slices.Chunk(codes, cols) {
			w.Data = binary.LittleEndian.AppendUint32(w.Data, math.Float32bits(scale))
			for block := range slices.Chunk(row, 64) {
				packed := make([]byte, 16)
				for v, code := range block {
					packed[v%16] |= byte(code+1) << (v / 16 * 2)
				}
				w.Data = append(w.Data, packed...)
			}
		}
	}))
}

// A directory is as good a name for its only model as the file is, in one part or two.
func TestADirectoryWithOneGGUFModelIsThatModel(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	source := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
	file := filepath.Join(dir, "model.gguf")
	require.NoError(t, source.SaveGGUF(ctx, file, model.GGUFOptions{Type: "i2_s"}))
	split := filepath.Join(t.TempDir(), "model")
	require.NoError(t, source.SaveGGUF(ctx, split, model.GGUFOptions{Type: "i2_s", MaxShard: 64 << 10}))
	parts := fileNames(t, split)
	require.Greater(t, len(parts), 2)
	first := filepath.Join(split, parts[0])
	want, err := model.Assets(file)
	require.NoError(t, err)
	require.NotEmpty(t, want)
	for _, path := range []string{file, first} {
		folder := filepath.Dir(path)
		m := load(t, folder, model.LoadOptions{})
		require.Equal(t, path, m.Info.Path)
		found, err := model.Diff(ctx, source, m)
		require.NoError(t, err)
		require.NotEmpty(t, found)
		for _, tensor := range found {
			require.Zero(t, tensor.Differ, tensor.Name)
		}
		assets, err := model.Assets(folder)
		require.NoError(t, err)
		require.Equal(t, want, assets)
		require.Equal(t, "gguf", verify(t, folder).Format)
		info, err := model.Inspect(ctx, folder, false, "", nil)
		require.NoError(t, err)
		require.Equal(t, path, info.Path)
	}
	require.NoError(t, source.SaveGGUF(ctx, filepath.Join(filepath.Dir(first), "Other.GGUF"), model.GGUFOptions{Type: "tq2_0"}))
	_, err = model.Load(ctx, filepath.Dir(first), model.LoadOptions{})
	require.ErrorIs(t, err, model.ErrOption)
	require.ErrorContains(t, err, "several models, Other.GGUF, "+parts[0]+": expected one of these files")
	_, err = model.Load(ctx, t.TempDir(), model.LoadOptions{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "and no .gguf file")
}

func fileNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A directory of GGUF files changes in one step, whatever the number of files; it is refused where it holds something else.
func TestASplitGGUFModelReplacesAnotherAsAWhole(t *testing.T) {
	ctx, dir := context.Background(), filepath.Join(t.TempDir(), "m")
	save := func(ctx context.Context, architecture string, most int64) error {
		m, err := model.NewRandom(&model.Config{Architecture: architecture, VocabSize: 64, HiddenSize: 128, IntermediateSize: 256,
			NumHiddenLayers: 2, NumAttentionHeads: 4, NumKeyValueHeads: 2, MaxPositionEmbeddings: 64}, 1, model.LoadOptions{})
		require.NoError(t, err)
		defer m.Close()
		return m.SaveGGUF(ctx, dir, model.GGUFOptions{Type: "i2_s", MaxShard: most})
	}
	holds := func(architecture string) {
		t.Helper()
		require.Equal(t, architecture, load(t, dir, model.LoadOptions{}).Config.Architecture)
	}
	require.NoError(t, save(ctx, model.ArchBitNet, 50<<10))
	old := fileNames(t, dir)
	require.Greater(t, len(old), 2)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "README.md"), []byte("kept"), 0o644))

	written, cancel := 0, context.CancelFunc(nil)
	stopped, cancel := context.WithCancel(ctx)
	stopped = model.WithProgress(stopped, func(done, total int64) {
		if written++; 2*done > total {
			cancel()
		}
	})
	require.ErrorIs(t, save(stopped, model.ArchLlama, 50<<10), context.Canceled)
	require.Greater(t, written, 3)
	require.Equal(t, append([]string{"README.md"}, old...), fileNames(t, dir))
	holds(model.ArchBitNet)

	require.NoError(t, save(ctx, model.ArchLlama, 1<<20))
	require.Equal(t, []string{"README.md", "m.gguf"}, fileNames(t, dir))
	holds(model.ArchLlama)
	require.NoError(t, save(ctx, model.ArchBitNet, 50<<10))
	require.Equal(t, append([]string{"README.md"}, old...), fileNames(t, dir))
	holds(model.ArchBitNet)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "other.gguf"), nil, 0o644))
	require.ErrorIs(t, save(ctx, model.ArchLlama, 1<<20), model.ErrOption)
	require.Equal(t, append(append([]string{"README.md"}, old...), "other.gguf"), fileNames(t, dir))
	for path, most := range map[string]int64{dir: 0, filepath.Join(t.TempDir(), "m.gguf"): 1, filepath.Join(t.TempDir(), "m"): -1} {
		source := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{})
		require.ErrorIs(t, source.SaveGGUF(ctx, path, model.GGUFOptions{Type: "i2_s", MaxShard: most}), model.ErrOption)
	}
}

// The activation of a GGUF file follows from its architecture, and so does whether there are norms before the last layers of attention and
// feed-forward network.
func TestArchitecturesOfGGUFHaveTheirActivationsAndNorms(t *testing.T) {
	for arch, want := range map[string]struct {
		architecture, act string
		norms             bool
	}{
		"bitnet-b1.58": {model.ArchBitNet, model.ActReLU2, true}, "bitnet-25": {model.ArchBitNet, model.ActReLU2, true},
		"bitnet": {model.ArchBitnet, model.ActSiLU, true}, "llama": {model.ArchLlama, model.ActSiLU, false},
	} {
		c := model.Config{Architecture: want.architecture, VocabSize: 32, HiddenSize: 256, IntermediateSize: 256, NumHiddenLayers: 2, NumAttentionHeads: 4,
			NumKeyValueHeads: 2, TieWordEmbeddings: true}
		m, err := model.NewRandom(&c, 1, model.LoadOptions{})
		require.NoError(t, err)
		for i, block := range m.Blocks { // norms that are told apart
			for _, n := range []*nn.Norm{block.InputNorm, block.PostNorm, block.Attn.SubNorm, block.FFN.SubNorm} {
				for at := 0; n != nil && at < len(n.Weight); at++ {
					n.Weight[at] = 1 + float32((at*7+i)%5)/8
				}
			}
		}
		path := changedGGUF(t, m, func(e map[string]any, w map[string]*container.Tensor) {
			if own := e["general.architecture"].(string); own != arch { // as another converter calls it
				for key, v := range e {
					if rest, ok := strings.CutPrefix(key, own+"."); ok {
						delete(e, key)
						e[arch+"."+rest] = v
					}
				}
				e["general.architecture"] = arch
			}
			require.Equal(t, want.norms, w["blk.1.attn_sub_norm.weight"] != nil, arch)
			require.Equal(t, want.norms, w["blk.1.ffn_sub_norm.weight"] != nil, arch)
		})
		again, err := model.Load(context.Background(), path, model.LoadOptions{})
		require.NoError(t, err, arch)
		require.Equal(t, want.architecture, again.Config.Architecture, arch)
		require.Equal(t, want.act, again.Config.HiddenAct, arch)
		for i, block := range again.Blocks {
			require.Equal(t, m.Blocks[i].Attn.SubNorm, block.Attn.SubNorm, arch)
			require.Equal(t, m.Blocks[i].FFN.SubNorm, block.FFN.SubNorm, arch)
			require.Equal(t, want.norms, block.Attn.SubNorm != nil, arch)
			require.Equal(t, want.norms, block.FFN.SubNorm != nil, arch)
			require.Equal(t, m.Blocks[i].FFN.Act, block.FFN.Act, arch)
		}
		require.NoError(t, again.Close())
		require.NoError(t, m.Close())
	}
}
