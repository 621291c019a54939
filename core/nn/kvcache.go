package nn

import (
	"fmt"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// PageTokens is the number of consecutive positions one page of a key/value cache holds. Attention walks a sequence
// page by page in ascending order; the page size is therefore part of the numbers contract.
const PageTokens = 64

// PaddedDim is head_dim rounded up to the 16 lanes of the attention kernels.
func PaddedDim(headDim int) int { return (headDim + 15) &^ 15 }

// KVType is how a cache stores keys and values. Training and likelihoods use float32. The others are for generation: they take less memory and
// are read faster, and the numbers change a little, in the same way whatever else is in a batch.
type KVType uint8

// The types of keys and values.
const (
	KVFloat32  KVType = iota
	KVFloat16         // IEEE half precision
	KVBFloat16        // the upper half of a float32: its range, eight bits of precision
	KVInt8            // with one scale for each position of a head, the largest magnitude over 127
)

var kvTypes = [...]struct {
	name string
	size int // bytes of an element
}{{"float32", 4}, {"float16", 2}, {"bfloat16", 2}, {"int8", 1}}

// String is the type's name: float32, float16, bfloat16 or int8.
func (t KVType) String() string { return kvTypes[t].name }

// ParseKVType turns a name into a type.
func ParseKVType(name string) (KVType, error) {
	for i, t := range kvTypes {
		if t.name == name {
			return KVType(i), nil
		}
	}
	return 0, fmt.Errorf("nn: kv_dtype %q: must be float32, float16, bfloat16 or int8", name)
}

// KVCache holds the keys and values of one sequence in pages of PageTokens positions, taken from the pool as the sequence grows, or appended
// by an owner who shares them between sequences. A cache for one layer also serves layers that run one after another over whole
// sequences: each overwrites what the one before it left.
//
// A page has, for each layer and kv head, the keys as [PaddedDim][PageTokens] and the values as [PageTokens][PaddedDim], the right factors
// of q k^T and of p v, in which the kernels read rows. KVInt8 has the keys as [PaddedDim/2][PageTokens][2] and the values as
// [PageTokens/2][PaddedDim][2], pairs of terms of these products side by side; then the scales of both, float32 [PageTokens] each.
type KVCache struct {
	mem     *pool.HybridMemoryPool
	dtype   KVType
	kvHeads int
	half    int // elements of the keys (or the values) of one head
	head    int // bytes a head
	page    int // bytes a page
	blocks  []*pool.Block
	pages   []*byte // start of each page
}

// NewKVCache returns an empty cache.
func NewKVCache(mem *pool.HybridMemoryPool, dtype KVType, layers, kvHeads, headDim int) *KVCache {
	half := PageTokens * PaddedDim(headDim)
	head := 2 * half * kvTypes[dtype].size
	if dtype == KVInt8 {
		head += 2 * 4 * PageTokens
	}
	return &KVCache{mem: mem, dtype: dtype, kvHeads: kvHeads, half: half, head: head, page: head * kvHeads * layers}
}

// Page returns the keys and the values of one head of one layer for positions [page*PageTokens, (page+1)*PageTokens) of a float32 cache:
// the keys transposed, [PaddedDim, PageTokens], and the values [PageTokens, PaddedDim], columns beyond head_dim zero. It may be
// called from several threads.
func (c *KVCache) Page(layer, kvHead, page int) (k, v []float32) {
	if c.dtype != KVFloat32 {
		panic("nn: keys and values of type " + c.dtype.String() + " are not float32")
	}
	p := pool.View[float32](c.headBytes(layer, kvHead, page))
	return p[:c.half:c.half], p[c.half:]
}

// headBytes is the part of a page that one head of one layer has.
func (c *KVCache) headBytes(layer, kvHead, page int) []byte {
	return c.headsBytes(layer, kvHead, kvHead+1, page)
}

// headsBytes is the part of a page that heads [first, end) of one layer have.
func (c *KVCache) headsBytes(layer, first, end, page int) []byte {
	if c.head*c.kvHeads == c.page {
		layer = 0
	}
	at, to := c.head*(layer*c.kvHeads+first), c.head*(layer*c.kvHeads+end)
	return unsafe.Slice(c.pages[page], c.page)[at:to:to]
}

// Grow makes room for positions [0, n).
func (c *KVCache) Grow(n int) error {
	for len(c.pages)*PageTokens < n {
		b, err := c.mem.Alloc(c.page, "kv cache")
		if err != nil {
			return err
		}
		c.Append(b)
	}
	return nil
}

// PageBytes is the size of one page.
func (c *KVCache) PageBytes() int { return c.page }

// Pages is how many pages the cache has.
func (c *KVCache) Pages() int { return len(c.pages) }

// Append adds a page of PageBytes that stays the caller's: Detach forgets it, and Free must not be called.
func (c *KVCache) Append(b *pool.Block) {
	c.blocks = append(c.blocks, b)
	c.pages = append(c.pages, &b.Bytes()[0])
}

// Replace puts another page of the caller's, with the same contents, in place of one that Append added.
func (c *KVCache) Replace(page int, b *pool.Block) {
	c.blocks[page], c.pages[page] = b, &b.Bytes()[0]
}

// Detach forgets all pages without giving them back.
func (c *KVCache) Detach() {
	clear(c.blocks)
	c.blocks, c.pages = c.blocks[:0], c.pages[:0]
}

// layerBytes is what n keys and values of one layer occupy.
func (c *KVCache) layerBytes(n int) int { return c.head * c.kvHeads / PageTokens * n }

// Bytes is the size of the pages.
func (c *KVCache) Bytes() int64 { return int64(c.page * len(c.pages)) }

// Free gives all pages back.
func (c *KVCache) Free() {
	for _, b := range c.blocks {
		b.Release()
	}
	c.blocks, c.pages = nil, nil
}
