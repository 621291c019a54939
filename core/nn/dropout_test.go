package nn

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// dropped runs Drop over ones [rows, cols].
func dropped(c *Ctx, seed uint64, p float32, rows, cols int) []float32 {
	c.Begin(context.Background(), 1, nil, nil)
	defer c.End()
	c.Train(Training{Seed: seed})
	x := c.New(rows, cols)
	for i := range x.Float32s() {
		x.Float32s()[i] = 1
	}
	return append([]float32(nil), c.Drop(x, p).Float32s()...)
}

func TestDropoutDropsItsShareAndScalesTheRest(t *testing.T) {
	c := testCtx(t)
	for _, p := range []float32{0.1, 0.5, 0.9} {
		const n = 500 * 401
		y := dropped(c, 7, p, 500, 401)
		zeros := 0
		for _, v := range y {
			if v == 0 {
				zeros++
				continue
			}
			require.Equal(t, float32(1/(1-float64(p))), v)
		}
		require.InDelta(t, float64(p), float64(zeros)/n, 4*math.Sqrt(float64(p*(1-p))/n), "p = %v", p)
	}
}

// Neighbours in a row and in a column, and the same element under another seed, are dropped independently.
func TestDropoutIsUncorrelated(t *testing.T) {
	c := testCtx(t)
	const rows, cols = 512, 256
	a, b := dropped(c, 1, 0.5, rows, cols), dropped(c, 2, 0.5, rows, cols)
	agree := map[string]int{}
	for r := range rows - 1 {
		for i := range cols - 2 {
			at := r*cols + i
			for name, other := range map[string]float32{"right": a[at+1], "second": a[at+2], "below": a[at+cols], "seed": b[at]} {
				if other == a[at] {
					agree[name]++
				}
			}
		}
	}
	const n = (rows - 1) * (cols - 2)
	for name, k := range agree {
		require.InDelta(t, 0.5, float64(k)/n, 4*0.5/math.Sqrt(n), name)
	}
}

func TestDropoutDependsOnSeedAndPlaceAlone(t *testing.T) {
	threads := cpu.NumThreads()
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(threads)) })
	c := testCtx(t)
	want := dropped(c, 3, 0.3, 67, 33)
	for _, n := range []int{1, 2, 3} {
		require.NoError(t, cpu.SetNumThreads(n))
		require.Equal(t, want, dropped(c, 3, 0.3, 67, 33))
	}
	require.NotEqual(t, want, dropped(c, 4, 0.3, 67, 33))
	require.Equal(t, StepSeed(1, 2, 3), StepSeed(1, 2, 3))
	require.NotEqual(t, StepSeed(1, 2, 3), StepSeed(1, 3, 2))
	require.NotEqual(t, StepSeed(0, 0, 0), StepSeed(0, 0, 1))

	c.Begin(context.Background(), 2, nil, nil)
	defer c.End()
	c.Train(Training{Seed: 3, Dropout: 0.3})
	ones := func() *tensor.Tensor {
		x := c.New(9, 9)
		for i := range x.Float32s() {
			x.Float32s()[i] = 1
		}
		return x
	}
	first, second := Dropout(c, ones()), Dropout(c, ones())
	require.NotEqual(t, first.Float32s(), second.Float32s(), "each place has a mask of its own")
}

func TestDropoutOutsideOfTrainingIsNothing(t *testing.T) {
	c := testCtx(t)
	c.Begin(context.Background(), 1, nil, nil)
	x := c.New(2, 3)
	require.Same(t, x, Dropout(c, x))
	c.Train(Training{Dropout: 0.5})
	c.End()
	c.Begin(context.Background(), 1, nil, nil)
	defer c.End()
	x = c.New(2, 3)
	require.Same(t, x, Dropout(c, x), "the next step is not one of training")
}

// The mask of an element is the same from any even column on, as attention asks for it page by page.
func TestMasksMayBeAppliedInPieces(t *testing.T) {
	m := mask{key: 5, limit: 1 << 31, scale: 2}
	ones := make([]float32, 37)
	for i := range ones {
		ones[i] = 1
	}
	whole, pieces := make([]float32, 37), make([]float32, 37)
	m.apply(whole, ones, 3, 0)
	for at := 0; at < 37; at += 8 {
		end := min(at+8, 37)
		m.apply(pieces[at:end], ones[at:end], 3, at)
	}
	require.Equal(t, whole, pieces)
}

func TestGradientsWithDropoutAreTheSlopesOfTheLoss(t *testing.T) {
	for _, training := range []Training{{Dropout: 0.3, Seed: 1}, {AttentionDropout: 0.4, Seed: 2}, {Dropout: 0.1, AttentionDropout: 0.2, Seed: 3}} {
		m := newToy(t, ReLU2, false)
		m.training = training
		m.checkSlopes(t)
	}
}

// A branch's gradient is shared with the residual stream's: the mask must change only the branch's.
func TestDropoutLeavesTheOtherTermOfASumAlone(t *testing.T) {
	c := testCtx(t)
	c.Begin(context.Background(), 1, nil, nil)
	defer c.End()
	c.Train(Training{Dropout: 0.5, Seed: 9})
	tape := autograd.NewTape(c)
	c.Attach(tape)
	x, y := c.New(4, 8), c.New(4, 8)
	for i := range 32 {
		x.Float32s()[i], y.Float32s()[i] = 1, 1
	}
	d := Dropout(c, y)
	kept := append([]float32(nil), d.Float32s()...)
	sum := Add(c, x, d)
	dy := c.New(4, 8)
	for i := range 32 {
		dy.Float32s()[i] = float32(i)
	}
	tape.Add(sum, dy)
	tape.Backward()
	for i := range 32 {
		require.Equal(t, float32(i), tape.Take(x).Float32s()[i])
		require.Equal(t, float32(i)*kept[i], tape.Take(y).Float32s()[i])
	}
}
