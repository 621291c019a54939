package infer

import (
	"context"
	"fmt"
	"slices"
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
type Generation struct {
	e        *Engine
	requests []request
	waiting  int // requests[waiting:] have not started
	active   []int
	chunks   []Chunk
	members  []int // request of each chunk
	logits   []float32
	sampled  []Sampled
}

type request struct {
	seq     *Sequence
	prompt  []int32
	read    int // tokens of prompt given to the engine
	sampler *Sampler
	params  SamplingParams
	next    [1]int32 // the last sampled token, not read yet
	made    int
	finish  string
}

// Generate starts a generation over prompts (token ids). params has one entry, or one a prompt.
func (e *Engine) Generate(prompts [][]int32, params []SamplingParams) (*Generation, error) {
	cfg := e.model.Config
	if len(params) != 1 && len(params) != len(prompts) {
		return nil, &ArgumentError{Field: "params", Value: len(params), Reason: fmt.Sprintf("expected 1 or %d entries", len(prompts))}
	}
	g := &Generation{e: e, requests: make([]request, len(prompts))}
	for i, ids := range prompts {
		p := params[min(i, len(params)-1)]
		if !p.IgnoreEOS {
			p.StopTokenIDs = append(append([]int32{}, p.StopTokenIDs...), eosIDs(cfg.EOSTokenIDs)...)
		}
		if len(ids) == 0 {
			return nil, &ArgumentError{Field: fmt.Sprintf("prompt %d", i), Value: "[]", Reason: "expected at least one token id"}
		}
		if len(ids) >= cfg.MaxPositionEmbeddings {
			return nil, &ArgumentError{Field: fmt.Sprintf("prompt %d", i), Value: len(ids),
				Reason: fmt.Sprintf("prompt length leaves no room to generate: max_position_embeddings = %d", cfg.MaxPositionEmbeddings)}
		}
		if err := e.check([]Chunk{{Seq: &Sequence{}, IDs: ids}}, 0); err != nil {
			return nil, fmt.Errorf("prompt %d: %w", i, err)
		}
		s, err := NewSampler(p, cfg.VocabSize)
		if err != nil {
			return nil, err
		}
		s.Observe(ids...)
		g.requests[i] = request{prompt: ids, sampler: s, params: p}
	}
	return g, nil
}

func eosIDs(ids []int) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}

// Done reports whether every sequence is finished.
func (g *Generation) Done() bool { return len(g.active) == 0 && g.waiting == len(g.requests) }

// Progress reports how many prompt tokens have been read, of how many.
func (g *Generation) Progress() (read, total int) {
	for i := range g.requests {
		read += g.requests[i].read
		total += len(g.requests[i].prompt)
	}
	return read, total
}

// Finish ends a sequence, as when its text met a stop string.
func (g *Generation) Finish(sequence int) error {
	if sequence < 0 || sequence >= len(g.requests) {
		return &ArgumentError{Field: "sequence", Value: sequence, Reason: fmt.Sprintf("expected 0 <= sequence < %d", len(g.requests))}
	}
	g.end(&g.requests[sequence], FinishStop)
	g.sweep()
	return nil
}

// Close gives all caches back.
func (g *Generation) Close() {
	for i := range g.requests {
		g.end(&g.requests[i], FinishStop)
	}
	g.sweep()
	g.waiting = len(g.requests)
}

func (g *Generation) end(r *request, why string) {
	if r.finish == "" {
		r.finish = why
	}
	if r.seq != nil {
		r.seq.Close()
		r.seq = nil
	}
}

// sweep forgets finished sequences.
func (g *Generation) sweep() {
	n := 0
	for _, i := range g.active {
		if g.requests[i].finish == "" {
			g.active[n] = i
			n++
		}
	}
	g.active = g.active[:n]
}

// Step advances the generation and returns the tokens it sampled, in no more than one entry a sequence. It may return
// none while prompts are still being read. The slice is valid until the next Step. After an error or a canceled ctx
// the same Step may be tried again.
func (g *Generation) Step(ctx context.Context) ([]Sampled, error) {
	for len(g.active) < MaxActive && g.waiting < len(g.requests) {
		if r := &g.requests[g.waiting]; r.finish == "" {
			r.seq = g.e.NewSequence()
			g.active = append(g.active, g.waiting)
		}
		g.waiting++
	}
	g.sampled = g.sampled[:0]
	if len(g.active) == 0 {
		return nil, nil
	}
	v := g.e.model.Config.VocabSize
	n := g.plan()
	if need := n * v; cap(g.logits) < need {
		g.logits = make([]float32, need)
	}
	if err := g.e.Step(ctx, g.chunks, g.logits[:n*v]); err != nil {
		return nil, err
	}
	at := 0
	for i, ch := range g.chunks {
		r := &g.requests[g.members[i]]
		if r.read < len(r.prompt) {
			r.read += len(ch.IDs)
		}
		if ch.Logits == 0 {
			continue
		}
		tok, err := r.sampler.Sample(g.logits[at*v : (at+1)*v])
		if err != nil {
			g.end(r, FinishStop)
			g.sweep()
			return nil, fmt.Errorf("sequence %d: %w", g.members[i], err)
		}
		at++
		g.sampled = append(g.sampled, Sampled{Sequence: g.members[i], Token: tok, Finish: g.accept(r, tok.ID)})
	}
	g.sweep()
	return g.sampled, nil
}

// plan fills the step: one row for every decoding sequence, then prompt chunks as far as there is room. Returns how
// many rows want logits.
func (g *Generation) plan() (logits int) {
	g.chunks, g.members = g.chunks[:0], g.members[:0]
	room := MaxStepTokens
	for _, i := range g.active {
		if r := &g.requests[i]; r.read == len(r.prompt) {
			g.chunks = append(g.chunks, Chunk{Seq: r.seq, IDs: r.next[:], Logits: 1})
			g.members = append(g.members, i)
			room--
			logits++
		}
	}
	for _, i := range g.active {
		r := &g.requests[i]
		n := min(room, len(r.prompt)-r.read)
		if n <= 0 {
			continue
		}
		ch := Chunk{Seq: r.seq, IDs: r.prompt[r.read : r.read+n]}
		if r.read+n == len(r.prompt) {
			ch.Logits = 1
			logits++
		}
		g.chunks = append(g.chunks, ch)
		g.members = append(g.members, i)
		room -= n
	}
	return logits
}

// accept records a sampled token and says whether the sequence ends with it.
func (g *Generation) accept(r *request, id int32) (finish string) {
	r.next[0] = id
	r.made++
	switch {
	case slices.Contains(r.params.StopTokenIDs, id):
		finish = FinishStop
	case r.made >= r.params.MaxNewTokens, r.seq.Len() >= g.e.model.Config.MaxPositionEmbeddings:
		finish = FinishLength
	}
	if finish != "" {
		g.end(r, finish)
	}
	return finish
}
