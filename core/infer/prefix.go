package infer

import (
	"hash/maphash"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// The index of full pages. A page is found by its tokens and its parent, the page before it, so that a sequence is walked from its
// start. The hash only finds candidates: tokens and parent are compared, and a collision is a miss, never a wrong page.

// find returns the page of the index that holds the given tokens behind parent (0: at the start), or nil.
func (s *pageStore) find(parent uint64, tokens []int32) *page {
	p := s.index[s.hash(parent, tokens)]
	if p == nil || p.parent != parent || !slices.Equal(p.tokens[:], tokens) {
		return nil
	}
	return p
}

// hash is that of a full page's tokens and their parent.
func (s *pageStore) hash(parent uint64, tokens []int32) uint64 {
	const odd = 0x9e3779b97f4a7c15 // spreads small numbers over all bits
	return maphash.Bytes(s.seed, pool.BytesOf(tokens)) ^ parent*odd
}

// unlist takes a page out of the index.
func (s *pageStore) unlist(p *page) {
	if s.index[p.hash] == p {
		delete(s.index, p.hash)
	}
	p.id = 0
}

// attach lets a sequence that stands at the end of its pages go on with pages of the index, as far as they hold tokens and leave one to
// read: its logits are wanted.
func (s *pageStore) attach(q *Sequence, tokens []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for q.n == len(q.pages)*nn.PageTokens && q.n+nn.PageTokens < len(tokens) {
		p := s.find(q.parent(), tokens[q.n:q.n+nn.PageTokens])
		if p == nil {
			return
		}
		s.retain(p)
		q.append(p)
		q.listed++
		q.n += nn.PageTokens
		s.hits += nn.PageTokens
	}
}

// lookup is what attach would find for a new sequence: how many pages, and how many of them sequences have already.
func (s *pageStore) lookup(tokens []int32) (found, referenced int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parent := uint64(0)
	for at := 0; at+nn.PageTokens < len(tokens); at += nn.PageTokens {
		p := s.find(parent, tokens[at:at+nn.PageTokens])
		if p == nil {
			break
		}
		found++
		if p.refs > 0 {
			referenced++
		}
		parent = p.id
	}
	return found, referenced
}

// record puts the pages that a sequence has filled since the last time into the index. Where another sequence has filled an equal page
// in the meantime, it takes that one: the same tokens have the same bits.
func (s *pageStore) record(q *Sequence, tokens []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; q.listed < q.n/nn.PageTokens; q.listed++ {
		i, parent := q.listed, q.parent()
		own, content := q.pages[i], tokens[i*nn.PageTokens:(i+1)*nn.PageTokens]
		if p := s.find(parent, content); p != nil {
			s.retain(p)
			q.pages[i] = p
			q.cache.Replace(i, p.block)
			s.drop(own)
			continue
		}
		s.lastID++
		own.id, own.parent, own.hash = s.lastID, parent, s.hash(parent, content)
		copy(own.tokens[:], content)
		s.index[own.hash] = own
	}
}

// parent is the number of the last page in the index that the sequence has, 0 at its start.
func (s *Sequence) parent() uint64 {
	if s.listed == 0 {
		return 0
	}
	return s.pages[s.listed-1].id
}
