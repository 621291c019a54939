package infer_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
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
	g, err := e.Generate([][]int32{r.Prompt}, []infer.SamplingParams{r.Params}, infer.Draft{})
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
		if r.IntN(2) == 0 {
			p.PromptLookup = 1 + r.IntN(16)
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
	threads := cpu.NumThreads()
	require.NoError(t, cpu.SetNumThreads(1))
	t.Cleanup(func() { require.NoError(t, cpu.SetNumThreads(threads)) })
	for i, req := range requests {
		req.Params.PromptLookup = 0 // which changes nothing
		want[i] = alone(t, e, req)
	}
	require.NoError(t, cpu.SetNumThreads(threads))
	for name, o := range map[string]infer.SchedulerOptions{
		"few pages":       {MaxSequences: 12, KVBytes: 14 * pageBytes, MaxBatchTokens: 48},
		"short of memory": {MaxSequences: 12, KVBytes: 30 * pageBytes},
		"latency":         {MaxSequences: 8, KVBytes: 20 * pageBytes, Mode: infer.ModeLatency},
		"draft":           {MaxSequences: 6, KVBytes: 24 * pageBytes, Draft: infer.Draft{Engine: tiny(t, 2, 128, 128), Tokens: 5}}, // takes half of it
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
				if name == "short of memory" && i%5 == 0 {
					_, err := pool.Alloc(65<<20, "somebody else's") // kept pages go, and it is not enough
					require.Error(t, err)
				}
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
			require.Positive(t, m.AcceptedTokens)
			require.Greater(t, m.DraftTokens, m.AcceptedTokens)
			t.Logf("%d steps, %d preemptions, %d prompt tokens computed and %d found, %d made", m.Steps, m.Preemptions, m.PromptTokens, m.PrefixHitTokens, m.GeneratedTokens)
		})
	}
}

// longContext is a tiny model whose context no test sees the end of, however late it gets the processor: a million tokens take minutes at the least.
func longContext(tb testing.TB) *infer.Engine {
	tb.Helper()
	cfg := *tiny(tb, 2, 128, 128).Model().Config
	cfg.MaxPositionEmbeddings = 1 << 20
	return random(tb, &cfg)
}

// endless asks for tokens up to the end of the context.
func endless(prompt []int32) infer.Request {
	p := infer.DefaultSamplingParams()
	p.MaxNewTokens, p.IgnoreEOS = 1<<20, true
	return infer.Request{Prompt: prompt, Params: p}
}

func TestAFullQueueRefusesRequests(t *testing.T) {
	s := scheduler(t, longContext(t), infer.SchedulerOptions{MaxSequences: 1, MaxQueue: 2})
	for range 3 {
		_, err := s.Submit(endless([]int32{1}))
		require.NoError(t, err)
	}
	_, err := s.Submit(endless([]int32{1}))
	var full *infer.QueueFullError
	require.ErrorAs(t, err, &full)
	require.ErrorIs(t, err, infer.ErrQueueFull)
	require.Equal(t, infer.QueueFullError{Waiting: 2, Limit: 2}, *full)
	require.EqualValues(t, 1, s.Metrics().Rejected)
}

func TestADeadlineEndsWhatRunsAndWhatWaits(t *testing.T) {
	var seconds atomic.Int64
	clock := func() time.Time { return time.Unix(1000+seconds.Load(), 0) }
	s, err := infer.NewSchedulerAt(longContext(t), infer.SchedulerOptions{MaxSequences: 1}, clock)
	require.NoError(t, err)
	defer s.Close()
	running, waiting := endless([]int32{1}), endless([]int32{2})
	running.Deadline, waiting.Deadline = time.Unix(1020, 0), time.Unix(1010, 0)
	h, err := s.Submit(running)
	require.NoError(t, err)
	w, err := s.Submit(waiting)
	require.NoError(t, err)
	_, err = h.Next(context.Background())
	require.NoError(t, err)
	seconds.Store(10)
	require.Equal(t, wholeAnswer{err: infer.ErrDeadline}, collect(t, w, -1))
	seconds.Store(20)
	require.ErrorIs(t, collect(t, h, -1).err, infer.ErrDeadline)
	require.EqualValues(t, 2, s.Metrics().Expired)
}

