package tensor

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// The tests compare with array: values in row-major order as float64 and
// nothing clever. Values are small, so that float64 holds them exactly.
type array struct {
	shape []int
	v     []float64
}

var allDTypes = []DType{Float32, Float16, BFloat16, Int8, UInt8, Int32, Int64, Bool, Ternary}

// build makes an array of a shape from a function of the index.
func build(shape []int, f func(index []int) float64) array {
	a := array{shape: slices.Clone(shape), v: make([]float64, 0, product(shape))}
	index := make([]int, len(shape))
	for range product(shape) {
		a.v = append(a.v, f(index))
		for d := len(shape) - 1; d >= 0; d-- {
			if index[d]++; index[d] < shape[d] {
				break
			}
			index[d] = 0
		}
	}
	return a
}

// at reads an element; axes of length one and missing leading axes broadcast.
func (a array) at(index ...int) float64 {
	index = index[len(index)-len(a.shape):]
	pos := 0
	for d, n := range a.shape {
		i := index[d]
		if n == 1 {
			i = 0
		}
		pos = pos*n + i
	}
	return a.v[pos]
}

// element decodes one element from the bytes without the reader.
func element(t *Tensor, index []int) float64 {
	pos := t.offset
	for d, i := range index {
		pos += i * t.strides[d]
	}
	switch t.dtype {
	case Float32:
		return float64(elems[float32](t)[pos])
	case Float16:
		return float64(elems[Float16Bits](t)[pos].Float32())
	case BFloat16:
		return float64(elems[BFloat16Bits](t)[pos].Float32())
	case Int8:
		return float64(elems[int8](t)[pos])
	case Int32:
		return float64(elems[int32](t)[pos])
	case Int64:
		return float64(elems[int64](t)[pos])
	case Ternary:
		return float64(t.data[pos/4]>>(pos%4*2)&3) - 1
	}
	return float64(t.data[pos])
}

// values reads a tensor into an array.
func values(t *Tensor) array {
	return build(t.shape, func(index []int) float64 { return element(t, index) })
}

// tensorOf makes a tensor of a dtype that holds the array.
func tensorOf(tb require.TestingT, dt DType, a array) *Tensor {
	f := make([]int64, len(a.v))
	for i, v := range a.v {
		f[i] = int64(v)
	}
	if dt.IsFloat() {
		g := make([]float32, len(a.v))
		for i, v := range a.v {
			g[i] = float32(v)
		}
		t, err := FromFloat32(g, a.shape...)
		require.NoError(tb, err)
		t, err = t.Cast(dt)
		require.NoError(tb, err)
		return t
	}
	t, err := FromInt64(f, a.shape...)
	require.NoError(tb, err)
	t, err = t.Cast(dt)
	require.NoError(tb, err)
	return t
}

// drawValue draws a value that the dtype holds exactly.
func drawValue(t *rapid.T, dt DType) float64 {
	switch dt {
	case Bool:
		return float64(rapid.IntRange(0, 1).Draw(t, "bool"))
	case Ternary:
		return float64(rapid.IntRange(-1, 1).Draw(t, "ternary"))
	case UInt8:
		return float64(rapid.IntRange(0, 255).Draw(t, "uint8"))
	case Int8, Int32, Int64:
		return float64(rapid.IntRange(-128, 127).Draw(t, "int"))
	}
	return float64(rapid.IntRange(-64, 64).Draw(t, "quarters")) / 4
}

func drawArray(t *rapid.T, dt DType, shape []int) array {
	return build(shape, func([]int) float64 { return drawValue(t, dt) })
}

func drawShape(t *rapid.T, most int) []int {
	return rapid.SliceOfN(rapid.IntRange(0, 5), 0, most).Draw(t, "shape")
}

func drawDType(t *rapid.T) DType { return rapid.SampledFrom(allDTypes).Draw(t, "dtype") }

