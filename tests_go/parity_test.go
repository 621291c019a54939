package tests_go

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
)

// The parity folders are tiny checkpoints, one for each variant of config and files that transformers reads, with the
// logits that it computes from them in float32 (tests_py/parity/make_parity.py makes them and says how).
const parityFolders = "testdata/parity"

// parityGate bounds max|dlogit| in standard deviations of a folder's logits. Where an activation lies on a rounding tie,
// right implementations differ by a whole step (the golden folders: 0.06 standard deviations). These prompts were chosen so that
// none does; what is left is the order of float32 sums.
const parityGate = 5e-6

func TestEveryConfigVariantGivesTheLogitsOfTransformers(t *testing.T) {
	folders, err := filepath.Glob(parityFolders + "/*/config.json")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(folders), 37)
	engines := map[string]*infer.Engine{}
	for _, path := range folders {
		dir := filepath.Dir(path)
		m, err := model.Load(context.Background(), dir, model.LoadOptions{})
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		e := infer.NewEngine(m)
		t.Cleanup(func() { e.Close(); require.NoError(t, m.Close()) })
		engines[filepath.Base(dir)] = e
	}
	onEveryISA(t, func(t *testing.T) {
		for name, e := range engines {
			t.Run(name, func(t *testing.T) { compareWithReference(t, e, filepath.Join(parityFolders, name, "parity.npz")) })
		}
	})
}

// compareWithReference holds an engine to the logits and the best tokens of a parity.npz.
func compareWithReference(t *testing.T, e *infer.Engine, path string) {
	want, err := npz.Load(path)
	require.NoError(t, err)
	v := e.Model().Config.VocabSize
	var worst, sum, squares float64
	agree, rows, count := 0, 0, 0
	for i := range 2 {
		prompt, best := int32s(t, want, fmt.Sprintf("input_ids_%d", i)), int32s(t, want, fmt.Sprintf("argmax_%d", i))
		ref, err := want[fmt.Sprintf("logits_%d", i)].Float32s()
		require.NoError(t, err)
		got := make([]float32, len(prompt)*v)
		require.NoError(t, e.Forward(context.Background(), [][]int32{prompt}, got))
		require.Len(t, ref, len(got))
		for j, x := range ref {
			worst = max(worst, math.Abs(float64(x)-float64(got[j])))
			sum, squares, count = sum+float64(x), squares+float64(x)*float64(x), count+1
		}
		for r := range prompt {
			if argmax(got[r*v:(r+1)*v]) == int(best[r]) {
				agree++
			}
		}
		rows += len(prompt)
	}
	mean := sum / float64(count)
	std := math.Sqrt(squares/float64(count) - mean*mean)
	t.Logf("max|dlogit| %.1e of the standard deviation %.3f, argmax %d/%d", worst/std, std, agree, rows)
	require.LessOrEqual(t, worst/std, parityGate)
	require.Equal(t, rows, agree)
}

func TestParityFoldersStaySmall(t *testing.T) {
	folders, err := os.ReadDir(parityFolders)
	require.NoError(t, err)
	for _, folder := range folders {
		files, err := os.ReadDir(filepath.Join(parityFolders, folder.Name()))
		require.NoError(t, err)
		size := int64(0)
		for _, f := range files {
			info, err := f.Info()
			require.NoError(t, err)
			size += info.Size()
		}
		require.Less(t, size, int64(150_000), folder.Name())
	}
}
