package functional

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

var grid = rapid.Custom(func(t *rapid.T) float32 { return float32(rapid.IntRange(-24, 24).Draw(t, "n")) / 16 })

func leaf(t *rapid.T, name string, shape ...int) *autograd.GradTensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = grid.Draw(t, fmt.Sprint(name, i))
	}
	return leafOf(values, shape...)
}

func leafOf(values []float32, shape ...int) *autograd.GradTensor {
	x := autograd.New(must(tensor.FromFloat32(values, shape...)))
	if err := x.RequireGrad(true); err != nil {
		panic(err)
	}
	return x
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func call(x []*autograd.GradTensor, name string, params map[string]any) ([]*autograd.GradTensor, error) {
	return Call(context.Background(), autograd.Grad, name, x, must(json.Marshal(params)))
}

func check(t require.TestingT, name string, params map[string]any, x ...*autograd.GradTensor) {
	err := autograd.GradCheck(func(x []*autograd.GradTensor) ([]*autograd.GradTensor, error) {
		return call(x, name, params)
	}, x, autograd.CheckOptions{Atol: 2e-3})
	require.NoError(t, err, "%s %v", name, params)
}

func TestGradientsOfLayers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 3)
		rows, dim := n.Draw(t, "rows"), rapid.IntRange(2, 6).Draw(t, "dim")
		x := leaf(t, "x", rows, dim)
		check(t, "rms_norm", map[string]any{"eps": 0.1}, x, leaf(t, "w", dim))
		check(t, "layer_norm", map[string]any{"eps": 0.1}, x, leaf(t, "w", dim), leaf(t, "b", dim))
		for _, act := range []string{"silu", "gelu", "gelu_tanh", "tanh", "sigmoid"} {
			check(t, "gated", map[string]any{"activation": act}, x, leaf(t, "up", rows, dim))
			check(t, "activate", map[string]any{"activation": act}, x)
		}
		check(t, "dropout", map[string]any{"p": 0.3, "seed": rapid.Uint64().Draw(t, "seed")}, x)
		check(t, "dropout", nil, x)
		b, length, heads, half := n.Draw(t, "batch"), n.Draw(t, "length"), n.Draw(t, "heads"), n.Draw(t, "half")
		check(t, "rope", map[string]any{"offset": rapid.IntRange(0, 9).Draw(t, "offset"), "theta": 100}, leaf(t, "r", b, length, heads, 2*half))
	})
}

func TestGradientsOfAttention(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 3)
		b, length, kv, group, dim := n.Draw(t, "batch"), rapid.IntRange(1, 5).Draw(t, "length"), rapid.IntRange(1, 2).Draw(t, "kv"), rapid.IntRange(1, 2).Draw(t, "group"), n.Draw(t, "dim")
		q, k, v := leaf(t, "q", b, length, kv*group, dim), leaf(t, "k", b, length, kv, dim), leaf(t, "v", b, length, kv, dim)
		params := map[string]any{}
		if rapid.Bool().Draw(t, "padded") {
			params["lengths"] = rapid.SliceOfN(rapid.IntRange(1, length), b, b).Draw(t, "lengths")
		}
		params["causal"] = rapid.Bool().Draw(t, "causal")
		if rapid.Bool().Draw(t, "dropout") {
			params["p"], params["seed"] = 0.25, 7
		}
		check(t, "attention", params, q, k, v)
	})
}

func TestGradientsOfLosses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, classes, dim := rapid.IntRange(1, 4).Draw(t, "rows"), rapid.IntRange(1, 5).Draw(t, "classes"), rapid.IntRange(1, 4).Draw(t, "dim")
		ids := make([]int64, rows)
		for i := range ids {
			ids[i] = rapid.Int64Range(-1, int64(classes)-1).Draw(t, "target")
		}
		ids[0] = 0
		targets := autograd.New(must(tensor.FromInt64(ids, rows)))
		for _, reduction := range []string{"mean", "sum", "none"} {
			params := map[string]any{"reduction": reduction, "ignore_index": -1}
			check(t, "cross_entropy", params, leaf(t, "logits", rows, classes), targets)
			if reduction != "none" {
				params["eps"] = 0.1
				check(t, "head_loss", params, leaf(t, "x", rows, dim), leaf(t, "norm", dim), leaf(t, "w", classes, dim), targets)
			}
		}
	})
}

