package model_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// onISA runs f with another instruction set.
func onISA(t *testing.T, isa cpu.ISA, f func()) {
	t.Helper()
	before := cpu.Active()
	require.NoError(t, cpu.SetISA(isa))
	defer func() { require.NoError(t, cpu.SetISA(before)) }()
	f()
}

// odd is a random model without skipped neurons, whose matrices have blocks that make no five, and rows that make no panel.
func odd(t *testing.T, o model.LoadOptions) *model.Model {
	t.Helper()
	m, err := model.NewRandom(&model.Config{
		Architecture: model.ArchLlama, VocabSize: 90, HiddenSize: 168, IntermediateSize: 300, NumHiddenLayers: 2, NumAttentionHeads: 7,
		NumKeyValueHeads: 7, MaxPositionEmbeddings: 64, AttentionBias: true,
	}, 3, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// step gives the logits of steps of one row, and of few.
func step(t *testing.T, m *model.Model) (out []float32) {
	t.Helper()
	e := infer.NewEngine(m)
	defer e.Close()
	s := e.NewSequence()
	defer s.Close()
	row := make([]float32, m.Config.VocabSize)
	for _, ids := range [][]int32{{3}, {1}, {4, 1, 5}, {9}} {
		require.NoError(t, e.Step(context.Background(), []infer.Chunk{{Seq: s, IDs: ids, Logits: 1}}, row))
		out = append(out, row...)
	}
	return out
}

func TestBase3GivesTheBitsOfTwoBits(t *testing.T) {
	models := map[string]func(model.LoadOptions) *model.Model{"odd": func(o model.LoadOptions) *model.Model { return odd(t, o) }}
	for _, folder := range goldenFolders {
		models[folder] = func(o model.LoadOptions) *model.Model { return load(t, filepath.Join(golden, folder), o) }
	}
	for name, open := range models {
		t.Run(name, func(t *testing.T) {
			want, got := open(model.LoadOptions{Packing: model.Packing2Bit}), open(model.LoadOptions{Packing: model.PackingBase3})
			assert.Equal(t, []string{"2bit", "base3"}, []string{want.Info.Packing, got.Info.Packing})
			assert.Less(t, got.Info.WeightBytes, want.Info.WeightBytes)
			assert.Equal(t, quant.Base3, got.Blocks[0].Attn.O.Ternary.Layout)
			assert.Equal(t, want.Checksum(), got.Checksum())
			requireSame(t, want, got)
			require.Equal(t, step(t, want), step(t, got))
			onISA(t, cpu.Scalar, func() { require.Equal(t, step(t, want), step(t, got), "a processor without kernels for base 3") })
		})
	}
}

func TestSkippedNeuronsKeepTwoBits(t *testing.T) {
	m := load(t, filepath.Join(golden, "bitnet_offline_packed"), model.LoadOptions{Packing: model.PackingBase3})
	f := m.Blocks[0].FFN
	assert.Equal(t, []quant.Layout{quant.Base3, quant.RowLines, quant.ColumnLines}, []quant.Layout{f.Gate.Ternary.Layout, f.Up.Ternary.Layout, f.Down.Ternary.Layout})
}

func TestANativeFileKeepsBase3AndLoadsEitherWay(t *testing.T) {
	dir := t.TempDir()
	two, three := filepath.Join(dir, "two.bitnet"), filepath.Join(dir, "three.bitnet")
	m := odd(t, model.LoadOptions{})
	require.NoError(t, m.Save(two, nil))
	require.NoError(t, odd(t, model.LoadOptions{Packing: model.PackingBase3}).Save(three, nil))
	assert.Less(t, size(t, three), size(t, two))

	kept := "2bit"
	if cpu.Base3Ready() {
		kept = "base3"
	}
	for _, tc := range []struct {
		path, packing, want string
		isa                 cpu.ISA
	}{
		{three, model.PackingAuto, kept, cpu.Active()},
		{three, "", kept, cpu.Active()},
		{three, model.PackingBase3, "base3", cpu.Scalar},
		{three, model.Packing2Bit, "2bit", cpu.Active()},
		{two, model.PackingBase3, "base3", cpu.Active()},
		{two, model.PackingAuto, "2bit", cpu.Active()},
		{three, model.PackingAuto, "2bit", cpu.Scalar},
	} {
		for _, o := range []model.LoadOptions{{}, {Verify: model.VerifyNever}, {Resident: model.ResidentCopy}} {
			o.Packing = tc.packing
			onISA(t, tc.isa, func() {
				back := load(t, tc.path, o)
				assert.Equal(t, tc.want, back.Info.Packing, tc)
				assert.Equal(t, tc.want == "base3" && !cpu.Base3Ready(), len(back.Info.Warnings) == 1, "a slow packing is warned of")
				requireSame(t, m, back)
				require.Equal(t, step(t, m), step(t, back))
			})
		}
	}
	p := pool.New(pool.Options{})
	load(t, three, model.LoadOptions{Pool: p, Packing: model.PackingBase3})
	assert.Zero(t, p.Stats().Allocs, "it is used where it lies in the file")

	onISA(t, cpu.Scalar, func() {
		copied := filepath.Join(dir, "copied.bitnet")
		require.NoError(t, load(t, three, model.LoadOptions{Deferred: true}).Save(copied, nil))
		assert.Equal(t, size(t, three), size(t, copied), "a file that becomes another keeps its packing on every processor")
	})
	again := filepath.Join(dir, "again.bitnet")
	require.NoError(t, load(t, three, model.LoadOptions{Packing: model.Packing2Bit}).Save(again, nil))
	assert.Equal(t, size(t, two), size(t, again))
}

func TestBase3IsExportedAndTrainedLikeTwoBits(t *testing.T) {
	exports, masters := map[string]*model.Model{}, map[string]*model.Model{}
	for _, packing := range []string{model.Packing2Bit, model.PackingBase3} {
		dir := t.TempDir()
		m := odd(t, model.LoadOptions{Packing: packing})
		require.NoError(t, m.SaveHF(filepath.Join(dir, "hf")))
		require.NoError(t, m.Save(filepath.Join(dir, "m.bitnet"), nil))
		exports[packing] = load(t, filepath.Join(dir, "hf"), model.LoadOptions{})
		masters[packing] = load(t, filepath.Join(dir, "m.bitnet"), model.LoadOptions{Trainable: true})
	}
	requireSame(t, exports["2bit"], exports["base3"])
	requireSame(t, masters["2bit"], masters["base3"])
}

func TestADamagedBase3FileIsFound(t *testing.T) {
	const name = "model.layers.1.self_attn.q_proj.weight"
	for words, damage := range map[string]func(data []byte){
		"a byte that stands for no five weights": func(data []byte) { data[513] = 243 },
		"codes 0, 1 and 2 at the ends":           func(data []byte) { data[8*64+5] = 0xff }, // after two groups
	} {
		for _, o := range []model.LoadOptions{{Verify: model.VerifyNow}, {Resident: model.ResidentCopy}, {Packing: model.Packing2Bit}} {
			n := takeApart(t, odd(t, model.LoadOptions{Packing: model.PackingBase3}))
			require.Equal(t, "panel16-base3", n.index[name]["layout"])
			damage(n.tensor(name).Data)
			n.sum(name)
			n.write()
			_, err := model.Load(context.Background(), n.path, o)
			require.ErrorIs(t, err, model.ErrValue)
			require.ErrorContains(t, err, words)
			require.ErrorContains(t, err, name)
		}
	}
}

func TestPackingsThatCannotBeAreRefused(t *testing.T) {
	path := filepath.Join(golden, "bitnet_offline_packed")
	for _, tc := range []struct {
		o     model.LoadOptions
		words []string
	}{
		{model.LoadOptions{Packing: "base4"}, []string{`packing "base4"`, "auto, 2bit, base3"}},
		{model.LoadOptions{Packing: model.PackingBase3, Trainable: true}, []string{`packing "base3"`, "trained"}},
	} {
		_, err := model.Load(context.Background(), path, tc.o)
		require.ErrorIs(t, err, model.ErrOption)
		for _, w := range tc.words {
			assert.ErrorContains(t, err, w)
		}
		random := model.NewRandom
		if tc.o.Trainable {
			random = model.NewTrainable
		}
		_, err = random(&model.Config{}, 1, tc.o)
		require.ErrorIs(t, err, model.ErrOption)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Size()
}
