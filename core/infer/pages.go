package infer

import (
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/core/logs"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// page holds the keys and values of nn.PageTokens positions. It is in one of three states: referenced by sequences; cached, when no
// sequence has it but its contents may serve another; or free. A referenced page may be in the index too: then it is full, and its
// contents never change.
type page struct {
	block *pool.Block
	refs  int // sequences that have it

	// In the index: its tokens follow those of parent. A page knows its parent by a number that no other page ever has, so that equal
	// tokens and an equal parent mean equal tokens from the start of the sequence.
	id, parent uint64 // 0: not in the index, the start of a sequence
	hash       uint64
	tokens     [nn.PageTokens]int32

	older, newer *page // neighbours among the cached pages
}

// pageStore gives pages of key/value memory to sequences under a budget, and keeps full pages whose tokens may come again: those of
// system prompts, of conversations that go on, of sequences that had to wait. When the budget is used up the page that was left alone
// the longest makes room, and whoever else finds the pool empty gets all of them. It belongs to one goroutine at a time, but for trim and
// counts.
type pageStore struct {
	mem   *pool.HybridMemoryPool
	bytes int // of a page
	limit int // the most pages
	leave func()

	mu         sync.Mutex // held for what follows; not while memory is allocated
	pages      int        // that exist: referenced, cached or free
	referenced int
	cached     int
	free       []*page

	index  map[uint64]*page // by hash of parent and tokens; of pages with one hash, the latest
	seed   maphash.Seed
	lastID uint64
	oldest *page // of the cached pages
	newest *page

	hits int64 // tokens that did not have to be read
}

// errNoPages says that all pages of the budget are referenced.
var errNoPages = fmt.Errorf("%w: every page of the key/value budget is in use", pool.ErrOutOfMemory)

func newPageStore(mem *pool.HybridMemoryPool, pageBytes, limit int) *pageStore {
	s := &pageStore{mem: mem, bytes: pageBytes, limit: limit, index: map[uint64]*page{}, seed: maphash.MakeSeed()}
	s.leave = mem.OnShortage(s.trim)
	return s
}

// close gives all memory back; no sequence may have pages.
func (s *pageStore) close() {
	s.leave()
	s.trim()
}

// counts are how many pages sequences have, how many are cached, and how many there are.
func (s *pageStore) counts() (referenced, cached, pages int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.referenced, s.cached, s.pages
}

// available is how many pages sequences may still take.
func (s *pageStore) available() int {
	referenced, _, _ := s.counts()
	return s.limit - referenced
}

// grow gives the sequence pages for positions [0, n). Pages that it took before an error stay its own.
func (s *pageStore) grow(q *Sequence, n int) error {
	for q.cache.Pages()*nn.PageTokens < n {
		p, err := s.take()
		if err != nil {
			return err
		}
		q.append(p)
	}
	return nil
}

// take returns a page with one reference: a free one, a new one from memory that nobody keeps, the cached one that was left alone the
// longest, or a new one from memory that others keep.
func (s *pageStore) take() (*page, error) {
	p := s.spare(false)
	var err error
	if p == nil {
		p, err = s.fresh(s.mem.AllocSpare)
	}
	if p == nil {
		p = s.spare(true)
	}
	if p == nil {
		p, err = s.fresh(s.mem.AllocUninit)
	}
	if p == nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.refs = 1
	s.referenced++
	return p, nil
}

// spare takes a page that is there: a free one or, with cached, the oldest of those; nil when there is none.
func (s *pageStore) spare(cached bool) *page {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.free) - 1; last >= 0 {
		p := s.free[last]
		s.free = s.free[:last]
		return p
	}
	p := s.oldest
	if !cached || p == nil {
		return nil
	}
	s.evict(p)
	return p
}

// fresh makes a page of memory that alloc gives.
func (s *pageStore) fresh(alloc func(int, string) (*pool.Block, error)) (*page, error) {
	if _, _, pages := s.counts(); pages >= s.limit {
		return nil, errNoPages
	}
	b, err := alloc(s.bytes, "kv cache")
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages++
	return &page{block: b}, nil
}

// release takes a sequence's pages back. Those in the index are cached, the last one first to go, since the earlier ones are of use
// without it.
func (s *pageStore) release(q *Sequence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.cache.Detach()
	for i := len(q.pages) - 1; i >= 0; i-- {
		s.drop(q.pages[i])
	}
	clear(q.pages)
	q.pages, q.listed, q.n = q.pages[:0], 0, 0
}

// append adds a page to what the sequence has.
func (s *Sequence) append(p *page) {
	s.pages = append(s.pages, p)
	s.cache.Append(p.block)
}

func (s *pageStore) drop(p *page) {
	p.refs--
	if p.refs > 0 {
		return
	}
	s.referenced--
	if p.id == 0 {
		s.free = append(s.free, p)
		return
	}
	s.cached++
	p.older, p.newer = s.newest, nil
	if s.newest != nil {
		s.newest.newer = p
	} else {
		s.oldest = p
	}
	s.newest = p
}

// retain adds a reference to a page of the index.
func (s *pageStore) retain(p *page) {
	if p.refs == 0 {
		s.uncache(p)
		s.referenced++
	}
	p.refs++
}

// uncache takes a page out of the list of those that nobody references.
func (s *pageStore) uncache(p *page) {
	if p.older != nil {
		p.older.newer = p.newer
	} else {
		s.oldest = p.newer
	}
	if p.newer != nil {
		p.newer.older = p.older
	} else {
		s.newest = p.older
	}
	p.older, p.newer = nil, nil
	s.cached--
}

// evict forgets what a cached page holds.
func (s *pageStore) evict(p *page) {
	s.uncache(p)
	s.unlist(p)
}

// trim gives all memory that no sequence has back to the pool and reports whether there was any. Any goroutine may call it.
func (s *pageStore) trim() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evictAll()
	some := len(s.free) > 0
	if some {
		logs.Get().Debug("kept pages of keys and values evicted", "pages", len(s.free), "bytes", len(s.free)*s.bytes)
	}
	for _, p := range s.free {
		p.block.Release()
	}
	s.pages -= len(s.free)
	clear(s.free)
	s.free = s.free[:0]
	return some
}

// forget frees the cached pages.
func (s *pageStore) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evictAll()
}

func (s *pageStore) evictAll() {
	for s.oldest != nil {
		p := s.oldest
		s.evict(p)
		s.free = append(s.free, p)
	}
}
