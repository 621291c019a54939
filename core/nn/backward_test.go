package nn

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// toy is a one-layer transformer with float weights, whose loss is a differentiable function of all of them.
type toy struct {
	embed  Embedding
	norms  [5]*Norm // input, attention sub, post-attention, feed-forward sub, final
	attn   Attention
	ffn    FeedForward
	head   Head
	rope   *RoPE
	places Embedding // learned positions, where there is no rope
	params []*autograd.Param

	training Training
}

const (
	toyVocab  = 13
	toyHidden = 24
	toyFFN    = 40
)

func (m *toy) param(r *rand.Rand, name string, std float64, shape ...int) *autograd.Param {
	n := 1
	for _, d := range shape {
		n *= d
	}
	p := &autograd.Param{Name: name, Shape: shape, Data: make([]float32, n), Grad: make([]float32, n)}
	for i := range p.Data {
		p.Data[i] = float32(std * r.NormFloat64())
		if len(shape) == 1 {
			p.Data[i]++
		}
	}
	m.params = append(m.params, p)
	return p
}

func newToy(t *testing.T, act Activation, ternary bool) *toy {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	m := &toy{}
	linear := func(name string, out, in int) *Linear {
		l := NewTrainable(ternary, out, in)
		l.Weight = m.param(r, name, 1/math.Sqrt(float64(in)), out, in)
		return l
	}
	norm := func(name string, dim int) *Norm {
		p := m.param(r, name, 0.1, dim)
		return &Norm{Weight: p.Data, Eps: 1e-5, Param: p}
	}
	m.embed = Embedding{
		Param: m.param(r, "embed", 1, toyVocab, toyHidden),
		Table: &quant.Dense{Rows: toyVocab, Cols: toyHidden, Format: cpu.DenseF32, Panels: make([]byte, cpu.DenseBytes(cpu.DenseF32, toyVocab, toyHidden))},
	}
	m.norms = [5]*Norm{norm("in", toyHidden), norm("sub", 24), norm("post", toyHidden), norm("ffn", toyFFN), norm("final", toyHidden)}
	m.attn = Attention{
		Heads: 4, KVHeads: 2, Dim: 6, SubNorm: m.norms[1],
		Q: linear("q", 24, toyHidden), K: linear("k", 12, toyHidden), V: linear("v", 12, toyHidden), O: linear("o", toyHidden, 24),
	}
	m.ffn = FeedForward{
		Act: act, SubNorm: m.norms[3],
		Gate: linear("gate", toyFFN, toyHidden), Up: linear("up", toyFFN, toyHidden), Down: linear("down", toyHidden, toyFFN),
	}
	m.head = Head{Norm: m.norms[4], Proj: &Linear{In: toyHidden, Out: toyVocab, Dense: m.embed.Table, Weight: m.embed.Param}}
	var err error
	m.rope, err = NewRoPE(6, 10000, nil)
	require.NoError(t, err)
	m.refresh(t)
	return m
}

// newGPT2Toy has LayerNorm, learned positions, no gate and no sub-norms, biases everywhere.
func newGPT2Toy(t *testing.T, ternary bool) *toy {
	t.Helper()
	m := newToy(t, GELUTanh, ternary)
	m.params = slices.DeleteFunc(m.params, func(p *autograd.Param) bool { return slices.Contains([]string{"sub", "ffn", "gate"}, p.Name) })
	r := rand.New(rand.NewPCG(4, 4))
	bias := func(name string, dim int) *autograd.Param { return m.param(r, name, 0.1, dim) }
	for _, n := range []*Norm{m.norms[0], m.norms[2], m.norms[4]} {
		n.Center, n.BiasParam = true, bias(n.Param.Name+" bias", toyHidden)
		n.Bias = n.BiasParam.Data
	}
	m.attn.SubNorm, m.ffn.SubNorm, m.ffn.Gate, m.rope = nil, nil, nil, nil
	for _, l := range m.linears() {
		if l == m.attn.K { // its slope is zero: the scores of a row all move alike
			l.Bias = slices.Repeat([]float32{0.5}, l.Out)
			continue
		}
		l.BiasParam = bias(l.Weight.Name+" bias", l.Out)
		l.Bias = l.BiasParam.Data
	}
	m.places = Embedding{
		Param: m.param(r, "positions", 1, toyLengths[0], toyHidden),
		Table: &quant.Dense{Rows: toyLengths[0], Cols: toyHidden},
	}
	return m
}

func (m *toy) linears() []*Linear {
	all := []*Linear{m.attn.Q, m.attn.K, m.attn.V, m.attn.O, m.ffn.Gate, m.ffn.Up, m.ffn.Down}
	return slices.DeleteFunc(all, func(l *Linear) bool { return l == nil })
}

func (m *toy) refresh(t *testing.T) {
	t.Helper()
	require.NoError(t, m.head.Proj.Refresh())
	for _, l := range m.linears() {
		require.NoError(t, l.Refresh())
	}
}

