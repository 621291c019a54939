package tests_go

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// testdata/train/steps.npz: twenty steps of PyTorch from the same weights on the same batches
// (tests_py/record/train_steps.py).
func TestTheFirstStepsAreThoseOfPyTorch(t *testing.T) {
	record, err := npz.Load("testdata/train/steps.npz")
	require.NoError(t, err)
	cfg := &model.Config{
		Architecture: model.ArchBitNet, VocabSize: 61, HiddenSize: 64, IntermediateSize: 160, NumHiddenLayers: 2,
		NumAttentionHeads: 4, NumKeyValueHeads: 4, HeadDim: 16, HiddenAct: "relu2", MaxPositionEmbeddings: 48,
		RMSNormEps: 1e-5, RopeTheta: 10000, TieWordEmbeddings: true,
	}
	m, err := model.NewTrainable(cfg, 1, model.LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	weights := map[string][]float32{}
	for _, p := range m.Params() {
		weights[p.Name], err = record["weight/"+p.Name].Float32s()
		require.NoError(t, err, p.Name)
	}
	require.NoError(t, m.SetWeights(weights))

	e, err := train.NewEngine(m, train.EngineOptions{})
	require.NoError(t, err)
	defer e.Close()
	config := optim.DefaultConfig("adamw")
	config.LR, config.Betas, config.WeightDecay = 1e-3, [2]float64{0.9, 0.95}, 0.1
	opt, err := optim.New(nil, config, optim.DecayGroups(e.Params(), config.Hyper)...)
	require.NoError(t, err)
	defer opt.Close()

	ids, err := record["ids"].Int64s()
	require.NoError(t, err)
	losses, err := npz.Values[float64](record["losses"])
	require.NoError(t, err)
	norms, err := npz.Values[float64](record["norms"])
	require.NoError(t, err)
	shape := record["ids"].Shape
	batch, width := shape[1], shape[2]
	for step := range losses {
		b := train.Batch{Length: width - 1}
		for s := range batch {
			row := ids[(step*batch+s)*width:][:width]
			for i := range width - 1 {
				b.IDs = append(b.IDs, int32(row[i]))
				b.Targets = append(b.Targets, int32(row[i+1]))
			}
		}
		require.NoError(t, opt.ZeroGrad())
		require.NoError(t, opt.SetLR(1e-3*float64(step+1)/101))
		score, err := e.Accumulate(context.Background(), b, 1)
		require.NoError(t, err)
		loss := score.Loss()
		t.Logf("step %d: loss %.6f, PyTorch %.6f", step, loss, losses[step])
		require.InEpsilon(t, losses[step], loss, 1e-3, "loss of step %d", step)
		if step == 0 {
			for _, p := range e.Params() {
				want, err := record["grad/"+p.Name].Float32s()
				require.NoError(t, err)
				require.LessOrEqual(t, distance(want, p.Grad), 1e-3, "gradient of %s", p.Name)
			}
		}
		factor, norm, err := opt.Grads().ClipFactor(1)
		require.NoError(t, err)
		require.InEpsilon(t, norms[step], norm, 0.01, "gradient norm of step %d", step)
		require.NoError(t, opt.StepScaled(factor))
		require.NoError(t, m.Refresh())
	}
}

// distance is |a-b| / |a|.
func distance(a, b []float32) float64 {
	diff, norm := 0.0, 0.0
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		diff += d * d
		norm += float64(a[i]) * float64(a[i])
	}
	return math.Sqrt(diff / norm)
}
