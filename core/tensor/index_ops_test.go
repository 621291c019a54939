package tensor

import (
	"cmp"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// drawIndex draws a tensor of indices into an axis of length n > 0.
func drawIndex(t *rapid.T, n int, shape []int, low int) (*Tensor, array) {
	a := build(shape, func([]int) float64 { return float64(rapid.IntRange(low, n-1).Draw(t, "index")) })
	dt := rapid.SampledFrom([]DType{Int8, Int32, Int64}).Draw(t, "index dtype")
	return tensorOf(t, dt, a), a
}

func TestGatherIsTakeAlongAxis(t *testing.T) {
	check(t, func(t *rapid.T) {
		shape := append(drawShape(t, 2), rapid.IntRange(1, 4).Draw(t, "last"))
		axis := rapid.IntRange(0, len(shape)-1).Draw(t, "axis")
		shape[axis] = max(shape[axis], 1)
		x, a := drawTensor(t, drawDType(t), shape)
		m := rapid.IntRange(0, 5).Draw(t, "m")
		want := withLength(shape, axis, m)
		small := slices.Clone(want)
		for d := range small {
			if d != axis && rapid.Bool().Draw(t, "broadcast") {
				small[d] = 1
			}
		}
		index, i := drawIndex(t, shape[axis], small, -shape[axis])
		got, err := Gather(x, index, axis)
		require.NoError(t, err)
		require.Equal(t, x.dtype, got.dtype)
		requireValues(t, build(want, func(at []int) float64 {
			from := slices.Clone(at)
			from[axis] = (int(i.at(at...)) + shape[axis]) % shape[axis]
			return a.at(from...)
		}), got, 0)
	})
}

func TestScatterAddAddsInOrder(t *testing.T) {
	check(t, func(t *rapid.T) {
		dt := rapid.SampledFrom([]DType{Float32, Float16, BFloat16, Int8, UInt8, Int32, Int64}).Draw(t, "dtype")
		shape := append(drawShape(t, 2), rapid.IntRange(1, 4).Draw(t, "last"))
		axis := rapid.IntRange(0, len(shape)-1).Draw(t, "axis")
		shape[axis] = max(shape[axis], 1)
		x, a := drawTensor(t, dt, shape)
		many := withLength(shape, axis, rapid.IntRange(0, 5).Draw(t, "m"))
		index, i := drawIndex(t, shape[axis], many, -shape[axis])
		src, s := drawTensor(t, dt, many)
		got, err := ScatterAdd(x, index, src, axis)
		require.NoError(t, err)
		want := build(shape, func(at []int) float64 {
			sum, from := a.at(at...), slices.Clone(at)
			for from[axis] = 0; from[axis] < many[axis]; from[axis]++ {
				if (int(i.at(from...))+shape[axis])%shape[axis] == at[axis] {
					sum += s.at(from...)
				}
			}
			return wrap(dt, sum)
		})
		requireValues(t, want, got, 0)
		requireValues(t, a, x, 0)
	})
}

func TestEmbeddingTakesRows(t *testing.T) {
	check(t, func(t *rapid.T) {
		shape := append([]int{rapid.IntRange(1, 6).Draw(t, "v")}, drawShape(t, 2)...)
		table, a := drawTensor(t, drawDType(t), shape)
		at := drawShape(t, 2)
		ids, i := drawIndex(t, shape[0], at, 0)
		got, err := Embedding(table, ids)
		require.NoError(t, err)
		requireValues(t, build(append(slices.Clone(at), shape[1:]...), func(index []int) float64 {
			row := int(i.at(index[:len(at)]...))
			return a.at(append([]int{row}, index[len(at):]...)...)
		}), got, 0)
	})
}

func TestTopKIsAStableSortCutShort(t *testing.T) {
	check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 30).Draw(t, "n")
		dt := drawDType(t)
		x, a := drawTensor(t, dt, []int{2, n})
		k := rapid.IntRange(0, n).Draw(t, "k")
		largest := rapid.Bool().Draw(t, "largest")
		got, at, err := TopK(x, k, 1, largest)
		require.NoError(t, err)
		require.Equal(t, dt, got.dtype)
		want := build([]int{2, k}, func([]int) float64 { return 0 })
		for row := range 2 {
			order := indices(n)
			slices.SortStableFunc(order, func(i, j int) int {
				if c := cmp.Compare(a.at(row, i), a.at(row, j)); !largest {
					return c
				} else {
					return -c
				}
			})
			for i := range k {
				want.v[row*k+i] = float64(order[i])
			}
		}
		requireValues(t, want, at, 0)
		requireValues(t, build([]int{2, k}, func(i []int) float64 { return a.at(i[0], int(want.at(i...))) }), got, 0)
	})
	nan := float32(math.NaN())
	x := floats(t, []float32{1, nan, 3, 2, nan}, 5)
	_, at, err := TopK(x, 5, 0, true)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 4, 2, 3, 0}, at.Int64s(), "NaN is larger than everything")
	_, at, err = TopK(x, 5, 0, false)
	require.NoError(t, err)
	require.Equal(t, []int64{0, 3, 2, 1, 4}, at.Int64s())
}

