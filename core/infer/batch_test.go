package infer

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// The rules of a batch, step by step.

func smallConfig() *model.Config {
	return &model.Config{
		Architecture: "BitNetForCausalLM", VocabSize: 200, HiddenSize: 64, IntermediateSize: 64, NumHiddenLayers: 1,
		NumAttentionHeads: 2, NumKeyValueHeads: 1, HeadDim: 32, HiddenAct: "relu2", MaxPositionEmbeddings: 2000,
		RMSNormEps: 1e-5, RopeTheta: 10000, TieWordEmbeddings: true, InitializerRange: 0.02,
		Quantization: model.Quantization{LinearClass: "autobitlinear", Mode: "online"},
	}
}

func smallBatch(tb testing.TB, most, pages int) *batch {
	tb.Helper()
	m, err := model.NewRandom(smallConfig(), 1, model.LoadOptions{})
	require.NoError(tb, err)
	e := NewEngine(m)
	b := newBatch(e, most, pages)
	tb.Cleanup(func() { b.close(); e.Close(); require.NoError(tb, m.Close()) })
	return b
}

// ask adds a request for some more tokens to a prompt of equal tokens.
func ask(tb testing.TB, b *batch, token int32, length, more int, change func(*request)) *request {
	tb.Helper()
	p := DefaultSamplingParams()
	p.MaxNewTokens, p.IgnoreEOS = more, true
	ids := make([]int32, length)
	for i := range ids {
		ids[i] = token
	}
	r, err := b.e.newRequest(ids, p)
	require.NoError(tb, err)
	if r.order = uint64(len(b.active) + len(b.waiting)); change != nil {
		change(r)
	}
	b.add(r)
	return r
}

// step takes a step and returns who got a token.
func step(tb testing.TB, b *batch) (got []*request) {
	tb.Helper()
	list, err := b.step(context.Background())
	require.NoError(tb, err)
	for _, o := range list {
		require.NoError(tb, o.err)
		got = append(got, o.r)
	}
	return got
}

func TestALongPromptNeverStallsTheOthers(t *testing.T) {
	b := smallBatch(t, 8, unlimited)
	b.rows = 40
	one, two := ask(t, b, 1, 3, 1000, nil), ask(t, b, 2, 3, 1000, nil)
	step(t, b)
	long := ask(t, b, 3, 1000, 5, nil)
	for read := 0; read < 1000; {
		got := step(t, b)
		require.Subset(t, got, []*request{one, two}, "everybody gets a token in every step")
		require.LessOrEqual(t, long.read-read, 38, "beside a piece of the prompt that fits the step")
		require.Greater(t, long.read, read)
		read = long.read
	}
	require.Len(t, long.tokens, 1001)
}

func TestEqualPrefixesAreComputedOnceEvenWhenTheyArriveTogether(t *testing.T) {
	b := smallBatch(t, 8, unlimited)
	b.rows = 64
	const prefix = 5 * nn.PageTokens
	var all []*request
	for i := range 6 {
		r := ask(t, b, 1, prefix+10, 3, nil)
		r.tokens[prefix] = int32(i) // they differ behind it
		all = append(all, r)
	}
	for len(b.active)+len(b.waiting) > 0 {
		step(t, b)
	}
	require.EqualValues(t, prefix+6*10, b.count.prompt)
	require.EqualValues(t, 5*prefix, b.kv.hits)
	require.Zero(t, all[0].found)
	for _, r := range all[1:] {
		require.Equal(t, prefix, r.found)
	}
	again := ask(t, b, 1, prefix+1, 3, nil)
	require.Len(t, step(t, b), 1, "the pages are kept for those who come later")
	require.Equal(t, prefix+1, again.read)
	require.Equal(t, prefix, again.found)
}

func TestTheMoreImportantRequestTakesThePlaceOfALesserOne(t *testing.T) {
	b := smallBatch(t, 1, unlimited)
	low := ask(t, b, 1, 3, 10, nil)
	step(t, b)
	high := ask(t, b, 2, 3, 2, func(r *request) { r.priority = 1 })
	require.Equal(t, []*request{high}, step(t, b))
	ask(t, b, 3, 3, 2, nil) // arrived later than low
	require.Equal(t, []*request{high}, step(t, b))
	require.True(t, high.done)
	for !low.done {
		require.Equal(t, []*request{low}, step(t, b))
	}
	require.Len(t, low.tokens, 13)
}

