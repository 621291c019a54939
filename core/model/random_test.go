package model_test

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

func TestRandomModelsAreReproducible(t *testing.T) {
	cfg := model.Config{VocabSize: 300, HiddenSize: 72, IntermediateSize: 100, NumHiddenLayers: 2, NumAttentionHeads: 4, TieWordEmbeddings: true}
	threads := cpu.NumThreads()
	defer func() { require.NoError(t, cpu.SetNumThreads(threads)) }()
	for _, head := range []string{"auto", "float32", "int8", "int4"} {
		var first []float32
		for _, n := range []int{1, 3} {
			require.NoError(t, cpu.SetNumThreads(n))
			m, err := model.NewRandom(&cfg, 7, model.LoadOptions{HeadFormat: head})
			require.NoError(t, err)
			got := logits(t, m)
			assert.Equal(t, "random", m.Info.Format)
			require.NoError(t, m.Close())
			if first == nil {
				first = got
			}
			require.Equal(t, first, got)
			for _, x := range got {
				require.False(t, math.IsNaN(float64(x)) || math.Abs(float64(x)) > 5, "logits stay sane, found %g", x)
			}
		}
		other, err := model.NewRandom(&cfg, 8, model.LoadOptions{HeadFormat: head})
		require.NoError(t, err)
		require.NotEqual(t, first, logits(t, other))
		require.NoError(t, other.Close())
	}
}

func TestRandomTablesAreNormalAndPaddedWithZeros(t *testing.T) {
	cfg := model.Config{Architecture: model.ArchLlama, VocabSize: 75, HiddenSize: 45, IntermediateSize: 52, NumHiddenLayers: 1, NumAttentionHeads: 3, HeadDim: 14, TieWordEmbeddings: true, InitializerRange: 0.5}
	for _, head := range []string{"float32", "bfloat16", "float16", "int8", "int4"} {
		m, err := model.NewRandom(&cfg, 3, model.LoadOptions{HeadFormat: head})
		require.NoError(t, err)
		d := m.Embed.Table
		row, sum, squares := make([]float32, d.Cols), 0.0, 0.0
		clean := bytes.Clone(d.Panels)
		cpu.ClearDense(d.Format, clean, d.Cols)
		for r := range d.Rows {
			d.Row(row, r)
			for c, x := range row {
				sum += float64(x)
				squares += float64(x) * float64(x)
				keep(clean, d.Panels, d.Format, d.Cols, r, c)
			}
		}
		n := float64(d.Rows * d.Cols)
		assert.InDelta(t, 0, sum/n, 0.03, head)
		assert.InDelta(t, 0.5, math.Sqrt(squares/n), 0.03, head)
		assert.Equal(t, clean, d.Panels, "%s: padding is zero", head)
		q := m.Blocks[0].FFN.Gate.Ternary
		packed := make([]byte, len(q.Data))
		cpu.PackTernary(packed, q.Codes(nil), q.Rows, q.Cols)
		assert.Equal(t, packed, q.Data, "padding is weight 0")
		require.NoError(t, m.Close())
	}
}

func keep(dst, src []byte, f cpu.DenseFormat, cols, r, c int) {
	at := cpu.DenseOffset(f, cols, r, c)
	switch f {
	case cpu.DenseF32:
		copy(dst[at:at+4], src[at:])
	case cpu.DenseBF16, cpu.DenseF16:
		copy(dst[at:at+2], src[at:])
	case cpu.DenseInt8:
		dst[at] = src[at]
	case cpu.DenseInt4:
		half := byte(15) << (c / 4 % 2 * 4)
		dst[at] = dst[at]&^half | src[at]&half
		scale := cpu.Int4ScaleOffset(cols, r, c)
		copy(dst[scale:scale+2], src[scale:])
	}
}

func TestARandomModelNeedsAValidConfig(t *testing.T) {
	_, err := model.NewRandom(&model.Config{}, 1, model.LoadOptions{})
	require.ErrorIs(t, err, model.ErrConfig)
	cfg := model.Config{VocabSize: 64, HiddenSize: 32, IntermediateSize: 42, NumHiddenLayers: 1, NumAttentionHeads: 2}
	_, err = model.NewRandom(&cfg, 1, model.LoadOptions{HeadFormat: "x"})
	require.ErrorIs(t, err, model.ErrOption)
	_, err = model.NewRandom(&cfg, 1, model.LoadOptions{Pool: pool.New(pool.Options{Budget: 1})})
	require.ErrorIs(t, err, pool.ErrOutOfMemory)
}

func TestFFNDensityIsTheShareOfOpenGates(t *testing.T) {
	cfg := model.Config{VocabSize: 64, HiddenSize: 256, IntermediateSize: 2000, NumHiddenLayers: 1, NumAttentionHeads: 4, HiddenAct: model.ActReLU2}
	m, err := model.NewRandom(&cfg, 1, model.LoadOptions{FFNDensity: 0.2})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	w, still := m.Blocks[0].FFN.Gate.Ternary, 0
	codes := w.Codes(nil)
	for r := range w.Rows {
		if !slices.ContainsFunc(codes[r*w.Cols:(r+1)*w.Cols], func(c int8) bool { return c != 0 }) {
			still++
		}
	}
	assert.InDelta(t, 0.6, float64(still)/float64(w.Rows), 0.03, "rows of zeros")

	for _, bad := range []float64{-0.1, 0.6, math.NaN()} {
		_, err := model.NewRandom(&cfg, 1, model.LoadOptions{FFNDensity: bad})
		require.ErrorIs(t, err, model.ErrOption)
		require.ErrorContains(t, err, "ffn_density")
	}
	cfg.HiddenAct = model.ActSiLU
	_, err = model.NewRandom(&cfg, 1, model.LoadOptions{FFNDensity: 0.2})
	require.ErrorContains(t, err, "silu")
}
