package model

import (
	"context"
	"os"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// lateContext is canceled once it was asked n times.
type lateContext struct {
	context.Context
	left atomic.Int64
}

func late(n int64) *lateContext {
	c := &lateContext{Context: context.Background()}
	c.left.Store(n)
	return c
}

func (c *lateContext) Err() error {
	if c.left.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

func TestMakingAndSavingAModelEndWithTheirContext(t *testing.T) {
	p := pool.New(pool.Options{})
	c := Config{VocabSize: 300, HiddenSize: 64, IntermediateSize: 88, NumHiddenLayers: 2, NumAttentionHeads: 4}
	for _, after := range []int64{0, 3} {
		_, err := NewRandomContext(late(after), &c, 1, LoadOptions{Pool: p})
		require.ErrorIs(t, err, context.Canceled)
	}
	m, err := NewRandom(&c, 1, LoadOptions{Pool: p})
	require.NoError(t, err)
	for _, save := range []func(ctx context.Context, dir string) error{
		func(ctx context.Context, dir string) error { return m.SaveHFContext(ctx, dir, HFOptions{}) },
		func(ctx context.Context, dir string) error { return m.SaveContext(ctx, dir, SaveOptions{}) },
		func(ctx context.Context, dir string) error {
			return m.SaveContext(ctx, dir, SaveOptions{Compression: CompressionZstd, MaxShard: 10_000})
		},
	} {
		for after := range int64(8) {
			dir := t.TempDir()
			require.ErrorIs(t, save(late(after), dir), context.Canceled)
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, left)
		}
		require.NoError(t, save(context.Background(), t.TempDir()))
	}
	require.NoError(t, m.Close())
	require.NoError(t, p.Close(), "nothing is left in memory")
}
