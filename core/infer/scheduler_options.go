package infer

import (
	"fmt"
	"math"
	"time"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// Modes of a Scheduler.
const (
	ModeThroughput = "throughput" // steps as large as MaxBatchTokens: the most tokens a second
	ModeLatency    = "latency"    // steps no longer than TargetStep: tokens that come evenly
)

// SchedulerOptions configure a Scheduler. The zero value is ready to use.
type SchedulerOptions struct {
	// MaxSequences is how many requests run at once; 0 is MaxActive.
	MaxSequences int `json:"max_sequences"`
	// MaxQueue is how many more may wait; 0 is DefaultMaxQueue. Submit fails with ErrQueueFull beyond.
	MaxQueue int `json:"max_queue"`
	// MaxBatchTokens bounds the rows of a step: requests that decode take one each, prompts share the rest. So a long prompt delays the
	// others by no more than that in each step. 0 takes what the matrix kernels need to run at full speed.
	MaxBatchTokens int `json:"max_batch_tokens"`
	// Mode is ModeThroughput, also when empty, or ModeLatency.
	Mode string `json:"mode"`
	// TargetStep is how many seconds a step with prompts may take in ModeLatency. Its rows are chosen from the times of the steps before
	// it. 0 takes twice the time of a step that only decodes.
	TargetStep float64 `json:"target_step"`
	// KVBytes bounds the memory for keys and values, that of prefixes kept for later requests included. 0 takes a quarter of what the
	// pool's budget has left, but no less than one sequence of full length needs and no more than MaxSequences of them.
	KVBytes int64 `json:"kv_bytes"`
	// Draft takes its share of KVBytes.
	Draft
}

// DefaultMaxQueue is how many requests a Scheduler lets wait unless told otherwise.
const DefaultMaxQueue = 1024

// The most that options may ask for.
const (
	maxSequencesLimit   = 4096
	maxQueueLimit       = 1 << 20
	maxBatchTokensLimit = 1 << 14
)

// resolve checks the options and puts in what they leave open.
func (o SchedulerOptions) resolve(e *Engine) (SchedulerOptions, error) {
	if o.Mode == "" {
		o.Mode = ModeThroughput
	}
	for _, check := range []struct {
		field  string
		value  any
		ok     bool
		reason string
	}{
		{"max_sequences", o.MaxSequences, o.MaxSequences >= 0 && o.MaxSequences <= maxSequencesLimit, fmt.Sprintf("expected 1 to %d, or 0 for %d", maxSequencesLimit, MaxActive)},
		{"max_queue", o.MaxQueue, o.MaxQueue >= 0 && o.MaxQueue <= maxQueueLimit, fmt.Sprintf("expected 1 to %d, or 0 for %d", maxQueueLimit, DefaultMaxQueue)},
		{"max_batch_tokens", o.MaxBatchTokens, o.MaxBatchTokens >= 0 && o.MaxBatchTokens <= maxBatchTokensLimit, fmt.Sprintf("expected 1 to %d, or 0 for %d", maxBatchTokensLimit, e.rows)},
		{"mode", o.Mode, o.Mode == ModeThroughput || o.Mode == ModeLatency, fmt.Sprintf("expected %q or %q", ModeThroughput, ModeLatency)},
		{"target_step", o.TargetStep, o.TargetStep >= 0 && !math.IsInf(o.TargetStep, 1), "expected a number of seconds, or 0 to measure"},
		{"target_step", o.TargetStep, o.TargetStep == 0 || o.Mode == ModeLatency, fmt.Sprintf("expected none with mode %q", o.Mode)},
		{"kv_bytes", o.KVBytes, o.KVBytes >= 0, "expected a number of bytes, or 0 for a share of the memory budget"},
	} {
		if !check.ok {
			return o, &ArgumentError{check.field, check.value, check.reason}
		}
	}
	if o.MaxSequences == 0 {
		o.MaxSequences = MaxActive
	}
	if o.MaxQueue == 0 {
		o.MaxQueue = DefaultMaxQueue
	}
	if o.MaxBatchTokens == 0 {
		o.MaxBatchTokens = e.rows
	}
	var err error
	if o.Draft, err = o.Draft.resolve(e); err != nil {
		return o, err
	}
	page := o.pageBytes(e)
	if o.KVBytes == 0 {
		stats := e.mem.Stats()
		whole := page * int64(pagesFor(e.model.Config.MaxPositionEmbeddings))
		o.KVBytes = min(max((stats.Budget-stats.InUse)/4, whole), whole*int64(o.MaxSequences))
	}
	if o.KVBytes < page {
		return o, &ArgumentError{"kv_bytes", o.KVBytes, fmt.Sprintf("expected at least %d, which %d tokens need", page, nn.PageTokens)}
	}
	return o, nil
}

// pageBytes is what the keys and values of nn.PageTokens tokens take, in the model and in the draft.
func (o SchedulerOptions) pageBytes(e *Engine) int64 {
	n := int64(e.pageBytes())
	if o.Draft.Engine != nil {
		n += int64(o.Draft.Engine.pageBytes())
	}
	return n
}

// tuner chooses how many rows a step may have so that it takes no longer than a target, from the times that steps took.
type tuner struct {
	most   int           // rows
	target time.Duration // 0: twice the time of steps that only decode
	rows   float64
	decode time.Duration // running mean of steps that only decode
}

// Rows that a tuned step has at the start, and at least.
const (
	firstRows = 32
	leastRows = minChunk
)

func newTuner(o SchedulerOptions) *tuner {
	return &tuner{
		most: o.MaxBatchTokens, target: time.Duration(o.TargetStep * float64(time.Second)),
		rows: float64(min(firstRows, o.MaxBatchTokens)),
	}
}

// limit is how many rows the next step may have.
func (t *tuner) limit() int { return int(t.rows) }

// observe learns from a step: its rows, how many of them decoded, whether prompts were left when the rows were used up, and its time.
// A step that was too long makes the next ones shorter in proportion, one that was short of rows lets them grow by a quarter at most.
func (t *tuner) observe(rows, decoding int, short bool, took time.Duration) {
	if rows == decoding {
		if t.decode == 0 {
			t.decode = took
		}
		t.decode += (took - t.decode) / 8
		return
	}
	target := t.target
	if target == 0 {
		target = 2 * t.decode
	}
	if target == 0 || took <= 0 { // nothing to compare with yet
		return
	}
	ratio := float64(target) / float64(took)
	if ratio < 1 || short {
		t.rows *= min(max(ratio, 0.5), 1.25)
	}
	t.rows = min(max(t.rows, leastRows), float64(t.most))
}
