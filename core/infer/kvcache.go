package infer

import (
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// KVCache holds the float32 keys and values of one sequence in pages of nn.PageTokens positions, taken from the pool
// as the sequence grows. A page has [layers][kv_heads][2][PageTokens][padded head_dim] values: keys, then values.
type KVCache struct {
	mem     *pool.HybridMemoryPool
	kvHeads int
	half    int // floats of the keys (or the values) of one head
	page    int // floats a page
	blocks  []*pool.Block
	pages   []*float32 // first value of each page
}

func newKVCache(mem *pool.HybridMemoryPool, cfg *model.Config) *KVCache {
	half := nn.PageTokens * nn.PaddedDim(cfg.HeadDim)
	return &KVCache{mem: mem, kvHeads: cfg.NumKeyValueHeads, half: half, page: 2 * half * cfg.NumKeyValueHeads * cfg.NumHiddenLayers}
}

// Page implements [nn.KVCache].
func (c *KVCache) Page(layer, kvHead, page int) (k, v []float32) {
	p := unsafe.Slice(c.pages[page], c.page)[2*c.half*(layer*c.kvHeads+kvHead):]
	return p[:c.half:c.half], p[c.half : 2*c.half : 2*c.half]
}

// grow makes room for positions [0, n).
func (c *KVCache) grow(n int) error {
	for len(c.pages)*nn.PageTokens < n {
		b, err := c.mem.Alloc(4*c.page, "kv cache")
		if err != nil {
			return err
		}
		c.blocks = append(c.blocks, b)
		c.pages = append(c.pages, &b.Float32()[0])
	}
	return nil
}

// free gives all pages back.
func (c *KVCache) free() {
	for _, b := range c.blocks {
		b.Release()
	}
	c.blocks, c.pages = nil, nil
}