// lengths of the sequences of a toy batch: more than a page, and less.
var toyLengths = []int{70, 9}

// loss runs a step and, when differentiate is set, its backward pass.
func (m *toy) loss(t *testing.T, c *Ctx, ids, targets []int32, differentiate bool) float64 {
	t.Helper()
	var rows []Row
	var caches []*KVCache
	for s, n := range toyLengths {
		for i := range n {
			rows = append(rows, Row{Seq: int32(s), Pos: int32(i)})
		}
		caches = append(caches, newCache(t, n, m.attn.KVHeads, m.attn.Dim))
	}
	c.Begin(context.Background(), 1, rows, caches)
	defer c.End()
	c.Train(m.training)
	tape := autograd.NewTape(c)
	if differentiate {
		c.Attach(tape)
	}
	x := m.embed.Forward(c, ids)
	var angles Angles
	if m.rope == nil {
		x = Add(c, x, m.places.Forward(c, c.Positions()))
	} else {
		angles = m.rope.Angles(c)
	}
	x = Dropout(c, x)
	x = Add(c, x, Dropout(c, m.attn.Forward(c, x, m.norms[0], angles)))
	x = Add(c, x, Dropout(c, m.ffn.Forward(c, x, m.norms[2])))
	angles.Free(c)
	nats := make([]float64, len(targets))
	m.head.Loss(c, x, targets, 1, nats)
	c.Free(x)
	if differentiate {
		tape.Backward()
	}
	sum := 0.0
	for _, n := range nats {
		sum += n
	}
	return sum
}

func toyBatch() (ids, targets []int32) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, n := range toyLengths {
		for range n {
			ids = append(ids, int32(r.IntN(toyVocab)))
			targets = append(targets, int32(r.IntN(toyVocab)))
		}
	}
	targets[3] = IgnoreTarget
	return ids, targets
}

func TestGradientsAreTheSlopesOfTheLoss(t *testing.T) {
	for _, act := range []Activation{ReLU2, SiLU} {
		newToy(t, act, false).checkSlopes(t)
	}
	newGPT2Toy(t, false).checkSlopes(t)
	m := newGPT2Toy(t, true) // of ternary layers whose weights are used as they are
	m.training.Float = 1
	m.checkSlopes(t)
}

// checkSlopes compares gradients with central differences of two steps; weights on both sides of which the loss bends (a squared
// ReLU's kink is smooth enough) agree.
func (m *toy) checkSlopes(t *testing.T) {
	t.Helper()
	c := testCtx(t)
	ids, targets := toyBatch()
	m.loss(t, c, ids, targets, true)
	r := rand.New(rand.NewPCG(3, 3))
	for _, p := range m.params {
		norm := 0.0
		for _, g := range p.Grad {
			norm += float64(g) * float64(g)
		}
		norm = math.Sqrt(norm)
		require.Positive(t, norm, p.Name)
		for range 6 {
			i := r.IntN(len(p.Data))
			const h = 1.0 / 128
			at := p.Data[i]
			slope := func(h float32) float64 {
				p.Data[i] = at + h
				m.refresh(t)
				up := m.loss(t, c, ids, targets, false)
				p.Data[i] = at - h
				m.refresh(t)
				down := m.loss(t, c, ids, targets, false)
				p.Data[i] = at
				return (up - down) / (2 * float64(h))
			}
			want := (4*slope(h) - slope(2*h)) / 3 // Richardson
			require.InDelta(t, want, float64(p.Grad[i]), 2e-3*norm+2e-3*math.Abs(want), "%s[%d], gradient norm %g", p.Name, i, norm)
		}
	}
}

func TestRecordingDoesNotChangeTheLoss(t *testing.T) {
	for _, ternary := range []bool{false, true} {
		for _, m := range []*toy{newToy(t, ReLU2, ternary), newGPT2Toy(t, ternary)} {
			c := testCtx(t)
			ids, targets := toyBatch()
			require.Equal(t, m.loss(t, c, ids, targets, false), m.loss(t, c, ids, targets, true))
		}
	}
}

func TestGradientsDoNotDependOnThreads(t *testing.T) {
	threads := cpu.NumThreads()
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(threads)) })
	for _, make := range []func() *toy{func() *toy { return newToy(t, ReLU2, true) }, func() *toy { return newGPT2Toy(t, true) }} {
		var want [][]float32
		for _, n := range []int{1, 2, 3} {
			require.NoError(t, cpu.SetNumThreads(n))
			m := make()
			ids, targets := toyBatch()
			m.loss(t, testCtx(t), ids, targets, true)
			for i, p := range m.params {
				if n == 1 {
					want = append(want, p.Grad)
					continue
				}
				require.Equal(t, want[i], p.Grad, "%s with %d threads", p.Name, n)
			}
		}
	}
}
