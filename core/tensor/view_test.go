package tensor

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// pythonSlice lists the indices of range(n)[start:stop:step], element by
// element as the language reference words it.
func pythonSlice(n, start, stop, step int) []int {
	if start == None {
		start = 0
		if step < 0 {
			start = n - 1
		}
	} else if start < 0 {
		start += n
	}
	open := stop == None
	if !open && stop < 0 {
		stop += n
	}
	var out []int
	if step > 0 {
		for i := start; open && i < n || i < stop && i < n; i += step {
			if i >= 0 {
				out = append(out, i)
			} else if start < 0 {
				i = -step // bounds are clipped before stepping
			}
		}
		return out
	}
	for i := min(start, n-1); i >= 0 && (open || i > stop); i += step {
		out = append(out, i)
	}
	return out
}

func TestSliceIsPythonsSlice(t *testing.T) {
	bound := rapid.OneOf(rapid.IntRange(-8, 8), rapid.Just(None))
	check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 6).Draw(t, "n")
		start, stop := bound.Draw(t, "start"), bound.Draw(t, "stop")
		step := rapid.SampledFrom([]int{-9, -3, -2, -1, 1, 2, 3, 9}).Draw(t, "step")
		x, a := drawTensor(t, drawDType(t), []int{2, n})
		got, err := x.Slice(-1, start, stop, step)
		require.NoError(t, err)
		at := pythonSlice(n, start, stop, step)
		requireValues(t, build([]int{2, len(at)}, func(i []int) float64 { return a.at(i[0], at[i[1]]) }), got, 0)
	})
}

func TestPermuteTransposeSelectSqueeze(t *testing.T) {
	check(t, func(t *rapid.T) {
		shape := drawShape(t, 4)
		x, a := drawTensor(t, drawDType(t), shape)
		requireValues(t, a, x, 0)

		order := rapid.Permutation(indices(len(shape))).Draw(t, "axes")
		permuted := make([]int, len(shape))
		for i, axis := range order {
			permuted[i] = shape[axis]
		}
		p, err := x.Permute(order...)
		require.NoError(t, err)
		requireValues(t, build(permuted, func(index []int) float64 {
			at := make([]int, len(index))
			for i, axis := range order {
				at[axis] = index[i]
			}
			return a.at(at...)
		}), p, 0)

		reversed := slices.Clone(shape)
		slices.Reverse(reversed)
		requireValues(t, build(reversed, func(index []int) float64 {
			at := slices.Clone(index)
			slices.Reverse(at)
			return a.at(at...)
		}), x.T(), 0)

		if len(shape) == 0 {
			return
		}
		axis := rapid.IntRange(0, len(shape)-1).Draw(t, "axis")
		back, err := x.Transpose(axis, 0)
		require.NoError(t, err)
		back, err = back.Transpose(0, axis)
		require.NoError(t, err)
		requireValues(t, a, back, 0)

		wide, err := x.Unsqueeze(axis - len(shape) - 1)
		require.NoError(t, err)
		require.Equal(t, 1, wide.Dim(axis))
		narrow, err := wide.Squeeze(axis)
		require.NoError(t, err)
		requireValues(t, a, narrow, 0)
		all, err := x.Squeeze()
		require.NoError(t, err)
		require.Equal(t, x.Len(), all.Len())
		require.NotContains(t, all.Shape(), 1)

		if n := shape[axis]; n > 0 {
			i := rapid.IntRange(-n, n-1).Draw(t, "i")
			row, err := x.Select(axis, i)
			require.NoError(t, err)
			requireValues(t, build(without(shape, axis), func(index []int) float64 {
				return a.at(slices.Insert(slices.Clone(index), axis, (i+n)%n)...)
			}), row, 0)
		}
	})
}

func TestReshapeKeepsRowMajorOrderAndViewsWhenItCan(t *testing.T) {
	check(t, func(t *rapid.T) {
		shape := drawShape(t, 4)
		x, a := drawTensor(t, drawDType(t), shape)
		to := slices.Clone(shape)
		for range rapid.IntRange(0, 3).Draw(t, "moves") { // merge, split, insert
			switch i := rapid.IntRange(0, len(to)).Draw(t, "place"); {
			case i+1 < len(to) && rapid.Bool().Draw(t, "merge"):
				to = slices.Replace(to, i, i+2, to[i]*to[i+1])
			case i < len(to) && to[i]%2 == 0:
				to = slices.Replace(to, i, i+1, 2, to[i]/2)
			default:
				to = slices.Insert(to, i, 1)
			}
		}
		y, err := x.Reshape(to...)
		require.NoError(t, err)
		requireValues(t, array{to, a.v}, y, 0)
		if x.IsContiguous() && x.Len() > 0 && x.dtype != Ternary {
			require.True(t, sharesMemory(x, y), "a contiguous tensor reshapes without a copy")
		}
		if len(to) > 0 && x.Len() > 0 {
			i := rapid.IntRange(0, len(to)-1).Draw(t, "inferred")
			want := to[i]
			to[i] = -1
			z, err := x.Reshape(to...)
			require.NoError(t, err)
			require.Equal(t, want, z.Dim(i))
		}
		flat, err := x.Flatten(0, -1)
		require.NoError(t, err)
		requireValues(t, array{[]int{x.Len()}, a.v}, flat, 0)
	})
}

