package nn

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// What AttentionWeights says is what attention did: multiplied with the values they are its output, whether a sequence is read whole, in pieces,
// or token by token.
func TestAttentionWeightsGiveTheOutputOfAttention(t *testing.T) {
	const n, heads, kvHeads, dim = PageTokens + 9, 4, 2, 24
	r := rand.New(rand.NewPCG(3, 4))
	q, k, v := randoms(r, n*heads*dim), randoms(r, n*kvHeads*dim), randoms(r, n*kvHeads*dim)
	a := &Attention{Heads: heads, KVHeads: kvHeads, Dim: dim}
	whole := make([]float32, heads*n*n)
	for _, piece := range []int{n, 40, 1} {
		weights := make([]float32, heads*n*n)
		for i := range weights {
			weights[i] = float32(math.NaN()) // all of them are written
		}
		caches, c := []*KVCache{newCache(t, n, kvHeads, dim)}, testCtx(t)
		for from := 0; from < n; from += piece {
			rows := positions(min(n, from+piece))[from:]
			part := func(x []float32, width int) *tensor.Tensor {
				return matrix(t, x[from*width:(from+len(rows))*width], len(rows), width)
			}
			qs, ks, vs := part(q, heads*dim), part(k, kvHeads*dim), part(v, kvHeads*dim)
			c.Begin(context.Background(), uint64(len(rows)), rows, caches)
			c.storeKV(a, ks, vs)
			out := c.attention(a, qs, ks, vs).Float32s()
			c.AttentionWeights(a, qs, weights, n)
			for i := range rows {
				for h := range heads {
					row := weights[(h*n+from+i)*n:][:n]
					sum := 0.0
					want := make([]float64, dim)
					for key, w := range row {
						sum += float64(w)
						for d := range want {
							want[d] += float64(w) * float64(v[(key*kvHeads+h/2)*dim+d])
						}
					}
					require.InDelta(t, 1, sum, 1e-5)
					require.Equal(t, make([]float32, n-from-i-1), row[from+i+1:], "what comes later is not seen")
					requireClose(t, want, out[(i*heads+h)*dim:][:dim], "a head's output")
				}
			}
			c.End()
		}
		if piece == n {
			copy(whole, weights)
		}
		assert.Equal(t, whole, weights, "pieces of %d", piece)
	}
}
