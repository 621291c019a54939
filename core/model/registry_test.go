package model

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPresetsHaveThePublishedSizes(t *testing.T) {
	for name, billions := range map[string]float64{
		"bitnet-b1.58-2b-4t": 2.41, "bitnet-b1.58-large": 0.73, "bitnet-b1.58-xl": 1.27, "bitnet-b1.58-3b": 3.32,
		"llama3-8b-1.58": 8.03, "falcon3-1b-1.58": 1.67, "falcon3-3b-1.58": 3.23, "falcon3-7b-1.58": 7.46, "falcon3-10b-1.58": 10.31,
		"char": 0.01064, "gpt2": 0.12444, "gpt2-medium": 0.35482, "gpt2-large": 0.77403, "gpt2-xl": 1.55761,
	} {
		p, ok := Lookup(name)
		require.True(t, ok, name)
		assert.InDelta(t, billions, float64(p.Parameters)/1e9, 0.01*billions, name)
	}
}

func TestEveryPresetIsValidAndRoundTrips(t *testing.T) {
	list := Presets()
	require.GreaterOrEqual(t, len(list), 12)
	for _, p := range list {
		require.NoError(t, p.Config.Validate(), p.Name)
		requireRoundTrips(t, &p.Config)
		for _, name := range append([]string{p.Name, strings.ToUpper(p.Name), " " + strings.ReplaceAll(p.Name, "-", "_")}, p.Aliases...) {
			q, err := Find(name)
			require.NoError(t, err)
			assert.Equal(t, p.Name, q.Name)
		}
		if p.HubID != "" {
			q, ok := Lookup(p.HubID)
			require.True(t, ok)
			assert.Equal(t, p.Name, q.Name)
		}
	}
}

func TestAliasesReachTheShapesTheyName(t *testing.T) {
	for alias, want := range map[string]string{
		"bitnet-2b": "bitnet-b1.58-2b-4t", "bitnet-1.3b": "bitnet-b1.58-xl", "bitnet-0.7b": "bitnet-b1.58-large",
		"BitNet_3B": "bitnet-b1.58-3b", "1bitLLM/bitnet_b1_58-xl": "bitnet-b1.58-xl", "falcon3-7b": "falcon3-7b-1.58", "bitnet-tiny": "tiny",
	} {
		p, ok := Lookup(alias)
		require.True(t, ok, alias)
		assert.Equal(t, want, p.Name)
	}
	xl, _ := Lookup("bitnet-1.3b")
	assert.Equal(t, 5460, xl.Config.IntermediateSize)
}

func TestAnUnknownNameProposesCloseOnes(t *testing.T) {
	_, err := Find("bitnet-2bb")
	var unknown *UnknownPresetError
	require.ErrorAs(t, err, &unknown)
	require.ErrorIs(t, err, ErrPreset)
	assert.Contains(t, unknown.Close, "bitnet-2b")
	assert.Contains(t, err.Error(), `"bitnet-2bb"`)
	_, err = Find("falcon")
	require.ErrorContains(t, err, "falcon3-1b")
	_, err = Find(strings.Repeat("q", 1000))
	require.ErrorAs(t, err, &unknown)
	assert.Empty(t, unknown.Close)
	require.ErrorContains(t, err, "; `bitnet models` lists the names")
}

func TestUsersRegisterTheirOwnModels(t *testing.T) {
	saved := presets
	defer func() { presets = saved }()
	presets = newRegistry()
	c := Config{VocabSize: 10, HiddenSize: 32, IntermediateSize: 48, NumHiddenLayers: 1, NumAttentionHeads: 2, EOSTokenIDs: []int{3}}
	require.NoError(t, Register("My_Model", c))
	require.NoError(t, RegisterPreset(Preset{Name: "their-model", HubID: "they/model", Aliases: []string{"theirs"}, Config: c}))
	p, ok := Lookup("my-model")
	require.True(t, ok)
	assert.Equal(t, 16, p.Config.HeadDim)
	assert.Equal(t, p.Config.ParameterCount(), p.Parameters)
	p.Config.EOSTokenIDs[0] = 9
	again, _ := Lookup("my-model")
	assert.Equal(t, 3, again.Config.EOSTokenIDs[0], "what a caller gets is a copy")

	require.ErrorIs(t, Register("my-MODEL", c), ErrPreset)
	require.ErrorContains(t, Register("bitnet-2b", c), "bitnet-b1.58-2b-4t")
	require.ErrorIs(t, RegisterPreset(Preset{Name: "fresh", Aliases: []string{"theirs"}, Config: c}), ErrPreset)
	require.ErrorIs(t, Register(" ", c), ErrPreset)
	c.HiddenSize = 33
	require.ErrorIs(t, Register("broken", c), ErrConfig)
	_, ok = Lookup("broken")
	assert.False(t, ok)
}

func TestParameterCountFollowsTheTensors(t *testing.T) {
	c := Config{Architecture: ArchLlama, VocabSize: 10, HiddenSize: 4, IntermediateSize: 6, NumHiddenLayers: 2, NumAttentionHeads: 2, NumKeyValueHeads: 1,
		HeadDim: 8, AttentionBias: true, MLPBias: true}.WithDefaults()
	layer := 4*16 + 4*8 + 4*8 + 16*4 + 3*4*6 // q k v o, gate up down
	layer += 16 + 8 + 8 + 4 + 6 + 6 + 4      // biases
	layer += 2 * 4                           // norms
	assert.EqualValues(t, 2*40+4+2*layer, c.ParameterCount())
	c.TieWordEmbeddings = true
	assert.EqualValues(t, 40+4+2*layer, c.ParameterCount())
	c.Quantization.UseRMSNorm = true
	assert.EqualValues(t, 40+4+2*(layer+4*3+16+4+4+6), c.ParameterCount())
	assert.EqualValues(t, 2*2*8*100*4, c.KVCacheBytes(100, 4))
	gpt2, _ := Lookup("gpt2")
	assert.EqualValues(t, 124_439_808, gpt2.Parameters)
}
