package infer_test

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// pageBytes is one page of the cache of tiny(tb, 2, 128, 128): 2 layers, 2 heads, keys and values of 64 positions and 32 columns.
const pageBytes = 2 * 2 * 2 * 64 * 32 * 4

// run generates to the end and returns the tokens of each sequence.
func run(tb testing.TB, g *infer.Generation, n int) [][]int32 {
	tb.Helper()
	defer g.Close()
	ids := make([][]int32, n)
	for !g.Done() {
		tokens, err := g.Step(context.Background())
		require.NoError(tb, err)
		for _, tok := range tokens {
			ids[tok.Sequence] = append(ids[tok.Sequence], tok.ID)
		}
	}
	return ids
}

func TestABatchThatOutgrowsItsMemoryGivesTheSameTokensInTurns(t *testing.T) {
	e := tiny(t, 2, 128, 128)
	p := infer.DefaultSamplingParams()
	seed := uint64(3)
	p.MaxNewTokens, p.IgnoreEOS, p.Temperature, p.RepetitionPenalty, p.Seed = 130, true, 0.9, 1.1, &seed
	ids := prompts(12, 40)
	g, err := e.Generate(ids, []infer.SamplingParams{p}, infer.Draft{})
	require.NoError(t, err)
	want := run(t, g, len(ids)) // each needs three pages in the end

	few := withBudget(t, e, 8*pageBytes+2<<20)
	g, err = e.Generate(ids, []infer.SamplingParams{p}, infer.Draft{})
	require.NoError(t, err)
	require.Equal(t, want, run(t, g, len(ids)))
	require.Positive(t, few.Stats().Failures.Budget, "memory did end")
}

func TestASequenceThatDoesNotFitAloneIsAnErrorAndMayBeTriedAgain(t *testing.T) {
	e := tiny(t, 2, 128, 128)
	few := withBudget(t, e, pageBytes+4<<20)
	hold, err := few.Alloc(4<<20-pageBytes/2, "somebody else's")
	require.NoError(t, err)
	p := infer.DefaultSamplingParams()
	p.MaxNewTokens, p.IgnoreEOS = 10, true
	g, err := e.Generate(prompts(3, 100), []infer.SamplingParams{p}, infer.Draft{})
	require.NoError(t, err)
	_, err = g.Step(context.Background())
	require.ErrorIs(t, err, pool.ErrOutOfMemory)
	hold.Release()
	for _, ids := range run(t, g, 3) {
		require.Len(t, ids, 10)
	}
}

func TestWaitingSequencesTakeNoMemoryForSampling(t *testing.T) {
	e := tiny(t, 1, 64, 64)
	p := infer.DefaultSamplingParams()
	p.RepetitionPenalty = 1.1 // counts every token of the vocabulary
	ids := prompts(2000, 1)
	allocated := testing.AllocsPerRun(1, func() {
		g, err := e.Generate(ids, []infer.SamplingParams{p}, infer.Draft{})
		require.NoError(t, err)
		g.Close()
	})
	require.Less(t, allocated, 100.0)
}

func TestASequenceWithoutATokenToChooseEndsAndTheOthersGoOn(t *testing.T) {
	e := tiny(t, 1, 64, 64)
	fine := infer.DefaultSamplingParams()
	fine.MaxNewTokens, fine.IgnoreEOS = 5, true
	banned := fine
	banned.LogitBias = infer.LogitBias{}
	for id := range int32(1000) {
		banned.LogitBias[id] = float32(math.Inf(-1))
	}
	ids := prompts(3, 4)
	alone, err := e.Generate(ids, []infer.SamplingParams{fine}, infer.Draft{})
	require.NoError(t, err)
	want := run(t, alone, 3)

	g, err := e.Generate(ids, []infer.SamplingParams{fine, banned, fine}, infer.Draft{})
	require.NoError(t, err)
	defer g.Close()
	tokens, err := g.Step(context.Background())
	require.ErrorIs(t, err, infer.ErrLogits)
	require.ErrorContains(t, err, "sequence 1")
	made := make([][]int32, 3)
	for {
		for _, tok := range tokens {
			made[tok.Sequence] = append(made[tok.Sequence], tok.ID)
		}
		if g.Done() {
			break
		}
		tokens, err = g.Step(context.Background())
		require.NoError(t, err)
	}
	require.Equal(t, [][]int32{want[0], nil, want[2]}, made)
}
