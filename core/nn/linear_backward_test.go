package nn

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// decorate gives every linear layer a bias, and a norm of its own if norms is set.
func (m *toy) decorate(norms bool) {
	r := rand.New(rand.NewPCG(8, 8))
	for i, l := range []*Linear{m.attn.Q, m.attn.K, m.attn.V, m.attn.O, m.ffn.Gate, m.ffn.Up, m.ffn.Down} {
		name := []string{"q", "k", "v", "o", "gate", "up", "down"}[i]
		l.BiasParam = m.param(r, name+" bias", 0.1, l.Out)
		for i := range l.BiasParam.Data {
			l.BiasParam.Data[i] -= 0.9
		}
		l.Bias = l.BiasParam.Data
		if norms {
			p := m.param(r, name+" norm", 0.1, l.In)
			l.Norm = &Norm{Weight: p.Data, Eps: 1e-5, Param: p}
		}
	}
}

func TestGradientsOfBiasesAndOwnNormsAreSlopes(t *testing.T) {
	m := newToy(t, SiLU, false)
	m.decorate(true)
	m.checkSlopes(t)
	m = newToy(t, SiLU, true) // and of ternary layers whose weights are used as they are
	m.decorate(true)
	m.training.Float = 1
	m.checkSlopes(t)
}

func TestRecordingBiasesAndOwnNormsDoesNotChangeTheLoss(t *testing.T) {
	threads := cpu.NumThreads()
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(threads)) })
	for _, float := range []float32{0, 0.4} {
		for _, norms := range []bool{false, true} {
			m := newToy(t, ReLU2, true)
			m.decorate(norms)
			m.training.Float = float
			c := testCtx(t)
			ids, targets := toyBatch()
			require.NoError(t, cpu.SetNumThreads(1))
			want := m.loss(t, c, ids, targets, true)
			require.Equal(t, m.loss(t, c, ids, targets, false), want)
			grads := make([][]float32, len(m.params))
			for i, p := range m.params {
				grads[i] = append(grads[i], p.Grad...)
				require.NotZero(t, cpu.AbsMax(p.Grad), p.Name)
				clear(p.Grad)
			}
			require.NoError(t, cpu.SetNumThreads(3))
			require.Equal(t, want, m.loss(t, c, ids, targets, true))
			for i, p := range m.params {
				require.Equal(t, grads[i], p.Grad, p.Name)
			}
		}
	}
}