func TestAMailboxGetsAllThatAStepBringsAtOnce(t *testing.T) {
	s := scheduler(t, longContext(t), infer.SchedulerOptions{})
	var box infer.Mailbox
	for id := range int32(4) {
		r := endless([]int32{id + 1})
		r.Mailbox = &box
		_, err := s.Submit(r)
		require.NoError(t, err)
	}
	tokens, running := map[uint64]int{}, map[uint64]bool{}
	var events []infer.Event
	for compared := 0; compared < 30; {
		var err error
		events, err = box.Wait(context.Background(), events)
		require.NoError(t, err)
		brought := map[uint64]int{}
		for i := range events {
			require.False(t, events[i].Last())
			brought[events[i].ID]++
			tokens[events[i].ID]++
		}
		for id := range running { // the first may have begun steps before the others
			require.Equal(t, brought[events[0].ID], brought[id], "a part of a step")
			compared++
		}
		if len(running) == 0 && len(tokens) == 4 {
			for id := range tokens {
				running[id] = true
			}
		}
	}
}

func TestAStoppedRequestCountsAsFinished(t *testing.T) {
	s := scheduler(t, longContext(t), infer.SchedulerOptions{})
	stopped, err := s.Submit(endless([]int32{1}))
	require.NoError(t, err)
	canceled, err := s.Submit(endless([]int32{2}))
	require.NoError(t, err)
	_, err = stopped.Next(context.Background())
	require.NoError(t, err)
	stopped.Stop()
	require.ErrorIs(t, collect(t, stopped, -1).err, infer.ErrStopped)
	stopped.Stop() // it has ended
	canceled.Cancel()
	require.ErrorIs(t, collect(t, canceled, -1).err, infer.ErrCanceled)
	require.NoError(t, s.Shutdown(context.Background()))
	m := s.Metrics()
	require.Equal(t, []int64{1, 1}, []int64{m.Finished, m.Canceled})
}

func TestShutdownWaitsAndCloseCancels(t *testing.T) {
	e := longContext(t)
	for _, drain := range []bool{true, false} {
		s := scheduler(t, e, infer.SchedulerOptions{MaxSequences: 2})
		var handles []*infer.Handle
		for i := range int32(5) {
			r := endless([]int32{i})
			if drain {
				r.Params.MaxNewTokens = 10
			}
			h, err := s.Submit(r)
			require.NoError(t, err)
			handles = append(handles, h)
		}
		if drain {
			require.NoError(t, s.Shutdown(context.Background()))
		} else {
			now, cancel := context.WithCancel(context.Background())
			cancel()
			require.ErrorIs(t, s.Shutdown(now), context.Canceled)
		}
		for _, h := range handles {
			a := collect(t, h, -1)
			if drain {
				require.NoError(t, a.err)
				require.Len(t, a.tokens, 10)
			} else {
				require.ErrorIs(t, a.err, infer.ErrCanceled)
			}
		}
		_, err := s.Submit(endless([]int32{1}))
		require.ErrorIs(t, err, infer.ErrShutdown)
		s.Close() // twice does nothing
	}
}

func TestADefectEndsTheRequestsThatMetItAndNoOthers(t *testing.T) {
	e := tiny(t, 1, 64, 64)
	s := scheduler(t, e, infer.SchedulerOptions{})
	want := alone(t, e, endless([]int32{5}))
	head := &e.Model().Head
	proj := head.Proj
	head.Proj = nil
	h, err := s.Submit(endless([]int32{5}))
	require.NoError(t, err)
	var defect *infer.PanicError
	require.ErrorAs(t, collect(t, h, -1).err, &defect)
	require.Contains(t, string(defect.Stack), "head")
	head.Proj = proj
	h, err = s.Submit(endless([]int32{5}))
	require.NoError(t, err)
	require.Equal(t, want, collect(t, h, -1))
	require.EqualValues(t, 1, s.Metrics().Failed)
}

