package model

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

func TestWeightBytesFollowsTheStoredForms(t *testing.T) {
	c := Config{VocabSize: 100, HiddenSize: 64, IntermediateSize: 88, NumHiddenLayers: 3, NumAttentionHeads: 4, TieWordEmbeddings: true}.WithDefaults()
	ternary := 4*64*64/4 + 96*64/4 + 2*96*256/4 // 88 neurons pad to 96, and their lines of 64 weights to 256
	vectors := 4 * (64 + 64 + 64 + 88)
	table := 112 * 64 * 2 // 100 rows pad to 112, bfloat16
	assert.EqualValues(t, table+4*64+3*(ternary+vectors), c.WeightBytes(cpu.DenseBF16))
	c.TieWordEmbeddings = false
	assert.EqualValues(t, 2*table+4*64+3*(ternary+vectors), c.WeightBytes(cpu.DenseBF16))
	assert.EqualValues(t, 2*(table/2+400)+4*64+3*(ternary+vectors), c.WeightBytes(cpu.DenseInt8))
	c.Quantization.ModulesToNotConvert = []string{"model.layers.1."}
	assert.EqualValues(t, 2*table+4*64+2*ternary+3*vectors+4*(4*64*64+2*96*64+64*88), c.WeightBytes(cpu.DenseBF16))
}

func TestThe2BModelFitsWhereItShould(t *testing.T) {
	p, _ := Lookup("bitnet-2b")
	assert.InDelta(t, 521e6, float64(p.Config.WeightBytes(cpu.DenseBF16))-128256*2560*2, 5e6)
}

func TestAModelThatNoMachineHoldsIsRefusedBeforeItIsPlanned(t *testing.T) {
	c := Config{VocabSize: maxVocab, HiddenSize: maxHidden, IntermediateSize: maxIntermediate, NumHiddenLayers: maxLayers,
		NumAttentionHeads: 1024, HeadDim: 128, Quantization: Quantization{ModulesToNotConvert: []string{"proj"}}}
	p := pool.New(pool.Options{Budget: 1 << 40})
	for _, head := range []string{"auto", "int8"} {
		allocated := testing.AllocsPerRun(1, func() {
			_, err := NewRandom(&c, 1, LoadOptions{HeadFormat: head, Pool: p})
			var e *pool.BudgetError
			require.ErrorAs(t, err, &e)
			require.Greater(t, e.Requested, int64(1)<<48)
		})
		require.Less(t, allocated, 50e3)
	}
}

func TestTheCheckBeforePlanningCountsWhatTheModelTakes(t *testing.T) {
	for _, c := range []Config{
		{VocabSize: 100, HiddenSize: 64, IntermediateSize: 88, NumHiddenLayers: 3, NumAttentionHeads: 4},
		{VocabSize: 100, HiddenSize: 64, IntermediateSize: 88, NumHiddenLayers: 3, NumAttentionHeads: 4, DType: "float32",
			AttentionBias: true, Quantization: Quantization{ModulesToNotConvert: []string{"q_proj"}}},
		{VocabSize: 100, HiddenSize: 64, IntermediateSize: 88, NumHiddenLayers: 3, NumAttentionHeads: 4, DType: "float16"},
	} {
		for _, packing := range []string{Packing2Bit, PackingBase3} {
			o := LoadOptions{HeadFormat: "int8", Packing: packing}
			m, err := NewRandom(&c, 1, o)
			require.NoError(t, err)
			natural := (&randomSource{cfg: m.Config}).natural()
			assert.Equal(t, m.Info.WeightBytes, m.Config.weightBytes(natural, cpu.DenseInt8, natural, &o), packing)
			require.NoError(t, m.Close())
		}
	}
}
