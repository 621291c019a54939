package model

import (
	"context"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

func TestAFileThatIsCutShortWhileItIsReadIsAnErrorThatNamesIt(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	m, err := Load(context.Background(), "../../tests_go/testdata/golden/bitnet_offline_packed", LoadOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	path := filepath.Join(t.TempDir(), "m"+NativeExt)
	cut := func() { require.NoError(t, os.Truncate(path, 4096)) }

	require.NoError(t, m.Save(path, map[string]string{"tokenizer.json": "{}"}))
	f, err := openNative(path)
	require.NoError(t, err)
	cut()
	err = f.lastAssets(map[string]string{})
	require.ErrorIs(t, err, container.ErrUnreadable)
	require.ErrorContains(t, err, path)

	require.NoError(t, m.Save(path, nil))
	_, err = Verify(context.Background(), path, LoadOptions{}, func(_, _ int64) { cut() })
	require.ErrorIs(t, err, container.ErrUnreadable)
	require.ErrorContains(t, err, path)
}

func TestAFileThatIsCutShortWhileItIsCheckedInTheBackgroundIsDamaged(t *testing.T) {
	path := saved(t)
	m, err := Load(context.Background(), path, LoadOptions{Resident: ResidentMap})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	require.NoError(t, m.Settled())
	require.NoError(t, os.Truncate(path, 4096))
	again := &promoter{model: m, matrices: m.promoter.matrices, done: make(chan struct{})}
	again.run(context.Background())
	require.ErrorIs(t, m.Damage(), container.ErrUnreadable)
	require.ErrorIs(t, m.Acquire(), container.ErrUnreadable)
}
