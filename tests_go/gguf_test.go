package tests_go

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// The golden models go through a GGUF file of each type and come back with the same codes, scales as near as the type holds
// them, and the same greedy tokens.
func TestGoldenModelsKeepCodesAndTokensThroughEveryGGUFType(t *testing.T) {
	ctx := context.Background()
	for _, folder := range goldenFolders {
		dir := "testdata/golden/" + folder
		m, err := model.Load(ctx, dir, model.LoadOptions{})
		require.NoError(t, err)
		want := ternaryLayers(m)
		greedy, err := npz.Load(dir + "/golden_f32.npz")
		require.NoError(t, err)
		for _, kind := range model.GGUFTypes() {
			path := filepath.Join(t.TempDir(), folder+"-"+kind+".gguf")
			require.NoError(t, m.SaveGGUF(ctx, path, model.GGUFOptions{Type: kind}))
			again, err := model.Load(ctx, path, model.LoadOptions{})
			require.NoError(t, err, "%s %s", folder, kind)
			require.Equal(t, "gguf", again.Info.Format)
			got := ternaryLayers(again)
			require.Len(t, got, len(want))
			for name, w := range want {
				g := got[name]
				require.NotNil(t, g, name)
				require.Equal(t, w.Codes(nil), g.Codes(nil), "%s %s %s", folder, kind, name)
				precision := map[string]float64{"i2_s": 0, "f32": 0, "bf16": 1.0 / 256}[kind]
				if kind == "tq1_0" || kind == "tq2_0" || kind == "f16" {
					precision = 1.0 / 2048
				}
				require.InDelta(t, w.Scale, g.Scale, precision*float64(w.Scale), "%s %s %s", folder, kind, name)
			}
			e := infer.NewEngine(again)
			for i := range 4 {
				prompt, tokens := int32s(t, greedy, fmt.Sprintf("input_ids_%d", i)), int32s(t, greedy, fmt.Sprintf("greedy_%d", i))
				p := infer.DefaultSamplingParams()
				p.MaxNewTokens, p.IgnoreEOS = len(tokens)-len(prompt), true
				require.Equal(t, tokens[len(prompt):], generate(t, e, [][]int32{prompt}, p)[0], "%s %s: greedy tokens of prompt %d", folder, kind, i)
			}
			e.Close()
			require.NoError(t, again.Close())
		}
		require.NoError(t, m.Close())
	}
}

// ternaryLayers are a model's ternary matrices by the names of their modules.
func ternaryLayers(m *model.Model) map[string]*quant.Ternary {
	out := map[string]*quant.Ternary{}
	for i, b := range m.Blocks {
		for name, l := range map[string]*nn.Linear{"q": b.Attn.Q, "k": b.Attn.K, "v": b.Attn.V, "o": b.Attn.O, "gate": b.FFN.Gate, "up": b.FFN.Up, "down": b.FFN.Down} {
			if l.Ternary != nil {
				out[fmt.Sprintf("%d.%s", i, name)] = l.Ternary
			}
		}
	}
	return out
}
