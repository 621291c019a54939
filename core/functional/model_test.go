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
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
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

// Options that a graph cannot have, and what is used at a wrong time.
func TestPassesOfAModelAreChecked(t *testing.T) {
	ctx, m := context.Background(), tiny(t)
	var turn sync.Mutex
	f := must(NewModel(m, &turn))
	defer f.Close()
	for _, o := range []train.EngineOptions{{STE: "learned_scale"}, {Teacher: m}} {
		_, err := f.Loss(ctx, autograd.Grad, someBatch(9), Pass{EngineOptions: o})
		var option *train.OptionError
		require.ErrorAs(t, err, &option)
	}
	bad := someBatch(9)
	bad.IDs[0] = 40
	_, err := f.Loss(ctx, autograd.Grad, bad, Pass{})
	require.Error(t, err)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = f.Logits(canceled, autograd.Grad, someBatch(9), Pass{})
	require.ErrorIs(t, err, context.Canceled)

	plain := must(f.Logits(ctx, autograd.NoGrad, someBatch(9), Pass{}))
	require.False(t, plain.RequiresGrad())
	recorded := must(f.Logits(ctx, autograd.Grad, someBatch(9), Pass{}))
	require.Equal(t, plain.Data().Float32s(), recorded.Data().Float32s())

	loss := must(f.Loss(ctx, autograd.Grad, someBatch(9), Pass{}))
	turn.Lock() // a Trainer has the model
	require.ErrorIs(t, loss.Backward(ctx, nil, autograd.Options{Retain: true}), ErrBusy)
	turn.Unlock()
}

// The gradients of logits are those of the loss that is computed of them.
func TestLogitsOfAModelHaveGradients(t *testing.T) {
	ctx, b := context.Background(), someBatch(9)
	f := must(NewModel(tiny(t), nil))
	defer f.Close()
	_, leaves := f.Parameters()
	require.NoError(t, must(f.Loss(ctx, autograd.Grad, b, Pass{})).Backward(ctx, nil, autograd.Options{}))
	var want [][]float32
	for _, l := range leaves {
		want = append(want, slices.Clone(l.Grad().Float32s()))
		require.NoError(t, l.SetGrad(nil))
	}
	targets := make([]int64, len(b.Targets))
	for i, v := range b.Targets {
		targets[i] = int64(v)
	}
	logits := must(f.Logits(ctx, autograd.Grad, b, Pass{}))
	loss := must(call([]*autograd.GradTensor{logits, autograd.New(must(tensor.FromInt64(targets, len(targets))))}, "cross_entropy", nil))[0]
	require.NoError(t, loss.Backward(ctx, nil, autograd.Options{Retain: true}))
	for i, l := range leaves {
		require.InDeltaSlice(t, want[i], l.Grad().Float32s(), 1e-5)
	}
	require.NoError(t, loss.Backward(ctx, nil, autograd.Options{})) // computed again
	for i, l := range leaves {
		require.InDelta(t, 2*want[i][0], l.Grad().Float32s()[0], 1e-5)
	}
}

func TestOptimizersOfLeaves(t *testing.T) {
	x, frozen := leafOf([]float32{1, 2}, 2), leafOf([]float32{3}, 1)
	h := optim.DefaultConfig("sgd")
	h.LR = 0.5
	o := must(NewOptimizer(h, []ParamGroup{{Name: "a", Hyper: h.Hyper, Tensors: []*autograd.GradTensor{x}, Names: []string{"mine"}},
		{Name: "b", Hyper: h.Hyper, Tensors: []*autograd.GradTensor{frozen}}}))
	defer o.Close()
	y := must(call([]*autograd.GradTensor{x, leafOf([]float32{2, 4}, 1, 2)}, "linear", nil))[0]
	require.NoError(t, y.Backward(context.Background(), nil, autograd.Options{Retain: true}))
	require.NoError(t, o.Step())
	require.Equal(t, []float32{0, 0}, x.Data().Float32s())
	require.Equal(t, []float32{3}, frozen.Data().Float32s(), "it has no gradient")
	require.ErrorIs(t, y.Backward(context.Background(), nil, autograd.Options{}), autograd.ErrChanged)

	require.ErrorIs(t, o.SetGroups([]optim.Hyper{h.Hyper}), ErrArgument)
	slow := h.Hyper
	slow.LR = 0.25
	require.NoError(t, o.SetGroups([]optim.Hyper{slow, slow}))
	scaler := must(optim.NewGradScaler(optim.ScalerConfig{Mode: "static", InitScale: 2}))
	require.True(t, must(o.StepWith(scaler)))
	require.Equal(t, []float32{-0.25, -0.5}, x.Data().Float32s())
	_, err := o.StepWith(scaler)
	require.ErrorIs(t, err, optim.ErrOrder)

	slow.LR = -1
	require.NoError(t, o.SetGroups([]optim.Hyper{slow, slow}))
	require.Error(t, o.Step(), "hyperparameters are validated by the step")
	ids := autograd.New(must(tensor.FromInt64([]int64{1}, 1)))
	_, err = NewOptimizer(h, []ParamGroup{{Hyper: h.Hyper, Tensors: []*autograd.GradTensor{x, ids}}})
	require.ErrorContains(t, err, "groups[0].params[1]")
}
