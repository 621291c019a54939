package infer

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

func TestLookupGivesWhatFollowedTheLastTimeTheSameTokensStoodThere(t *testing.T) {
	for _, c := range []struct {
		tokens []int32
		most   int
		want   []int32
	}{
		{nil, 4, nil},
		{[]int32{1, 2}, 4, nil},
		{[]int32{1, 2, 1, 2}, 4, []int32{1, 2, 1, 2}},
		{[]int32{1, 2, 3, 1, 2}, 4, []int32{3, 1, 2, 3}},
		{[]int32{1, 2, 3, 1, 2}, 2, []int32{3, 1}},
		{[]int32{1, 2, 3, 9, 1, 2, 4, 9, 1, 2}, 1, []int32{4}},          // the latest place
		{[]int32{5, 1, 2, 3, 9, 1, 2, 4, 7, 5, 1, 2}, 2, []int32{3, 9}}, // the longer run
		{[]int32{5, 1, 7, 5, 2}, 2, nil},                                // one token is not enough
		{[]int32{8, 8, 8, 8}, 5, []int32{8, 8, 8, 8, 8}},
	} {
		require.Equal(t, c.want, lookup(c.tokens, c.most, nil), "%v", c.tokens)
	}
}

func TestRepetitiveTextTakesFewerStepsForTheSameTokens(t *testing.T) {
	run := func(lookup, more int) (*request, int) {
		b := smallBatch(t, 1, unlimited)
		r := ask(t, b, 1, 40, more, func(r *request) {
			r.params.PromptLookup, r.params.RepetitionPenalty = lookup, 1
			for i := range r.prompt {
				r.tokens[i] = int32(i % 7)
			}
		})
		steps := 0
		for ; !r.done; steps++ {
			step(t, b)
		}
		require.Zero(t, b.kv.referenced)
		return r, steps
	}
	for _, more := range []int{1, 2, 3, 300, 1 << 20} { // the last ends with the context
		plain, slow := run(0, more)
		guessed, fast := run(10, more)
		require.Equal(t, plain.tokens, guessed.tokens)
		if more >= 300 {
			require.LessOrEqual(t, 2*fast, slow)
		}
	}
}

func TestGuessesDoNotChangeTheDistribution(t *testing.T) {
	b := smallBatch(t, 32, unlimited)
	counts := [2]map[int32]int{{}, {}} // of the third token, over many seeds
	for i := range 2 {
		for seed := range uint64(400) {
			ask(t, b, 1, 20, 5, func(r *request) {
				r.params.Temperature, r.params.Seed, r.params.PromptLookup = 0.02, &seed, 4*i
				for j := range r.prompt {
					r.tokens[j] = int32(j % 3)
				}
			})
		}
		list := append([]*request(nil), b.waiting...)
		for len(b.active)+len(b.waiting) > 0 {
			step(t, b)
		}
		for _, r := range list {
			counts[i][r.tokens[r.prompt+2]]++
		}
	}
	require.Greater(t, len(counts[0]), 3)
	require.Equal(t, counts[0], counts[1], "each seed has its tokens, so not only the distribution is the same")
}

func TestGuessesGiveWayWhenMemoryEnds(t *testing.T) {
	b := smallBatch(t, 1, 2)
	r := ask(t, b, 1, 100, 27, func(r *request) { r.params.PromptLookup = 16 })
	for !r.done {
		step(t, b)
		require.LessOrEqual(t, b.kv.pages, 2)
	}
	require.Len(t, r.tokens, 127)
}

func TestADraftModelThatThinksAlikeIsAlwaysRight(t *testing.T) {
	for name, change := range map[string]func(*request){
		"greedy": func(*request) {},
		"sampled": func(r *request) {
			r.params.Temperature, r.params.TopP = 1.5, 0.9
			r.params.Seed = new(uint64)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := smallBatch(t, 1, unlimited)
			b.drafter = newDrafter(Draft{b.e, 5}, unlimited)
			r := ask(t, b, 1, 300, 61, change)
			steps := 0
			for ; !r.done; steps++ {
				step(t, b)
			}
			require.EqualValues(t, b.count.drafted, b.count.accepted)
			require.Equal(t, 2+1+60/6, steps, "two for the prompt, in one the drafter reads it, then six tokens a step")
			require.Zero(t, b.drafter.kv.referenced)

			plain := smallBatch(t, 1, unlimited)
			same := ask(t, plain, 1, 300, 61, change)
			for !same.done {
				step(t, plain)
			}
			require.Equal(t, same.tokens, r.tokens)
		})
	}
}

func TestADrafterWithoutMemoryDoesNotGuess(t *testing.T) {
	b := smallBatch(t, 2, unlimited)
	b.drafter = newDrafter(Draft{b.e, 5}, 1)
	r := ask(t, b, 1, 60, 30, nil)
	for !r.done {
		step(t, b)
	}
	require.Positive(t, b.count.accepted)
	require.Less(t, b.count.accepted, int64(5), "until the page is full")
	require.Len(t, r.tokens, 90)
}

func TestADrafterYieldsItsMemoryToTheModel(t *testing.T) {
	run := func(draft bool) (*request, *batch) {
		b := smallBatch(t, 1, unlimited)
		b.kv.close()
		mem := pool.New(pool.Options{Budget: 8 << 20}) // of keys and values alone
		b.kv = newPageStore(mem, b.kv.bytes, unlimited)
		if draft {
			b.drafter = newDrafter(Draft{b.e, 5}, unlimited)
			b.drafter.kv.close()
			b.drafter.kv = newPageStore(mem, b.kv.bytes, unlimited)
		}
		var others []*pool.Block
		for {
			o, err := mem.AllocSpare(b.kv.bytes, "somebody else's")
			if err != nil {
				break
			}
			others = append(others, o)
		}
		for _, o := range others[:24] { // the request needs 18 pages, and the drafter as many
			o.Release()
		}
		r := ask(t, b, 1, 300, 800, nil)
		for !r.done {
			step(t, b)
		}
		return r, b
	}
	plain, _ := run(false)
	guessed, b := run(true)
	require.Equal(t, plain.tokens, guessed.tokens)
	require.Positive(t, b.count.accepted)
	require.Less(t, b.count.accepted, int64(600), "until memory ended")
}

func BenchmarkLookup(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	tokens := make([]int32, 4096)
	for i := range tokens {
		tokens[i] = int32(r.IntN(1000))
	}
	out := make([]int32, 0, 16)
	for b.Loop() {
		lookup(tokens, 16, out)
	}
}