// The layer has the integers of BitNet b1.58, and gradients as if its two quantizers were not there: dX = dY W', dW = dY^T X'.
func TestABitLinearIsTheIntegerLayerWithStraightThroughGradients(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, in, out := rapid.IntRange(1, 4).Draw(t, "rows"), rapid.IntRange(1, 40).Draw(t, "in"), rapid.IntRange(1, 20).Draw(t, "out")
		x, w, dy := leaf(t, "x", rows, in), leaf(t, "w", out, in), leaf(t, "dy", rows, out)
		y := must(call([]*autograd.GradTensor{x, w}, "bit_linear", nil))[0]
		require.NoError(t, y.Backward(context.Background(), dy.Data(), autograd.Options{}))

		panels := &quant.Ternary{Rows: out, Cols: in}
		l := nn.NewTrainable(true, out, in)
		panels.Data = l.Ternary.Data
		scale := must(quant.TernarizeF32(panels.Data, pool.BytesOf(w.Data().Float32s()), out, in))
		codes := panels.Codes(nil)
		wq, xq := make([]float32, out*in), make([]float32, rows*in)
		for i := range wq {
			wq[i] = float32(codes[i]) * scale
		}
		for r := range rows {
			row := x.Data().Float32s()[r*in : (r+1)*in]
			top := float32(0)
			for _, v := range row {
				top = max(top, float32(math.Abs(float64(v))))
			}
			s := 127 / max(top, 1e-5)
			for i, v := range row {
				xq[r*in+i] = float32(math.RoundToEven(float64(v*s))) / s
			}
		}
		wt, xt := must(tensor.FromFloat32(wq, out, in)), must(tensor.FromFloat32(xq, rows, in))
		near := func(want, got *tensor.Tensor, what string) {
			for i, v := range want.Float32s() {
				require.InDelta(t, v, got.Float32s()[i], 2e-3, "%s %d", what, i)
			}
		}
		near(must(tensor.MatMul(xt, wt.T())), y.Data(), "y")
		near(must(tensor.MatMul(dy.Data(), wt)), x.Grad(), "dx")
		near(must(tensor.MatMul(dy.Data().T(), xt)), w.Grad(), "dw")
	})
}

func TestSquaredReLUGate(t *testing.T) {
	x, up := leafOf([]float32{-1, 2}, 1, 2), leafOf([]float32{3, 5}, 1, 2)
	y := must(call([]*autograd.GradTensor{x, up}, "gated", map[string]any{"activation": "relu2"}))[0]
	require.Equal(t, []float32{0, 20}, y.Data().Float32s())
	require.NoError(t, y.Backward(context.Background(), must(tensor.Ones(tensor.Float32, 1, 2)), autograd.Options{}))
	require.Equal(t, []float32{0, 20}, x.Grad().Float32s())
	require.Equal(t, []float32{0, 4}, up.Grad().Float32s())
}

func TestARetainedStepIsRunAgainToTheSameBits(t *testing.T) {
	x, w := leafOf([]float32{0.3, -1, 2, 0.7}, 2, 2), leafOf([]float32{1, -0.5, 0.25, 2}, 2, 2)
	y := must(call([]*autograd.GradTensor{x, w}, "bit_linear", nil))[0]
	y = must(call([]*autograd.GradTensor{y}, "dropout", map[string]any{"p": 0.5, "seed": 1}))[0]
	g := must(tensor.FromFloat32([]float32{1, 2, 3, 4}, 2, 2))
	var first [2][]float32
	for i := range 3 {
		require.NoError(t, y.Backward(context.Background(), g, autograd.Options{Retain: i < 2}))
		got := [2][]float32{append([]float32{}, x.Grad().Float32s()...), append([]float32{}, w.Grad().Float32s()...)}
		if i == 0 {
			first = got
		}
		require.Equal(t, first, got)
		require.NoError(t, x.SetGrad(nil))
		require.NoError(t, w.SetGrad(nil))
	}
	require.ErrorIs(t, y.Backward(context.Background(), g, autograd.Options{}), autograd.ErrFreed)
}

