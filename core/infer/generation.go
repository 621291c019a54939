package infer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Reasons a sequence is finished.
const (
	FinishStop   = "stop"   // an end-of-sequence or stop token, or Finish was called
	FinishLength = "length" // max_new_tokens or the context's end
)

// MaxActive is how many sequences of one generation run at once; others wait for a place.
const MaxActive = 32

// Sampled is one generated token.
type Sampled struct {
	Sequence int    // index of the prompt
	Token           // id and, on request, log-probabilities
	Finish   string // "" while the sequence goes on, else why it ends with this token
}

// Generation continues a number of prompts. Each Step reads prompt chunks and decodes one token of every sequence that
// has read its prompt, all in one engine step (continuous batching, Yu et al. 2022). It serves one goroutine at a time.
//
// When memory ends while several sequences run, the youngest gives its cache back and waits until another has finished;
// then it reads its tokens again, which gives the same bits, and goes on.
type Generation struct {
	e        *Engine
	requests []request
	left     int  // requests that are not finished
	waiting  int  // requests[waiting:] that are not finished wait for a place
	full     bool // memory ended: none starts before one ends
	active   []int
	chunks   []Chunk
	members  []int // request of each chunk
	logits   []float32
	sampled  []Sampled
}

type request struct {
	params  SamplingParams
	tokens  []int32 // the prompt, then what was generated
	prompt  int     // how many of them are the prompt
	read    int     // how many tokens of the prompt were given to the engine
	seq     *Sequence
	sampler *Sampler
	done    bool
}

// Generate starts a generation over prompts (token ids), which must not change until it ends. params has one entry, or
// one a prompt.
func (e *Engine) Generate(prompts [][]int32, params []SamplingParams) (*Generation, error) {
	cfg := e.model.Config
	if len(params) != 1 && len(params) != len(prompts) {
		return nil, &ArgumentError{Field: "params", Value: len(params), Reason: fmt.Sprintf("expected 1 or %d entries", len(prompts))}
	}
	params = slices.Clone(params)
	for i := range params {
		p := &params[i]
		if err := p.Validate(cfg.VocabSize); err != nil {
			return nil, err
		}
		if !p.IgnoreEOS {
			p.StopTokenIDs = slices.Concat(p.StopTokenIDs, eosIDs(cfg.EOSTokenIDs))
		}
	}
	g := &Generation{e: e, requests: make([]request, len(prompts)), left: len(prompts)}
	for i, ids := range prompts {
		if err := e.checkPrompt(ids); err != nil {
			return nil, fmt.Errorf("prompt %d: %w", i, err)
		}
		n := len(ids)
		g.requests[i] = request{params: params[min(i, len(params)-1)], tokens: ids[:n:n], prompt: n}
	}
	return g, nil
}

func (e *Engine) checkPrompt(ids []int32) error {
	if most := e.model.Config.MaxPositionEmbeddings; len(ids) >= most {
		return &ArgumentError{Field: "length", Value: len(ids), Reason: fmt.Sprintf("expected fewer tokens than max_position_embeddings = %d, to leave room to generate", most)}
	}
	return e.checkTokens(ids, 0)
}

func eosIDs(ids []int) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}

// Done reports whether every sequence is finished.
func (g *Generation) Done() bool { return g.left == 0 }

// Progress reports how many prompt tokens have been read, of how many.
func (g *Generation) Progress() (read, total int) {
	for i := range g.requests {
		read += g.requests[i].read
		total += g.requests[i].prompt
	}
	return read, total
}

// Finish ends a sequence, as when its text met a stop string.
func (g *Generation) Finish(sequence int) error {
	if sequence < 0 || sequence >= len(g.requests) {
		return &ArgumentError{Field: "sequence", Value: sequence, Reason: fmt.Sprintf("expected 0 <= sequence < %d", len(g.requests))}
	}
	g.end(&g.requests[sequence])
	g.sweep()
	return nil
}

// Close gives all caches back.
func (g *Generation) Close() {
	for i := range g.requests {
		g.end(&g.requests[i])
	}
	g.sweep()
}

// end finishes a sequence and gives back what it holds.
func (g *Generation) end(r *request) {
	if r.done {
		return
	}
	if r.seq != nil {
		r.seq.Close()
		g.full = false
	}
	r.done, r.seq, r.sampler = true, nil, nil
	g.left--
}

// sweep forgets finished sequences.
func (g *Generation) sweep() {
	g.active = slices.DeleteFunc(g.active, func(i int) bool { return g.requests[i].done })
}

