package tensor

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// reduced groups the elements of an array by what is left of their index.
func reduced(a array, axes []int, keepDims bool) (shape []int, groups [][]float64) {
	gone := func(d int) bool {
		return axes == nil || slices.Contains(axes, d) || slices.Contains(axes, d-len(a.shape))
	}
	small := []int{}
	for d, n := range a.shape {
		if gone(d) {
			n = 1
			if keepDims {
				shape = append(shape, 1)
			}
		} else {
			shape = append(shape, n)
		}
		small = append(small, n)
	}
	groups = make([][]float64, product(small))
	build(a.shape, func(index []int) float64 {
		at := 0
		for d, i := range index {
			at *= small[d]
			if !gone(d) {
				at += i
			}
		}
		groups[at] = append(groups[at], a.at(index...))
		return 0
	})
	return shape, groups
}

func total(v []float64) (s float64) {
	for _, x := range v {
		s += x
	}
	return s
}

func meanOf(v []float64) float64 { return total(v) / float64(len(v)) }

func TestReductionsOverAnyAxesAreTheNaiveOnes(t *testing.T) {
	varianceOf := func(v []float64) float64 {
		m, s := meanOf(v), 0.0
		for _, x := range v {
			s += (x - m) * (x - m)
		}
		return s / float64(len(v))
	}
	euclid := func(x *Tensor, axes []int, keep bool) (*Tensor, error) { return Norm(x, 2, axes, keep) }
	for _, c := range []struct {
		name  string
		op    func(x *Tensor, axes []int, keepDims bool) (*Tensor, error)
		naive func([]float64) float64
		dtype func(DType) DType
	}{
		{"sum", Sum, total, summed},
		{"mean", Mean, meanOf, DType.floating},
		{"var", func(x *Tensor, axes []int, keep bool) (*Tensor, error) { return Var(x, axes, 0, keep) }, varianceOf, DType.floating},
		{"std", func(x *Tensor, axes []int, keep bool) (*Tensor, error) { return Std(x, axes, 0, keep) },
			func(v []float64) float64 { return math.Sqrt(varianceOf(v)) }, DType.floating},
		{"prod", Prod, func(v []float64) float64 {
			p := 1.0
			for _, x := range v {
				p *= x
			}
			return p
		}, summed},
		{"norm", euclid, func(v []float64) float64 {
			s := 0.0
			for _, x := range v {
				s += x * x
			}
			return math.Sqrt(s)
		}, DType.floating},
		{"max", Max, func(v []float64) float64 { return slices.Max(v) }, DType.computed},
		{"min", Min, func(v []float64) float64 { return slices.Min(v) }, DType.computed},
		{"any", Any, func(v []float64) float64 {
			if slices.ContainsFunc(v, func(x float64) bool { return x != 0 }) {
				return 1
			}
			return 0
		}, func(DType) DType { return Bool }},
		{"all", All, func(v []float64) float64 {
			if slices.Contains(v, 0) {
				return 0
			}
			return 1
		}, func(DType) DType { return Bool }},
	} {
		t.Run(c.name, func(t *testing.T) {
			check(t, func(t *rapid.T) {
				dt, shape := drawDType(t), drawShape(t, 4)
				if len(shape) > 0 && c.name != "prod" { // long enough for tiles and pieces
					shape[rapid.IntRange(0, len(shape)-1).Draw(t, "long axis")] *= 17
				}
				x, a := drawTensor(t, dt, shape)
				if c.name == "prod" && dt.IsInteger() { // larger products leave float64
					small, _ := drawTensor(t, Ternary, shape)
					var err error
					x, err = small.Cast(dt)
					require.NoError(t, err)
					if dt == UInt8 {
						x, err = Abs(small)
						require.NoError(t, err)
						x, err = x.Cast(UInt8)
						require.NoError(t, err)
					}
					a = values(x)
				}
				axes := drawAxes(t, len(shape))
				keep := rapid.Bool().Draw(t, "keepdims")
				outShape, groups := reduced(a, axes, keep)
				got, err := c.op(x, axes, keep)
				inner := 1
				for d, n := range shape {
					if axes == nil || slices.Contains(axes, d) || slices.Contains(axes, d-len(shape)) {
						inner *= n
					}
				}
				if (c.name == "max" || c.name == "min") && inner == 0 {
					require.ErrorIs(t, err, ErrValue)
					return
				}
				require.NoError(t, err)
				require.Equal(t, c.dtype(dt), got.dtype)
				want := array{shape: outShape}
				for _, g := range groups {
					want.v = append(want.v, wrap(got.dtype, c.naive(g)))
				}
				requireValues(t, want, got, 1e-6)
			})
		})
	}
}

func summed(dt DType) DType {
	if dt.IsFloat() {
		return dt
	}
	return Int64
}