func TestExpandRepeatsWithoutMemory(t *testing.T) {
	check(t, func(t *rapid.T) {
		shape, x, _, a, _ := drawOperands(t, drawDType(t), Bool)
		got, err := x.Expand(shape...)
		require.NoError(t, err)
		requireValues(t, build(shape, func(i []int) float64 { return a.at(i...) }), got, 0)
		if x.Len() > 0 && got.Len() > 0 {
			require.True(t, sharesMemory(x, got))
		}
	})
	x := floats(t, []float32{1, 2}, 2, 1)
	y, err := x.Expand(3, -1, 4)
	require.NoError(t, err)
	require.Equal(t, []int{3, 2, 4}, y.Shape())
}

func TestWritesThroughAViewReachTheTensor(t *testing.T) {
	x := floats(t, []float32{0, 1, 2, 3, 4, 5}, 2, 3)
	part, err := x.Index(Ellipsis, Span(None, None, -2))
	require.NoError(t, err)
	require.NoError(t, Copy(part, floats(t, []float32{10, 20}, 2)))
	require.Equal(t, []float32{20, 1, 10, 20, 4, 10}, x.Float32s())

	row := floats(t, []float32{1, 2, 3, 4}, 4)
	back, err := row.Slice(0, None, None, -1)
	require.NoError(t, err)
	require.NoError(t, Copy(back, row), "source and target overlap")
	require.Equal(t, []float32{4, 3, 2, 1}, row.Float32s())
}

func TestCopyIsTheNaiveCopyForEveryPairOfDTypes(t *testing.T) {
	check(t, func(t *rapid.T) {
		to, from := drawDType(t), drawDType(t)
		values := Promote(to, from) // held by neither more than by both
		if to == Ternary || from == Ternary {
			values = Ternary
		}
		if to == Bool || from == Bool || to == UInt8 || from == UInt8 {
			values = Bool
		}
		shape := drawShape(t, 3)
		dst, _ := drawTensor(t, to, shape)
		a := drawArray(t, values, shape)
		if !to.IsFloat() || !from.IsFloat() {
			for i, v := range a.v {
				a.v[i] = float64(int(v))
			}
		}
		require.NoError(t, Copy(dst, tensorOf(t, from, a)))
		requireValues(t, a, dst, 0)
	})
}

func TestIndexExpressions(t *testing.T) {
	x, err := Arange(Int32, 0, 24, 1)
	require.NoError(t, err)
	x, err = x.Reshape(2, 3, 4)
	require.NoError(t, err)
	for _, c := range []struct {
		items []Item
		shape []int
		first int
	}{
		{nil, []int{2, 3, 4}, 0},
		{[]Item{At(-1)}, []int{3, 4}, 12},
		{[]Item{Ellipsis, At(1)}, []int{2, 3}, 1},
		{[]Item{At(1), Ellipsis, Span(2, None, 1)}, []int{3, 2}, 14},
		{[]Item{NewAxis, Span(None, None, -1), NewAxis, At(0)}, []int{1, 2, 1, 4}, 12},
		{[]Item{At(1), At(2), At(3)}, []int{}, 23},
		{[]Item{At(0), Ellipsis, At(0), At(0)}, []int{}, 0},
	} {
		y, err := x.Index(c.items...)
		require.NoError(t, err)
		require.Equal(t, c.shape, y.Shape())
		require.Equal(t, float64(c.first), element(y, make([]int, y.NDim())))
	}
}

func TestViewErrorsNameTheShape(t *testing.T) {
	x := zerosOf(t, Float32, 2, 3)
	_, err1 := x.Slice(2, 0, 1, 1)
	_, err2 := x.Slice(0, 0, 1, 0)
	_, err3 := x.Select(1, 3)
	_, err4 := x.Permute(0)
	_, err5 := x.Permute(0, 0)
	_, err6 := x.Permute(0, 5)
	_, err7 := x.Squeeze(0)
	_, err8 := x.Squeeze(7)
	_, err9 := x.Unsqueeze(4)
	_, err10 := x.Expand(4, 3)
	_, err11 := x.Reshape(4, 2)
	_, err12 := x.Reshape(-1, -1)
	_, err13 := x.Reshape(-1, 4)
	_, err14 := x.Transpose(0, 2)
	_, err15 := x.Flatten(1, 0)
	_, err16 := x.Index(Ellipsis, Ellipsis)
	_, err17 := x.Index(At(0), At(0), At(0))
	_, err18 := x.Reshape(1<<62, 1<<62)
	_, err19 := x.Transpose(-3, 0)
	_, err20 := x.Flatten(0, 2)
	_, err21 := x.Flatten(9, 0)
	_, err22 := x.Index(At(9))
	_, err23 := x.Select(4, 0)
	for i, c := range []struct{ err, is error }{
		{err1, ErrIndex}, {err2, ErrValue}, {err3, ErrIndex}, {err4, ErrShape}, {err5, ErrValue}, {err6, ErrIndex},
		{err7, ErrShape}, {err8, ErrIndex}, {err9, ErrIndex}, {err10, ErrShape}, {err11, ErrShape}, {err12, ErrShape},
		{err13, ErrShape}, {err14, ErrIndex}, {err15, ErrIndex}, {err16, ErrIndex}, {err17, ErrIndex}, {err18, ErrShape},
		{err19, ErrIndex}, {err20, ErrIndex}, {err21, ErrIndex}, {err22, ErrIndex}, {err23, ErrIndex},
	} {
		require.ErrorIs(t, c.err, c.is, "case %d", i+1)
		if c.is == ErrShape {
			require.ErrorContains(t, c.err, "(2, 3)")
		}
	}
	_, err := x.Reshape(4, -1, 0)
	require.ErrorIs(t, err, ErrShape)
	require.ErrorIs(t, Copy(x, zerosOf(t, Float32, 4)), ErrShape)
	require.ErrorIs(t, Copy(zerosOf(t, Ternary, 1), floats(t, []float32{2}, 1)), ErrValue)
}
