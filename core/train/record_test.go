package train

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/model"
)

func TestARecordSurvivesJSON(t *testing.T) {
	r := Record{
		Step: 3, Epoch: 0.5, Tokens: 96, Loss: 1.25, Perplexity: math.Exp(1.25), Accuracy: 0.5, GradientNorm: 2, LearningRate: 1e-3,
		LearningRates: map[string]float64{"decay": 1e-3}, LossScale: 8, WeightChanges: &WeightChanges{0.1, 0.2, 0.3},
		EvalRecord: &EvalRecord{1.5, math.Exp(1.5), 0.25}, Metrics: Metrics{"half": 0.5}, Resources: Resources{Seconds: 0.1, PoolBytes: 5},
	}
	text, err := json.Marshal(r)
	require.NoError(t, err)
	var back Record
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, r, back)

	plain := Record{Step: 1}
	text, err = json.Marshal(plain)
	require.NoError(t, err)
	for _, absent := range []string{"eval_loss", "weights_flipped", "metrics", "skipped", "loss_scale", "divergence"} {
		require.NotContains(t, string(text), absent)
	}
}

func TestNumbersThatJSONDoesNotHaveAreNull(t *testing.T) {
	r := Record{Step: 1, Loss: math.NaN(), Perplexity: math.NaN(), GradientNorm: math.Inf(1), Skipped: true, Metrics: Metrics{"odd": math.Inf(-1)}}
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(text), `"loss":null`)
	require.Contains(t, string(text), `"odd":null`)
	var back Record
	require.NoError(t, json.Unmarshal(text, &back))
	require.True(t, math.IsNaN(back.Loss) && math.IsNaN(back.Perplexity) && math.IsNaN(back.GradientNorm) && math.IsNaN(back.Metrics["odd"]))
}

// One layer with width 8 and heads of 2 x 4, by hand.
func TestFLOPsOfATokenByHand(t *testing.T) {
	c := &model.Config{Architecture: model.ArchBitNet, VocabSize: 10, HiddenSize: 8, IntermediateSize: 16, NumHiddenLayers: 3, NumAttentionHeads: 2, NumKeyValueHeads: 1, HeadDim: 4}
	projections := 8*8 + 2*4*8 + 8*8 + 3*8*16
	scores := 2 * 2 * 5 * 8 / 2 // two products of 8 multiplications and additions with half of 5 positions, before the backward pass
	require.InDelta(t, float64(3*2*(3*projections+10*8)+3*3*scores), flopsPerToken(c, 5), 1e-9)
}
