// Package infer runs models: steps over any mix of prompt chunks and single tokens of many sequences, sampling, text
// generation with continuous batching, and likelihoods.
//
//	Engine       one step over whatever is given to it
//	batch        which requests take part in the next step, and what it brings them: the one place where tokens are made
//	Generation   a batch over a number of prompts, step by step on the caller's goroutine
//	Scheduler    a batch that requests join and leave at any time, with a goroutine of its own
package infer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// MaxStepTokens bounds the rows of one step: enough for the matrix kernels to run at full speed, and small enough that
// scratch memory stays far below the weights. Models with large layers take fewer, see stepTokens.
const MaxStepTokens = 256

// A step looks at its context between layers. So that it does several times a second on two slow cores, the rows of a
// step are so few that a layer takes at most layerWork multiplications, as long as they suffice for the kernels.
const (
	layerWork     = 18e9
	minStepTokens = 60
	tileRows      = 32 // that the kernels for AMX take at once
)

// stepTokens is how many rows a step of the model has at most.
func stepTokens(cfg *model.Config) int {
	n := max(minStepTokens, min(MaxStepTokens, int(layerWork/cfg.LayerWeights())))
	if n >= 2*tileRows {
		n &^= tileRows - 1
	}
	return n
}

// Engine runs one model. It is safe for concurrent use: every step in flight has a context of its own, and contexts
// are kept for the next step.
type Engine struct {
	model *model.Model
	mem   *pool.HybridMemoryPool
	rows  int // most of one step
	kv    nn.KVType

	mu     sync.Mutex
	idle   []*stepper
	closed bool

	profile atomic.Pointer[nn.Profile] // what steps record themselves in, or nil
}

// NewEngine returns an engine over m; scratch memory and caches come from the default pool.
func NewEngine(m *model.Model) *Engine {
	return &Engine{model: m, mem: pool.Default(), rows: stepTokens(m.Config)}
}

// UseKV sets how sequences that are made from now on store keys and values; at first it is nn.KVFloat32.
func (e *Engine) UseKV(t nn.KVType) { e.kv = t }

// Model returns the model the engine runs.
func (e *Engine) Model() *model.Model { return e.model }

// version is that of the model's weights, after changes that nobody has derived them from yet.
func (e *Engine) version() (uint64, error) {
	if err := e.model.Acquire(); err != nil {
		return 0, err
	}
	defer e.model.Release()
	return e.model.Version(), nil
}

// Close gives scratch memory back; that of a step in flight when the step ends.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for _, s := range e.idle {
		s.ctx.Close()
	}
	e.idle = nil
}

// Sequence is the state of one sequence: the tokens read so far live in its cache.
type Sequence struct {
	cache *nn.KVCache
	n     int

	// Of a sequence that a pageStore gives its pages to.
	pages  []*page
	listed int // pages[:listed] are in the index
}

// NewSequence returns an empty sequence.
func (e *Engine) NewSequence() *Sequence {
	cfg := e.model.Config
	return &Sequence{cache: nn.NewKVCache(e.mem, e.kv, cfg.NumHiddenLayers, cfg.NumKeyValueHeads, cfg.HeadDim)}
}

// pageBytes is what the keys and values of nn.PageTokens tokens take.
func (e *Engine) pageBytes() int { return e.NewSequence().cache.PageBytes() }

// Len is the number of tokens read.
func (s *Sequence) Len() int { return s.n }

// Close gives the sequence's cache back.
func (s *Sequence) Close() {
	s.cache.Free()
	s.n = 0
}

// Chunk is what one sequence takes part with in a step.
type Chunk struct {
	Seq    *Sequence // whose tokens these are
	IDs    []int32   // tokens that follow what the sequence has read
	Logits int       // how many of the chunk's last rows the step computes logits for

	// Top is how many of the largest logits of a row are used, and those that equal the last of them; 0 is all. When all chunks of a step
	// say it, and the head has scores, the other logits are estimates that are smaller.
	Top int
}

// stepper is the reusable state of a step.
type stepper struct {
	ctx    *nn.Ctx
	rows   []nn.Row
	caches []*nn.KVCache
	ids    []int32
	out    []int32 // rows that want logits
	top    int     // largest Top of the chunks; 0: some row wants all
	hidden bool    // rows of out want hidden states in place of logits
}

