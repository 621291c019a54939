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

// Read whole, in pieces or token by token, alone or beside others, by one thread or several: a long sequence has the same bits, and they are
// those of softmax over the past.
func TestLongContextsAreTheSameHoweverTheyAreRead(t *testing.T) {
	for _, kv := range []int{1, 2} { // with up to four heads for each, attention stores what a decoding row brings
		testLongContext(t, kv)
	}
}

func testLongContext(t *testing.T, kv int) {
	t.Helper()
	const rows, heads, dim = 2*SpanTokens + 70, 6, 16
	r := rand.New(rand.NewPCG(12, 12))
	a := &Attention{Heads: heads, KVHeads: kv, Dim: dim}
	q, k, v := randoms(r, rows*heads*dim), randoms(r, rows*kv*dim), randoms(r, rows*kv*dim)
	want := attendedAs(t, a, KVFloat32, q, k, v, rows, rows)
	for _, row := range []int{0, SpanTokens - 1, SpanTokens, 2*SpanTokens + 1, rows - 1} {
		for h := range heads {
			requireClose(t, naiveAttention(q, k, v, row, h, heads, kv, dim), want[(row*heads+h)*dim:][:dim], fmt.Sprint("row ", row))
		}
	}
	stored := map[KVType][]float32{KVFloat32: want}
	for _, dtype := range []KVType{KVFloat16, KVBFloat16, KVInt8} {
		stored[dtype] = attendedAs(t, a, dtype, q, k, v, rows, rows)
	}
	defer func() { require.NoError(t, cpu.SetNumThreads(1)) }()
	for _, threads := range []int{1, 3} {
		require.NoError(t, cpu.SetNumThreads(threads))
		for _, chunk := range []int{1, 250} {
			for dtype, want := range stored {
				require.Equal(t, want, attendedAs(t, a, dtype, q, k, v, rows, chunk), fmt.Sprint(dtype, ", ", threads, " threads, chunks of ", chunk))
			}
		}
	}

	// One step decodes the last token of a long sequence and the first of another.
	c, mem := testCtx(t), pool.New(pool.Options{})
	long, short := NewKVCache(mem, KVFloat32, 1, kv, dim), NewKVCache(mem, KVFloat32, 1, kv, dim)
	require.NoError(t, long.Grow(rows))
	require.NoError(t, short.Grow(1))
	defer long.Free()
	defer short.Free()
	step := func(at []Row, from int) []float32 {
		part := func(x []float32, heads int) []float32 { return x[from*heads*dim:][:len(at)*heads*dim] }
		c.Begin(context.Background(), uint64(len(at)), at, []*KVCache{long, short})
		defer c.End()
		kk, vv := matrix(t, part(k, kv), len(at), kv*dim), matrix(t, part(v, kv), len(at), kv*dim)
		c.storeKV(a, kk, vv)
		return append([]float32(nil), c.attention(a, matrix(t, part(q, heads), len(at), heads*dim), kk, vv).Float32s()...)
	}
	step(positions(rows - 2)[:rows-2], 0)
	step([]Row{{Seq: 0, Pos: rows - 2}}, rows-2)
	last := step([]Row{{Seq: 0, Pos: rows - 1}, {Seq: 1, Pos: 0}}[:1], rows-1)
	require.Equal(t, want[(rows-1)*heads*dim:], last)
	both := step([]Row{{Seq: 0, Pos: rows - 2}, {Seq: 1, Pos: 0}}, rows-2)
	require.Equal(t, want[(rows-2)*heads*dim:(rows-1)*heads*dim], both[:heads*dim])
}
