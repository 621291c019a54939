package infer_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

func TestAttentionsAreOfTheLayersAskedFor(t *testing.T) {
	e := tiny(t, 3, 64, 96)
	e.UseKV(nn.KVInt8) // which attentions do without
	const heads, n = 2, 70
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(7 * i % 1000)
	}
	all := make([]float32, 3*heads*n*n)
	require.NoError(t, e.Attentions(context.Background(), ids, []int{0, 1, 2}, all))
	some := make([]float32, 3*heads*n*n)
	require.NoError(t, e.Attentions(context.Background(), ids, []int{2, 0, 2}, some))
	layer := func(from []float32, i int) []float32 { return from[i*heads*n*n : (i+1)*heads*n*n] }
	require.Equal(t, layer(all, 2), layer(some, 0))
	require.Equal(t, layer(all, 0), layer(some, 1))
	require.Equal(t, layer(all, 2), layer(some, 2))
	require.NotEqual(t, layer(all, 0), layer(all, 1))

	// What was read before does not depend on what comes after.
	short := make([]float32, heads*9*9)
	require.NoError(t, e.Attentions(context.Background(), ids[:9], []int{1}, short))
	for h := range heads {
		for r := range 9 {
			require.Equal(t, layer(all, 1)[(h*n+r)*n:][:9], short[(h*9+r)*9:][:9])
		}
	}

	var bad *infer.ArgumentError
	require.ErrorAs(t, e.Attentions(context.Background(), ids, []int{3}, make([]float32, heads*n*n)), &bad)
	require.Equal(t, "layers", bad.Field)
	require.ErrorAs(t, e.Attentions(context.Background(), ids, []int{1}, nil), &bad)
	require.Equal(t, "out", bad.Field)
	require.ErrorAs(t, e.Attentions(context.Background(), nil, nil, nil), &bad)
	require.Equal(t, "tokens", bad.Field)
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, e.Attentions(canceled, ids, []int{1}, make([]float32, heads*n*n)), context.Canceled)
}
