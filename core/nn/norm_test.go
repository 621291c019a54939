package nn

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
)

func TestLayerNormHasTheSameBitsOnThreadsAndISAs(t *testing.T) {
	threads, isa := cpu.NumThreads(), cpu.Active()
	t.Cleanup(func() {
		require.NoError(t, cpu.SetNumThreads(threads))
		require.NoError(t, cpu.SetISA(isa))
	})
	const rows, dim = 150, 37
	r := rand.New(rand.NewPCG(1, 1))
	x, dy := randomFloats(r, rows*dim), randomFloats(r, rows*dim)
	w, b := randomFloats(r, dim), randomFloats(r, dim)
	run := func() (all [][]float32) {
		c := testCtx(t)
		c.Begin(context.Background(), 1, nil, nil)
		defer c.End()
		tape := autograd.NewTape(c)
		c.Attach(tape)
		n := Norm{Center: true, Weight: w, Bias: b, Eps: 1e-5, Param: autograd.NewParam("w", w, dim), BiasParam: autograd.NewParam("b", b, dim)}
		in, g := c.New(rows, dim), c.New(rows, dim)
		copy(in.Float32s(), x)
		copy(g.Float32s(), dy)
		y := n.Forward(c, in)
		tape.Add(y, g)
		tape.Backward()
		for _, v := range [][]float32{y.Float32s(), tape.Take(in).Float32s(), n.Param.Grad, n.BiasParam.Grad} {
			all = append(all, append([]float32(nil), v...))
		}
		return all
	}
	want := run()
	for _, isa := range cpu.Supported() {
		require.NoError(t, cpu.SetISA(isa))
		for _, n := range []int{1, 2, 3} {
			require.NoError(t, cpu.SetNumThreads(n))
			require.Equal(t, want, run())
		}
	}
}

func TestLayerNormOfAConstantRowIsItsBias(t *testing.T) {
	c := testCtx(t)
	c.Begin(context.Background(), 1, nil, nil)
	defer c.End()
	x := c.New(1, 8)
	for i := range x.Float32s() {
		x.Float32s()[i] = 3e7
	}
	n := Norm{Center: true, Bias: []float32{1, 2, 3, 4, 5, 6, 7, 8}, Eps: 1e-5}
	require.Equal(t, n.Bias, n.Forward(c, x).Float32s())
}
