package tests_go

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
)

// The golden folders hold logits and greedy continuations computed by Hugging Face transformers in float32. An
// activation on a rounding tie moves by one step when float sums are ordered differently, so logits are compared within
// a gate; the gap between best and second logit of every greedy step is two orders of magnitude larger.
const logitGate = 0.15

var goldenFolders = []string{"bitnet_offline_packed", "bitnet_online_bf16", "llama_bitlinear_packed"}

// logitBits are checksums of our own logits, as they are on every instruction set and processor architecture. Whoever changes the order of
// a sum on purpose records them anew.
var logitBits = map[string]string{
	"bitnet_offline_packed": "5aeae12f352410f1", "bitnet_online_bf16": "d9f79fbcdf87ebd4", "llama_bitlinear_packed": "7dfee064780ee083",
}

func TestGoldenModelsGiveTheReferenceLogitsAndTokens(t *testing.T) {
	for _, folder := range goldenFolders {
		dir := "testdata/golden/" + folder
		m, err := model.Load(context.Background(), dir, model.LoadOptions{})
		require.NoError(t, err)
		e := infer.NewEngine(m)
		want, err := npz.Load(dir + "/golden_f32.npz")
		require.NoError(t, err)
		onEveryISA(t, func(t *testing.T) {
			worst, agree, rows := 0.0, 0, 0
			bits := sha256.New()
			for i := range 4 {
				prompt := int32s(t, want, fmt.Sprintf("input_ids_%d", i))
				ref, err := want[fmt.Sprintf("logits_%d", i)].Float32s()
				require.NoError(t, err)
				got := make([]float32, len(ref))
				require.NoError(t, e.Forward(context.Background(), [][]int32{prompt}, got))
				require.NoError(t, binary.Write(bits, binary.LittleEndian, got))
				v := m.Config.VocabSize
				for r := range prompt {
					a, b := ref[r*v:(r+1)*v], got[r*v:(r+1)*v]
					for j := range a {
						worst = max(worst, math.Abs(float64(a[j])-float64(b[j])))
					}
					if argmax(a) == argmax(b) {
						agree++
					}
					rows++
				}
				greedy := int32s(t, want, fmt.Sprintf("greedy_%d", i))
				p := infer.DefaultSamplingParams()
				p.MaxNewTokens, p.IgnoreEOS = len(greedy)-len(prompt), true
				require.Equal(t, greedy[len(prompt):], generate(t, e, [][]int32{prompt}, p)[0], "greedy tokens of prompt %d", i)
			}
			t.Logf("%s: max|dlogit| %.4f, argmax %d/%d", folder, worst, agree, rows)
			require.LessOrEqual(t, worst, logitGate, folder)
			require.Equal(t, 66, rows)
			require.Equal(t, rows, agree, folder)
			require.Equal(t, logitBits[folder], fmt.Sprintf("%x", bits.Sum(nil)[:8]), "%s: other bits than elsewhere", folder)
		})
		e.Close()
		require.NoError(t, m.Close())
	}
}

// int32s reads token ids.
func int32s(t *testing.T, arrays map[string]npz.Array, name string) []int32 {
	t.Helper()
	a, ok := arrays[name]
	require.True(t, ok, name)
	values, err := a.Int64s()
	require.NoError(t, err)
	out := make([]int32, len(values))
	for i, v := range values {
		out[i] = int32(v)
	}
	return out
}

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}
