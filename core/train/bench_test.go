package train_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// workload is one model and batch that training is measured with; bench/train.py compares the same two with PyTorch.
type workload struct {
	name               string
	config             model.Config
	sequences, context int
}

var workloads = []workload{
	{"A", model.Config{VocabSize: 65, HiddenSize: 384, IntermediateSize: 1024, NumHiddenLayers: 6, NumAttentionHeads: 6, MaxPositionEmbeddings: 256}, 16, 256},
	{"B", model.Config{VocabSize: 65, HiddenSize: 128, IntermediateSize: 384, NumHiddenLayers: 4, NumAttentionHeads: 4, MaxPositionEmbeddings: 64}, 12, 64},
}

// run is a workload that is being trained.
type run struct {
	model  *model.Model
	engine *train.Engine
	opt    *optim.Optimizer
	batch  train.Batch
}

func (w workload) start(t testing.TB) *run { return w.startWith(t, train.EngineOptions{}) }

func (w workload) startWith(t testing.TB, o train.EngineOptions) *run {
	c := w.config
	c.Architecture, c.HiddenAct, c.TieWordEmbeddings, c.NumKeyValueHeads = model.ArchBitNet, "relu2", true, c.NumAttentionHeads
	c.RMSNormEps, c.RopeTheta = 1e-5, 10000
	m, err := model.NewTrainable(&c, 1, model.LoadOptions{})
	require.NoError(t, err)
	e, err := train.NewEngine(m, o)
	require.NoError(t, err)
	adamw := optim.DefaultConfig("adamw")
	adamw.LR, adamw.Betas, adamw.WeightDecay = 1e-3, [2]float64{0.9, 0.95}, 0.1
	opt, err := optim.New(nil, adamw, optim.DecayGroups(e.Params(), adamw.Hyper)...)
	require.NoError(t, err)
	t.Cleanup(func() {
		opt.Close()
		e.Close()
		require.NoError(t, m.Close())
	})
	r := &run{model: m, engine: e, opt: opt, batch: train.Batch{Length: w.context}}
	random := rand.New(rand.NewPCG(1, 2))
	for range w.sequences * w.context {
		r.batch.IDs = append(r.batch.IDs, random.Int32N(int32(c.VocabSize)))
		r.batch.Targets = append(r.batch.Targets, random.Int32N(int32(c.VocabSize)))
	}
	return r
}

// step is a whole update as Trainer makes it.
func (r *run) step(t testing.TB) {
	require.NoError(t, r.opt.ZeroGrad())
	_, err := r.engine.Accumulate(context.Background(), r.batch, 1)
	require.NoError(t, err)
	factor, _, err := r.opt.Grads().ClipFactor(1)
	require.NoError(t, err)
	require.NoError(t, r.opt.StepScaled(factor))
	require.NoError(t, r.model.Refresh())
}

// score is the forward pass.
func (r *run) score(t testing.TB) {
	require.NoError(t, r.engine.Score(context.Background(), r.batch, new(train.Score)))
}

// peaks returns what the loss of a batch needs at its peak without gradients and with them.
func (r *run) peaks(t testing.TB) (forward, training int64) {
	for range 2 { // recorded, planned
		r.score(t)
	}
	forward = r.engine.Scratch().PeakLive + r.engine.CacheBytes()
	for range 2 {
		r.step(t)
	}
	return forward, r.engine.Scratch().PeakLive + r.engine.CacheBytes()
}

// BenchmarkStep is a whole update: forward, backward, clipping, AdamW, and making the ternary weights anew. It prints
// tokens a second and what the step needs beside weights, gradients and optimizer state, also as a multiple of what
// the loss of the same batch needs without gradients (scratch memory of each at its peak; the keys and values, which
// both keep, are counted with both).
func BenchmarkStep(b *testing.B) {
	for _, w := range workloads {
		b.Run(fmt.Sprintf("%s/%s/threads=%d", w.name, cpu.Active(), cpu.NumThreads()), func(b *testing.B) {
			r := w.start(b)
			forward, training := r.peaks(b)
			for b.Loop() {
				r.step(b)
			}
			b.ReportMetric(float64(len(r.batch.IDs)*b.N)/b.Elapsed().Seconds(), "tokens/s")
			b.ReportMetric(float64(training)/1e6, "MB")
			b.ReportMetric(float64(training)/float64(forward), "x-forward")
			s := r.engine.Scratch()
			b.ReportMetric(100*float64(s.PeakLive)/float64(s.Reserved), "%-of-pool")
		})
	}
}

// BenchmarkLoss is the forward pass alone.
func BenchmarkLoss(b *testing.B) {
	for _, w := range workloads {
		b.Run(fmt.Sprintf("%s/%s/threads=%d", w.name, cpu.Active(), cpu.NumThreads()), func(b *testing.B) {
			r := w.start(b)
			for b.Loop() {
				r.score(b)
			}
			b.ReportMetric(float64(len(r.batch.IDs)*b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