// Step advances the generation and returns the tokens it sampled, in no more than one entry a sequence. It may return
// none while prompts are still being read. The slice is valid until the next Step.
//
// After an error or a canceled ctx the same Step may be tried again. Logits from which no token can be chosen
// (ErrLogits) end the sequence that the error names; the tokens of the others are returned beside the error.
func (g *Generation) Step(ctx context.Context) ([]Sampled, error) {
	g.admit()
	g.sampled = g.sampled[:0]
	if len(g.active) == 0 {
		return nil, nil
	}
	if err := g.compute(ctx); err != nil {
		return nil, err
	}
	var failed error
	v, at := g.e.model.Config.VocabSize, 0
	for i, ch := range g.chunks {
		n := g.members[i]
		r := &g.requests[n]
		r.read = max(r.read, min(r.seq.Len(), r.prompt))
		if ch.Logits == 0 {
			continue
		}
		tok, err := r.sampler.Sample(g.logits[at*v : (at+1)*v])
		at++
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("sequence %d: %w", n, err))
			g.end(r)
			continue
		}
		g.sampled = append(g.sampled, Sampled{Sequence: n, Token: tok, Finish: g.accept(r, tok.ID)})
	}
	g.sweep()
	return g.sampled, failed
}

// admit starts waiting sequences, in order, so that active stays in ascending order.
func (g *Generation) admit() {
	for g.waiting < len(g.requests) && len(g.active) < MaxActive && !(g.full && len(g.active) > 0) {
		if r := &g.requests[g.waiting]; !r.done {
			r.seq = g.e.NewSequence()
			if r.sampler == nil { // the first time
				r.sampler = makeSampler(r.params, g.e.model.Config.VocabSize)
				r.sampler.Observe(r.tokens...)
			}
			g.active = append(g.active, g.waiting)
		}
		g.waiting++
	}
}

// compute runs one engine step, with fewer sequences if memory ends.
func (g *Generation) compute(ctx context.Context) error {
	for {
		need := g.plan() * g.e.model.Config.VocabSize
		if cap(g.logits) < need {
			g.logits = make([]float32, need)
		}
		err := g.e.Step(ctx, g.chunks, g.logits[:need])
		if !errors.Is(err, pool.ErrOutOfMemory) || len(g.active) < 2 {
			return err
		}
		g.suspend()
	}
}

// suspend lets the sequence that started last wait again. No later one is active, so it is the next to start.
func (g *Generation) suspend() {
	last := len(g.active) - 1
	g.waiting = g.active[last]
	g.active = g.active[:last]
	g.full = true
	r := &g.requests[g.waiting]
	r.seq.Close()
	r.seq = nil
}

// plan fills the step: one row for every sequence that decodes, then chunks of what the others have to read as far as there is
// room. Returns how many rows want logits.
func (g *Generation) plan() (logits int) {
	g.chunks, g.members = g.chunks[:0], g.members[:0]
	room := g.e.rows
	add := func(i, n int) {
		r := &g.requests[i]
		from := r.seq.Len()
		ch := Chunk{Seq: r.seq, IDs: r.tokens[from : from+n]}
		if from+n == len(r.tokens) {
			ch.Logits = 1
			logits++
		}
		g.chunks, g.members = append(g.chunks, ch), append(g.members, i)
		room -= n
	}
	for _, i := range g.active {
		if g.requests[i].decodes() {
			add(i, 1)
		}
	}
	for _, i := range g.active {
		if r := &g.requests[i]; !r.decodes() && room > 0 {
			add(i, min(room, r.unread()))
		}
	}
	return logits
}

// unread is how many tokens of an active sequence its cache does not have yet.
func (r *request) unread() int { return len(r.tokens) - r.seq.Len() }

// decodes reports whether all an active sequence has to read is the last token it made.
func (r *request) decodes() bool { return len(r.tokens) > r.prompt && r.unread() == 1 }

// accept records a sampled token and says whether the sequence ends with it.
func (g *Generation) accept(r *request, id int32) (finish string) {
	r.tokens = append(r.tokens, id)
	switch {
	case slices.Contains(r.params.StopTokenIDs, id):
		finish = FinishStop
	case len(r.tokens)-r.prompt >= r.params.MaxNewTokens, r.seq.Len() >= g.e.model.Config.MaxPositionEmbeddings:
		finish = FinishLength
	}
	if finish != "" {
		g.end(r)
	}
	return finish
}
