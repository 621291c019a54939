package tests_go

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// PyTorch's gradients of a BitLinear under straight-through estimation: dX = dY W', dW = dY^T X' with the quantized
// input and weights.
func TestBitLinearGradientsAreThoseOfPyTorch(t *testing.T) {
	cases, err := npz.Load("testdata/golden/linear_cases.npz")
	require.NoError(t, err)
	onEveryISA(t, func(t *testing.T) {
		for _, name := range []string{"a", "b", "c"} {
			load := func(field string) ([]float32, []int) {
				a, ok := cases[name+"_"+field]
				require.True(t, ok, field)
				v, err := a.Float32s()
				require.NoError(t, err)
				return v, a.Shape
			}
			w, shape := load("W")
			x, in := load("X")
			g, _ := load("G")
			out, dim, rows := shape[0], shape[1], in[0]
			layer := nn.NewTrainable(true, out, dim)
			layer.Weight = &autograd.Param{Name: name, Shape: shape, Data: w, Grad: make([]float32, len(w))}
			require.NoError(t, layer.Refresh())

			c := nn.NewCtx(pool.Default())
			tape := autograd.NewTape(c)
			c.Begin(context.Background(), 1, make([]nn.Row, rows), nil)
			c.Attach(tape)
			input, err := tensor.FromFloat32(x, rows, dim)
			require.NoError(t, err)
			y := nn.Project(c, input, nil, layer)[0]
			dy := c.New(rows, out)
			copy(dy.Float32s(), g)
			tape.Add(y, dy)
			tape.Backward()

			dX, _ := load("dX")
			dW, _ := load("dW")
			requireNear(t, dX, tape.Take(input).Float32s(), 1e-4, name+" dX")
			requireNear(t, dW, layer.Weight.Grad, 1e-4, name+" dW")
			c.End()
			c.Close()
		}
	})
}

// requireNear compares within a part of the largest expected value.
func requireNear(t *testing.T, want, got []float32, relative float64, msg string) {
	t.Helper()
	require.Equal(t, len(want), len(got), msg)
	top := 0.0
	for _, v := range want {
		top = max(top, math.Abs(float64(v)))
	}
	for i := range want {
		require.InDelta(t, want[i], got[i], relative*top, "%s[%d]", msg, i)
	}
}
