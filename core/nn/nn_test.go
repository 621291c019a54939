package nn

import (
	"context"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// newCache returns a cache of one layer with room for n tokens.
func newCache(t *testing.T, n, kvHeads, headDim int) *KVCache {
	t.Helper()
	c := NewKVCache(pool.New(pool.Options{}), KVFloat32, 1, kvHeads, headDim)
	require.NoError(t, c.Grow(n))
	t.Cleanup(c.Free)
	return c
}

// positions returns n rows of one sequence from position 0.
func positions(n int) []Row {
	rows := make([]Row, n)
	for i := range rows {
		rows[i].Pos = int32(i)
	}
	return rows
}

func testCtx(t *testing.T) *Ctx {
	t.Helper()
	p := pool.New(pool.Options{})
	c := NewCtx(p)
	t.Cleanup(func() { c.Close(); require.NoError(t, p.Close()) })
	return c
}

func randoms(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func matrix(t *testing.T, data []float32, rows, cols int) *tensor.Tensor {
	t.Helper()
	x, err := tensor.FromFloat32(data, rows, cols)
	require.NoError(t, err)
	return x
}

// ternary makes a BitLinear with random codes and also returns them, [out, in].
func ternary(r *rand.Rand, out, in int, bias bool) (*Linear, []int8) {
	codes := make([]int8, out*in)
	for i := range codes {
		codes[i] = int8(r.IntN(3) - 1)
	}
	w := &quant.Ternary{Rows: out, Cols: in, Scale: 0.5 + r.Float32(), Data: make([]byte, cpu.TernaryBytes(out, in))}
	cpu.PackTernary(w.Data, codes, out, in)
	l := &Linear{In: in, Out: out, Ternary: w}
	if bias {
		l.Bias = randoms(r, out)
	}
	return l, codes
}

// bitLinear is the linear layer of BitNet b1.58 in float64 with exact integers.
func bitLinear(l *Linear, codes []int8, x []float32) []float64 {
	top := float32(1e-5)
	for _, v := range x {
		top = max(top, float32(math.Abs(float64(v))))
	}
	s := 127 / top
	y := make([]float64, l.Out)
	for r := range y {
		acc := 0
		for k, v := range x {
			q := math.RoundToEven(float64(v * s))
			acc += int(math.Max(-128, math.Min(127, q))) * int(codes[r*l.In+k])
		}
		y[r] = float64(acc) * float64(l.Ternary.Scale) / float64(s)
		if l.Bias != nil {
			y[r] += float64(l.Bias[r])
		}
	}
	return y
}

func rmsNorm(n *Norm, x []float32) []float32 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	inv := 1 / math.Sqrt(sum/float64(len(x))+float64(n.Eps))
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(float64(v) * inv * float64(n.Weight[i]))
	}
	return y
}

func requireClose(t *testing.T, want []float64, got []float32, msg string) {
	t.Helper()
	scale := 1e-6
	for _, v := range want {
		scale = max(scale, math.Abs(v))
	}
	for i := range want {
		require.InDelta(t, want[i], float64(got[i]), 2e-5*scale, "%s: element %d", msg, i)
	}
}

func TestProjectIsBitLinearForEveryLayerOfTheGroup(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, shape := range []struct{ rows, in int }{{1, 88}, {3, 16}, {70, 264}, {130, 40}} {
		c := testCtx(t)
		a, ca := ternary(r, 24, shape.in, false)
		b, cb := ternary(r, 7, shape.in, true)
		d, cd := ternary(r, 32, shape.in, true)
		x := matrix(t, randoms(r, shape.rows*shape.in), shape.rows, shape.in)
		c.Begin(context.Background(), 1, positions(shape.rows), nil)
		out := Project(c, x, nil, a, b, d)
		for row := range shape.rows {
			xr := x.Float32s()[row*shape.in : (row+1)*shape.in]
			requireClose(t, bitLinear(a, ca, xr), out[0].Float32s()[row*24:][:24], "24 outputs")
			requireClose(t, bitLinear(b, cb, xr), out[1].Float32s()[row*7:][:7], "7 outputs with bias")
			requireClose(t, bitLinear(d, cd, xr), out[2].Float32s()[row*32:][:32], "32 outputs with bias")
		}
		c.End()
	}
}