func TestArgumentsOfLayersAreChecked(t *testing.T) {
	x := leafOf(make([]float32, 8), 1, 2, 2, 2)
	flat, ids := leafOf(make([]float32, 4), 2, 2), autograd.New(must(tensor.FromInt64([]int64{0, 5}, 2)))
	pair, scalar, zeros := leafOf(make([]float32, 2), 2), leafOf(make([]float32, 1)), autograd.New(must(tensor.FromInt64([]int64{0, 0}, 2)))
	for _, c := range []struct {
		name, params string
		operands     []*autograd.GradTensor
		want         error
	}{
		{"rms_norm", `{}`, []*autograd.GradTensor{x}, ErrArgument},
		{"rms_norm", `{"nonsense":1}`, []*autograd.GradTensor{x, flat}, ErrArgument},
		{"rms_norm", `{}`, []*autograd.GradTensor{x, flat}, tensor.ErrShape},
		{"rms_norm", `{}`, []*autograd.GradTensor{ids, flat}, tensor.ErrDType},
		{"bit_linear", `{}`, []*autograd.GradTensor{flat, x}, tensor.ErrShape},
		{"rope", `{}`, []*autograd.GradTensor{flat}, tensor.ErrShape},
		{"rope", `{"theta":-1}`, []*autograd.GradTensor{x}, ErrArgument},
		{"bit_linear", `{}`, []*autograd.GradTensor{leafOf(make([]float32, 1<<17+1), 1<<17+1, 1), leafOf([]float32{1}, 1, 1)}, tensor.ErrShape},
		{"rope", `{"offset":-1}`, []*autograd.GradTensor{x}, ErrArgument},
		{"rope", `{"offset":2147483646}`, []*autograd.GradTensor{x}, ErrArgument},
		{"gated", `{"activation":"swish"}`, []*autograd.GradTensor{x, x}, ErrArgument},
		{"activate", `{"activation":"swish"}`, []*autograd.GradTensor{x}, ErrArgument},
		{"dropout", `{"p":1}`, []*autograd.GradTensor{x}, ErrArgument},
		{"attention", `{"lengths":[3]}`, []*autograd.GradTensor{x, x, x}, ErrArgument},
		{"attention", `{"lengths":[1,1]}`, []*autograd.GradTensor{x, x, x}, ErrArgument},
		{"attention", `{}`, []*autograd.GradTensor{x, x, flat}, tensor.ErrShape},
		{"cross_entropy", `{}`, []*autograd.GradTensor{flat, ids}, ErrArgument},
		{"cross_entropy", `{"reduction":"max"}`, []*autograd.GradTensor{flat, ids}, ErrArgument},
		{"cross_entropy", `{}`, []*autograd.GradTensor{flat, flat}, tensor.ErrDType},
		{"rms_norm", `{"eps":-1}`, []*autograd.GradTensor{flat, pair}, ErrArgument},
		{"rms_norm", `{}`, []*autograd.GradTensor{scalar, pair}, tensor.ErrShape},
		{"layer_norm", `{}`, []*autograd.GradTensor{flat, pair, flat}, tensor.ErrShape},
		{"linear", `{}`, []*autograd.GradTensor{ids, flat}, tensor.ErrDType},
		{"linear", `{}`, []*autograd.GradTensor{scalar, flat}, tensor.ErrShape},
		{"linear", `{}`, []*autograd.GradTensor{flat, pair}, tensor.ErrShape},
		{"bit_linear", `{"ste":"learned_scale"}`, []*autograd.GradTensor{flat, flat}, ErrArgument},
		{"bit_linear", `{"ste":"nonsense"}`, []*autograd.GradTensor{flat, flat}, ErrArgument},
		{"bit_linear", `{"clip":0}`, []*autograd.GradTensor{flat, flat}, ErrArgument},
		{"bit_linear", `{"temperature":0}`, []*autograd.GradTensor{flat, flat}, ErrArgument},
		{"rope", `{}`, []*autograd.GradTensor{ids}, tensor.ErrDType},
		{"rope", `{}`, []*autograd.GradTensor{leafOf(make([]float32, 3), 1, 1, 1, 3)}, tensor.ErrShape},
		{"rope", `{}`, []*autograd.GradTensor{leafOf(nil, 1, 0, 1, 2)}, tensor.ErrShape},
		{"rope", `{"scaling":{"rope_type":"linear"}}`, []*autograd.GradTensor{x}, ErrArgument},
		{"rope", `{"scaling":{"rope_type":"yarn","factor":2}}`, []*autograd.GradTensor{x}, ErrArgument},
		{"rope", `{"scaling":{"rope_type":"llama3","factor":2,"low_freq_factor":1,"high_freq_factor":4}}`, []*autograd.GradTensor{x}, ErrArgument},
		{"rope", `{"scaling":{"rope_type":"llama3","factor":2,"low_freq_factor":4,"high_freq_factor":1,"original_max_position_embeddings":8}}`, []*autograd.GradTensor{x}, ErrArgument},
		{"gated", `{}`, []*autograd.GradTensor{ids, ids}, tensor.ErrDType},
		{"gated", `{}`, []*autograd.GradTensor{scalar, scalar}, tensor.ErrShape},
		{"gated", `{}`, []*autograd.GradTensor{flat, pair}, tensor.ErrShape},
		{"dropout", `{}`, []*autograd.GradTensor{ids}, tensor.ErrDType},
		{"dropout", `{"p":0.5}`, []*autograd.GradTensor{scalar}, tensor.ErrShape},
		{"attention", `{}`, []*autograd.GradTensor{ids, x, x}, tensor.ErrDType},
		{"cross_entropy", `{}`, []*autograd.GradTensor{ids, ids}, tensor.ErrDType},
		{"cross_entropy", `{}`, []*autograd.GradTensor{scalar, ids}, tensor.ErrShape},
		{"cross_entropy", `{}`, []*autograd.GradTensor{x, ids}, tensor.ErrShape},
		{"cross_entropy", `{"ignore_index":5}`, []*autograd.GradTensor{flat, autograd.New(must(tensor.FromInt64([]int64{5, 5}, 2)))}, ErrArgument},
		{"head_loss", `{}`, []*autograd.GradTensor{ids, pair, flat, zeros}, tensor.ErrDType},
		{"head_loss", `{}`, []*autograd.GradTensor{scalar, pair, flat, zeros}, tensor.ErrShape},
		{"head_loss", `{}`, []*autograd.GradTensor{flat, flat, flat, zeros}, tensor.ErrShape},
		{"head_loss", `{}`, []*autograd.GradTensor{flat, pair, pair, zeros}, tensor.ErrShape},
		{"head_loss", `{}`, []*autograd.GradTensor{flat, pair, flat, ids}, ErrArgument},
		{"head_loss", `{"reduction":"none"}`, []*autograd.GradTensor{flat, pair, flat, zeros}, ErrArgument},
	} {
		_, err := Call(context.Background(), autograd.Grad, c.name, c.operands, []byte(c.params))
		require.ErrorIs(t, err, c.want, "%s %s", c.name, c.params)
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Call(canceled, autograd.Grad, "rope", []*autograd.GradTensor{x}, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestGradientsOfALinearLayer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, in, out := rapid.IntRange(1, 4).Draw(t, "rows"), rapid.IntRange(1, 9).Draw(t, "in"), rapid.IntRange(1, 9).Draw(t, "out")
		check(t, "linear", nil, leaf(t, "x", rows, in), leaf(t, "w", out, in))
	})
}