func TestNobodyWaitsForEver(t *testing.T) {
	b := smallBatch(t, 1, unlimited)
	for range 3 { // there are always important requests
		ask(t, b, 1, 3, 4, func(r *request) { r.priority = 1 })
	}
	low := ask(t, b, 2, 3, 2, nil)
	steps := 0
	for !low.done {
		if len(b.waiting) < 3 {
			ask(t, b, 1, 3, 4, func(r *request) { r.priority, r.order = 1, uint64(1000+steps) })
		}
		step(t, b)
		steps++
		require.Less(t, steps, 3*riseSteps)
	}
	require.Greater(t, steps, riseSteps)
}

func TestAClientWithManyRequestsDoesNotDelayTheOthers(t *testing.T) {
	b := smallBatch(t, 1, unlimited)
	for range 20 {
		ask(t, b, 1, 3, 5, func(r *request) { r.from = "many" })
	}
	for range 7 {
		step(t, b)
	}
	few := ask(t, b, 2, 3, 5, func(r *request) { r.from = "few" })
	for range 5 + 5 { // what runs ends, then it is its turn
		step(t, b)
	}
	require.True(t, few.done)
}

func TestALateRequestNeverTakesMemoryFromAnEarlierOne(t *testing.T) {
	b := smallBatch(t, 4, 7)
	first := ask(t, b, 1, 2*nn.PageTokens, 3*nn.PageTokens, nil) // five pages in the end
	second := ask(t, b, 2, nn.PageTokens, 4*nn.PageTokens, nil)
	for !first.done {
		require.Contains(t, step(t, b), first)
		require.LessOrEqual(t, b.kv.referenced, 7)
	}
	require.Positive(t, b.count.preemptions)
	for !second.done {
		require.Equal(t, []*request{second}, step(t, b))
	}
	require.Positive(t, b.kv.hits, "it finds its own pages again")
	require.Zero(t, second.found, "but it had computed them")
	require.Len(t, second.tokens, 5*nn.PageTokens)
}

func TestChangedWeightsMakeKeptPagesWorthless(t *testing.T) {
	m, err := model.NewTrainable(smallConfig(), 1, model.LoadOptions{})
	require.NoError(t, err)
	e := NewEngine(m)
	defer func() { e.Close(); require.NoError(t, m.Close()) }()
	b := newBatch(e, 4, unlimited)
	defer b.close()
	long := ask(t, b, 1, 3*nn.PageTokens, 1000, nil)
	for range 10 {
		step(t, b)
	}
	m.EachTernary(func(_ string, l *nn.Linear) {
		for i := range l.Weight.Data {
			l.Weight.Data[i] *= -1
		}
	})
	m.MarkChanged()
	was := len(long.tokens)
	for range 5 {
		step(t, b)
	}
	require.Zero(t, b.kv.hits)

	fresh := newBatch(e, 1, unlimited)
	defer fresh.close()
	r := ask(t, fresh, 1, was, 5, nil)
	copy(r.tokens, long.tokens[:was])
	for !r.done {
		step(t, fresh)
	}
	require.Equal(t, r.tokens, long.tokens, "it goes on as the new weights would have it")
}

func TestStepsAllocateNothingOnceEverySizeWasSeen(t *testing.T) {
	b := smallBatch(t, 4, unlimited)
	for range 2 { // the first round takes pages and plans, the second one has them
		for range 4 {
			r := ask(t, b, 1, 60, 200, func(r *request) { r.params.Temperature, r.params.TopK = 0.9, 20 })
			r.tokens[0] = int32(len(b.waiting)) // no page is shared
		}
		for range 3 {
			step(t, b)
		}
		allocs := testing.AllocsPerRun(1, func() {
			for range 190 { // over three borders of pages
				if _, err := b.step(context.Background()); err != nil {
					panic(err)
				}
			}
		})
		for len(b.active) > 0 {
			step(t, b)
		}
		b.kv.forget()
		if t.Logf("%v allocations", allocs); allocs == 0 {
			return
		}
	}
	t.Fatal("steps allocate")
}