// Step reads all chunks at once and writes the logits they ask for into logits, [sum of Chunk.Logits, vocab_size], in
// the order of the chunks. A sequence may appear once. When the step fails or ctx is canceled no sequence advances.
func (e *Engine) Step(ctx context.Context, chunks []Chunk, logits []float32) error {
	return e.step(ctx, chunks, logits, view{})
}

// view is what else a step may give than logits.
type view struct {
	hidden   bool                                         // hidden states after the final norm in place of logits
	attended func(*nn.Ctx, *nn.Attention, *tensor.Tensor) // is shown each attention, see nn.Ctx.Attended
}

// step is Step with a view.
func (e *Engine) step(ctx context.Context, chunks []Chunk, out []float32, v view) (err error) {
	defer pool.Recover(&err) // scratch memory beyond the budget
	if err := e.check(chunks, len(out), e.width(v.hidden)); err != nil {
		return err
	}
	if err := e.model.Acquire(); err != nil {
		return err
	}
	defer e.model.Release()
	s := e.take()
	defer e.put(s)
	s.rows, s.caches, s.ids, s.out = s.rows[:0], s.caches[:0], s.ids[:0], s.out[:0]
	s.top, s.hidden = topOf(chunks), v.hidden
	for i, ch := range chunks {
		if err := ch.Seq.cache.Grow(ch.Seq.n + len(ch.IDs)); err != nil {
			return err
		}
		s.caches = append(s.caches, ch.Seq.cache)
		s.ids = append(s.ids, ch.IDs...)
		for j := range ch.IDs {
			if len(ch.IDs)-j <= ch.Logits {
				s.out = append(s.out, int32(len(s.rows)))
			}
			s.rows = append(s.rows, nn.Row{Seq: int32(i), Pos: int32(ch.Seq.n + j)})
		}
	}
	if v.attended != nil {
		s.ctx.Attended = func(a *nn.Attention, q *tensor.Tensor) { v.attended(s.ctx, a, q) }
		defer func() { s.ctx.Attended = nil }()
	}
	s.ctx.Measure(e.profile.Load())
	s.ctx.Begin(ctx, planKey(s), s.rows, s.caches)
	defer s.ctx.End()
	x, err := e.model.Forward(s.ctx, s.ids)
	if err != nil {
		return err
	}
	if v.hidden {
		e.model.Head.Hidden(s.ctx, x, s.out, out)
		err = s.ctx.Err()
	} else {
		err = e.head(s, x, out)
	}
	if err != nil {
		return err
	}
	for _, ch := range chunks {
		ch.Seq.n += len(ch.IDs)
	}
	return nil
}

// headRows is how many rows of logits are computed between two looks at the context. 24 rows of a vocabulary of 128k take a
// good tenth of a second on two cores, and weigh little against reading the head once more.
const headRows = 24

// head computes the logits of the rows that want them.
func (e *Engine) head(s *stepper, x *tensor.Tensor, logits []float32) error {
	v := e.model.Config.VocabSize
	for at := 0; at < len(s.out); at += headRows {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		rows := s.out[at:min(at+headRows, len(s.out))]
		out := logits[at*v : (at+len(rows))*v]
		if head := &e.model.Head; head.Scores != nil && s.top > 0 {
			head.ForwardTop(s.ctx, x, rows, s.top, out)
		} else {
			head.Forward(s.ctx, x, rows, out)
		}
	}
	return s.ctx.Err()
}

// planKey names the shapes of a step's scratch memory.
func planKey(s *stepper) uint64 {
	wanted := uint64(len(s.out))
	if s.hidden { // which take no scratch memory
		wanted = 0
	}
	return uint64(nn.Spans(s.rows))<<48 | uint64(len(s.rows))<<32 | uint64(s.top)<<20 | wanted
}

// width is how many values a row of logits, or hidden states, has.
func (e *Engine) width(hidden bool) int {
	if hidden {
		return e.model.Config.HiddenSize
	}
	return e.model.Config.VocabSize
}

// topOf is how many of the largest logits suffice for all chunks, 0 when that is more than the head finds.
func topOf(chunks []Chunk) int {
	top := 0
	for _, ch := range chunks {
		switch {
		case ch.Logits == 0:
		case ch.Top <= 0 || ch.Top > nn.MostTop:
			return 0
		default:
			top = max(top, ch.Top)
		}
	}
	return top
}

