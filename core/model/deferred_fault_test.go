package model

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// deferredModel loads a model whose weights come into memory when they are needed.
func deferredModel(t *testing.T, p *pool.HybridMemoryPool) *Model {
	t.Helper()
	m, err := Load(context.Background(), "../../tests_go/testdata/golden/bitnet_offline_packed", LoadOptions{Deferred: true, Pool: p})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func TestWeightsWhoseReadingPanickedAreReadAgain(t *testing.T) {
	const q, k = "model.layers.2.self_attn.q_proj", "model.layers.2.self_attn.k_proj"
	p := pool.New(pool.Options{})
	m := deferredModel(t, p)
	jobs := m.deferred.modules[q].jobs
	m.deferred.modules[q].jobs = append([]job{{work: func(context.Context) error { panic("a fault") }}}, jobs...)
	hold := func() (func(), error) { return m.deferred.hold(context.Background(), k, q) }
	for range 2 {
		require.PanicsWithValue(t, "a fault", func() { _, _ = hold() })
		require.Zero(t, p.Stats().LiveBlocks, "of the module before it neither")
	}
	m.deferred.modules[q].jobs = jobs
	release, err := hold()
	require.NoError(t, err)
	release()
	require.Zero(t, p.Stats().LiveBlocks)
}

func TestAForwardPassThatPanicsGivesItsLayerBack(t *testing.T) {
	p := pool.New(pool.Options{})
	m := deferredModel(t, p)
	require.Panics(t, func() { _, _ = m.layer(nn.NewCtx(p), 0, nil, nn.Angles{}) }) // there is no step
	require.Zero(t, p.Stats().LiveBlocks)
	for _, name := range m.deferred.blocks[0] {
		require.Zero(t, m.deferred.modules[name].users, name)
	}
}

func TestTablesThatDidNotFitAreAskedForAgain(t *testing.T) {
	p := pool.New(pool.Options{Budget: 8 << 20})
	m := deferredModel(t, p)
	whole, err := p.AllocUninit(8<<20, "weights")
	require.NoError(t, err)
	require.ErrorIs(t, m.deferred.keepTables(context.Background()), pool.ErrOutOfMemory)
	whole.Release()
	require.NoError(t, m.deferred.keepTables(context.Background()))
}