func TestProjectAppliesCommonAndOwnNorms(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	c := testCtx(t)
	const rows, in, n = 5, 48, 40
	common := &Norm{Weight: randoms(r, in), Eps: 1e-5}
	plain, cp := ternary(r, n, in, false)
	own, co := ternary(r, n, in, false)
	own.Norm = &Norm{Weight: randoms(r, in), Eps: 1e-6}
	dense := &Linear{In: in, Out: n, Norm: own.Norm, Bias: randoms(r, n)}
	w := randoms(r, n*in)
	dense.Dense = denseFloat32(t, w, n, in)
	x := matrix(t, randoms(r, rows*in), rows, in)
	c.Begin(context.Background(), 1, positions(rows), nil)
	defer c.End()
	out := Project(c, x, common, plain, own, dense)
	for row := range rows {
		h := rmsNorm(common, x.Float32s()[row*in:(row+1)*in])
		requireClose(t, bitLinear(plain, cp, h), out[0].Float32s()[row*n:][:n], "no norm of its own")
		requireClose(t, bitLinear(own, co, rmsNorm(own.Norm, h)), out[1].Float32s()[row*n:][:n], "own norm")
		requireClose(t, linear(dense, w, rmsNorm(own.Norm, h)), out[2].Float32s()[row*n:][:n], "dense with own norm")
	}
}

func denseFloat32(t *testing.T, w []float32, rows, cols int) *quant.Dense {
	t.Helper()
	return dense(t, cpu.DenseF32, w, rows, cols)
}

func dense(t *testing.T, f cpu.DenseFormat, w []float32, rows, cols int) *quant.Dense {
	t.Helper()
	d, err := quant.NewDense(f, quant.F32, bytesOf(w), rows, cols)
	require.NoError(t, err)
	return d
}

func bytesOf(x []float32) []byte {
	b := make([]byte, 0, 4*len(x))
	for _, v := range x {
		u := math.Float32bits(v)
		b = append(b, byte(u), byte(u>>8), byte(u>>16), byte(u>>24))
	}
	return b
}

func linear(l *Linear, w, x []float32) []float64 {
	y := make([]float64, l.Out)
	for r := range y {
		for k, v := range x {
			y[r] += float64(w[r*l.In+k]) * float64(v)
		}
		if l.Bias != nil {
			y[r] += float64(l.Bias[r])
		}
	}
	return y
}

func TestDenseLinearWithRaggedSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, s := range []struct{ rows, in, out int }{{1, 5, 3}, {2, 64, 16}, {67, 30, 50}} {
		c := testCtx(t)
		w := randoms(r, s.in*s.out)
		l := &Linear{In: s.in, Out: s.out, Dense: denseFloat32(t, w, s.out, s.in), Bias: randoms(r, s.out)}
		x := matrix(t, randoms(r, s.rows*s.in), s.rows, s.in)
		c.Begin(context.Background(), 1, positions(s.rows), nil)
		y := Project(c, x, nil, l)[0]
		for row := range s.rows {
			requireClose(t, linear(l, w, x.Float32s()[row*s.in:(row+1)*s.in]), y.Float32s()[row*s.out:][:s.out], "dense")
		}
		c.End()
	}
}

// An int8 or int4 layer gives what its weights give with float activations, to a thousandth of the largest result.
func TestIntegerLinearWithRaggedSizes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, f := range []cpu.DenseFormat{cpu.DenseInt8, cpu.DenseInt4} {
		for _, s := range []struct{ rows, in, out int }{{1, 5, 3}, {1, 2560, 200}, {2, 64, 16}, {67, 30, 50}} {
			c := testCtx(t)
			l := &Linear{In: s.in, Out: s.out, Dense: dense(t, f, randoms(r, s.in*s.out), s.out, s.in), Bias: randoms(r, s.out)}
			w := make([]float32, s.out*s.in)
			for row := range s.out {
				l.Dense.Row(w[row*s.in:(row+1)*s.in], row)
			}
			x := matrix(t, randoms(r, s.rows*s.in), s.rows, s.in)
			at := positions(s.rows)
			step := func() *tensor.Tensor {
				c.Begin(context.Background(), 1, at, nil)
				defer c.End()
				return Project(c, x, nil, l)[0]
			}
			y := step()
			for row := range s.rows {
				want := linear(l, w, x.Float32s()[row*s.in:(row+1)*s.in])
				largest := 0.0
				for _, v := range want {
					largest = max(largest, math.Abs(v))
				}
				for i, v := range want {
					require.InDelta(t, v, float64(y.Float32s()[row*s.out+i]), 1e-3*largest, "%v %v: row %d, output %d", f, s, row, i)
				}
			}
			step()
			require.Zero(t, testing.AllocsPerRun(5, func() { step() }))
		}
	}
}

