package infer_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// withBudget gives an engine a pool of its own, and the process two threads: each has scratch memory, which the budget has to hold too, and a large
// machine many of them.
func withBudget(tb testing.TB, e *infer.Engine, bytes int64) *pool.HybridMemoryPool {
	tb.Helper()
	threads := cpu.NumThreads()
	require.NoError(tb, cpu.SetNumThreads(2))
	tb.Cleanup(func() { require.NoError(tb, cpu.SetNumThreads(threads)) })
	p := pool.New(pool.Options{Budget: bytes, Debug: true})
	e.UsePool(p)
	tb.Cleanup(func() { e.Close(); require.NoError(tb, p.Close()) }) // nothing is left in use
	return p
}

func prompts(n, length int) [][]int32 {
	out := make([][]int32, n)
	for i := range out {
		out[i] = make([]int32, length)
		for j := range out[i] {
			out[i][j] = int32((7*i + 13*j) % 1000)
		}
	}
	return out
}

func TestLikelihoodRefusesTokensOutOfRange(t *testing.T) {
	e := tiny(t, 1, 64, 64)
	for _, ids := range [][]int32{{1, 1000}, {1, -1}, {-1, 1}, append(make([]int32, 200), 1000)} {
		_, _, err := e.LogLikelihood(context.Background(), ids, 100, 50)
		require.ErrorIs(t, err, infer.ErrArgument)
		require.ErrorContains(t, err, "token id out of range")
	}
}

func TestForwardKeepsTheCachesOfOneStepOnly(t *testing.T) {
	e := tiny(t, 2, 128, 128)
	p := withBudget(t, e, 24<<20)
	ids := prompts(600, 1) // 38 MB of caches, were they kept
	ids[300] = prompts(1, 270)[0]
	all := make([]float32, (599+270)*1000)
	require.NoError(t, e.Forward(context.Background(), ids, all))
	require.Less(t, p.Stats().PeakInUse, int64(12<<20))

	one := make([]float32, 270*1000)
	require.NoError(t, e.Forward(context.Background(), ids[300:301], one))
	require.Equal(t, one, all[300*1000:570*1000], "the same bits as alone")
}

func TestForwardRefusesAnySequenceBeforeItComputes(t *testing.T) {
	e := tiny(t, 1, 64, 64)
	stopped, cancel := context.WithCancel(context.Background())
	cancel() // a step would say so
	for _, bad := range [][]int32{{}, {1, 1000}, make([]int32, 301)} {
		ids := [][]int32{make([]int32, 300), bad}
		err := e.Forward(stopped, ids, make([]float32, (300+len(bad))*1000))
		require.ErrorIs(t, err, infer.ErrArgument)
		require.ErrorContains(t, err, "sequence 1")
	}
}

func TestStepRefusesLogitsOfRowsThatAreNotThere(t *testing.T) {
	e := tiny(t, 1, 64, 64)
	s := e.NewSequence()
	defer s.Close()
	for _, n := range []int{-1, 2} {
		err := e.Step(context.Background(), []infer.Chunk{{Seq: s, IDs: []int32{1}, Logits: n}}, make([]float32, max(n, 0)*1000))
		require.ErrorIs(t, err, infer.ErrArgument)
	}
}

// lateContext is canceled once it was asked n times.
type lateContext struct {
	context.Context
	left atomic.Int64
}

func asksLeft(n int) *lateContext {
	c := &lateContext{Context: context.Background()}
	c.left.Store(int64(n))
	return c
}

func (c *lateContext) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

func TestTheHeadOfALongStepAsksWhetherToStop(t *testing.T) {
	e := tiny(t, 1, 64, 64)
	ids, out := prompts(1, 256), make([]float32, 256*1000)
	asked := func(rows int) int {
		late := asksLeft(1 << 20)
		require.NoError(t, e.Forward(late, [][]int32{ids[0][:rows]}, out[:rows*1000]))
		return 1<<20 - int(late.left.Load())
	}
	require.Greater(t, asked(256), asked(1)+5)
	require.ErrorIs(t, e.Forward(asksLeft(asked(256)-1), ids, out), context.Canceled)
}

func TestStepsOfModelsWithLargeLayersAreShorter(t *testing.T) {
	for name, want := range map[string]int{"tiny": infer.MaxStepTokens, "2b": 256, "8b": 64, "falcon3-10b": 64} {
		p, err := model.Find(name)
		require.NoError(t, err)
		require.Equal(t, want, infer.StepTokens(&p.Config), name)
	}
	require.Equal(t, 60, infer.StepTokens(&model.Config{HiddenSize: 1 << 15, IntermediateSize: 1 << 16, NumAttentionHeads: 256, NumKeyValueHeads: 256, HeadDim: 128}))
}
