package infer

import (
	"context"
	"errors"
	"fmt"
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

// Generation continues a number of prompts, step by step on the caller's goroutine. A single prompt is a batch of one.
// It serves one goroutine at a time.
type Generation struct {
	b        *batch
	requests []*request
	waiting  int // requests[waiting:] have not been given to the batch
	left     int // requests that are not finished
	sampled  []Sampled
}

// Generate starts a generation over prompts (token ids), which must not change until it ends. params has one entry, or
// one a prompt; draft guesses for all of them. Its key/value memory is bounded by the pool's budget alone.
func (e *Engine) Generate(prompts [][]int32, params []SamplingParams, draft Draft) (*Generation, error) {
	if len(params) != 1 && len(params) != len(prompts) {
		return nil, &ArgumentError{Field: "params", Value: len(params), Reason: fmt.Sprintf("expected 1 or %d entries", len(prompts))}
	}
	draft, err := draft.resolve(e)
	if err != nil {
		return nil, err
	}
	g := &Generation{b: newBatch(e, MaxActive, unlimited), requests: make([]*request, len(prompts)), left: len(prompts)}
	g.b.drafter = newDrafter(draft, unlimited)
	list := make([]request, len(prompts))
	prepared := make([]SamplingParams, len(params))
	for i, p := range params {
		if prepared[i], err = e.prepare(p); err != nil {
			return nil, err
		}
	}
	for i, ids := range prompts {
		if err := e.checkPrompt(ids); err != nil {
			return nil, fmt.Errorf("prompt %d: %w", i, err)
		}
		n := len(ids)
		list[i] = request{params: prepared[min(i, len(params)-1)], tokens: ids[:n:n], prompt: n, order: uint64(i), index: i}
		g.requests[i] = &list[i]
	}
	return g, nil
}

// Done reports whether every sequence is finished.
func (g *Generation) Done() bool { return g.left == 0 }

// Progress reports how many prompt tokens have been read, of how many.
func (g *Generation) Progress() (read, total int) {
	for _, r := range g.requests {
		read += r.read
		total += r.prompt
	}
	return read, total
}

// Finish ends a sequence, as when its text met a stop string.
func (g *Generation) Finish(sequence int) error {
	if sequence < 0 || sequence >= len(g.requests) {
		return &ArgumentError{Field: "sequence", Value: sequence, Reason: fmt.Sprintf("expected 0 <= sequence < %d", len(g.requests))}
	}
	g.end(g.requests[sequence])
	g.b.sweep()
	return nil
}

// Close gives all caches back.
func (g *Generation) Close() {
	for _, r := range g.requests {
		g.end(r)
	}
	g.b.close()
}

func (g *Generation) end(r *request) {
	if !r.done {
		g.left--
	}
	g.b.end(r)
}

// Step advances the generation and returns the tokens it sampled: one of a sequence, or more when guesses were right
// (SamplingParams.PromptLookup, Draft). It may return none while prompts are still being read. The slice is valid until the next Step.
//
// After an error or a canceled ctx the same Step may be tried again. Logits from which no token can be chosen
// (ErrLogits) end the sequence that the error names; the tokens of the others are returned beside the error.
func (g *Generation) Step(ctx context.Context) ([]Sampled, error) {
	for ; g.waiting < len(g.requests) && len(g.b.active)+len(g.b.waiting) < MaxActive; g.waiting++ {
		if r := g.requests[g.waiting]; !r.done {
			g.b.add(r)
		}
	}
	g.sampled = g.sampled[:0]
	list, err := g.b.step(ctx)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, o := range list {
		if o.err != nil || o.finish != "" {
			g.left--
		}
		if o.err != nil {
			failed = errors.Join(failed, fmt.Errorf("sequence %d: %w", o.r.index, o.err))
			continue
		}
		g.sampled = append(g.sampled, Sampled{Sequence: o.r.index, Token: o.tok, Finish: o.finish})
	}
	return g.sampled, failed
}
