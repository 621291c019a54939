package functional

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

func tiny(t *testing.T) *model.Model {
	t.Helper()
	cfg := must(model.ParseConfig([]byte(`{"preset":"char","vocab_size":40,"hidden_size":48,"intermediate_size":96,"num_hidden_layers":2}`), ""))
	m := must(model.NewTrainable(cfg, 1, model.LoadOptions{}))
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func someBatch(n int) train.Batch {
	b := train.Batch{Lengths: []int{n, n - 3}}
	for i := range 2*n - 3 {
		b.IDs, b.Targets = append(b.IDs, int32(i*7%40)), append(b.Targets, int32((i*7+3)%40))
	}
	return b
}

// The loss in a graph and its gradients are those of the engine that Trainer uses, bit for bit, step after step.
func TestALossInAGraphIsTheEnginesLoss(t *testing.T) {
	ctx, b := context.Background(), someBatch(9)
	theirs, ours := tiny(t), tiny(t)
	e := must(train.NewEngine(theirs, train.EngineOptions{}))
	defer e.Close()
	h := optim.DefaultConfig("adamw")
	theirOpt := must(optim.New(nil, h, optim.Group{Params: theirs.Params()}))
	defer theirOpt.Close()

	f := must(NewModel(ours, nil))
	defer f.Close()
	_, leaves := f.Parameters()
	ourOpt := must(NewOptimizer(h, []ParamGroup{{Hyper: h.Hyper, Tensors: leaves}}))
	defer ourOpt.Close()
	for range 4 {
		require.NoError(t, theirOpt.ZeroGrad())
		s := must(e.Accumulate(ctx, b, 1))
		loss := must(f.Loss(ctx, autograd.Grad, b, Pass{}))
		require.Equal(t, float32(s.Loss()), loss.Data().Float32s()[0])
		for _, l := range leaves {
			require.NoError(t, l.SetGrad(nil))
		}
		require.NoError(t, loss.Backward(ctx, nil, autograd.Options{}))
		for i, p := range theirs.Params() {
			require.Equal(t, p.Grad, leaves[i].Grad().Float32s(), p.Name)
		}
		require.NoError(t, theirOpt.Step())
		require.NoError(t, theirs.Refresh())
		require.NoError(t, ourOpt.Step())
	}
	require.Equal(t, theirs.Checksum(), func() uint32 {
		require.NoError(t, ours.Acquire()) // which derives the weights
		defer ours.Release()
		return ours.Checksum()
	}())
}

// Passes and backward passes of several goroutines over one model: gradients are the sum of all.
func TestAModelMayBeUsedFromSeveralGoroutines(t *testing.T) {
	ctx := context.Background()
	f := must(NewModel(tiny(t), nil))
	defer f.Close()
	_, leaves := f.Parameters()
	pass := func(n int) {
		y := must(f.Loss(ctx, autograd.Grad, someBatch(n), Pass{}))
		if err := y.Backward(ctx, nil, autograd.Options{}); err != nil {
			panic(err)
		}
		must(f.Logits(ctx, autograd.Grad, someBatch(n), Pass{})).Release() // dropped
	}
	for n := range 4 {
		pass(6 + n)
	}
	want := slices.Clone(leaves[0].Grad().Float32s())
	require.NoError(t, leaves[0].SetGrad(nil))
	var all sync.WaitGroup
	for n := range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			pass(6 + n)
		}()
	}
	all.Wait()
	require.InDeltaSlice(t, want, leaves[0].Grad().Float32s(), 1e-5)
}

// A schedule may change the options of every pass: the memory of a step is used again, whatever they are.
func TestPassesWithOtherOptionsUseTheSameMemory(t *testing.T) {
	ctx := context.Background()
	f := must(NewModel(tiny(t), nil))
	defer f.Close()
	pass := func(o train.EngineOptions) []float32 {
		y := must(f.Loss(ctx, autograd.Grad, someBatch(9), Pass{EngineOptions: o, Seed: 1}))
		require.NoError(t, y.Backward(ctx, nil, autograd.Options{}))
		defer y.Release()
		return slices.Clone(y.Data().Float32s())
	}
	options := func(i int) train.EngineOptions {
		return train.EngineOptions{Dropout: float64(i) / 100, STE: "soft", STETemperature: 1 / float64(1+i), GradientCheckpointing: i%2 == 1}
	}
	first := [][]float32{pass(options(1)), pass(options(2)), pass(options(3)), pass(options(4))}
	used := pool.Default().InUse()
	for i := range 40 {
		pass(options(1 + i))
	}
	require.LessOrEqual(t, pool.Default().InUse(), used)
	for i, loss := range first {
		require.Equal(t, loss, pass(options(1+i)))
	}
	_, err := f.Loss(ctx, autograd.Grad, someBatch(9), Pass{EngineOptions: train.EngineOptions{Dropout: 1}})
	require.ErrorIs(t, err, train.ErrConfig)
}

func TestGradientsForInputsLeaveAModelsParametersAlone(t *testing.T) {
	ctx := context.Background()
	m := tiny(t)
	f := must(NewModel(m, nil))
	defer f.Close()
	_, leaves := f.Parameters()
	loss := must(f.Loss(ctx, autograd.Grad, someBatch(6), Pass{}))
	gs := must(autograd.Gradients(ctx, []*autograd.GradTensor{loss}, nil, leaves[:2], true))
	require.Nil(t, leaves[0].Grad())
	require.NoError(t, loss.Backward(ctx, nil, autograd.Options{}))
	require.Equal(t, leaves[0].Grad().Float32s(), gs[0].Float32s())
	require.Equal(t, leaves[1].Grad().Float32s(), gs[1].Float32s())
}

func TestOnlyTrainableModelsHavePasses(t *testing.T) {
	cfg := must(model.ParseConfig([]byte(`{"preset":"char","vocab_size":40,"hidden_size":48,"intermediate_size":96,"num_hidden_layers":1}`), ""))
	m := must(model.NewRandom(cfg, 1, model.LoadOptions{}))
	_, err := NewModel(m, nil)
	require.ErrorIs(t, err, train.ErrNotTrainable)
	require.NoError(t, m.Close())
	_, err = NewModel(m, nil)
	require.ErrorIs(t, err, model.ErrClosed)
}
