package infer

import (
	"fmt"
	"slices"
	"time"
)

// request is one prompt that a batch continues.
type request struct {
	params   SamplingParams
	tokens   []int32 // the prompt, then what was generated
	prompt   int     // how many of them are the prompt
	read     int     // the most tokens of the prompt that were in the cache at once
	found    int     // tokens of the prompt that never had to be computed: their pages were there
	priority int     // higher goes first
	order    uint64  // of arrival
	from     string  // name of the client
	client   *client // nil before it joined a batch
	waited   int     // steps since it arrived or was suspended
	seq      *Sequence
	sampler  *Sampler
	draft    draft
	done     bool

	index  int     // in a Generation: of the prompt
	handle *Handle // in a Scheduler
	times  requestTimes
}

type requestTimes struct{ submitted, first, last time.Time }

// newRequest checks a prompt and its parameters. The prompt is not copied.
func (e *Engine) newRequest(ids []int32, p SamplingParams) (*request, error) {
	if err := e.checkPrompt(ids); err != nil {
		return nil, err
	}
	p, err := e.prepare(p)
	if err != nil {
		return nil, err
	}
	n := len(ids)
	return &request{params: p, tokens: ids[:n:n], prompt: n}, nil
}

func (e *Engine) checkPrompt(ids []int32) error {
	if most := e.model.Config.MaxPositionEmbeddings; len(ids) >= most {
		return &ArgumentError{Field: "length", Value: len(ids), Reason: fmt.Sprintf("expected fewer tokens than max_position_embeddings = %d, to leave room to generate", most)}
	}
	return e.checkTokens(ids, 0)
}

// prepare checks parameters and adds the model's own end-of-sequence ids to the stop tokens.
func (e *Engine) prepare(p SamplingParams) (SamplingParams, error) {
	cfg := e.model.Config
	if err := p.Validate(cfg.VocabSize); err != nil {
		return p, err
	}
	if p.IgnoreEOS {
		return p, nil
	}
	stop := slices.Clone(p.StopTokenIDs)
	for _, id := range cfg.EOSTokenIDs {
		stop = append(stop, int32(id))
	}
	p.StopTokenIDs = stop
	return p, nil
}

// unread is how many tokens of an active request its cache does not have yet.
func (r *request) unread() int { return len(r.tokens) - r.seq.n }

// decodes reports whether all an active request has to read is the last token it made.
func (r *request) decodes() bool { return len(r.tokens) > r.prompt && r.unread() == 1 }

// riseSteps is how many steps of waiting count as one level of priority: no request waits for ever.
const riseSteps = 256

// rank is the request's priority with what it has gained by waiting. It stays while the request runs.
func (r *request) rank() int { return r.priority + r.waited/riseSteps }

// precedes says whose turn it is in a step, and who stays when memory ends. It is an order of all requests, so that the first one
// always gets on.
func (r *request) precedes(other *request) bool {
	if r.rank() != other.rank() {
		return r.rank() > other.rank()
	}
	return r.order < other.order
}

// startsBefore says which of two waiting requests gets the next place: the more important one, then that of the client who was
// served less, then the earlier one.
func (r *request) startsBefore(other *request) bool {
	if r.rank() == other.rank() && r.client.served != other.client.served {
		return r.client.served < other.client.served
	}
	return r.precedes(other)
}

// client is whoever requests come from. Places go to the client with the fewest rows computed (Sheng et al. 2024, arXiv 2401.00588).
type client struct {
	name     string
	served   int64 // rows
	requests int   // that are not finished
}

// clients are those with requests. One who comes, or comes back, starts at the least that the others were served: it neither brings a
// credit for the time without requests nor waits for them.
type clients map[string]*client

func (c clients) join(name string) *client {
	cl := c[name]
	if cl == nil {
		cl = &client{name: name}
		first := true
		for _, other := range c {
			if first || other.served < cl.served {
				cl.served, first = other.served, false
			}
		}
		c[name] = cl
	}
	cl.requests++
	return cl
}

func (c clients) leave(cl *client) {
	if cl.requests--; cl.requests == 0 {
		delete(c, cl.name)
	}
}
