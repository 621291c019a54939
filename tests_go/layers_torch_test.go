package tests_go

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// torchLayers runs layers on the inputs of testdata/train/layers.npz (tests_py/record/layers.py).
type torchLayers struct {
	*testing.T
	record map[string]npz.Array
}

func (t *torchLayers) load(name string) ([]float32, []int) {
	a, ok := t.record[name]
	require.True(t, ok, name)
	v, err := a.Float32s()
	require.NoError(t, err)
	return v, a.Shape
}

// check compares a layer's result, the gradients of its inputs and those of its parameters with PyTorch's.
func (t *torchLayers) check(name string, lengths []int, inputs []string, params map[string]*autograd.Param,
	layer func(c *nn.Ctx, x []*tensor.Tensor) *tensor.Tensor) {
	t.Helper()
	c := nn.NewCtx(pool.Default())
	defer c.Close()
	var rows []nn.Row
	var caches []*nn.KVCache
	for s, n := range lengths {
		for i := range n {
			rows = append(rows, nn.Row{Seq: int32(s), Pos: int32(i)})
		}
		cache := nn.NewKVCache(pool.Default(), nn.KVFloat32, 1, 2, 10)
		require.NoError(t, cache.Grow(n))
		defer cache.Free()
		caches = append(caches, cache)
	}
	c.Begin(context.Background(), 1, rows, caches)
	defer c.End()
	tape := autograd.NewTape(c)
	c.Attach(tape)
	var x []*tensor.Tensor
	for _, input := range inputs {
		data, shape := t.load(name + "/" + input)
		own := c.New(shape[0], shape[1])
		copy(own.Float32s(), data)
		x = append(x, own)
	}
	y := layer(c, x)
	want, _ := t.load(name + "/y")
	requireNear(t.T, want, y.Float32s(), 2e-6, name)
	g, shape := t.load(name + "/g")
	dy := c.New(shape[0], shape[1])
	copy(dy.Float32s(), g)
	tape.Add(y, dy)
	tape.Backward()
	for i, input := range inputs {
		want, _ := t.load(name + "/d_" + input)
		requireNear(t.T, want, tape.Take(x[i]).Float32s(), 1e-5, name+" d_"+input)
	}
	for key, p := range params {
		want, _ := t.load(name + "/d_" + key)
		requireNear(t.T, want, p.Grad, 1e-5, name+" d_"+key)
	}
}

func (t *torchLayers) param(name string) *autograd.Param {
	data, shape := t.load(name)
	return autograd.NewParam(name, data, shape...)
}

func TestLayersAreThoseOfPyTorch(t *testing.T) {
	record, err := npz.Load("testdata/train/layers.npz")
	require.NoError(t, err)
	sizes, err := record["lengths"].Int64s()
	require.NoError(t, err)
	var lengths []int
	for _, n := range sizes {
		lengths = append(lengths, int(n))
	}
	threads := cpu.NumThreads()
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(threads)) })
	onEveryISA(t, func(t *testing.T) {
		l := &torchLayers{t, record}
		for name, act := range map[string]nn.Activation{"relu2": nn.ReLU2, "silu": nn.SiLU, "relu": nn.ReLU, "gelu": nn.GELU,
			"gelu_tanh": nn.GELUTanh, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid} {
			l.check("act/"+name, nil, []string{"x"}, nil, func(c *nn.Ctx, x []*tensor.Tensor) *tensor.Tensor { return nn.Activate(c, act, x[0]) })
			l.check("gate/"+name, nil, []string{"x", "u"}, nil, func(c *nn.Ctx, x []*tensor.Tensor) *tensor.Tensor { return nn.Gate(c, act, x[0], x[1]) })
		}
		for n := 1; n <= 3; n++ { // the same within rounding; equal bits are tested in core/nn
			require.NoError(t, cpu.SetNumThreads(n))
			w, b := l.param("layer_norm/w"), l.param("layer_norm/b")
			norm := nn.Norm{Center: true, Weight: w.Data, Bias: b.Data, Eps: 1e-5, Param: w, BiasParam: b}
			l.check("layer_norm", nil, []string{"x"}, map[string]*autograd.Param{"w": w, "b": b},
				func(c *nn.Ctx, x []*tensor.Tensor) *tensor.Tensor { return norm.Forward(c, x[0]) })
		}
		l.check("layer_norm_plain", nil, []string{"x"}, nil, func(c *nn.Ctx, x []*tensor.Tensor) *tensor.Tensor {
			norm := nn.Norm{Center: true, Eps: 1e-5}
			return norm.Forward(c, x[0])
		})
		w := l.param("rms_norm/w")
		rms := nn.Norm{Weight: w.Data, Eps: 1e-5, Param: w}
		l.check("rms_norm", nil, []string{"x"}, map[string]*autograd.Param{"w": w},
			func(c *nn.Ctx, x []*tensor.Tensor) *tensor.Tensor { return rms.Forward(c, x[0]) })
		for name, bidirectional := range map[string]bool{"causal": false, "bidirectional": true} {
			a := nn.Attention{Heads: 4, KVHeads: 2, Dim: 10, Bidirectional: bidirectional}
			l.check("attention/"+name, lengths, []string{"q", "k", "v"}, nil,
				func(c *nn.Ctx, x []*tensor.Tensor) *tensor.Tensor { return a.Attend(c, x[0], x[1], x[2]) })
		}
	})
}
