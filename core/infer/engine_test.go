package infer_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
)

// tiny is a random model of the BitNet layout.
func tiny(tb testing.TB, layers, hidden, ffn int) *infer.Engine {
	tb.Helper()
	cfg := &model.Config{
		Architecture: "BitNetForCausalLM", VocabSize: 1000, HiddenSize: hidden, IntermediateSize: ffn, NumHiddenLayers: layers,
		NumAttentionHeads: hidden / 32, NumKeyValueHeads: hidden / 64, HeadDim: 32, HiddenAct: "relu2", MaxPositionEmbeddings: 300,
		RMSNormEps: 1e-5, RopeTheta: 10000, TieWordEmbeddings: true, InitializerRange: 0.02,
		Quantization: model.Quantization{LinearClass: "autobitlinear", Mode: "offline"},
	}
	return random(tb, cfg)
}

func random(tb testing.TB, cfg *model.Config) *infer.Engine {
	tb.Helper()
	m, err := model.NewRandom(cfg, 1, model.LoadOptions{HeadFormat: "bfloat16"})
	require.NoError(tb, err)
	e := infer.NewEngine(m)
	tb.Cleanup(func() { e.Close(); require.NoError(tb, m.Close()) })
	return e
}

// decoding returns a generation of n sequences that have read their prompts and made a few tokens.
func decoding(tb testing.TB, e *infer.Engine, n int) *infer.Generation {
	tb.Helper()
	p := infer.DefaultSamplingParams()
	p.MaxNewTokens, p.IgnoreEOS, p.Temperature, p.TopK = 1<<20, true, 0.9, 40
	prompts := make([][]int32, n)
	for i := range prompts {
		prompts[i] = []int32{int32(i), 2, 3}
	}
	g, err := e.Generate(prompts, []infer.SamplingParams{p}, infer.Draft{})
	require.NoError(tb, err)
	tb.Cleanup(g.Close)
	for range 4 {
		_, err := g.Step(context.Background())
		require.NoError(tb, err)
	}
	return g
}

func TestDecodingAllocatesNothingAfterWarmUp(t *testing.T) {
	gpt2 := &model.Config{
		Architecture: model.ArchGPT2, VocabSize: 1000, HiddenSize: 64, IntermediateSize: 256, NumHiddenLayers: 2, NumAttentionHeads: 4,
		MaxPositionEmbeddings: 300, AttentionBias: true, MLPBias: true, TieWordEmbeddings: true,
	}
	for _, e := range []*infer.Engine{tiny(t, 2, 64, 128), random(t, gpt2)} {
		for _, n := range []int{1, 5} {
			g := decoding(t, e, n)
			require.Zero(t, testing.AllocsPerRun(40, func() { // all within one page of the cache
				if _, err := g.Step(context.Background()); err != nil {
					panic(err)
				}
			}), "%s, %d sequences", e.Model().Config.Architecture, n)
		}
	}
}

func TestPlannedStepsUseAlmostAllTheyReserve(t *testing.T) {
	for _, shape := range []struct{ layers, hidden, ffn, sequences, prompt int }{
		{2, 64, 128, 1, 1}, {2, 256, 688, 1, 1}, {3, 256, 688, 7, 1}, {2, 512, 1376, 1, 200}, {2, 96, 200, 3, 31},
	} {
		e := tiny(t, shape.layers, shape.hidden, shape.ffn)
		step := func() { // every sequence reads its prompt
			var chunks []infer.Chunk
			for range shape.sequences {
				seq := e.NewSequence()
				defer seq.Close()
				chunks = append(chunks, infer.Chunk{Seq: seq, IDs: make([]int32, shape.prompt), Logits: 1})
			}
			require.NoError(t, e.Step(context.Background(), chunks, make([]float32, shape.sequences*1000)))
		}
		step() // recorded
		step() // planned
		live, reserved := e.ScratchEfficiency()
		require.Positive(t, live, "%+v", shape)
		require.GreaterOrEqual(t, float64(live)/float64(reserved), 0.98, "%+v: %d of %d bytes", shape, live, reserved)
	}
}

