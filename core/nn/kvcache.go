package nn

import (
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// PageTokens is the number of consecutive positions one page of a key/value cache holds. Attention walks a sequence
// page by page in ascending order; the page size is therefore part of the numbers contract.
const PageTokens = 64

// PaddedDim is head_dim rounded up to the 16 lanes of the attention kernels.
func PaddedDim(headDim int) int { return (headDim + 15) &^ 15 }

// KVCache holds the float32 keys and values of one sequence in pages of PageTokens positions, taken from the pool as the
// sequence grows, or appended by an owner who shares them between sequences. A cache for one layer also serves layers that run one after another over whole sequences: each overwrites
// what the one before it left. A page has, for each layer and kv head, the keys as [PaddedDim][PageTokens] and the values as
// [PageTokens][PaddedDim]: the right factors of q k^T and of p v, in which the kernels read rows.
type KVCache struct {
	mem     *pool.HybridMemoryPool
	kvHeads int
	half    int // floats of the keys (or the values) of one head
	page    int // floats a page
	blocks  []*pool.Block
	pages   []*float32 // first value of each page
}

// NewKVCache returns an empty cache.
func NewKVCache(mem *pool.HybridMemoryPool, layers, kvHeads, headDim int) *KVCache {
	half := PageTokens * PaddedDim(headDim)
	return &KVCache{mem: mem, kvHeads: kvHeads, half: half, page: 2 * half * kvHeads * layers}
}

// Page returns the keys and the values of one head of one layer for positions [page*PageTokens, (page+1)*PageTokens):
// the keys transposed, [PaddedDim, PageTokens], and the values [PageTokens, PaddedDim], columns beyond head_dim zero. It may be
// called from several threads.
func (c *KVCache) Page(layer, kvHead, page int) (k, v []float32) {
	if 2*c.half*c.kvHeads == c.page {
		layer = 0
	}
	p := unsafe.Slice(c.pages[page], c.page)[2*c.half*(layer*c.kvHeads+kvHead):]
	return p[:c.half:c.half], p[c.half : 2*c.half : 2*c.half]
}

// Grow makes room for positions [0, n).
func (c *KVCache) Grow(n int) error {
	for len(c.pages)*PageTokens < n {
		b, err := c.mem.Alloc(4*c.page, "kv cache")
		if err != nil {
			return err
		}
		c.blocks = append(c.blocks, b)
		c.pages = append(c.pages, &b.Float32()[0])
	}
	return nil
}

// PageBytes is the size of one page.
func (c *KVCache) PageBytes() int { return 4 * c.page }

// Pages is how many pages the cache has.
func (c *KVCache) Pages() int { return len(c.pages) }

// Append adds a page of PageBytes that stays the caller's: Detach forgets it, and Free must not be called.
func (c *KVCache) Append(b *pool.Block) {
	c.blocks = append(c.blocks, b)
	c.pages = append(c.pages, &b.Float32()[0])
}

// Replace puts another page of the caller's, with the same contents, in place of one that Append added.
func (c *KVCache) Replace(page int, b *pool.Block) {
	c.blocks[page], c.pages[page] = b, &b.Float32()[0]
}

// Detach forgets all pages without giving them back.
func (c *KVCache) Detach() {
	clear(c.blocks)
	c.blocks, c.pages = c.blocks[:0], c.pages[:0]
}

// Bytes is the size of the pages.
func (c *KVCache) Bytes() int64 { return int64(4 * c.page * len(c.pages)) }

// Free gives all pages back.
func (c *KVCache) Free() {
	for _, b := range c.blocks {
		b.Release()
	}
	c.blocks, c.pages = nil, nil
}
