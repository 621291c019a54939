package tensor

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// naiveMatMul follows the definition of NumPy's matmul.
func naiveMatMul(t require.TestingT, a, b array) array {
	row, column := len(a.shape) == 1, len(b.shape) == 1
	if row {
		a.shape = append([]int{1}, a.shape...)
	}
	if column {
		b.shape = append(slices.Clone(b.shape), 1)
	}
	la, lb := len(a.shape)-2, len(b.shape)-2
	batch, err := BroadcastShapes(a.shape[:la], b.shape[:lb])
	require.NoError(t, err)
	k := a.shape[la+1]
	out := build(append(slices.Clone(batch), a.shape[la], b.shape[lb+1]), func(i []int) float64 {
		lead, m, n, s := i[:len(i)-2], i[len(i)-2], i[len(i)-1], 0.0
		for j := range k {
			s += a.at(append(slices.Clone(lead), m, j)...) * b.at(append(slices.Clone(lead), j, n)...)
		}
		return s
	})
	if column {
		out.shape = out.shape[:len(out.shape)-1]
	}
	if row {
		out.shape = slices.Delete(out.shape, len(batch), len(batch)+1)
	}
	return out
}

// Quarters multiply and add exactly in float32, so the comparison is exact.
func TestMatMulIsTheNaiveOneForAllDTypesAndStrides(t *testing.T) {
	check(t, func(t *rapid.T) {
		da, db := drawDType(t), drawDType(t)
		size := rapid.OneOf(rapid.IntRange(0, 5), rapid.IntRange(0, 40))
		m, k, n := size.Draw(t, "m"), size.Draw(t, "k"), size.Draw(t, "n")
		batch := rapid.SliceOfN(rapid.IntRange(0, 3), 0, 2).Draw(t, "batch")
		lead := func() []int {
			s := slices.Clone(batch[rapid.IntRange(0, len(batch)).Draw(t, "missing axes"):])
			for i := range s {
				if rapid.Bool().Draw(t, "one") {
					s[i] = 1
				}
			}
			return s
		}
		sa, sb := append(lead(), m, k), append(lead(), k, n)
		if rapid.IntRange(0, 4).Draw(t, "row") == 0 {
			sa = []int{k}
		}
		if rapid.IntRange(0, 4).Draw(t, "column") == 0 {
			sb = []int{k}
		}
		x, a := drawTensor(t, da, sa)
		y, b := drawTensor(t, db, sb)
		got, err := MatMul(x, y)
		require.NoError(t, err)
		dt := Promote(da, db)
		if dt.IsInteger() && dt != Int64 {
			dt = Int32
		}
		require.Equal(t, dt, got.dtype)
		want := naiveMatMul(t, a, b)
		for i, v := range want.v {
			if dt == Bool {
				v = min(v, 1)
			}
			want.v[i] = wrap(dt, v)
		}
		requireValues(t, want, got, 0)
	})
}

func randomMatrix(t testing.TB, seed uint64, rows, cols int) *Tensor {
	r := rand.New(rand.NewPCG(seed, 1))
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return floats(t, v, rows, cols)
}

// Small products take another path; the sign of a zero says so least of all.
func TestProductsThatUnderflowHaveOneSign(t *testing.T) {
	for k := 1; k <= 9; k++ {
		a, b := randomMatrix(t, 1, 20, k), randomMatrix(t, 2, k, 20)
		for i := range a.Float32s() {
			a.Float32s()[i], b.Float32s()[i] = -0x1p-100, 0x1p-100
		}
		whole, err := MatMul(a, b)
		require.NoError(t, err)
		row, err := a.Slice(0, 0, 1, 1)
		require.NoError(t, err)
		column, err := b.Slice(1, 0, 1, 1)
		require.NoError(t, err)
		small, err := MatMul(row, column)
		require.NoError(t, err)
		require.Equal(t, math.Signbit(float64(whole.Float32s()[0])), math.Signbit(float64(small.Float32s()[0])), "k=%d", k)
	}
}

