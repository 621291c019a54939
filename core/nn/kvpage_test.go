package nn

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// attendedAs is the attention of rows of one sequence, read in chunks, with keys and values of a type.
func attendedAs(t *testing.T, a *Attention, dtype KVType, q, k, v []float32, rows, chunk int) []float32 {
	t.Helper()
	c := testCtx(t)
	cache := NewKVCache(pool.New(pool.Options{}), dtype, 1, a.KVHeads, a.Dim)
	require.NoError(t, cache.Grow(rows))
	defer cache.Free()
	out := make([]float32, 0, len(q))
	for from := 0; from < rows; from += chunk {
		n := min(chunk, rows-from)
		part := func(x []float32, heads int) []float32 { return x[from*heads*a.Dim : (from+n)*heads*a.Dim] }
		c.Begin(context.Background(), uint64(n), positions(rows)[from:from+n], []*KVCache{cache})
		kk, vv := matrix(t, part(k, a.KVHeads), n, a.KVHeads*a.Dim), matrix(t, part(v, a.KVHeads), n, a.KVHeads*a.Dim)
		c.storeKV(a, kk, vv)
		out = append(out, c.attention(a, matrix(t, part(q, a.Heads), n, a.Heads*a.Dim), kk, vv).Float32s()...)
		c.End()
	}
	return out
}

// round gives x as a cache of a type keeps it, rows of dim each.
func round(x []float32, dtype KVType, dim int) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		switch dtype {
		case KVFloat32:
			y[i] = v
		case KVFloat16: // eleven bits, fewer below 2^-14
			_, exp := math.Frexp(float64(v))
			step := max(math.Ldexp(1, exp-11), 0x1p-24)
			y[i] = float32(math.RoundToEven(float64(v)/step) * step)
		case KVBFloat16: // eight bits
			_, exp := math.Frexp(float64(v))
			step := math.Ldexp(1, exp-8)
			y[i] = float32(math.RoundToEven(float64(v)/step) * step)
		case KVInt8:
			top := 0.0
			for _, w := range x[i/dim*dim : (i/dim+1)*dim] {
				top = max(top, math.Abs(float64(w)))
			}
			y[i] = float32(math.RoundToEven(float64(v*(127/float32(top)))) * float64(float32(top)/127))
		}
	}
	return y
}

func TestStoredKeysAndValuesAreRoundedAndNothingElse(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for _, s := range []struct{ rows, heads, kv, dim int }{{1, 2, 1, 16}, {130, 4, 2, 32}, {65, 3, 3, 22}, {69, 3, 1, 21}, {67, 2, 2, 6}, {70, 2, 1, 200}, {66, 12, 2, 16}} {
		a := &Attention{Heads: s.heads, KVHeads: s.kv, Dim: s.dim}
		q, k, v := randoms(r, s.rows*s.heads*s.dim), randoms(r, s.rows*s.kv*s.dim), randoms(r, s.rows*s.kv*s.dim)
		for _, dtype := range []KVType{KVFloat32, KVFloat16, KVBFloat16, KVInt8} {
			got := attendedAs(t, a, dtype, q, k, v, s.rows, s.rows)
			want := attendedAs(t, a, KVFloat32, q, round(k, dtype, s.dim), round(v, dtype, s.dim), s.rows, s.rows)
			if dtype == KVInt8 { // of queries and probabilities fifteen bits are left beside it
				require.InDeltaSlice(t, want, got, 2e-4, fmt.Sprint(s, dtype))
			} else {
				require.Equal(t, want, got, fmt.Sprint(s, dtype))
			}
			for _, chunk := range []int{1, 3, 64} {
				require.Equal(t, got, attendedAs(t, a, dtype, q, k, v, s.rows, chunk), fmt.Sprint(s, dtype, " in chunks of ", chunk))
			}
		}
	}
}

func TestStoredTypesTakeLessMemory(t *testing.T) {
	mem := pool.New(pool.Options{})
	size := func(dtype KVType) int { return NewKVCache(mem, dtype, 3, 2, 128).PageBytes() }
	require.Equal(t, size(KVFloat32), 2*size(KVFloat16))
	require.Equal(t, size(KVFloat32), 2*size(KVBFloat16))
	require.Equal(t, size(KVFloat32), 4*(size(KVInt8)-3*2*2*4*PageTokens))
}

func TestKVTypesHaveNames(t *testing.T) {
	for _, dtype := range []KVType{KVFloat32, KVFloat16, KVBFloat16, KVInt8} {
		parsed, err := ParseKVType(dtype.String())
		require.NoError(t, err)
		require.Equal(t, dtype, parsed)
	}
	_, err := ParseKVType("int4")
	require.ErrorContains(t, err, `"int4"`)
	require.ErrorContains(t, err, "float32, float16, bfloat16 or int8")
}

func TestZeroKeysAreZeroInInt8(t *testing.T) {
	a := &Attention{Heads: 1, KVHeads: 1, Dim: 16}
	zero := make([]float32, 5*16)
	require.Equal(t, zero, attendedAs(t, a, KVInt8, randoms(rand.New(rand.NewPCG(1, 1)), 5*16), zero, zero, 5, 2))
}

// Integers know no NaN: the scales carry it.
func TestNaNInAQueryKeyOrValueReachesTheOutput(t *testing.T) {
	const rows, dim = 70, 16
	a, r := &Attention{Heads: 1, KVHeads: 1, Dim: dim}, rand.New(rand.NewPCG(2, 2))
	for name, at := range map[string]int{"query": 0, "key": 1, "value": 2} {
		x := [3][]float32{randoms(r, rows*dim), randoms(r, rows*dim), randoms(r, rows*dim)}
		x[at][66*dim+5] = float32(math.NaN())
		for _, dtype := range []KVType{KVFloat32, KVFloat16, KVBFloat16, KVInt8} {
			out := attendedAs(t, a, dtype, x[0], x[1], x[2], rows, rows)
			require.True(t, math.IsNaN(float64(out[66*dim+5])), fmt.Sprint(name, dtype))
			require.False(t, math.IsNaN(float64(out[65*dim+5])), fmt.Sprint(name, dtype))
		}
	}
}