func TestConcatStackSplit(t *testing.T) {
	check(t, func(t *rapid.T) {
		shape := append(drawShape(t, 2), 2)
		axis := rapid.IntRange(-len(shape), len(shape)-1).Draw(t, "axis")
		at := (axis + len(shape)) % len(shape)
		var tensors []*Tensor
		var arrays []array
		var owner []int // which piece an index of the joined axis is from, and where it starts
		var first []int
		dt := drawDType(t)
		promoted := dt
		for range rapid.IntRange(1, 3).Draw(t, "pieces") {
			n := rapid.IntRange(0, 3).Draw(t, "n")
			x, a := drawTensor(t, dt, withLength(shape, at, n))
			for range n {
				owner = append(owner, len(tensors))
			}
			first = append(first, len(owner)-n)
			tensors, arrays = append(tensors, x), append(arrays, a)
			if x.dtype != promoted {
				promoted = Promote(promoted, x.dtype)
			}
			dt = drawDType(t)
		}
		got, err := Concat(axis, tensors...)
		require.NoError(t, err)
		require.Equal(t, promoted, got.dtype)
		requireValues(t, build(withLength(shape, at, len(owner)), func(i []int) float64 {
			piece := owner[i[at]]
			from := slices.Clone(i)
			from[at] -= first[piece]
			return arrays[piece].at(from...)
		}), got, 0)

		sizes := make([]int, len(tensors))
		for i, x := range tensors {
			sizes[i] = x.Dim(at)
		}
		parts, err := got.Split(axis, sizes...)
		require.NoError(t, err)
		for i, part := range parts {
			requireValues(t, arrays[i], part, 0)
		}
		parts, err = got.Chunk(axis, 3)
		require.NoError(t, err)
		back, err := Concat(axis, parts...)
		require.NoError(t, err)
		requireValues(t, values(got), back, 0)

		place := rapid.IntRange(-len(shape)-1, len(shape)).Draw(t, "place")
		pile, err := Stack(place, tensors[0], tensors[0])
		require.NoError(t, err)
		for i := range 2 {
			layer, err := pile.Select(place, i)
			require.NoError(t, err)
			requireValues(t, arrays[0], layer, 0)
		}
	})
}

func TestTriangles(t *testing.T) {
	check(t, func(t *rapid.T) {
		shape := append(drawShape(t, 1), rapid.IntRange(0, 5).Draw(t, "rows"), rapid.IntRange(0, 5).Draw(t, "columns"))
		k := rapid.OneOf(rapid.IntRange(-7, 7), rapid.SampledFrom([]int{math.MaxInt, math.MinInt})).Draw(t, "k")
		x, a := drawTensor(t, drawDType(t), shape)
		side := func(i []int) bool { return float64(i[len(i)-1]-i[len(i)-2]) >= float64(k) }
		upper, err := Triu(x, k)
		require.NoError(t, err)
		requireValues(t, build(shape, func(i []int) float64 {
			if side(i) {
				return a.at(i...)
			}
			return 0
		}), upper, 0)
		lower, err := Tril(x, k)
		require.NoError(t, err)
		requireValues(t, build(shape, func(i []int) float64 {
			if !side(i) || i[len(i)-1]-i[len(i)-2] == k {
				return a.at(i...)
			}
			return 0
		}), lower, 0)
	})
}

