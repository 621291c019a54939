package nn

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
)

// attended runs attention over sequences of the given lengths. With dOut it also returns the gradients of q, k and v.
func attended(t *testing.T, a Attention, lengths []int, training Training, q, k, v, dOut []float32) (out []float32, grads [3][]float32) {
	t.Helper()
	c := testCtx(t)
	var rows []Row
	var caches []*KVCache
	for s, n := range lengths {
		for i := range n {
			rows = append(rows, Row{Seq: int32(s), Pos: int32(i)})
		}
		caches = append(caches, newCache(t, n, a.KVHeads, a.Dim))
	}
	c.Begin(context.Background(), 1, rows, caches)
	defer c.End()
	c.Train(training)
	tape := autograd.NewTape(c)
	if dOut != nil {
		c.Attach(tape)
	}
	qt, kt, vt := c.New(len(rows), a.Heads*a.Dim), c.New(len(rows), a.KVHeads*a.Dim), c.New(len(rows), a.KVHeads*a.Dim)
	copy(qt.Float32s(), q)
	copy(kt.Float32s(), k)
	copy(vt.Float32s(), v)
	y := a.Attend(c, qt, kt, vt)
	out = append(out, y.Float32s()...)
	if dOut != nil {
		dy := c.New(len(rows), a.Heads*a.Dim)
		copy(dy.Float32s(), dOut)
		tape.Add(y, dy)
		tape.Backward()
		grads = [3][]float32{append([]float32(nil), tape.Take(qt).Float32s()...), append([]float32(nil), tape.Take(kt).Float32s()...),
			append([]float32(nil), tape.Take(vt).Float32s()...)}
	}
	return out, grads
}

func randomFloats(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// The textbook formula in float64.
func TestBidirectionalAttentionSeesItsWholeSequenceAndNoOther(t *testing.T) {
	a := Attention{Heads: 4, KVHeads: 2, Dim: 6, Bidirectional: true}
	lengths := []int{70, 1, 9, 64, 130}
	rows := 0
	for _, n := range lengths {
		rows += n
	}
	r := rand.New(rand.NewPCG(1, 2))
	q, k, v := randomFloats(r, rows*24), randomFloats(r, rows*12), randomFloats(r, rows*12)
	out, _ := attended(t, a, lengths, Training{}, q, k, v, nil)
	first := 0
	for _, n := range lengths {
		for i := first; i < first+n; i++ {
			for h := range 4 {
				p, sum := make([]float64, n), 0.0
				for j := range n {
					dot := 0.0
					for d := range 6 {
						dot += float64(q[i*24+h*6+d]) * float64(k[(first+j)*12+h/2*6+d])
					}
					p[j] = math.Exp(dot / math.Sqrt(6))
					sum += p[j]
				}
				for d := range 6 {
					want := 0.0
					for j := range n {
						want += p[j] / sum * float64(v[(first+j)*12+h/2*6+d])
					}
					require.InDelta(t, want, out[i*24+h*6+d], 2e-6)
				}
			}
		}
		first += n
	}
}

func TestGradientsOfBidirectionalAttentionAreSlopes(t *testing.T) {
	lengths := []int{67, 3}
	r := rand.New(rand.NewPCG(3, 4))
	x := [3][]float32{randomFloats(r, 70*24), randomFloats(r, 70*12), randomFloats(r, 70*12)}
	weights := randomFloats(r, 70*24)
	for _, training := range []Training{{}, {AttentionDropout: 0.3, Seed: 5}} {
		for _, bidirectional := range []bool{false, true} {
			a := Attention{Heads: 4, KVHeads: 2, Dim: 6, Bidirectional: bidirectional}
			plain, _ := attended(t, a, lengths, training, x[0], x[1], x[2], nil)
			out, grads := attended(t, a, lengths, training, x[0], x[1], x[2], weights)
			require.Equal(t, plain, out, "recording changes nothing")
			for input, g := range grads {
				for range 10 {
					i := r.IntN(len(g))
					at := x[input][i]
					value := func(h float32) (sum float64) {
						x[input][i] = at + h
						y, _ := attended(t, a, lengths, training, x[0], x[1], x[2], nil)
						x[input][i] = at
						for j, v := range y {
							sum += float64(v) * float64(weights[j])
						}
						return sum
					}
					const h = 1.0 / 64
					want := (4*(value(h)-value(-h))/(2*h) - (value(2*h)-value(-2*h))/(4*h)) / 3
					require.InDelta(t, want, g[i], 1e-3, "input %d, element %d", input, i)
				}
			}
		}
	}
}

func TestBidirectionalAttentionHasTheSameBitsOnThreadsAndISAs(t *testing.T) {
	threads, isa := cpu.NumThreads(), cpu.Active()
	t.Cleanup(func() {
		require.NoError(t, cpu.SetNumThreads(threads))
		require.NoError(t, cpu.SetISA(isa))
	})
	a := Attention{Heads: 4, KVHeads: 1, Dim: 20, Bidirectional: true}
	lengths := []int{70, 66}
	r := rand.New(rand.NewPCG(5, 6))
	q, k, v, dOut := randomFloats(r, 136*80), randomFloats(r, 136*20), randomFloats(r, 136*20), randomFloats(r, 136*80)
	out, grads := attended(t, a, lengths, Training{}, q, k, v, dOut)
	for _, isa := range cpu.Supported() {
		require.NoError(t, cpu.SetISA(isa))
		for _, n := range []int{1, 2, 3} {
			require.NoError(t, cpu.SetNumThreads(n))
			o, g := attended(t, a, lengths, Training{}, q, k, v, dOut)
			require.Equal(t, out, o)
			require.Equal(t, grads, g)
		}
	}
}
