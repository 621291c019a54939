package model

import (
	"context"
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// status reads a figure of this process, in bytes.
func status(t *testing.T, name string) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	found := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+) kB`).FindSubmatch(text)
	require.NotNil(t, found, name)
	kib, err := strconv.ParseInt(string(found[1]), 10, 64)
	require.NoError(t, err)
	return kib << 10
}

// Most of this model is one table, and a reader keeps all of the file's mapping resident while the move goes on.
func TestMovingKeepsTheWeightsInMemoryOnce(t *testing.T) {
	threads := cpu.NumThreads() // each moves a piece, of which sixteen are a quarter of this small model
	require.NoError(t, cpu.SetNumThreads(2))
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(threads)) })
	for _, verify := range []string{VerifyBackground, VerifyNever} {
		path := saved(t)
		pool.Default().Trim()
		debug.FreeOSMemory()
		if os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) != nil {
			t.Skip("this system does not let the peak of resident memory be reset")
		}
		before := status(t, "VmRSS")
		m, err := Load(context.Background(), path, LoadOptions{Pool: pool.New(pool.Options{}), Verify: verify})
		require.NoError(t, err)
		sum := 0
		for moving := true; moving; {
			select {
			case <-m.promoter.done:
				moving = false
			default:
			}
			require.NoError(t, m.Acquire())
			for _, b := range panels(m) {
				for at := 0; at < len(b); at += 4096 {
					sum += int(b[at])
				}
			}
			m.Release()
		}
		require.NotZero(t, sum)
		require.NoError(t, m.Settled())
		// The kernel counts pages to within some dozens for each processor, and may take those of the program back.
		require.GreaterOrEqual(t, float64(status(t, "VmRSS")-before), 0.95*float64(m.Info.WeightBytes), "they are resident")
		require.LessOrEqual(t, float64(status(t, "VmHWM")-before), 1.15*float64(m.Info.WeightBytes))
		require.NoError(t, m.Close())
	}
}
