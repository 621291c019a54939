package infer

import (
	"slices"
	"sort"
	"time"
)

// Metrics are the figures of a Scheduler since its start. Times are seconds.
type Metrics struct {
	Queued  int `json:"queue_depth"` // requests that wait for a place, for the first time or again
	Running int `json:"running"`     // requests that have one

	Submitted int64 `json:"submitted"` // requests so far
	Finished  int64 `json:"finished"`  // with FinishStop or FinishLength
	Canceled  int64 `json:"canceled"`  // by whoever asked
	Expired   int64 `json:"expired"`   // their deadline passed
	Failed    int64 `json:"failed"`    // with any other error
	Rejected  int64 `json:"rejected"`  // the queue was full

	Steps           int64 `json:"steps"`                 // that were computed
	Preemptions     int64 `json:"preemptions"`           // requests that gave their place back, to compute their tokens again later
	PromptTokens    int64 `json:"prompt_tokens"`         // computed, again after a preemption included
	GeneratedTokens int64 `json:"generated_tokens"`      // also those of requests that were canceled
	DraftTokens     int64 `json:"draft_tokens"`          // guessed
	AcceptedTokens  int64 `json:"accepted_draft_tokens"` // guessed right: they took no step of their own
	PrefixHitTokens int64 `json:"prefix_hit_tokens"`     // that did not have to be computed: their pages were there

	BatchTokens     int     `json:"batch_tokens"`             // rows of the last step
	BatchTokenLimit int     `json:"batch_token_limit"`        // rows that the next one may have
	TokensPerSecond float64 `json:"tokens_per_second"`        // generated, over the last RateSeconds
	PromptPerSecond float64 `json:"prompt_tokens_per_second"` // of prompts, likewise

	KVPageBytes int64 `json:"kv_page_bytes"`     // bytes of a page
	KVLimit     int   `json:"kv_pages_limit"`    // pages that there may be
	KVUsed      int   `json:"kv_pages_used"`     // by requests that run; a page that several share counts once
	KVCached    int   `json:"kv_pages_cached"`   // kept for requests to come
	KVReserved  int   `json:"kv_pages_reserved"` // taken from the pool: used, cached or free

	TimeToFirstToken Histogram `json:"time_to_first_token"` // from Submit
	TimePerToken     Histogram `json:"time_per_token"`      // between a request's tokens
	StepTime         Histogram `json:"step_time"`           // of one step
	BatchSize        Histogram `json:"batch_size"`          // requests that took part in a step
}

// measure brings the metrics up to date after a step.
func (s *Scheduler) measure(now time.Time, took time.Duration) {
	b := s.b
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made.add(b.count.generated-s.counted.generated, now)
	s.read.add(b.count.prompt-s.counted.prompt, now)
	s.counted = b.count
	s.m.StepTime.observe(took.Seconds())
	s.m.BatchSize.observe(float64(len(b.members)))
	s.snapshot()
}

// snapshot copies the batch's figures into the metrics. The caller holds mu and owns the batch.
func (s *Scheduler) snapshot() {
	b, kv := s.b, s.b.kv
	s.m.Queued, s.m.Running = len(b.waiting), len(b.active)
	s.m.Steps, s.m.Preemptions = b.count.steps, b.count.preemptions
	s.m.PromptTokens, s.m.GeneratedTokens, s.m.PrefixHitTokens = b.count.prompt, b.count.generated, kv.hits
	s.m.DraftTokens, s.m.AcceptedTokens = b.count.drafted, b.count.accepted
	s.m.BatchTokens, s.m.BatchTokenLimit = b.count.rows, b.rows
	s.m.KVPageBytes, s.m.KVLimit = int64(kv.bytes), kv.limit
}

// Metrics returns the figures up to the last step, and those of the key/value pages now.
func (s *Scheduler) Metrics() Metrics {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.m
	now := s.now()
	m.Queued += len(s.inbox)
	m.TokensPerSecond, m.PromptPerSecond = s.made.perSecond(now), s.read.perSecond(now)
	m.KVUsed, m.KVCached, m.KVReserved = s.b.kv.counts()
	m.TimeToFirstToken, m.TimePerToken = m.TimeToFirstToken.clone(), m.TimePerToken.clone()
	m.StepTime, m.BatchSize = m.StepTime.clone(), m.BatchSize.clone()
	return m
}

// Histogram counts values in ranges. Counts[i] are the values up to Bounds[i] and above Bounds[i-1]; the last count is of those above
// all bounds.
type Histogram struct {
	Bounds []float64 `json:"bounds"`
	Counts []int64   `json:"counts"`
	Sum    float64   `json:"sum"`   // of the values
	Count  int64     `json:"count"` // of the values
}

// secondBounds suit times from a millisecond to a minute, sizeBounds numbers of requests.
var (
	secondBounds = []float64{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60}
	sizeBounds   = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}
)

func newHistogram(bounds []float64) Histogram {
	return Histogram{Bounds: bounds, Counts: make([]int64, len(bounds)+1)}
}

func (h *Histogram) observe(v float64) {
	h.Counts[sort.SearchFloat64s(h.Bounds, v)]++
	h.Sum += v
	h.Count++
}

// clone returns a copy that later values do not change.
func (h *Histogram) clone() Histogram {
	c := *h
	c.Counts = slices.Clone(h.Counts)
	return c
}

// RateSeconds is the time over which rates are taken.
const RateSeconds = 10

// rate counts what happens in each of the last RateSeconds seconds.
type rate struct {
	counts [RateSeconds]int64
	second [RateSeconds]int64 // the second that a count is of
	start  time.Time
}

func (r *rate) add(n int64, now time.Time) {
	if r.start.IsZero() {
		r.start = now
	}
	at := now.Unix()
	i := at % RateSeconds
	if r.second[i] != at {
		r.second[i], r.counts[i] = at, 0
	}
	r.counts[i] += n
}

// perSecond is the mean over the last RateSeconds, or since the first count if that is less.
func (r *rate) perSecond(now time.Time) float64 {
	var sum int64
	for i, at := range r.second {
		if now.Unix()-at < RateSeconds {
			sum += r.counts[i]
		}
	}
	if sum == 0 {
		return 0
	}
	return float64(sum) / min(max(now.Sub(r.start).Seconds(), 1e-3), RateSeconds)
}
