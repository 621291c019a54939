package cpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// laneSum is the order of Lanes, written out.
func laneSum(terms []float32) float32 {
	var l [16]float32
	for i, v := range terms {
		l[i%16] += v
	}
	return laneTree(l)
}

func laneTree(l [16]float32) float32 {
	var a [8]float32
	for i := range a {
		a[i] = l[i] + l[i+8]
	}
	var b [4]float32
	for i := range b {
		b[i] = a[i] + a[i+4]
	}
	return float32(b[0]+b[2]) + float32(b[1]+b[3])
}

func TestDotAddsFusedProductsInLanes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		n := rapid.IntRange(0, 300).Draw(t, "n")
		a, b := drawFloats(t, r, "a", n), drawFloats(t, r, "b", n)
		var l [16]float32
		for i := range a {
			l[i%16] = FMA(a[i], b[i], l[i%16])
		}
		for _, isa := range Supported() {
			onISA(isa, func() { sameBits(t, []float32{laneTree(l)}, []float32{Dot(a, b)}, isa) })
		}
	})
}

func TestAddProductAddsFusedProductsInAscendingOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		rows, cols, n := rapid.IntRange(1, 19).Draw(t, "rows"), 16*rapid.IntRange(1, 9).Draw(t, "cols/16"), rapid.IntRange(1, 37).Draw(t, "n")
		row, step := n+rapid.IntRange(0, 9).Draw(t, "gap of a"), 1
		if rapid.Bool().Draw(t, "transposed") {
			row, step = 1, rows+rapid.IntRange(0, 9).Draw(t, "gap of a")
		}
		ldb, ldc := cols+rapid.IntRange(0, 20).Draw(t, "gap of b"), cols+rapid.IntRange(0, 20).Draw(t, "gap of c")
		size := (rows-1)*ldc + cols
		a, b := drawFloats(t, r, "a", (rows-1)*row+(n-1)*step+1), drawFloats(t, r, "b", (n-1)*ldb+cols)
		start := drawFloats(t, r, "c", size)
		want := append([]float32(nil), start...)
		for i := range rows {
			for j := range cols {
				for k := range n {
					want[i*ldc+j] = FMA(a[i*row+k*step], b[k*ldb+j], want[i*ldc+j])
				}
			}
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				c, untouched := guarded[float32](size, -7777)
				copy(c, start)
				AddProduct(c, ldc, a, row, step, b, ldb, rows, cols, n, Ahead{})
				untouched(t, isa)
				sameBits(t, want, c, isa)
			})
		}
	})
}

func TestTransposeMovesEveryElement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(1, 40).Draw(t, "rows"), rapid.IntRange(1, 40).Draw(t, "cols")
		ldx, ldd := cols+rapid.IntRange(0, 9).Draw(t, "gap of x"), rows+rapid.IntRange(0, 9).Draw(t, "gap of dst")
		x := floats(source(t), "normal", (rows-1)*ldx+cols)
		for _, isa := range Supported() {
			onISA(isa, func() {
				dst, untouched := guarded[float32]((cols-1)*ldd+rows, -7777)
				Transpose(dst, ldd, x, ldx, rows, cols)
				untouched(t, isa)
				for i := range dst {
					want := float32(-7777)
					if r, c := i%ldd, i/ldd; r < rows {
						want = x[r*ldx+c]
					}
					require.Equal(t, want, dst[i], "%v: element %d", isa, i)
				}
			})
		}
	})
}

func TestExpSumGivesTheSameBitsOnEveryISA(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		x := drawFloats(t, r, "x", rapid.IntRange(0, 300).Draw(t, "n"))
		spread := rapid.SampledFrom([]float32{1, 10, 50}).Draw(t, "spread")
		for i := range x {
			x[i] *= spread
		}
		shift := rapid.SampledFrom([]float32{0, 1.5, -30}).Draw(t, "shift")
		want := make([]float32, len(x))
		for i, v := range x {
			want[i] = expRef(v - shift)
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				y, untouched := guarded[float32](len(x), -7777)
				copy(y, x)
				sum := ExpSum(y, shift)
				untouched(t, isa)
				sameBits(t, want, y, isa)
				sameBits(t, []float32{laneSum(want)}, []float32{sum}, isa)
			})
		}
	})
}

func TestExpIsWithinTwoTenMillionths(t *testing.T) {
	worst, at := 0.0, float32(0)
	const step = 499 // of the bit pattern: some four million arguments
	var x []float32
	for _, sign := range []uint32{0, 1 << 31} {
		for bits := uint32(0); bits < math.Float32bits(88.8); bits += step {
			x = append(x, math.Float32frombits(bits|sign))
		}
	}
	got := append([]float32(nil), x...)
	ExpSum(got, 0)
	for i, v := range x {
		want := math.Exp(float64(v))
		if v < expLow || v > expHigh {
			continue
		}
		if e := math.Abs(float64(got[i])/want - 1); e > worst {
			worst, at = e, v
		}
	}
	t.Logf("largest relative error %.3g at %v", worst, at)
	require.LessOrEqual(t, worst, 2e-7)
}