// drawTensor draws a tensor and its array. About half of them are views with
// strides of their own: permuted, reversed, cut out of something larger.
func drawTensor(t *rapid.T, dt DType, shape []int) (*Tensor, array) {
	if !rapid.Bool().Draw(t, "view") {
		a := drawArray(t, dt, shape)
		return tensorOf(t, dt, a), a
	}
	order := rapid.Permutation(indices(len(shape))).Draw(t, "order")
	padded := make([]int, len(shape)) // the shape in memory, axis order[i] at place i
	before, step := make([]int, len(shape)), make([]int, len(shape))
	for i, axis := range order {
		before[i] = rapid.IntRange(0, 2).Draw(t, "before")
		step[i] = rapid.SampledFrom([]int{-2, -1, 1, 2}).Draw(t, "step")
		padded[i] = before[i] + shape[axis]*abs(step[i]) + rapid.IntRange(0, 1).Draw(t, "after")
	}
	base := drawArray(t, dt, padded)
	x := tensorOf(t, dt, base)
	var err error
	back := make([]int, len(shape))
	first := make([]int, len(shape))
	for i, axis := range order {
		back[axis] = i
		first[i] = before[i]
		stop := before[i] + shape[axis]*step[i]
		if step[i] < 0 {
			first[i] = before[i] - (shape[axis]-1)*step[i]
			if stop = before[i] - 1; stop < 0 {
				stop = None
			}
			if shape[axis] == 0 {
				first[i], stop = 0, 0
			}
		}
		x, err = x.Slice(i, first[i], stop, step[i])
		require.NoError(t, err)
	}
	x, err = x.Permute(back...)
	require.NoError(t, err)
	require.True(t, slices.Equal(shape, x.shape))
	a := build(shape, func(index []int) float64 {
		at := make([]int, len(shape))
		for i, axis := range order {
			at[i] = first[i] + index[axis]*step[i]
		}
		return base.at(at...)
	})
	return x, a
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// drawOperands draws a shape and two tensors that broadcast to it.
func drawOperands(t *rapid.T, da, db DType) (shape []int, x, y *Tensor, a, b array) {
	shape = drawShape(t, 3)
	part := func() []int {
		s := slices.Clone(shape[rapid.IntRange(0, len(shape)).Draw(t, "missing axes"):])
		for i := range s {
			if rapid.IntRange(0, 3).Draw(t, "one") == 0 {
				s[i] = 1
			}
		}
		return s
	}
	sa, sb := part(), part()
	shape, err := BroadcastShapes(sa, sb)
	require.NoError(t, err)
	x, a = drawTensor(t, da, sa)
	y, b = drawTensor(t, db, sb)
	return shape, x, y, a, b
}

// requireValues compares a tensor with the array that is expected of it;
// NaN equals NaN.
func requireValues(tb require.TestingT, want array, got *Tensor, tolerance float64) {
	require.Equal(tb, fmt.Sprint(want.shape), fmt.Sprint(got.shape))
	for i, g := range values(got).v {
		w := want.v[i]
		if g == w || g != g && w != w {
			continue
		}
		if math.Abs(g-w) <= tolerance*math.Max(math.Abs(w), 1e-3) {
			continue
		}
		require.Failf(tb, "values differ", "element %d of %v %s: got %v, want %v", i, got.shape, got.dtype, g, w)
	}
}

func check(t *testing.T, f func(*rapid.T)) {
	t.Helper()
	rapid.Check(t, f)
}

func must(t testing.TB, x *Tensor, err error) *Tensor {
	t.Helper()
	require.NoError(t, err)
	return x
}

func floats(t testing.TB, v []float32, shape ...int) *Tensor {
	t.Helper()
	x, err := FromFloat32(v, shape...)
	return must(t, x, err)
}

func zerosOf(t testing.TB, dt DType, shape ...int) *Tensor {
	t.Helper()
	x, err := New(dt, shape...)
	return must(t, x, err)
}