func drawAxes(t *rapid.T, n int) []int {
	if rapid.Bool().Draw(t, "all axes") {
		return nil
	}
	axes := rapid.Permutation(indices(n)).Draw(t, "axes")
	axes = slices.Clone(axes[:rapid.IntRange(0, n).Draw(t, "number of axes")])
	for i := range axes {
		if rapid.Bool().Draw(t, "from the end") {
			axes[i] -= n
		}
	}
	return axes
}

func TestArgMaxAndArgMinFindTheFirst(t *testing.T) {
	check(t, func(t *rapid.T) {
		dt, shape := drawDType(t), drawShape(t, 3)
		x, a := drawTensor(t, dt, shape)
		var axes []int
		if len(shape) > 0 && rapid.Bool().Draw(t, "one axis") {
			axes = []int{rapid.IntRange(0, len(shape)-1).Draw(t, "axis")}
		}
		keep := rapid.Bool().Draw(t, "keepdims")
		outShape, groups := reduced(a, axes, keep)
		most, err := ArgMax(x, axes, keep)
		least, err2 := ArgMin(x, axes, keep)
		if (axes == nil && x.Len() == 0) || axes != nil && shape[axes[0]] == 0 {
			require.ErrorIs(t, err, ErrValue)
			require.ErrorIs(t, err2, ErrValue)
			return
		}
		require.NoError(t, err)
		require.NoError(t, err2)
		high, low := array{shape: outShape}, array{shape: outShape}
		for _, g := range groups {
			high.v = append(high.v, float64(slices.Index(g, slices.Max(g))))
			low.v = append(low.v, float64(slices.Index(g, slices.Min(g))))
		}
		requireValues(t, high, most, 0)
		requireValues(t, low, least, 0)
	})
}

func TestNaNWinsEveryExtreme(t *testing.T) {
	nan := float32(math.NaN())
	x := floats(t, []float32{1, nan, 3, nan}, 4)
	for _, op := range []func(*Tensor, []int, bool) (*Tensor, error){Max, Min} {
		got, err := op(x, nil, false)
		require.NoError(t, err)
		require.True(t, math.IsNaN(element(got, nil)))
	}
	for _, op := range []func(*Tensor, []int, bool) (*Tensor, error){ArgMax, ArgMin} {
		got, err := op(x, nil, false)
		require.NoError(t, err)
		require.Equal(t, 1.0, element(got, nil))
	}
}

func TestReductionsOfNothing(t *testing.T) {
	x := zerosOf(t, Float32, 0, 3)
	for _, c := range []struct {
		op   func(*Tensor, []int, bool) (*Tensor, error)
		want float64
	}{
		{Sum, 0}, {Prod, 1}, {Mean, math.NaN()}, {All, 1}, {Any, 0},
		{func(x *Tensor, a []int, k bool) (*Tensor, error) { return Var(x, a, 0, k) }, math.NaN()},
		{func(x *Tensor, a []int, k bool) (*Tensor, error) { return Norm(x, 2, a, k) }, 0},
		{func(x *Tensor, a []int, k bool) (*Tensor, error) { return Norm(x, math.Inf(1), a, k) }, 0},
	} {
		got, err := c.op(x, []int{0}, false)
		require.NoError(t, err)
		requireValues(t, array{[]int{3}, []float64{c.want, c.want, c.want}}, got, 0)
	}
	for _, op := range []func(*Tensor, []int, bool) (*Tensor, error){Max, Min, ArgMax, ArgMin,
		func(x *Tensor, a []int, k bool) (*Tensor, error) { return Norm(x, math.Inf(-1), a, k) }} {
		_, err := op(x, []int{0}, false)
		require.ErrorIs(t, err, ErrValue)
		require.ErrorContains(t, err, "(0, 3)")
	}
	got, err := Max(x, []int{1}, false)
	require.NoError(t, err, "nothing is asked of an empty result")
	require.Equal(t, []int{0}, got.Shape())
}

func TestDegreesOfFreedom(t *testing.T) {
	x := floats(t, []float32{1, 2, 3, 4}, 4)
	for ddof, want := range []float64{1.25, 5. / 3, 2.5, 5, math.Inf(1), math.Inf(1)} {
		got, err := Var(x, nil, ddof, false)
		require.NoError(t, err)
		requireValues(t, array{nil, []float64{want}}, got, 1e-6)
	}
}

func TestNormsOfEveryOrder(t *testing.T) {
	x := floats(t, []float32{3, -4, 0}, 3)
	for order, want := range map[float64]float64{0: 2, 1: 7, 2: 5, 3: math.Cbrt(91), math.Inf(1): 4, math.Inf(-1): 0} {
		got, err := Norm(x, order, nil, false)
		require.NoError(t, err)
		require.InDelta(t, want, element(got, nil), 1e-6, "order %v", order)
	}
	_, err := Norm(x, math.NaN(), nil, false)
	require.ErrorIs(t, err, ErrValue)
}

func TestSumsKeepSmallTerms(t *testing.T) {
	n := 1 << 20
	x, err := Full(Float32, 0.1, n)
	require.NoError(t, err)
	got, err := Sum(x, nil, false)
	require.NoError(t, err)
	require.InEpsilon(t, float64(float32(0.1))*float64(n), element(got, nil), 1e-7)
}