func TestRotaryEmbeddingTurnsHalfSplitPairs(t *testing.T) {
	const dim, heads, rows = 10, 3, 7
	rope, err := NewRoPE(dim, 10000, nil)
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(4, 4))
	c := testCtx(t)
	data := randoms(r, rows*heads*dim)
	x := matrix(t, append([]float32{}, data...), rows, heads*dim)
	at := positions(rows)
	for i := range at {
		at[i].Pos += 1000
	}
	c.Begin(context.Background(), 1, at, nil)
	defer c.End()
	c.rotate(rope.Angles(c), dim, x)
	for i := range rows {
		for h := range heads {
			src, got := data[(i*heads+h)*dim:][:dim], x.Float32s()[(i*heads+h)*dim:][:dim]
			for j := range dim / 2 {
				angle := float64(1000+i) * math.Pow(10000, -2*float64(j)/dim)
				a, b := float64(src[j]), float64(src[j+dim/2])
				require.InDelta(t, a*math.Cos(angle)-b*math.Sin(angle), float64(got[j]), 1e-3)
				require.InDelta(t, b*math.Cos(angle)+a*math.Sin(angle), float64(got[j+dim/2]), 1e-3)
			}
		}
	}
}

func TestRopeScaling(t *testing.T) {
	plain, err := NewRoPE(128, 500000, nil)
	require.NoError(t, err)
	lin, err := NewRoPE(128, 500000, &RopeScaling{Type: "linear", Factor: 4})
	require.NoError(t, err)
	for i, f := range plain.InvFreq {
		require.Equal(t, f/4, lin.InvFreq[i])
	}
	l3, err := NewRoPE(128, 500000, &RopeScaling{Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 8192})
	require.NoError(t, err)
	require.Equal(t, plain.InvFreq[0], l3.InvFreq[0], "high frequencies stay")
	require.InEpsilon(t, plain.InvFreq[63]/8, l3.InvFreq[63], 1e-6, "low frequencies are divided")
	for i := range l3.InvFreq {
		require.LessOrEqual(t, l3.InvFreq[i], plain.InvFreq[i])
		require.GreaterOrEqual(t, l3.InvFreq[i], plain.InvFreq[i]/8.0001)
	}
	_, err = NewRoPE(128, 500000, &RopeScaling{Type: "yarn"})
	require.ErrorContains(t, err, `"yarn"`)
}

// naiveAttention is softmax(qk/sqrt(d))v in float64 for one sequence.
func naiveAttention(q, k, v []float32, row, head, heads, kvHeads, dim int) []float64 {
	kv := head / (heads / kvHeads)
	p := make([]float64, row+1)
	sum, top := 0.0, math.Inf(-1)
	for j := range p {
		for d := range dim {
			p[j] += float64(q[(row*heads+head)*dim+d]) * float64(k[(j*kvHeads+kv)*dim+d])
		}
		p[j] /= math.Sqrt(float64(dim))
		top = math.Max(top, p[j])
	}
	for j := range p {
		p[j] = math.Exp(p[j] - top)
		sum += p[j]
	}
	y := make([]float64, dim)
	for j := range p {
		for d := range dim {
			y[d] += p[j] / sum * float64(v[(j*kvHeads+kv)*dim+d])
		}
	}
	return y
}

func TestAttentionIsSoftmaxOverThePast(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for _, s := range []struct{ rows, heads, kv, dim int }{{1, 2, 1, 16}, {130, 4, 2, 32}, {65, 3, 3, 22}, {64, 2, 2, 6}} {
		c := testCtx(t)
		a := &Attention{Heads: s.heads, KVHeads: s.kv, Dim: s.dim}
		q := matrix(t, randoms(r, s.rows*s.heads*s.dim), s.rows, s.heads*s.dim)
		k := matrix(t, randoms(r, s.rows*s.kv*s.dim), s.rows, s.kv*s.dim)
		v := matrix(t, randoms(r, s.rows*s.kv*s.dim), s.rows, s.kv*s.dim)
		c.Begin(context.Background(), 1, positions(s.rows), []*KVCache{newCache(t, s.rows, s.kv, s.dim)})
		c.storeKV(a, k, v)
		y := c.attention(a, q, k, v)
		for row := range s.rows {
			for h := range s.heads {
				want := naiveAttention(q.Float32s(), k.Float32s(), v.Float32s(), row, h, s.heads, s.kv, s.dim)
				requireClose(t, want, y.Float32s()[(row*s.heads+h)*s.dim:][:s.dim], "attention")
			}
		}
		c.End()
	}
}

