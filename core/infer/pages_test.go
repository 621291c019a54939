package infer

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// pagedSequence is a sequence of the property test with the tokens that it reads. Instead of keys and values, the test writes the tokens
// into the pages.
type pagedSequence struct {
	q      *Sequence
	tokens []int32
}

// storeMachine drives a pageStore at random and compares it with what must hold.
type storeMachine struct {
	mem  *pool.HybridMemoryPool
	s    *pageStore
	live []*pagedSequence
}

func (m *storeMachine) Start(t *rapid.T) {
	p := &pagedSequence{q: &Sequence{cache: nn.NewKVCache(m.mem, nn.KVFloat32, 1, 1, 16)}}
	for range rapid.IntRange(1, 4).Draw(t, "pages") { // few kinds of pages: prefixes are often equal
		kind := int32(rapid.IntRange(0, 1).Draw(t, "kind"))
		for i := range int32(nn.PageTokens) {
			p.tokens = append(p.tokens, 100*kind+i)
		}
	}
	p.tokens = append(p.tokens, 7)
	found, referenced := m.s.lookup(p.tokens)
	before := m.s.referenced
	m.s.attach(p.q, p.tokens)
	require.Equal(t, found*nn.PageTokens, p.q.n, "attach finds what lookup found")
	require.Equal(t, found-referenced, m.s.referenced-before)
	m.live = append(m.live, p)
}

func (m *storeMachine) Read(t *rapid.T) {
	if len(m.live) == 0 {
		t.Skip()
	}
	p := rapid.SampledFrom(m.live).Draw(t, "sequence")
	left := len(p.tokens) - p.q.n
	if left == 0 {
		t.Skip()
	}
	n := rapid.IntRange(1, left).Draw(t, "tokens")
	if err := m.s.grow(p.q, p.q.n+n); err != nil {
		require.True(t, errors.Is(err, pool.ErrOutOfMemory))
		require.Equal(t, m.s.limit, m.s.referenced, "there is room as long as a page is not referenced")
		return
	}
	for i := p.q.n; i < p.q.n+n; i++ {
		p.q.pages[i/nn.PageTokens].block.Float32()[i%nn.PageTokens] = float32(p.tokens[i])
	}
	p.q.n += n
	m.s.record(p.q, p.tokens)
	require.Equal(t, p.q.n/nn.PageTokens, p.q.listed)
}

func (m *storeMachine) End(t *rapid.T) {
	if len(m.live) == 0 {
		t.Skip()
	}
	i := rapid.IntRange(0, len(m.live)-1).Draw(t, "sequence")
	m.s.release(m.live[i].q)
	m.live = append(m.live[:i], m.live[i+1:]...)
}

func (m *storeMachine) Trim(t *rapid.T) {
	m.s.trim()
	require.Equal(t, m.s.referenced, m.s.pages)
}

func (m *storeMachine) Check(t *rapid.T) {
	refs := map[*page]int{}
	firsts := map[string]*page{} // of full pages, by all tokens up to their end
	for _, p := range m.live {
		require.Equal(t, len(p.q.pages), p.q.cache.Pages())
		for i, pg := range p.q.pages {
			refs[pg]++
			k, _ := p.q.cache.Page(0, 0, i)
			require.Same(t, &pg.block.Float32()[0], &k[0], "the cache has the page")
			if i < p.q.listed {
				key := string(pool.BytesOf(p.tokens[:(i+1)*nn.PageTokens]))
				if other := firsts[key]; other != nil {
					require.Same(t, other, pg, "equal prefixes are stored once")
				}
				firsts[key] = pg
			}
		}
		for i := range p.q.n {
			require.EqualValues(t, p.tokens[i], p.q.pages[i/nn.PageTokens].block.Float32()[i%nn.PageTokens], "position %d", i)
		}
	}
	for pg, n := range refs {
		require.Equal(t, n, pg.refs)
	}
	cached := 0
	for pg := m.s.oldest; pg != nil; pg = pg.newer {
		cached++
		require.Zero(t, pg.refs)
		require.NotZero(t, pg.id)
		require.True(t, pg.newer == nil && m.s.newest == pg || pg.newer.older == pg)
	}
	require.Equal(t, len(refs), m.s.referenced)
	require.Equal(t, cached, m.s.cached)
	require.Equal(t, m.s.pages, m.s.referenced+m.s.cached+len(m.s.free))
	require.LessOrEqual(t, m.s.pages, m.s.limit)
	require.EqualValues(t, m.s.pages, m.mem.Stats().LiveBlocks, "no page is lost")
}

func TestPagesAreNeverLostNorSharedByWhatDiffers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem := pool.New(pool.Options{})
		bytes := nn.NewKVCache(mem, nn.KVFloat32, 1, 1, 16).PageBytes()
		m := &storeMachine{mem: mem, s: newPageStore(mem, bytes, rapid.IntRange(1, 12).Draw(t, "limit"))}
		t.Repeat(rapid.StateMachineActions(m))
		for _, p := range m.live {
			m.s.release(p.q)
		}
		m.s.trim()
		require.NoError(t, mem.Close())
	})
}

func TestThePageThatWasLeftAloneLongestMakesRoom(t *testing.T) {
	mem := pool.New(pool.Options{})
	s := newPageStore(mem, nn.NewKVCache(mem, nn.KVFloat32, 1, 1, 16).PageBytes(), 4)
	read := func(kind int32) *Sequence {
		q := &Sequence{cache: nn.NewKVCache(mem, nn.KVFloat32, 1, 1, 16)}
		tokens := make([]int32, 2*nn.PageTokens)
		for i := range tokens {
			tokens[i] = kind
		}
		s.attach(q, append(tokens, 0))
		require.NoError(t, s.grow(q, len(tokens)))
		q.n = len(tokens)
		s.record(q, tokens)
		return q
	}
	found := func(kind int32) int {
		tokens := make([]int32, 2*nn.PageTokens+1)
		for i := range tokens {
			tokens[i] = kind
		}
		n, _ := s.lookup(tokens)
		return n
	}
	s.release(read(1))
	s.release(read(2))
	s.release(read(1)) // used again
	require.Equal(t, []int{2, 2}, []int{found(1), found(2)})
	third := read(3)
	require.Equal(t, []int{2, 0, 2}, []int{found(1), found(2), found(3)})
	q := &Sequence{cache: nn.NewKVCache(mem, nn.KVFloat32, 1, 1, 16)}
	require.NoError(t, s.grow(q, nn.PageTokens))
	require.Equal(t, 1, found(1), "the end of a prefix goes before its start")
	require.NoError(t, s.grow(q, 2*nn.PageTokens))
	require.ErrorIs(t, s.grow(q, 3*nn.PageTokens), pool.ErrOutOfMemory)
	s.release(q)
	s.release(third)
	require.True(t, s.trim())
	require.False(t, s.trim())
	require.NoError(t, mem.Close())
}