func TestRequestsThatCannotBeAreRefused(t *testing.T) {
	e := tiny(t, 2, 128, 128)
	s := scheduler(t, e, infer.SchedulerOptions{KVBytes: 2 * pageBytes})
	for name, r := range map[string]infer.Request{
		"tokens":         endless(nil),
		"tokens[0]":      endless([]int32{1000}),
		"length":         endless(make([]int32, 300)),
		"prompt":         endless(make([]int32, 128)), // its first token is on a third page
		"max_new_tokens": {Prompt: []int32{1}, Params: infer.SamplingParams{TopP: 1}},
	} {
		_, err := s.Submit(r)
		var arg *infer.ArgumentError
		require.ErrorAs(t, err, &arg, name)
		require.Equal(t, name, arg.Field)
	}
	other := smaller(t)
	for name, o := range map[string]infer.SchedulerOptions{
		"assistant_model":      {Draft: infer.Draft{Engine: other}},
		"num_assistant_tokens": {Draft: infer.Draft{Tokens: 3}},
		"max_sequences":        {MaxSequences: -1},
		"max_queue":            {MaxQueue: 1 << 30},
		"max_batch_tokens":     {MaxBatchTokens: -1},
		"mode":                 {Mode: "fast"},
		"target_step":          {TargetStep: 0.1},
		"kv_bytes":             {KVBytes: pageBytes - 1},
	} {
		_, err := infer.NewScheduler(e, o)
		var arg *infer.ArgumentError
		require.ErrorAs(t, err, &arg, name)
		require.Equal(t, name, arg.Field)
	}
}

// smaller is a model with fewer tokens.
func smaller(tb testing.TB) *infer.Engine {
	tb.Helper()
	cfg := *tiny(tb, 1, 64, 64).Model().Config
	cfg.VocabSize = 900
	m, err := model.NewRandom(&cfg, 1, model.LoadOptions{})
	require.NoError(tb, err)
	e := infer.NewEngine(m)
	tb.Cleanup(func() { e.Close(); require.NoError(tb, m.Close()) })
	return e
}

func TestASequenceThatOutgrowsTheBudgetAloneFailsAndTheOthersGoOn(t *testing.T) {
	e := tiny(t, 2, 128, 128)
	s := scheduler(t, e, infer.SchedulerOptions{KVBytes: 2 * pageBytes})
	long, err := s.Submit(endless([]int32{1, 2}))
	require.NoError(t, err)
	short := endless([]int32{3})
	short.Params.MaxNewTokens = 10
	h, err := s.Submit(short)
	require.NoError(t, err)
	require.Len(t, collect(t, h, -1).tokens, 10)
	a := collect(t, long, -1)
	require.ErrorIs(t, a.err, pool.ErrOutOfMemory)
	require.Equal(t, alone(t, e, endless([]int32{1, 2})).tokens[:128-2+1], a.tokens)
}

// A scheduler that has not taken a step, and whose goroutine may not have begun, tells what its limits are.
func TestMetricsAreCompleteFromTheStart(t *testing.T) {
	e := tiny(t, 2, 128, 128)
	for range 100 {
		s, err := infer.NewScheduler(e, infer.SchedulerOptions{KVBytes: 8 * pageBytes, MaxBatchTokens: 50})
		require.NoError(t, err)
		m := s.Metrics()
		s.Close()
		require.EqualValues(t, []int64{pageBytes, 8, 50}, []int64{m.KVPageBytes, int64(m.KVLimit), int64(m.BatchTokenLimit)})
	}
}