func TestIndexAndShapeOperationErrors(t *testing.T) {
	x := zerosOf(t, Float32, 2, 3)
	ids := func(dt DType, v int, shape ...int) *Tensor {
		i, err := Full(dt, int64(v), shape...)
		require.NoError(t, err)
		return i
	}
	only := func(_ *Tensor, err error) error { return err }
	pieces := func(_ []*Tensor, err error) error { return err }
	pair := func(_, _ *Tensor, err error) error { return err }
	for i, c := range []struct {
		err, is error
		text    string
	}{
		{only(Gather(x, ids(Int32, 3, 2, 1), 1)), ErrIndex, "index 3 is out of range for axis 1 of shape (2, 3)"},
		{only(Gather(x, ids(Int32, -4, 2, 1), 1)), ErrIndex, "index -4"},
		{only(Gather(x, ids(Int32, 0, 1), 1)), ErrShape, "(1,)"},
		{only(Gather(x, ids(Int32, 0, 3, 1), 1)), ErrShape, "(2, 3) and (3, 1)"},
		{only(Gather(x, x, 1)), ErrDType, "float32"},
		{only(Gather(x, ids(Int32, 0, 2, 1), 2)), ErrIndex, "(2, 3)"},
		{only(ScatterAdd(x, ids(Int32, 9, 2, 1), x, 1)), ErrShape, "(2, 3)"},
		{only(ScatterAdd(x, ids(Int32, 9, 2, 3), x, 1)), ErrIndex, "index 9"},
		{only(ScatterAdd(x, ids(Int32, 0, 3, 3), x, 1)), ErrShape, "(3, 3)"},
		{only(ScatterAdd(x, ids(Int32, 0, 3), x, 1)), ErrShape, "(3,)"},
		{only(ScatterAdd(x, x, x, 1)), ErrDType, "float32"},
		{only(ScatterAdd(x, x, x, 4)), ErrIndex, "axis 4"},
		{only(ScatterAdd(zerosOf(t, Bool, 2), ids(Int32, 0, 2), zerosOf(t, Bool, 2), 0)), ErrDType, "bool"},
		{only(Embedding(x, ids(Int32, 2, 4))), ErrIndex, "id 2 is out of range for a table of shape (2, 3)"},
		{only(Embedding(x, ids(Int32, -1, 4))), ErrIndex, "id -1"},
		{only(Embedding(zerosOf(t, Float32), ids(Int32, 0))), ErrShape, "()"},
		{only(Embedding(x, x)), ErrDType, "float32"},
		{pair(TopK(x, 4, 1, true)), ErrShape, "(2, 3)"},
		{pair(TopK(x, 1, 2, true)), ErrIndex, "(2, 3)"},
		{only(Concat(0)), ErrValue, "no tensors"},
		{only(Concat(0, x, zerosOf(t, Float32, 2, 4))), ErrShape, "(2, 3) and (2, 4)"},
		{only(Concat(2, x)), ErrIndex, "(2, 3)"},
		{only(Stack(0, x, zerosOf(t, Float32, 3))), ErrShape, "(2, 3) and (3,)"},
		{only(Stack(4, x)), ErrIndex, "(2, 3)"},
		{only(Stack(0)), ErrValue, "no tensors"},
		{pieces(x.Split(1, 1, 1)), ErrShape, "(2, 3)"},
		{pieces(x.Split(1, 4)), ErrShape, "(2, 3)"},
		{pieces(x.Split(5, 4)), ErrIndex, "(2, 3)"},
		{pieces(x.Chunk(1, 0)), ErrValue, "(2, 3)"},
		{pieces(x.Chunk(4, 1)), ErrIndex, "(2, 3)"},
		{only(Triu(zerosOf(t, Float32, 3), 0)), ErrShape, "(3,)"},
	} {
		require.ErrorIs(t, c.err, c.is, "case %d", i)
		require.ErrorContains(t, c.err, c.text, "case %d", i)
	}
}
