package infer_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/bitnet-rust/bitnet_rust/accel/cpu.(*workPool).work"))
}

// scheduler starts a scheduler that the test's end closes.
func scheduler(tb testing.TB, e *infer.Engine, o infer.SchedulerOptions) *infer.Scheduler {
	tb.Helper()
	s, err := infer.NewScheduler(e, o)
	require.NoError(tb, err)
	tb.Cleanup(s.Close)
	return s
}

// wholeAnswer is all tokens of a request and how it ended.
type wholeAnswer struct {
	tokens []infer.Token
	finish string
	err    error
}

// collect reads a request to its end; cancelAfter cancels it after so many tokens, unless it is negative.
func collect(tb testing.TB, h *infer.Handle, cancelAfter int) (a wholeAnswer) {
	tb.Helper()
	if cancelAfter == 0 {
		h.Cancel()
	}
	for {
		e, err := h.Next(context.Background())
		if errors.Is(err, io.EOF) {
			return a
		}
		require.NoError(tb, err)
		if a.err = e.Err; e.Err != nil {
			continue
		}
		a.tokens, a.finish = append(a.tokens, e.Token), e.Finish
		if len(a.tokens) == cancelAfter {
			h.Cancel()
		}
	}
}

// alone is what a request gets from a generation of its own.
func alone(tb testing.TB, e *infer.Engine, r infer.Request) (a wholeAnswer) {
	tb.Helper()
	g, err := e.Generate([][]int32{r.Prompt}, []infer.SamplingParams{r.Params})
	require.NoError(tb, err)
	defer g.Close()
	for !g.Done() {
		list, err := g.Step(context.Background())
		require.NoError(tb, err)
		for _, s := range list {
			a.tokens, a.finish = append(a.tokens, s.Token), s.Finish
		}
	}
	return a
}

// randomRequests are requests of every kind: prompts that share beginnings, all sampling parameters, ends by stop tokens and by length.
func randomRequests(r *rand.Rand, n int) []infer.Request {
	systems := prompts(4, 200)
	list := make([]infer.Request, n)
	for i := range list {
		var prompt []int32
		if r.IntN(2) == 0 {
			prompt = append(prompt, systems[r.IntN(len(systems))][:r.IntN(200)]...)
		}
		for range 1 + r.IntN(60) {
			prompt = append(prompt, int32(r.IntN(1000)))
		}
		p := infer.DefaultSamplingParams()
		seed := r.Uint64()
		p.MaxNewTokens, p.Seed, p.Logprobs = 1+r.IntN(60), &seed, r.IntN(4)-1
		if r.IntN(3) > 0 {
			p.Temperature, p.TopK, p.TopP = 0.5+2*r.Float64(), r.IntN(100), 0.5+r.Float64()/2
			p.MinP, p.TypicalP = r.Float64()/100, 0.5+r.Float64()/2
		}
		if r.IntN(3) == 0 {
			p.RepetitionPenalty, p.PresencePenalty, p.FrequencyPenalty = 1+r.Float64(), r.Float64(), r.Float64()
			p.LogitBias = infer.LogitBias{int32(r.IntN(1000)): float32(r.Float64())}
		}
		for range r.IntN(30) {
			p.StopTokenIDs = append(p.StopTokenIDs, int32(r.IntN(1000)))
		}
		list[i] = infer.Request{Prompt: prompt, Params: p, Priority: r.IntN(3), Client: string(rune('a' + r.IntN(3)))}
	}
	return list
}

func TestEachOf200RandomRequestsGetsWhatItGetsAlone(t *testing.T) {
	requests := randomRequests(rand.New(rand.NewPCG(17, 4)), 200)
	want, e := make([]wholeAnswer, len(requests)), tiny(t, 2, 128, 128)
	for i, req := range requests {
		want[i] = alone(t, e, req)
	}
	for name, o := range map[string]infer.SchedulerOptions{
		"few pages":      {MaxSequences: 12, KVBytes: 14 * pageBytes, MaxBatchTokens: 48},
		"latency":        {MaxSequences: 8, KVBytes: 20 * pageBytes, Mode: infer.ModeLatency},
		"one at a time":  {MaxSequences: 1, KVBytes: 5 * pageBytes},
		"room for every": {MaxSequences: 64, KVBytes: 400 * pageBytes},
	} {
		t.Run(name, func(t *testing.T) {
			e := tiny(t, 2, 128, 128)
			r := rand.New(rand.NewPCG(3, 5))
			cancels := make([]int, len(requests))
			for i := range cancels {
				if cancels[i] = -1; r.IntN(8) == 0 {
					cancels[i] = r.IntN(20)
				}
			}
			pool := withBudget(t, e, 64<<20)
			s := scheduler(t, e, o)
			got := make([]wholeAnswer, len(requests))
			var readers sync.WaitGroup
			for i, req := range requests { // they arrive while others run: some wait for an earlier one's first token
				h, err := s.Submit(req)
				require.NoError(t, err)
				readers.Add(1)
				first := make(chan struct{})
				go func() {
					defer readers.Done()
					defer close(first)
					got[i] = collect(t, h, cancels[i])
				}()
				if r.IntN(10) == 0 {
					<-first
				}
			}
			readers.Wait()
			m := s.Metrics()
			require.NoError(t, s.Shutdown(context.Background()))
			require.EqualValues(t, 1, pool.Stats().LiveBlocks, "all is given back but the scratch memory")

			for i := range requests {
				if cancels[i] < 0 || got[i].err == nil {
					require.Equal(t, want[i], got[i], "request %d", i)
					continue
				}
				require.ErrorIs(t, got[i].err, infer.ErrCanceled)
				require.GreaterOrEqual(t, len(got[i].tokens), cancels[i])
				for j, tok := range got[i].tokens {
					require.Equal(t, want[i].tokens[j], tok, "request %d, until it was canceled", i)
				}
			}
			require.EqualValues(t, 200, m.Submitted)
			require.EqualValues(t, 200, m.Finished+m.Canceled)
			require.Positive(t, m.PrefixHitTokens)
			if name == "few pages" {
				require.Positive(t, m.Preemptions, "memory did end")
			}
			require.LessOrEqual(t, m.KVReserved, m.KVLimit)
			t.Logf("%d steps, %d preemptions, %d prompt tokens computed and %d found, %d made", m.Steps, m.Preemptions, m.PromptTokens, m.PrefixHitTokens, m.GeneratedTokens)
		})
	}
}

