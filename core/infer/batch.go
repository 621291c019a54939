package infer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
	spaces   []*workspace // of samplers whose requests have ended
	drafter  *drafter     // nil: guesses come from lookup alone
	drafting []*request   // those that it guesses for

	count batchCounts
}

// outcome is what a step brought to a request: a token, perhaps the last one, or an error that ends the request. A request has more than
// one when guessed tokens were right.
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
	drafted, accepted  int64 // tokens guessed, and guessed right
	rows, decoding     int   // rows of the last step, those of requests that decoded in it
	short              bool  // prompts were left to read when the last step's rows were used up
}

// newBatch returns a batch of at most `most` requests at once over key/value memory of at most pages pages.
func newBatch(e *Engine, most, pages int) *batch {
	return &batch{
		e: e, kv: newPageStore(e.mem, e.pageBytes(), pages), most: most, rows: e.rows, clients: clients{},
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
	if r.sampler != nil {
		b.spaces = append(b.spaces, r.sampler.workspace)
	}
	if b.drafter != nil {
		b.drafter.yielded = false
	}
	r.done, r.sampler, r.draft = true, nil, draft{}
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
	b.kv.close()
	if b.drafter != nil {
		b.drafter.kv.close()
	}
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
	if err := b.propose(ctx); err != nil {
		return nil, err
	}
	if err := b.compute(ctx); err != nil {
		return nil, err
	}
	b.note()
	p, start := b.e.profile.Load(), time.Time{}
	if p != nil {
		start = time.Now()
	}
	cpu.Parallel(len(b.draws.of), &b.draws)
	if p != nil {
		p.Sampled(start)
	}
	for i := range b.draws.of {
		b.conclude(&b.draws.of[i])
	}
	b.sweep()
	return b.outcomes, nil
}

// renew lets all requests read their tokens again when the weights have changed since the last step: keys and values of two models
// do not go together.
func (b *batch) renew() error {
	version, err := b.e.version()
	if err != nil {
		return err
	}
	changed := version != b.version
	b.version = version
	if d := b.drafter; d != nil {
		version, err := d.e.version()
		if err != nil {
			return fmt.Errorf("assistant_model: %w", err)
		}
		changed = changed || version != d.version
		d.version = version
	}
	if !changed {
		return nil
	}
	for len(b.active) > 0 {
		b.suspend()
	}
	b.kv.forget()
	if b.drafter != nil {
		b.drafter.kv.forget()
	}
	return nil
}

// compute runs one engine step, with fewer requests if memory ends.
func (b *batch) compute(ctx context.Context) error {
	for {
		err := b.try(ctx)
		if !errors.Is(err, pool.ErrOutOfMemory) {
			return err
		}
		if !errors.Is(err, errNoPages) && b.drafter != nil && b.drafter.yield(b.active) {
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
	decoding := 0
	for _, r := range b.active {
		if r.decodes() {
			if err := b.decode(r); err != nil {
				return 0, err
			}
			decoding += len(b.chunks[len(b.chunks)-1].IDs)
		}
	}
	room := max(b.rows-decoding, minChunk)
	b.count.decoding, b.count.rows, b.count.short = decoding, decoding, false
	for _, r := range b.active {
		if r.decodes() {
			continue
		}
		b.share(r)
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

// share lets a request that reads go on with pages that are there, and counts what of its prompt it did not compute itself before.
func (b *batch) share(r *request) {
	b.kv.attach(r.seq, r.tokens)
	if at := min(r.seq.n, r.prompt); at > r.read {
		r.found += at - r.read
		r.read = at
	}
}

// minChunk is how many prompt tokens a step reads however many requests decode: a prompt always gets on.
const minChunk = 8

// decode puts the last token of a request into the step, and the guessed ones behind it, whose logits say whether they are right.
func (b *batch) decode(r *request) error {
	from := r.seq.n
	if err := b.kv.grow(r.seq, from+1); err != nil {
		return err
	}
	if b.kv.grow(r.seq, from+1+len(r.draft.ids)) != nil {
		r.draft.ids = r.draft.ids[:0] // no memory for guesses
	}
	r.draft.rows = append(append(r.draft.rows[:0], r.tokens[from]), r.draft.ids...)
	b.chunks = append(b.chunks, Chunk{Seq: r.seq, IDs: r.draft.rows, Logits: len(r.draft.rows), Top: r.params.largest()})
	b.members = append(b.members, r)
	return nil
}

// take puts the next n tokens of a request into the step.
func (b *batch) take(r *request, n int) error {
	from := r.seq.n
	if err := b.kv.grow(r.seq, from+n); err != nil {
		return err
	}
	ch := Chunk{Seq: r.seq, IDs: r.tokens[from : from+n]}
	if from+n == len(r.tokens) {
		ch.Logits, ch.Top = 1, r.params.largest()
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
	b.count.prompt += int64(b.count.rows - b.count.decoding)
	for i, ch := range b.chunks {
		r := b.members[i]
		r.read = max(r.read, min(r.seq.n, r.prompt))
		r.client.served += int64(len(ch.IDs))
		if ch.Logits > 0 {
			b.draws.add(r, ch.Logits)
		} else {
			b.kv.record(r.seq, r.tokens)
		}
	}
}

// conclude takes the tokens that were sampled for a request, until one ends it.
func (b *batch) conclude(d *draw) {
	r := d.r
	finish := ""
	for i := 0; i < d.made && finish == ""; i++ {
		tok := b.draws.tokens[d.first+i]
		finish = b.accept(r, tok.ID)
		b.outcomes = append(b.outcomes, outcome{r: r, tok: tok, finish: finish})
	}
	if len(r.draft.ids) > 0 {
		b.count.drafted += int64(len(r.draft.ids))
		b.count.accepted += int64(max(d.made-1, 0))
		r.draft.learn(max(d.made-1, 0))
	}
	r.seq.n = min(r.seq.n, len(r.tokens)-1) // behind it are guesses that were wrong
	b.kv.record(r.seq, r.tokens)
	if b.drafter != nil {
		b.drafter.settle(r)
	}
	if d.err != nil && finish == "" {
		b.outcomes = append(b.outcomes, outcome{r: r, err: d.err})
	}
	if d.err != nil || finish != "" {
		b.end(r)
	}
}

// accept records a sampled token and says whether the request ends with it.
func (b *batch) accept(r *request, id int32) (finish string) {
	b.count.generated++
	r.tokens = append(r.tokens, id)
	switch {
	case slices.Contains(r.params.StopTokenIDs, id):
		return FinishStop
	case b.left(r) == 0:
		return FinishLength
	}
	return ""
}

// left is how many more tokens a request may make: the last one is not read, and so may stand behind the context's end.
func (b *batch) left(r *request) int {
	return min(r.params.MaxNewTokens-(len(r.tokens)-r.prompt), b.e.model.Config.MaxPositionEmbeddings+1-len(r.tokens))
}