// A scheduler of one sequence needs no more than a whole context takes, however much memory there is.
func TestTheDefaultBudgetForKeysAndValuesIsNoMoreThanItsSequencesCanUse(t *testing.T) {
	e := tiny(t, 2, 128, 128)
	for _, n := range []int{1, 3} {
		s := scheduler(t, e, infer.SchedulerOptions{MaxSequences: n})
		require.EqualValues(t, n*320/64*pageBytes, s.Options().KVBytes, "the context is 320 tokens, a page 64")
	}
}

func TestMetricsTellWhatHappened(t *testing.T) {
	s := scheduler(t, tiny(t, 2, 128, 128), infer.SchedulerOptions{KVBytes: 8 * pageBytes, MaxBatchTokens: 50})
	r := endless(prompts(1, 100)[0])
	r.Params.MaxNewTokens = 7
	h, err := s.Submit(r)
	require.NoError(t, err)
	collect(t, h, -1)
	require.NoError(t, s.Shutdown(context.Background()))
	m := s.Metrics()
	require.EqualValues(t, 1, m.Submitted)
	require.EqualValues(t, 1, m.Finished)
	require.EqualValues(t, []int64{8, 100, 7}, []int64{m.Steps, m.PromptTokens, m.GeneratedTokens}, "two steps for the prompt")
	require.Equal(t, []int{0, 0, 8}, []int{m.Queued, m.Running, m.KVLimit})
	require.EqualValues(t, []int64{1, 6, 8, 8}, []int64{m.TimeToFirstToken.Count, m.TimePerToken.Count, m.StepTime.Count, m.BatchSize.Count})
	require.EqualValues(t, pageBytes, m.KVPageBytes)
	require.Positive(t, m.TokensPerSecond)
	require.Equal(t, 50, m.BatchTokenLimit)
	var counted int64
	for _, n := range m.TimePerToken.Counts {
		counted += n
	}
	require.Equal(t, m.TimePerToken.Count, counted)
}

func TestKeptPagesAreGivenBackWhenMemoryEnds(t *testing.T) {
	const chunk = 4 << 20 // what the pool maps at a time
	e := tiny(t, 2, 128, 128)
	mem := withBudget(t, e, 256<<20)
	s := scheduler(t, e, infer.SchedulerOptions{KVBytes: 4 * chunk})
	const count = 60
	for _, ids := range prompts(count, 200) {
		r := endless(ids)
		r.Params.MaxNewTokens = 3
		h, err := s.Submit(r)
		require.NoError(t, err)
		require.NoError(t, collect(t, h, -1).err)
	}
	for s.Metrics().Running > 0 { // the last token comes before its request has ended
		runtime.Gosched()
	}
	require.Equal(t, 3*count, s.Metrics().KVCached)
	b, err := mem.Alloc(256<<20-chunk, "somebody else's") // beside the scratch memory
	require.NoError(t, err, "a page that is kept is worth less than an allocation")
	require.Zero(t, s.Metrics().KVReserved)
	b.Release()
}

func TestOneModelsPrefixesMakeRoomForAnother(t *testing.T) {
	first, second := tiny(t, 2, 128, 128), tiny(t, 2, 128, 128)
	mem := withBudget(t, first, 20*pageBytes)
	second.UsePool(mem)
	t.Cleanup(second.Close)
	var kept int
	for _, e := range []*infer.Engine{first, second} {
		s := scheduler(t, e, infer.SchedulerOptions{KVBytes: 12 * pageBytes})
		for _, ids := range prompts(12, 65) { // a page each that is worth keeping
			r := endless(ids)
			r.Params.MaxNewTokens = 2
			h, err := s.Submit(r)
			require.NoError(t, err)
			require.NoError(t, collect(t, h, -1).err)
		}
		kept += s.Metrics().KVCached
	}
	require.Positive(t, kept)
}