func TestFeedForwardGates(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	const rows, dim, hidden = 6, 32, 56
	for _, act := range []Activation{ReLU2, SiLU} {
		c := testCtx(t)
		gate, cg := ternary(r, hidden, dim, false)
		up, cu := ternary(r, hidden, dim, false)
		down, cd := ternary(r, dim, hidden, false)
		f := &FeedForward{Act: act, Gate: gate, Up: up, Down: down, SubNorm: &Norm{Weight: randoms(r, hidden), Eps: 1e-5}}
		norm := &Norm{Weight: randoms(r, dim), Eps: 1e-5}
		x := matrix(t, randoms(r, rows*dim), rows, dim)
		c.Begin(context.Background(), 1, positions(rows), nil)
		y := f.Forward(c, x, norm)
		for row := range rows {
			h := rmsNorm(norm, x.Float32s()[row*dim:(row+1)*dim])
			g, u := bitLinear(gate, cg, h), bitLinear(up, cu, h)
			m := make([]float32, hidden)
			for i := range m {
				v := math.Max(0, g[i]) * math.Max(0, g[i])
				if act == SiLU {
					v = g[i] / (1 + math.Exp(-g[i]))
				}
				m[i] = float32(v * u[i])
			}
			want := bitLinear(down, cd, rmsNorm(f.SubNorm, m))
			for i := range want { // a rounding tie in the second quantization may move by one step
				require.InDelta(t, want[i], float64(y.Float32s()[row*dim+i]), 0.2)
			}
		}
		c.End()
	}
}

func TestAStepAllocatesNothingOnceItIsPlanned(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	c := testCtx(t)
	const rows, dim = 9, 48
	a := &Attention{Heads: 3, KVHeads: 1, Dim: 16}
	a.Q, _ = ternary(r, 48, dim, false)
	a.K, _ = ternary(r, 16, dim, false)
	a.V, _ = ternary(r, 16, dim, false)
	a.O, _ = ternary(r, dim, 48, false)
	norm := &Norm{Weight: randoms(r, dim), Eps: 1e-5}
	rope, err := NewRoPE(16, 10000, nil)
	require.NoError(t, err)
	x := matrix(t, randoms(r, rows*dim), rows, dim)
	at, caches := positions(rows), []*KVCache{newCache(t, rows, 1, 16)}
	step := func() {
		c.Begin(context.Background(), 1, at, caches)
		angles := rope.Angles(c)
		c.Free(a.Forward(c, x, norm, angles))
		angles.Free(c)
		c.End()
	}
	step()
	step()
	require.Zero(t, testing.AllocsPerRun(20, step))
}

func TestACanceledStepSaysSo(t *testing.T) {
	c := testCtx(t)
	ctx, cancel := context.WithCancel(context.Background())
	c.Begin(ctx, 1, nil, nil)
	defer c.End()
	require.NoError(t, c.Err())
	cancel()
	require.ErrorIs(t, c.Err(), context.Canceled)
}

// stopping is a context that is canceled after it was asked n times.
type stopping struct {
	context.Context
	left atomic.Int64
}

func (s *stopping) Err() error {
	if s.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

func TestACanceledStepLeavesAMatrixUndone(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	const rows, in, out = 60, 64, 4000
	l, _ := ternary(r, out, in, false)
	x := matrix(t, randoms(r, rows*in), rows, in)
	for _, layer := range []*Linear{l, {In: in, Out: out, Dense: denseFloat32(t, randoms(r, out*in), out, in)}} {
		c := testCtx(t)
		ctx := &stopping{Context: context.Background()}
		ctx.left.Store(5)
		c.Begin(ctx, 1, positions(rows), nil)
		Project(c, x, nil, layer)
		require.ErrorIs(t, c.Err(), context.Canceled)
		require.Greater(t, ctx.left.Load(), int64(-out/16/piecePanels), "no piece is computed after the others saw the end")
		c.End()
	}
}
