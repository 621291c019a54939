package train

import (
	"fmt"
	"math/rand/v2"
)

// Tokens is a text as token ids, from which batches are cut.
type Tokens struct {
	ids    []int32
	length int
}

// NewTokens cuts ids into windows of length tokens, each with the token that follows it as its last target.
func NewTokens(ids []int32, length int) (*Tokens, error) {
	if length < 1 || len(ids) <= length {
		return nil, fmt.Errorf("%w: %d tokens with windows of %d: expected at least one window and the token after it", ErrBatch, len(ids), length)
	}
	return &Tokens{ids: ids, length: length}, nil
}

// Sample fills b with n windows at random places. The places depend on seed and step alone: a run that goes on at a step
// sees what it would have seen.
func (t *Tokens) Sample(b *Batch, n int, seed, step uint64) {
	r := rand.New(rand.NewPCG(seed, step))
	b.reset(t.length)
	for range n {
		t.add(b, r.IntN(len(t.ids)-t.length))
	}
}

// Windows is how many windows lie one behind the other in the text.
func (t *Tokens) Windows() int { return (len(t.ids) - 1) / t.length }

// Window fills b with n windows of the text in order, from window first on, as far as there are, and says how many.
func (t *Tokens) Window(b *Batch, first, n int) int {
	b.reset(t.length)
	n = min(n, t.Windows()-first)
	for w := first; w < first+n; w++ {
		t.add(b, w*t.length)
	}
	return n
}

func (t *Tokens) add(b *Batch, at int) {
	b.IDs = append(b.IDs, t.ids[at:at+t.length]...)
	b.Targets = append(b.Targets, t.ids[at+1:at+1+t.length]...)
}

func (b *Batch) reset(length int) {
	b.IDs, b.Targets, b.Length = b.IDs[:0], b.Targets[:0], length
}
