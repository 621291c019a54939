package nn

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Sequences that decode together, whose first pages may be the same memory, give what each gives alone: attention stores their keys and
// values while other threads read.
func TestSequencesThatDecodeTogetherAreAsAlone(t *testing.T) {
	defer func(n int) { require.NoError(t, cpu.SetNumThreads(n)) }(cpu.NumThreads())
	const dim, heads, shared = 6, 12, 2 * PageTokens
	at := []int{shared, shared + 1, shared + PageTokens - 1, shared + PageTokens, SpanTokens - 1, SpanTokens, SpanTokens + 67}
	for _, kv := range []int{1, 3, 4, 12} {
		for _, dtype := range []KVType{KVFloat32, KVFloat16, KVBFloat16, KVInt8} {
			for _, short := range []bool{false, true} { // all within a span
				r := rand.New(rand.NewPCG(uint64(kv), uint64(dtype)))
				a := &Attention{Heads: heads, KVHeads: kv, Dim: dim}
				ends := at
				if short {
					ends = at[:4]
				}
				name := fmt.Sprint(kv, " kv heads, ", dtype, ", short: ", short)
				mem := pool.New(pool.Options{})
				common := NewKVCache(mem, dtype, 1, kv, dim)
				require.NoError(t, common.Grow(shared))
				defer common.Free()
				q, k, v := randoms(r, (SpanTokens+80)*heads*dim), randoms(r, (SpanTokens+80)*kv*dim), randoms(r, (SpanTokens+80)*kv*dim)
				step := func(rows []Row, caches []*KVCache, qs, ks, vs []float32) []float32 {
					c := testCtx(t)
					c.Begin(context.Background(), 1, rows, caches)
					defer c.End()
					kk, vv := matrix(t, ks, len(rows), kv*dim), matrix(t, vs, len(rows), kv*dim)
					c.storeKV(a, kk, vv)
					return append([]float32(nil), c.attention(a, matrix(t, qs, len(rows), heads*dim), kk, vv).Float32s()...)
				}
				read := func(cache *KVCache, from, to int) []float32 {
					rows := positions(to)[from:]
					return step(rows, []*KVCache{cache}, q[from*heads*dim:to*heads*dim], k[from*kv*dim:to*kv*dim], v[from*kv*dim:to*kv*dim])
				}
				require.NoError(t, cpu.SetNumThreads(1))
				read(common, 0, shared)
				var rows []Row
				var caches []*KVCache
				var want, qs, ks, vs []float32
				for i, end := range ends {
					cache := NewKVCache(mem, dtype, 1, kv, dim)
					require.NoError(t, cache.Grow(end+1))
					for p := range shared / PageTokens {
						cache.pages[p] = common.pages[p]
					}
					defer cache.Free()
					if end > shared {
						read(cache, shared, end)
					}
					caches = append(caches, cache)
					rows = append(rows, Row{Seq: int32(i), Pos: int32(end)})
					alone := read(cache, end, end+1)
					want = append(want, alone...)
					qs, ks, vs = append(qs, q[end*heads*dim:][:heads*dim]...), append(ks, k[end*kv*dim:][:kv*dim]...), append(vs, v[end*kv*dim:][:kv*dim]...)
					fill := make([]float32, dim) // what was in their places before counts for nothing
					for j := range fill {
						fill[j] = 9
					}
					for h := range kv {
						last := cache.at(0, h, end/PageTokens)
						last.store(end%PageTokens, 1, fill, fill, dim, dim)
					}
				}
				for _, threads := range []int{1, 2, 5} {
					require.NoError(t, cpu.SetNumThreads(threads))
					require.Equal(t, want, step(rows, caches, qs, ks, vs), fmt.Sprint(name, ", ", threads, " threads"))
				}
			}
		}
	}
}