// A gradient that nobody wants is not computed, and a layer without any leaves no graph.
func TestOnlyWantedGradientsAreComputed(t *testing.T) {
	x, w := leafOf([]float32{1, 2}, 1, 2), autograd.New(must(tensor.FromFloat32([]float32{3, 5}, 1, 2)))
	y := must(call([]*autograd.GradTensor{x, w}, "linear", nil))[0]
	require.NoError(t, y.Backward(context.Background(), nil, autograd.Options{}))
	require.Equal(t, []float32{3, 5}, x.Grad().Float32s())
	require.Nil(t, w.Grad())
	y = must(call([]*autograd.GradTensor{x.Detach(), w}, "linear", nil))[0]
	require.Equal(t, []float32{13}, y.Data().Float32s())
	require.ErrorIs(t, y.Backward(context.Background(), nil, autograd.Options{}), autograd.ErrNoGrad)
}

// Graphs that are dropped give their memory back: at once when released, else when the collector finds them.
func TestDroppedStepsGiveTheirMemoryBack(t *testing.T) {
	x, w := leafOf(make([]float32, 64*64), 64, 64), leafOf(make([]float32, 64*64), 64, 64)
	for i := range w.Data().Float32s() {
		w.Data().Float32s()[i] = float32(i%5) - 2
	}
	build := func() *autograd.GradTensor {
		return must(call([]*autograd.GradTensor{x, w}, "bit_linear", nil))[0]
	}
	for range 4 { // plans are made
		build().Release()
	}
	runtime.GC() // what other tests have left goes now or while this one runs, so in the end there may be less
	Trim()
	before := pool.Default().Stats().InUse
	for range 200 {
		build().Release()
	}
	Trim()
	require.LessOrEqual(t, pool.Default().Stats().InUse, before)
	for range 20 {
		build()
	}
	for range 50 {
		runtime.GC()
		if Trim(); pool.Default().Stats().InUse <= before {
			return
		}
		runtime.Gosched()
	}
	require.LessOrEqual(t, pool.Default().Stats().InUse, before)
}

func TestLayersMayBeUsedFromSeveralGoroutines(t *testing.T) {
	w := leafOf([]float32{1, -2, 3, -4}, 2, 2)
	var all sync.WaitGroup
	for range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range 25 {
				x := leafOf([]float32{1, -1, 1, 1}, 2, 2)
				y := must(call([]*autograd.GradTensor{x, w}, "bit_linear", nil))[0]
				if err := y.Backward(context.Background(), must(tensor.Ones(tensor.Float32, 2, 2)), autograd.Options{}); err != nil {
					panic(err)
				}
			}
		}()
	}
	all.Wait()
	require.Equal(t, []float32{200, 0, 200, 0}, w.Grad().Float32s())
}
