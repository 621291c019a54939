package infer

import (
	"context"
	"errors"
	"fmt"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Draft is a smaller model that guesses what a model will say, which the model checks in one step: the tokens stay the same, each step makes
// as many as were guessed right and one more. The zero value is none.
type Draft struct {
	Engine *Engine `json:"-"`                    // of a model with the same tokens
	Tokens int     `json:"num_assistant_tokens"` // how many it guesses at a time
}

// DefaultDraftTokens is how many tokens a Draft guesses at a time unless its Tokens say otherwise.
const DefaultDraftTokens = 4

// resolve checks a draft for the model of e and puts in what it leaves open.
func (d Draft) resolve(e *Engine) (Draft, error) {
	switch {
	case d.Tokens < 0 || d.Tokens > maxDraft:
		return d, &ArgumentError{"num_assistant_tokens", d.Tokens, fmt.Sprintf("expected 1 to %d, or 0 for %d", maxDraft, DefaultDraftTokens)}
	case d.Engine == nil && d.Tokens != 0:
		return d, &ArgumentError{"num_assistant_tokens", d.Tokens, "expected none without an assistant model"}
	case d.Engine == nil:
		return d, nil
	}
	if v, want := d.Engine.model.Config.VocabSize, e.model.Config.VocabSize; v != want {
		return d, &ArgumentError{"assistant_model", v, fmt.Sprintf("expected a model with the same tokens: vocab_size = %d", want)}
	}
	if _, err := d.Engine.version(); err != nil {
		return d, fmt.Errorf("assistant_model: %w", err)
	}
	if d.Tokens == 0 {
		d.Tokens = DefaultDraftTokens
	}
	return d, nil
}

// drafter guesses with a smaller model (speculative decoding, Leviathan et al. 2022, arXiv 2211.17192). It samples with the random
// numbers that the model's own tokens will take, so that both choose alike where their probabilities do. What the model samples counts,
// as with any guess: rejection sampling would keep the distribution, this keeps the tokens.
type drafter struct {
	e       *Engine
	kv      *pageStore
	most    int // tokens of a guess
	version uint64
	yielded bool // its memory is the model's: it does not guess before a request ends

	chunks  []Chunk
	members []*request
	logits  []float32
	idle    []*Sequence
}

// newDrafter returns the drafter of a resolved draft with memory of at most pages pages, or nil when there is none.
func newDrafter(o Draft, pages int) *drafter {
	if o.Engine == nil {
		return nil
	}
	e := o.Engine
	return &drafter{e: e, kv: newPageStore(e.mem, e.pageBytes(), pages), most: o.Tokens, version: e.model.Version()}
}

// guess appends to each request's guess until it has as many tokens as wanted. A prompt that the drafter has not read yet is read first,
// a piece a step. Where the drafter has no memory it does not guess.
func (d *drafter) guess(ctx context.Context, list []*request) error {
	for first := true; ; first = false {
		d.chunks, d.members = d.chunks[:0], d.members[:0]
		room := d.e.rows
		for _, r := range list {
			if len(r.draft.ids) < r.draft.want {
				room -= d.take(r, first, room)
			}
		}
		if len(d.chunks) == 0 {
			return nil
		}
		v, logits := d.e.model.Config.VocabSize, 0
		for _, ch := range d.chunks {
			logits += ch.Logits
		}
		if cap(d.logits) < logits*v {
			d.logits = make([]float32, logits*v)
		}
		if err := d.e.Step(ctx, d.chunks, d.logits[:logits*v]); err != nil {
			if errors.Is(err, pool.ErrOutOfMemory) {
				return nil // the guesses so far
			}
			return err
		}
		row := 0
		for i, r := range d.members {
			if d.chunks[i].Logits == 0 {
				continue
			}
			tok, err := r.draft.sampler.Sample(d.logits[row*v : (row+1)*v])
			if row++; err != nil {
				r.draft.want = 0
				continue
			}
			r.draft.ids = append(r.draft.ids, tok.ID)
		}
	}
}

// take puts what the drafter has to read of a request into its step, at most room rows, and returns how many those are.
func (d *drafter) take(r *request, first bool, room int) int {
	q := d.sequence(r)
	ids := r.draft.ids[max(len(r.draft.ids)-1, 0):]
	if first {
		q.n = min(q.n, len(r.tokens)-1)
		d.kv.attach(q, r.tokens)
		ids = r.tokens[q.n:]
	}
	n := min(len(ids), room)
	if n == 0 || d.kv.grow(q, q.n+n) != nil {
		r.draft.want = 0
		return 0
	}
	ch := Chunk{Seq: q, IDs: ids[:n], Logits: 1}
	if n < len(ids) {
		ch.Logits, r.draft.want = 0, 0
	}
	d.chunks, d.members = append(d.chunks, ch), append(d.members, r)
	return n
}

// sequence is the drafter's own of a request, with a sampler that is where the request's is.
func (d *drafter) sequence(r *request) *Sequence {
	if r.draft.seq == nil {
		if last := len(d.idle) - 1; last >= 0 {
			r.draft.seq, d.idle = d.idle[last], d.idle[:last]
		} else {
			r.draft.seq = d.e.NewSequence()
		}
	}
	if r.draft.sampler == nil {
		p := r.params
		p.RepetitionPenalty, p.PresencePenalty, p.FrequencyPenalty, p.Logprobs = 1, 0, 0, -1
		r.draft.sampler = makeSampler(p, d.e.model.Config.VocabSize, r.sampler.workspace) // the two never sample at once
	}
	if len(r.draft.ids) == 0 {
		*r.draft.sampler.rng = *r.sampler.rng
	}
	return r.draft.seq
}

// settle forgets what the drafter has read behind the tokens that the request has now.
func (d *drafter) settle(r *request) {
	if q := r.draft.seq; q != nil {
		q.n = min(q.n, len(r.tokens)-1)
		d.kv.record(q, r.tokens)
	}
}

// yield gives up what the drafter has read of the requests and reports whether that gave memory back to the pool.
func (d *drafter) yield(list []*request) bool {
	for _, r := range list {
		d.release(r)
	}
	d.yielded = true
	return d.kv.trim()
}

// release takes a request's pages back.
func (d *drafter) release(r *request) {
	if q := r.draft.seq; q != nil {
		d.kv.release(q)
		d.idle = append(d.idle, q)
		r.draft.seq = nil
	}
}
