package infer

import (
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/logs"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// admit gives places to waiting requests, the next in the order of startsBefore first, as long as there is room for what it has to read
// and for a page of growth of everybody. A request that does not fit is not overtaken. If its priority is above the rank of a request
// that runs, that one makes room.
func (b *batch) admit() {
	for i := range b.waiting {
		b.waiting[i].waited++
	}
	for len(b.waiting) > 0 {
		at := b.nextWaiting()
		r := b.waiting[at]
		if !b.fits(r) {
			last := len(b.active) - 1
			if last < 0 || b.active[last].rank() >= r.priority {
				return
			}
			b.suspend()
			b.count.preemptions++
			continue
		}
		b.waiting = slices.Delete(b.waiting, at, at+1)
		b.start(r)
	}
}

// nextWaiting is the index of the request whose turn it is.
func (b *batch) nextWaiting() int {
	at := 0
	for i, r := range b.waiting[1:] {
		if r.startsBefore(b.waiting[at]) {
			at = i + 1
		}
	}
	return at
}

// fits reports whether there is a place and memory for a request.
func (b *batch) fits(r *request) bool {
	switch {
	case len(b.active) == 0:
		return true // if not alone, then never
	case len(b.active) >= b.most || b.full:
		return false
	case b.kv.limit == unlimited:
		return true
	}
	_, shared := b.kv.lookup(r.tokens)
	need := pagesFor(len(r.tokens)+1) + 1 - shared
	for _, a := range b.active {
		need += max(0, pagesFor(len(a.tokens)+1)+1-len(a.seq.pages))
	}
	return need <= b.kv.available()
}

// unlimited is the page limit of a batch that only the pool's budget bounds.
const unlimited = math.MaxInt

func pagesFor(tokens int) int { return (tokens + nn.PageTokens - 1) / nn.PageTokens }

// start gives a request a place among the active ones.
func (b *batch) start(r *request) {
	if last := len(b.idle) - 1; last >= 0 {
		r.seq, b.idle = b.idle[last], b.idle[:last]
	} else {
		r.seq = b.e.NewSequence()
	}
	if r.sampler == nil { // the first time
		w := new(workspace)
		if last := len(b.spaces) - 1; last >= 0 {
			w, b.spaces = b.spaces[last], b.spaces[:last]
		}
		r.sampler = makeSampler(r.params, b.e.model.Config.VocabSize, w)
		r.sampler.Observe(r.tokens...)
		r.tokens = slices.Grow(r.tokens, min(b.left(r), mostTokensAhead))
	}
	at, _ := slices.BinarySearchFunc(b.active, r, func(a, r *request) int {
		if a.precedes(r) {
			return -1
		}
		return 1
	})
	b.active = slices.Insert(b.active, at, r)
}

// mostTokensAhead is for how many new tokens a request has room from its start; the list of a longer one grows as lists do.
const mostTokensAhead = 4096

// suspend lets the last of the active requests wait again.
func (b *batch) suspend() {
	last := len(b.active) - 1
	r := b.active[last]
	b.active = b.active[:last]
	b.park(r)
	b.waiting = append(b.waiting, r)
	logs.Get().Info("no memory for the keys and values of all requests: one waits and reads its tokens again later",
		"running", len(b.active), "waiting", len(b.waiting))
}

// park takes a request's place and pages away.
func (b *batch) park(r *request) {
	b.kv.release(r.seq)
	b.idle = append(b.idle, r.seq)
	r.seq = nil
	if b.drafter != nil {
		b.drafter.release(r)
	}
}