func TestReductionErrors(t *testing.T) {
	x := zerosOf(t, Float32, 2, 3)
	_, err := Sum(x, []int{2}, false)
	require.ErrorIs(t, err, ErrIndex)
	require.ErrorContains(t, err, "(2, 3)")
	_, err = Mean(x, []int{0, -2}, false)
	require.ErrorIs(t, err, ErrValue)
	_, err = ArgMax(x, []int{0, 1}, false)
	require.ErrorIs(t, err, ErrValue)
	for _, op := range []func(*Tensor, []int, bool) (*Tensor, error){Prod, Max, ArgMin, Any,
		func(x *Tensor, a []int, k bool) (*Tensor, error) { return Std(x, a, 0, k) },
		func(x *Tensor, a []int, k bool) (*Tensor, error) { return Norm(x, 2, a, k) }} {
		_, err := op(x, []int{5}, false)
		require.ErrorIs(t, err, ErrIndex)
	}
}

func TestSoftmaxLogSoftmaxCumSumAlongAnyAxis(t *testing.T) {
	check(t, func(t *rapid.T) {
		dt, shape := drawDType(t), append(drawShape(t, 2), rapid.IntRange(0, 4).Draw(t, "last"))
		x, a := drawTensor(t, dt, shape)
		axis := rapid.IntRange(0, len(shape)-1).Draw(t, "axis")
		line := func(index []int, n int) []float64 { // the elements 0..n-1 of the line through index
			at, out := slices.Clone(index), []float64{}
			for at[axis] = 0; at[axis] < n; at[axis]++ {
				out = append(out, a.at(at...))
			}
			return out
		}
		logSum := func(v []float64) float64 {
			top, s := slices.Max(v), 0.0
			for _, x := range v {
				s += math.Exp(x - top)
			}
			return top + math.Log(s)
		}
		tolerance := map[DType]float64{Float16: 2e-3, BFloat16: 1e-2}[dt] + 2e-6
		for _, c := range []struct {
			op    func(*Tensor, int) (*Tensor, error)
			naive func(index []int) float64
		}{
			{Softmax, func(i []int) float64 { return math.Exp(a.at(i...) - logSum(line(i, shape[axis]))) }},
			{LogSoftmax, func(i []int) float64 { return a.at(i...) - logSum(line(i, shape[axis])) }},
		} {
			got, err := c.op(x, axis)
			require.NoError(t, err)
			require.Equal(t, dt.floating(), got.dtype)
			requireValues(t, build(shape, func(i []int) float64 { return wrap(got.dtype, c.naive(i)) }), got, tolerance)
		}
		got, err := CumSum(x, axis-len(shape))
		require.NoError(t, err)
		require.Equal(t, summed(dt), got.dtype)
		requireValues(t, build(shape, func(i []int) float64 { return wrap(got.dtype, total(line(i, i[axis]+1))) }), got, 1e-6)
	})
	for _, op := range []func(*Tensor, int) (*Tensor, error){Softmax, LogSoftmax, CumSum} {
		for _, dt := range []DType{Float32, Int8} {
			_, err := op(zerosOf(t, dt, 2, 3), 2)
			require.ErrorIs(t, err, ErrIndex)
		}
	}
}

func TestSoftmaxOfLargeValuesIsFinite(t *testing.T) {
	inf := float32(math.Inf(-1))
	got, err := Softmax(floats(t, []float32{1e30, 1e30, inf}, 3), 0)
	require.NoError(t, err)
	require.Equal(t, []float32{0.5, 0.5, 0}, got.Float32s())
}

// Over the rows of a large array the kernel reads tiles of columns, and steps over each output's elements in the same order.
func TestReductionsOfColumnsHaveTheBitsOfThoseOfRows(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, shape := range [][]int{{700, 100}, {9, 8}, {3, 50, 41}, {130, 3, 33}} {
		values := make([]float32, product(shape))
		for i := range values {
			values[i] = float32(random.NormFloat64())
		}
		x, err := FromFloat32(values, shape...)
		require.NoError(t, err)
		for _, axis := range []int{0, len(shape) - 2} {
			order := append(without([]int{0, 1, 2}[:len(shape)], axis), axis)
			last, err := x.Permute(order...)
			require.NoError(t, err)
			rows, err := last.Contiguous()
			require.NoError(t, err)
			for name, op := range map[string]func(*Tensor, []int, bool) (*Tensor, error){"sum": Sum, "mean": Mean, "max": Max, "min": Min} {
				columns, err := op(x, []int{axis}, false)
				require.NoError(t, err)
				want, err := op(rows, []int{-1}, false)
				require.NoError(t, err)
				require.Equal(t, want.Shape(), columns.Shape())
				require.Equal(t, want.Float32s(), columns.Float32s(), "%s of axis %d of %v", name, axis, shape)
			}
		}
	}
}