func TestExpAtItsBorders(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range [][2]float32{
		{0, 1}, {float32(math.Copysign(0, -1)), 1}, {-inf, 0}, {inf, inf}, {-87.34, 0}, {-1000, 0}, {-math.MaxFloat32, 0},
		{88.73, inf}, {1000, inf}, {1e-45, 1}, {math.Nextafter32(expLow, -inf), 0}, {math.Nextafter32(expHigh, inf), inf},
	} {
		for _, isa := range Supported() {
			onISA(isa, func() {
				x := make([]float32, 16)
				for i := range x {
					x[i] = c[0]
				}
				ExpSum(x, 0)
				require.Equal(t, c[1], x[3], "%v: exp(%v)", isa, c[0])
			})
		}
	}
	require.GreaterOrEqual(t, expRef(expLow), float32(0x1p-126))
	require.Less(t, expRef(expHigh), inf)
	require.True(t, math.IsNaN(float64(expRef(float32(math.NaN())))))
}

func TestMaxF32PassesOverNaN(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		x := drawFloats(t, r, "x", rapid.IntRange(0, 300).Draw(t, "n"))
		want := float32(math.Inf(-1))
		for _, v := range x {
			if v > want {
				want = v
			}
		}
		var first float32
		for i, isa := range Supported() {
			onISA(isa, func() {
				got := MaxF32(x)
				require.True(t, got == want, "%v: got %v, want %v", isa, got, want)
				if i == 0 {
					first = got
				}
				sameBits(t, []float32{first}, []float32{got}, isa) // -0 or 0: the same one
			})
		}
	})
}

// Row by row ExpRows is what MaxF32, ExpSum and Mul give.
func TestExpRowsIsAStepOfOnlineSoftmax(t *testing.T) {
	inf := float32(math.Inf(1))
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		rows, cols := rapid.IntRange(0, 9).Draw(t, "rows"), 16*rapid.IntRange(1, 9).Draw(t, "cols/16")
		ldx := cols + rapid.IntRange(0, 20).Draw(t, "gap")
		size := max(0, (rows-1)*ldx+cols)
		x, top := drawFloats(t, r, "x", size), drawFloats(t, r, "top", rows)
		for i := range top {
			if r.IntN(3) == 0 {
				top[i] = -inf // nothing before
			}
		}
		for range r.IntN(3) * size / 8 {
			x[r.IntN(size)] = []float32{-inf, inf, float32(math.NaN()), -1e30, 80}[r.IntN(5)]
		}
		var scale, weight []float32
		if rapid.Bool().Draw(t, "scaled") {
			scale = drawFloats(t, r, "scale", cols)
		}
		if rapid.Bool().Draw(t, "weighed") {
			weight = drawFloats(t, r, "weight", cols)
		}
		want, wantTop, wantSum := append([]float32(nil), x...), append([]float32(nil), top...), make([]float32, rows)
		onISA(Scalar, func() {
			for i := range rows {
				row := want[i*ldx:][:cols]
				if scale != nil {
					Mul(row, row, scale)
				}
				if m := MaxF32(row); m > wantTop[i] {
					wantTop[i] = m
				}
				wantSum[i] = ExpSum(row, wantTop[i])
				if weight != nil {
					Mul(row, row, weight)
				}
			}
		})
		for _, isa := range Supported() {
			onISA(isa, func() {
				got, untouched := guarded[float32](size, -7777)
				copy(got, x)
				gotTop, sum := append([]float32(nil), top...), make([]float32, rows)
				ExpRows(got, ldx, rows, cols, scale, weight, gotTop, sum)
				untouched(t, isa)
				sameBits(t, want, got, isa)
				sameBits(t, wantTop, gotTop, isa)
				sameBits(t, wantSum, sum, isa)
			})
		}
	})
}

func TestAttentionWithNothingToDo(t *testing.T) {
	AddProduct(nil, 0, nil, 1, 1, nil, 0, 0, 16, 3, Ahead{})
	AddProduct(nil, 0, nil, 1, 1, nil, 0, 3, 16, 0, Ahead{})
	Transpose(nil, 0, nil, 0, 0, 5)
	require.Zero(t, Dot(nil, nil))
	require.Zero(t, ExpSum(nil, 0))
	require.Equal(t, float32(math.Inf(-1)), MaxF32(nil))
}

func TestAttentionRejectsABrokenContract(t *testing.T) {
	x := floats(rand.New(rand.NewPCG(1, 1)), "normal", 64)
	for name, call := range map[string]func(){
		"columns":   func() { AddProduct(x, 15, x, 1, 1, x, 15, 1, 15, 1, Ahead{}) },
		"rows":      func() { AddProduct(x, 16, x, 1, 1, x, 16, -1, 16, 1, Ahead{}) },
		"step":      func() { AddProduct(x, 16, x, 1, -1, x, 16, 1, 16, 1, Ahead{}) },
		"c":         func() { AddProduct(x[:31], 16, x, 1, 1, x, 16, 2, 16, 1, Ahead{}) },
		"a":         func() { AddProduct(x, 16, x[:3], 2, 1, x, 16, 2, 16, 2, Ahead{}) },
		"b":         func() { AddProduct(x, 16, x, 1, 1, x[:31], 16, 1, 16, 2, Ahead{}) },
		"dot":       func() { Dot(x, x[:1]) },
		"x":         func() { ExpRows(x, 16, 5, 16, nil, nil, x, x) },
		"ragged":    func() { ExpRows(x, 17, 1, 17, nil, nil, x, x) },
		"scale":     func() { ExpRows(x, 32, 1, 32, x[:31], nil, x, x) },
		"weight":    func() { ExpRows(x, 32, 1, 32, nil, x[:31], x, x) },
		"top":       func() { ExpRows(x, 16, 2, 16, nil, nil, x[:1], x) },
		"sum":       func() { ExpRows(x, 16, 2, 16, nil, nil, x, x[:1]) },
		"transpose": func() { Transpose(x, 1, x, 2, 2, 2) },
	} {
		require.Panics(t, call, name)
	}
}