// check refuses steps the model cannot take, with room for so many values in rows of that width.
func (e *Engine) check(chunks []Chunk, room, width int) error {
	want := 0
	for _, ch := range chunks {
		if err := e.checkTokens(ch.IDs, ch.Seq.n); err != nil {
			return err
		}
		if ch.Logits < 0 || ch.Logits > len(ch.IDs) {
			return &ArgumentError{Field: "logits", Value: ch.Logits, Reason: fmt.Sprintf("expected 0 to %d, the rows of the chunk", len(ch.IDs))}
		}
		want += ch.Logits
	}
	if len(chunks) == 0 {
		return errNoTokens
	}
	if room != want*width {
		return &ArgumentError{Field: "logits", Value: room, Reason: fmt.Sprintf("expected room for %d x %d values", want, width)}
	}
	return nil
}

// checkTokens refuses tokens that cannot follow the first n of a sequence.
func (e *Engine) checkTokens(ids []int32, n int) error {
	if len(ids) == 0 {
		return errNoTokens
	}
	if most := e.model.Config.MaxPositionEmbeddings; n+len(ids) > most {
		return &ArgumentError{Field: "tokens", Value: n + len(ids), Reason: fmt.Sprintf("sequence length exceeds max_position_embeddings = %d", most)}
	}
	return e.checkIDs(ids, n)
}

// checkIDs refuses ids outside the vocabulary; the error counts them from n.
func (e *Engine) checkIDs(ids []int32, n int) error {
	vocab := e.model.Config.VocabSize
	for i, id := range ids {
		if id < 0 || int(id) >= vocab {
			return &ArgumentError{Field: fmt.Sprintf("tokens[%d]", n+i), Value: id,
				Reason: fmt.Sprintf("token id out of range: expected 0 <= id < vocab_size = %d", vocab)}
		}
	}
	return nil
}

var errNoTokens = &ArgumentError{Field: "tokens", Value: "[]", Reason: "expected at least one token id"}

func (e *Engine) take() *stepper {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.idle); n > 0 {
		s := e.idle[n-1]
		e.idle = e.idle[:n-1]
		return s
	}
	return &stepper{ctx: nn.NewCtx(e.mem)}
}

func (e *Engine) put(s *stepper) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		s.ctx.Close()
		return
	}
	e.idle = append(e.idle, s)
}

// ScratchEfficiency reports the peak live bytes of the last planned step and the bytes reserved for it.
func (e *Engine) ScratchEfficiency() (peakLive, reserved int64) {
	s := e.take()
	defer e.put(s)
	return s.ctx.Scratch().Efficiency()
}

// Forward writes the float32 logits of every position of every sequence into out: [sum of lengths, vocab_size],
// sequence after sequence. It keeps the caches of the sequences of one step, at most MaxActive, not those of all.
func (e *Engine) Forward(ctx context.Context, ids [][]int32, out []float32) error {
	return e.forward(ctx, ids, out, false)
}

// Hidden writes the hidden states of every position after the final norm, from which the head computes logits, into out: [sum of lengths,
// hidden_size], sequence after sequence, otherwise as Forward.
func (e *Engine) Hidden(ctx context.Context, ids [][]int32, out []float32) error {
	return e.forward(ctx, ids, out, true)
}

func (e *Engine) forward(ctx context.Context, ids [][]int32, out []float32, hidden bool) error {
	v, total := e.width(hidden), 0
	for i, s := range ids {
		if err := e.checkTokens(s, 0); err != nil {
			return fmt.Errorf("sequence %d: %w", i, err)
		}
		total += len(s)
	}
	if total*v != len(out) {
		return &ArgumentError{Field: "out", Value: len(out), Reason: fmt.Sprintf("expected %d x %d values", total, v)}
	}
	var open []*Sequence // of the step that is being put together
	defer func() {
		for _, seq := range open {
			seq.Close()
		}
	}()
	var chunks []Chunk
	rows := 0
	flush := func() error {
		err := e.step(ctx, chunks, out[:rows*v], view{hidden: hidden})
		out, chunks, rows = out[rows*v:], chunks[:0], 0
		last := len(open) - 1 // of which a part may be left to read
		for _, seq := range open[:last] {
			seq.Close()
		}
		open = open[last:]
		return err
	}
	for _, s := range ids {
		seq := e.NewSequence()
		open = append(open, seq)
		for len(s) > 0 {
			n := min(len(s), e.rows-rows)
			chunks = append(chunks, Chunk{Seq: seq, IDs: s[:n], Logits: n})
			rows, s = rows+n, s[n:]
			if rows == e.rows || len(chunks) == MaxActive {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	if rows == 0 {
		return nil
	}
	return flush()
}