func TestPromptsAreReadInChunksAndReported(t *testing.T) {
	e := tiny(t, 1, 64, 64)
	prompt := make([]int32, 290)
	p := infer.DefaultSamplingParams()
	p.MaxNewTokens, p.IgnoreEOS = 100, true
	g, err := e.Generate([][]int32{prompt, {1}}, []infer.SamplingParams{p}, infer.Draft{})
	require.NoError(t, err)
	defer g.Close()
	tokens, err := g.Step(context.Background())
	require.NoError(t, err)
	require.Empty(t, tokens, "both prompts wait for room in the step")
	read, total := g.Progress()
	require.Equal(t, infer.MaxStepTokens, read)
	require.Equal(t, 291, total)
	made := [2]int{}
	why := [2]string{}
	for !g.Done() {
		tokens, err = g.Step(context.Background())
		require.NoError(t, err)
		for _, tok := range tokens {
			made[tok.Sequence]++
			why[tok.Sequence] = tok.Finish
		}
	}
	require.Equal(t, [2]int{300 - 290 + 1, 100}, made, "the first ends with the context, the second with max_new_tokens")
	require.Equal(t, [2]string{infer.FinishLength, infer.FinishLength}, why)
}

func TestFinishEndsASequence(t *testing.T) {
	g := decoding(t, tiny(t, 1, 64, 64), 3)
	require.NoError(t, g.Finish(1))
	tokens, err := g.Step(context.Background())
	require.NoError(t, err)
	require.Len(t, tokens, 2)
	require.ErrorIs(t, g.Finish(7), infer.ErrArgument)
	require.NoError(t, g.Finish(0))
	require.NoError(t, g.Finish(2))
	require.True(t, g.Done())
	tokens, err = g.Step(context.Background())
	require.NoError(t, err)
	require.Empty(t, tokens)
}

func TestStopTokensEndASequence(t *testing.T) {
	e := tiny(t, 1, 64, 64)
	p := infer.DefaultSamplingParams()
	p.MaxNewTokens = 8
	run := func() (ids []int32, finish string) {
		g, err := e.Generate([][]int32{{1, 2, 3}}, []infer.SamplingParams{p}, infer.Draft{})
		require.NoError(t, err)
		defer g.Close()
		for !g.Done() {
			tokens, err := g.Step(context.Background())
			require.NoError(t, err)
			for _, tok := range tokens {
				ids, finish = append(ids, tok.ID), tok.Finish
			}
		}
		return ids, finish
	}
	free, why := run()
	require.Len(t, free, 8)
	require.Equal(t, infer.FinishLength, why)
	p.StopTokenIDs = []int32{free[2]}
	ids, why := run()
	require.LessOrEqual(t, len(ids), 3)
	require.Equal(t, free[2], ids[len(ids)-1])
	require.Equal(t, infer.FinishStop, why)
}

func TestGenerateRefusesBadRequests(t *testing.T) {
	e := tiny(t, 1, 64, 64)
	ok := infer.DefaultSamplingParams()
	for name, c := range map[string]struct {
		prompts [][]int32
		params  []infer.SamplingParams
	}{
		"empty prompt":         {[][]int32{{1}, {}}, []infer.SamplingParams{ok}},
		"id out of range":      {[][]int32{{1000}}, []infer.SamplingParams{ok}},
		"prompt fills context": {[][]int32{make([]int32, 300)}, []infer.SamplingParams{ok}},
		"wrong params count":   {[][]int32{{1}}, []infer.SamplingParams{ok, ok}},
	} {
		_, err := e.Generate(c.prompts, c.params, infer.Draft{})
		require.ErrorIs(t, err, infer.ErrArgument, name)
	}
}

// BenchmarkDecode is the whole path of a token; allocs/op must be 0.
func BenchmarkDecode(b *testing.B) {
	e := tiny(b, 8, 512, 1376)
	g := decoding(b, e, 1)
	b.ReportAllocs()
	for b.Loop() {
		if g.Done() { // the context is full: go on with a fresh sequence
			b.StopTimer()
			g = decoding(b, e, 1)
			b.StartTimer()
		}
		if _, err := g.Step(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	live, reserved := e.ScratchEfficiency()
	b.ReportMetric(float64(live)/float64(reserved), "pool-efficiency")
}

func TestHiddenStatesHaveTheSameBitsInAnyCompany(t *testing.T) {
	e := tiny(t, 2, 64, 128)
	dim := e.Model().Config.HiddenSize
	long := make([]int32, 290) // more than a step takes
	for i := range long {
		long[i] = int32(i * 7 % 1000)
	}
	batch := [][]int32{{1, 2, 3}, long, {9}}
	together := make([]float32, (3+len(long)+1)*dim)
	require.NoError(t, e.Hidden(context.Background(), batch, together))
	for _, ids := range batch {
		alone := make([]float32, len(ids)*dim)
		require.NoError(t, e.Hidden(context.Background(), [][]int32{ids}, alone))
		require.Equal(t, alone, together[:len(alone)])
		together = together[len(alone):]
	}
	require.ErrorIs(t, e.Hidden(context.Background(), batch[:1], make([]float32, 3*dim+1)), infer.ErrArgument)
}
