package infer

import (
	"context"
	"errors"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// batch is the one place where tokens are made. Requests join and leave between its steps; each step reads pieces of prompts and decodes
// one token of every request that has read its own, all in one engine step (continuous batching, Yu et al. 2022).
//
// When memory ends while several requests run, the last in the order of precedes gives its pages back and waits; later it reads its tokens
// again, which gives the same bits, and goes on. Generation and Scheduler say when a step is taken and what becomes of the tokens. It
// belongs to one goroutine at a time.
type batch struct {
	e       *Engine
	kv      *pageStore
	most    int // requests at once
	rows    int // of a step, unless more requests decode
	version uint64

	active  []*request // in the order of precedes
	waiting []*request
	clients clients
	full    bool // memory ended: nobody starts before a request ends

	chunks   []Chunk
	members  []*request // of each chunk
	logits   []float32
	draws    drawTask
	outcomes []outcome
	idle     []*Sequence

	count batchCounts
}

// outcome is what a step brought to a request: a token, perhaps the last one, or an error that ends the request.
type outcome struct {
	r      *request
	tok    Token
	finish string
	err    error
}

// batchCounts are what a batch did, and its last step.
type batchCounts struct {
	steps, preemptions int64
	prompt, generated  int64 // tokens read of prompts and after a preemption, tokens made
	rows, decoding     int   // rows of the last step, requests that decoded in it
	short              bool  // prompts were left to read when the last step's rows were used up
}

// newBatch returns a batch of at most `most` requests at once over key/value memory of at most pages pages.
func newBatch(e *Engine, most, pages int) *batch {
	return &batch{
		e: e, kv: newPageStore(e.mem, e.NewSequence().cache.PageBytes(), pages), most: most, rows: e.rows, clients: clients{},
		version: e.model.Version(),
	}
}

// add lets a request wait for a place.
func (b *batch) add(r *request) {
	r.client = b.clients.join(r.from)
	b.waiting = append(b.waiting, r)
}

// end finishes a request, wherever it is, and gives back what it holds.
func (b *batch) end(r *request) {
	if r.done {
		return
	}
	if r.seq != nil {
		b.full = false
		b.park(r)
	}
	r.done, r.sampler = true, nil
	if r.client != nil {
		b.clients.leave(r.client)
	}
}

// sweep forgets finished requests.
func (b *batch) sweep() {
	finished := func(r *request) bool { return r.done }
	b.active = slices.DeleteFunc(b.active, finished)
	b.waiting = slices.DeleteFunc(b.waiting, finished)
}

// close gives all memory back; no step may follow.
func (b *batch) close() {
	for _, r := range b.active {
		b.end(r)
	}
	for _, r := range b.waiting {
		b.end(r)
	}
	b.sweep()
	b.kv.trim()
}

// step takes one step. After an error nothing has changed for the requests, and it may be tried again. The outcomes are valid until the
// next step.
func (b *batch) step(ctx context.Context) ([]outcome, error) {
	if err := b.renew(); err != nil {
		return nil, err
	}
	b.admit()
	b.outcomes = b.outcomes[:0]
	if len(b.active) == 0 {
		return nil, nil
	}
	if err := b.compute(ctx); err != nil {
		return nil, err
	}
	b.note()
	cpu.Parallel(len(b.draws.of), &b.draws)
	for i, r := range b.draws.of {
		o := outcome{r: r, tok: b.draws.tokens[i], err: b.draws.errs[i]}
		if o.err == nil {
			o.finish = b.accept(r, o.tok.ID)
		}
		if o.err != nil || o.finish != "" {
			b.end(r)
		}
		b.outcomes = append(b.outcomes, o)
	}
	b.sweep()
	return b.outcomes, nil
}

// renew lets all requests read their tokens again when the weights have changed since the last step: keys and values of two models
// do not go together.
func (b *batch) renew() error {
	m := b.e.model
	if err := m.Acquire(); err != nil {
		return err
	}
	version := m.Version()
	m.Release()
	if version == b.version {
		return nil
	}
	b.version = version
	for len(b.active) > 0 {
		b.suspend()
	}
	b.kv.forget()
	return nil
}

// compute runs one engine step, with fewer requests if memory ends.
func (b *batch) compute(ctx context.Context) error {
	for {
		err := b.try(ctx)
		if !errors.Is(err, pool.ErrOutOfMemory) {
			return err
		}
		if b.kv.trim() {
			continue
		}
		if len(b.active) < 2 {
			return err
		}
		b.suspend()
		b.count.preemptions++
		b.full = true
	}
}

func (b *batch) try(ctx context.Context) error {
	logits, err := b.plan()
	if err != nil {
		return err
	}
	need := logits * b.e.model.Config.VocabSize
	if cap(b.logits) < need {
		b.logits = make([]float32, need)
	}
	return b.e.Step(ctx, b.chunks, b.logits[:need])
}

// plan fills the step: one row for every request that decodes, then pieces of what the others have to read as far as there is room.
// It returns how many rows want logits.
func (b *batch) plan() (logits int, err error) {
	b.chunks, b.members = b.chunks[:0], b.members[:0]
	for _, r := range b.active {
		if r.decodes() {
			if err := b.take(r, 1); err != nil {
				return 0, err
			}
		}
	}
	decoding := len(b.chunks)
	room := max(b.rows-decoding, minChunk)
	b.count.decoding, b.count.rows, b.count.short = decoding, decoding, false
	for _, r := range b.active {
		if r.decodes() {
			continue
		}
		b.kv.attach(r.seq, r.tokens)
		if b.follows(r) {
			continue
		}
		n := min(room, r.unread())
		if b.count.short = n < r.unread(); n == 0 {
			break
		}
		if err := b.take(r, n); err != nil {
			return 0, err
		}
		room -= n
		b.count.rows += n
	}
	for _, ch := range b.chunks {
		logits += ch.Logits
	}
	return logits, nil
}

// minChunk is how many prompt tokens a step reads however many requests decode: a prompt always gets on.
const minChunk = 8

// take puts the next n tokens of a request into the step.
func (b *batch) take(r *request, n int) error {
	from := r.seq.n
	if err := b.kv.grow(r.seq, from+n); err != nil {
		return err
	}
	ch := Chunk{Seq: r.seq, IDs: r.tokens[from : from+n]}
	if from+n == len(r.tokens) {
		ch.Logits = 1
	}
	b.chunks, b.members = append(b.chunks, ch), append(b.members, r)
	return nil
}

// follows reports whether a request that comes earlier in this step reads the page that r wants to read next. Then r waits for it.
func (b *batch) follows(r *request) bool {
	at := r.seq.n
	if at%nn.PageTokens != 0 || at+nn.PageTokens >= len(r.tokens) || r.seq.listed != at/nn.PageTokens {
		return false
	}
	next := r.tokens[at : at+nn.PageTokens]
	for _, m := range b.members {
		q := m.seq
		if q.n/nn.PageTokens == at/nn.PageTokens && q.listed == r.seq.listed && q.parent() == r.seq.parent() &&
			at+nn.PageTokens <= len(m.tokens) && slices.Equal(m.tokens[at:at+nn.PageTokens], next) {
			return true
		}
	}
	return false
}

// note records what a computed step has read and which rows of logits belong to whom.
func (b *batch) note() {
	b.count.steps++
	b.draws.start(b.logits, b.e.model.Config.VocabSize)
	for i, ch := range b.chunks {
		r := b.members[i]
		r.read = max(r.read, min(r.seq.n, r.prompt))
		r.client.served += int64(len(ch.IDs))
		if i >= b.count.decoding {
			b.count.prompt += int64(len(ch.IDs))
		}
		b.kv.record(r.seq, r.tokens)
		if ch.Logits > 0 {
			b.draws.add(r)
		}
	}
}

// accept records a sampled token and says whether the request ends with it.
func (b *batch) accept(r *request, id int32) (finish string) {
	b.count.generated++
	r.tokens = append(r.tokens, id)
	switch {
	case slices.Contains(r.params.StopTokenIDs, id):
		return FinishStop
	case len(r.tokens)-r.prompt >= r.params.MaxNewTokens, r.seq.n >= b.e.model.Config.MaxPositionEmbeddings:
		return FinishLength
	}
	return ""
}

// drawTask samples a token for each request whose logits were computed.
type drawTask struct {
	logits []float32
	vocab  int
	of     []*request
	tokens []Token
	errs   []error
}

func (t *drawTask) start(logits []float32, vocab int) {
	t.logits, t.vocab = logits, vocab
	t.of, t.tokens, t.errs = t.of[:0], t.tokens[:0], t.errs[:0]
}

func (t *drawTask) add(r *request) {
	t.of, t.tokens, t.errs = append(t.of, r), append(t.tokens, Token{}), append(t.errs, nil)
}

func (t *drawTask) Run(i int) {
	t.tokens[i], t.errs[i] = t.of[i].sampler.Sample(t.logits[i*t.vocab : (i+1)*t.vocab])
}