// An element's bits depend on its row and column alone: not on the number of
// rows and columns beside it, on layout, or on threads.
func TestFloatMatMulHasOneOrderOfSummation(t *testing.T) {
	threads := cpu.NumThreads()
	defer func() { require.NoError(t, cpu.SetNumThreads(threads)) }()
	for _, k := range []int{1, 3, 64, 257, longSum + 5} {
		n := 150
		if k > longSum {
			n = 20
		}
		a, b := randomMatrix(t, 1, n+1, k), randomMatrix(t, 2, k, n)
		want := make([]float32, 0, (n+1)*n)
		for i := range n + 1 {
			for j := range n {
				var acc [4]float32
				for l := range k {
					acc[l%4] = cpu.FMA(a.Float32s()[i*k+l], b.Float32s()[l*n+j], acc[l%4])
				}
				want = append(want, float32(acc[0]+acc[1])+float32(acc[2]+acc[3]))
			}
		}
		bT, err := b.T().Contiguous()
		require.NoError(t, err)
		aT, err := a.T().Contiguous()
		require.NoError(t, err)
		for _, workers := range []int{1, 3} {
			require.NoError(t, cpu.SetNumThreads(workers))
			for name, operands := range map[string][2]*Tensor{
				"plain": {a, b}, "right transposed": {a, bT.T()}, "left transposed": {aT.T(), b}, "both": {aT.T(), bT.T()},
			} {
				got, err := MatMul(operands[0], operands[1])
				require.NoError(t, err)
				require.Equal(t, want, got.Float32s(), "k=%d, %s, %d threads", k, name, workers)
			}
			for _, rows := range []int{1, 2, 5} {
				for _, columns := range []int{1, 3, 17} {
					part, err := a.Slice(0, 0, rows, 1)
					require.NoError(t, err)
					right, err := b.Slice(1, 0, columns, 1)
					require.NoError(t, err)
					got, err := MatMul(part, right)
					require.NoError(t, err)
					for i := range rows {
						require.Equal(t, want[i*n:i*n+columns], got.Float32s()[i*columns:(i+1)*columns], "k=%d, %d x %d", k, rows, columns)
					}
				}
			}
		}
	}
}

func TestIntegerMatMulIsExactAtTheExtremes(t *testing.T) {
	const k = 1000
	a, err := Full(Int8, int64(-128), 3, k)
	require.NoError(t, err)
	b, err := Full(Int8, int64(-128), k, 600)
	require.NoError(t, err)
	got, err := MatMul(a, b)
	require.NoError(t, err)
	for _, v := range got.Int32s() {
		require.Equal(t, int32(128*128*k), v)
	}
}

func TestBoolMatMulAsksWhetherAPairIsTrue(t *testing.T) {
	a, err := FromBytes(Bool, []byte{1, 1, 0, 0, 1, 0}, 2, 3)
	require.NoError(t, err)
	b, err := FromBytes(Bool, []byte{1, 0, 1, 0, 0, 1}, 3, 2)
	require.NoError(t, err)
	got, err := MatMul(a, b)
	require.NoError(t, err)
	require.Equal(t, Bool, got.DType())
	require.Equal(t, []byte{1, 0, 1, 0}, got.Bytes())
}

func TestDotAndOuter(t *testing.T) {
	check(t, func(t *rapid.T) {
		k := rapid.IntRange(0, 4).Draw(t, "k")
		sa := append(drawShape(t, 2), k)
		sb := append(drawShape(t, 2), k, rapid.IntRange(0, 3).Draw(t, "n"))
		if rapid.Bool().Draw(t, "vector") {
			sb = []int{k}
		}
		x, a := drawTensor(t, Float32, sa)
		y, b := drawTensor(t, Float32, sb)
		got, err := Dot(x, y)
		require.NoError(t, err)
		axis := max(len(sb)-2, 0)
		lead := len(sa) - 1
		requireValues(t, build(slices.Concat(sa[:lead], without(sb, axis)), func(i []int) float64 {
			s := 0.0
			for j := range k {
				s += a.at(append(slices.Clone(i[:lead]), j)...) * b.at(slices.Insert(slices.Clone(i[lead:]), axis, j)...)
			}
			return s
		}), got, 0)

		got, err = Outer(x, y)
		require.NoError(t, err)
		requireValues(t, build([]int{x.Len(), y.Len()}, func(i []int) float64 { return a.v[i[0]] * b.v[i[1]] }), got, 0)
	})
	three, err := Scalar(Int32, int64(3))
	require.NoError(t, err)
	got, err := Dot(three, floats(t, []float32{1, 2}, 2))
	require.NoError(t, err)
	require.Equal(t, []float32{3, 6}, got.Float32s())
}

func TestMatMulErrorsNameBothShapes(t *testing.T) {
	a := zerosOf(t, Float32, 2, 3)
	for _, shape := range [][]int{{2, 3}, {}, {4}, {5, 4, 3}} {
		_, err := MatMul(a, zerosOf(t, Float32, shape...))
		require.ErrorIs(t, err, ErrShape)
		require.ErrorContains(t, err, "(2, 3) and "+formatShape(shape))
	}
	_, err := MatMul(zerosOf(t, Float32, 2, 2, 3), zerosOf(t, Float32, 5, 3, 3))
	require.ErrorIs(t, err, ErrShape)
	_, err = Dot(a, zerosOf(t, Float32, 5, 4, 3))
	require.ErrorIs(t, err, ErrShape)
}

func BenchmarkMatMul(b *testing.B) {
	for _, c := range []struct {
		name    string
		m, k, n int
	}{{"512x512x512", 512, 512, 512}, {"1x2560x2560", 1, 2560, 2560}} {
		x, y := randomMatrix(b, 1, c.m, c.k), randomMatrix(b, 2, c.k, c.n)
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := MatMul(x, y); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(2*float64(c.m*c.k*c.n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
