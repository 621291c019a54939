package model

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// saved is the file of a random model of about 70 MiB, just above promoteFrom.
func saved(t *testing.T) string {
	t.Helper()
	cfg := &Config{
		Architecture: ArchBitNet, VocabSize: 16384, HiddenSize: 2048, IntermediateSize: 1024, NumHiddenLayers: 2,
		NumAttentionHeads: 16, NumKeyValueHeads: 4, HeadDim: 128, HiddenAct: ActReLU2, MaxPositionEmbeddings: 64, DType: "bfloat16",
	}
	path := filepath.Join(t.TempDir(), "m"+NativeExt)
	m, err := NewRandom(cfg, 1, LoadOptions{})
	require.NoError(t, err)
	require.NoError(t, m.Save(path, nil))
	require.NoError(t, m.Close())
	return path
}

// mappedModel loads one.
func mappedModel(t *testing.T, o LoadOptions) *Model {
	t.Helper()
	m, err := Load(context.Background(), saved(t), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func panels(m *Model) map[string][]byte {
	out := map[string][]byte{"table": m.Embed.Table.Panels}
	for i := range m.Blocks {
		out[layerName(i)+"q"] = m.Blocks[i].Attn.Q.Ternary.Data
		out[layerName(i)+"down"] = m.Blocks[i].FFN.Down.Ternary.Data
	}
	return out
}

func TestMappedWeightsMoveIntoMemoryUnchanged(t *testing.T) {
	p := pool.New(pool.Options{})
	m := mappedModel(t, LoadOptions{Pool: p, Resident: ResidentAuto})
	reference := mappedModel(t, LoadOptions{Resident: ResidentMap, Verify: VerifyNow})
	require.NoError(t, m.Settled())
	require.Equal(t, panels(reference), panels(m))
	require.GreaterOrEqual(t, p.Stats().InUse, int64(promoteFrom), "the weights are the pool's")
	require.Nil(t, reference.promoter)
	require.NoError(t, m.Close())
	require.Zero(t, p.Stats().InUse)
}

func TestClosingStopsTheMove(t *testing.T) {
	p := pool.New(pool.Options{})
	m := mappedModel(t, LoadOptions{Pool: p, Verify: VerifyNever})
	require.NoError(t, m.Close())
	require.Zero(t, p.Stats().InUse)
	if err := m.Settled(); err != nil { // unless it had ended already
		require.ErrorIs(t, err, context.Canceled)
	}
}

func TestDeferredWeightsAreCheckedAndNotMoved(t *testing.T) {
	p := pool.New(pool.Options{})
	m := mappedModel(t, LoadOptions{Pool: p, Deferred: true})
	require.NoError(t, m.Settled())
	require.Zero(t, p.Stats().PeakRequested)
}

func TestAFullPoolLeavesTheModelOnItsMapping(t *testing.T) {
	p := pool.New(pool.Options{Budget: 8 << 20})
	m := mappedModel(t, LoadOptions{Pool: p})
	require.ErrorIs(t, m.Settled(), pool.ErrOutOfMemory)
	reference := mappedModel(t, LoadOptions{Resident: ResidentMap, Verify: VerifyNow})
	require.Equal(t, panels(reference), panels(m))
}

func TestUnknownMemoryIsRefused(t *testing.T) {
	_, err := Load(context.Background(), os.TempDir(), LoadOptions{Resident: "disk"})
	require.ErrorIs(t, err, ErrOption)
	require.ErrorContains(t, err, `"disk"`)
}

func TestADamagedFileIsNoticedInTheBackground(t *testing.T) {
	cfg := &Config{VocabSize: 16384, HiddenSize: 2048, IntermediateSize: 1024, NumHiddenLayers: 2, NumAttentionHeads: 16, DType: "bfloat16"}
	path := filepath.Join(t.TempDir(), "m"+NativeExt)
	m, err := NewRandom(cfg, 1, LoadOptions{})
	require.NoError(t, err)
	require.NoError(t, m.Save(path, nil))
	require.NoError(t, m.Close())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	info, err := f.Stat()
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{0xff, 0xfe, 0xfd}, info.Size()/2)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	_, err = Load(context.Background(), path, LoadOptions{Verify: VerifyNow})
	require.ErrorIs(t, err, ErrChecksum)
	for _, resident := range []string{ResidentAuto, ResidentMap} {
		m, err := Load(context.Background(), path, LoadOptions{Resident: resident})
		require.NoError(t, err)
		require.ErrorIs(t, m.Settled(), ErrChecksum, resident)
		require.ErrorIs(t, m.Damage(), ErrChecksum, resident)
		require.ErrorIs(t, m.Acquire(), ErrChecksum, resident)
		require.ErrorContains(t, m.Acquire(), path)
		require.ErrorIs(t, m.Save(path+".copy", nil), ErrChecksum, resident)
		require.NoError(t, m.Close())
	}
	p := pool.New(pool.Options{})
	_, err = Load(context.Background(), path, LoadOptions{Trainable: true, Pool: p})
	require.ErrorIs(t, err, ErrChecksum, "master weights are copies of what is in the file")
	require.Zero(t, p.Stats().LiveBlocks)
	m, err = Load(context.Background(), path, LoadOptions{Verify: VerifyNever})
	require.NoError(t, err)
	require.NoError(t, m.Settled())
	require.NoError(t, m.Close())

	_, err = Load(context.Background(), path, LoadOptions{Verify: "later"})
	require.ErrorIs(t, err, ErrOption)
	require.ErrorContains(t, err, `"later"`)
}
