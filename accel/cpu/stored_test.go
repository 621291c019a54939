package cpu

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var halfFormats = []Half{Float16, BFloat16}

func TestStoredProductsAreThoseOfTheirFloats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		rows, cols, n := rapid.IntRange(1, 11).Draw(t, "rows"), 16*rapid.IntRange(1, 13).Draw(t, "cols/16"), rapid.IntRange(1, 37).Draw(t, "n")
		row := n + rapid.IntRange(0, 9).Draw(t, "gap of a")
		ldb, ldc := cols+rapid.IntRange(0, 20).Draw(t, "gap of b"), cols+rapid.IntRange(0, 20).Draw(t, "gap of c")
		size := (rows-1)*ldc + cols
		a, start := drawFloats(t, r, "a", (rows-1)*row+n), drawFloats(t, r, "c", size)
		ahead := Ahead{First: make([]byte, r.IntN(300)), Apart: r.IntN(5000)} // changes nothing
		format := rapid.SampledFrom(halfFormats).Draw(t, "format")
		halves := make([]uint16, (n-1)*ldb+cols)
		asHalves := make([]float32, len(halves))
		for i := range halves {
			halves[i] = uint16(r.Uint32())
			asHalves[i] = format.Float32(halves[i])
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				want, c := append([]float32(nil), start...), append([]float32(nil), start...)
				AddProduct(want, ldc, a, row, 1, asHalves, ldb, rows, cols, n, Ahead{})
				AddProductHalf(c, ldc, a, row, 1, format, halves, ldb, rows, cols, n, ahead)
				sameBits(t, want, c, isa)
			})
		}
	})
}

// Whatever the order of the terms, and however large they are, up to sums that an int32 just holds.
func TestPairsAddExactSumsOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		rows, cols, n := rapid.IntRange(1, 19).Draw(t, "rows"), 16*rapid.IntRange(1, 13).Draw(t, "cols/16"), rapid.IntRange(1, 70).Draw(t, "n")
		extreme := rapid.Bool().Draw(t, "extreme")
		if extreme {
			n = 256 // 512 * 32767 * 128 < 1<<31
		}
		lda, ldb, ldc := 2*n+rapid.IntRange(0, 9).Draw(t, "gap of a"), 2*cols+rapid.IntRange(0, 20).Draw(t, "gap of b"), cols+rapid.IntRange(0, 20).Draw(t, "gap of c")
		a, b := make([]int16, (rows-1)*lda+2*n), make([]int8, (n-1)*ldb+2*cols)
		for i := range a {
			a[i] = int16(r.Uint32())
			if extreme {
				a[i] = math.MaxInt16
			}
		}
		for i := range b {
			b[i] = int8(r.Uint32())
			if extreme {
				b[i] = math.MinInt8
			}
		}
		scale := drawFloats(t, r, "scale", rows)
		start := drawFloats(t, r, "c", (rows-1)*ldc+cols)
		want := append([]float32(nil), start...)
		for i := range rows {
			for j := range cols {
				sum := int64(0)
				for k := range 2 * n {
					sum += int64(a[i*lda+k]) * int64(b[k/2*ldb+2*j+k%2])
				}
				require.Equal(t, sum, int64(int32(sum)))
				want[i*ldc+j] = FMA(float32(sum), scale[i], start[i*ldc+j])
			}
		}
		ahead := Ahead{First: make([]byte, r.IntN(300)), Apart: r.IntN(5000)} // changes nothing
		for _, isa := range Supported() {
			onISA(isa, func() {
				c, untouched := guarded[float32](len(start), -7777)
				copy(c, start)
				AddPairs(c, ldc, a, lda, scale, b, ldb, rows, cols, n, ahead)
				untouched(t, isa)
				sameBits(t, want, c, isa)
			})
		}
	})
}

func TestRowsBecomeInt16WithAScaleEach(t *testing.T) {
	inf := float32(math.Inf(1))
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		rows, cols := rapid.IntRange(1, 9).Draw(t, "rows"), 16*rapid.IntRange(1, 9).Draw(t, "cols/16")
		ldx, ldd := cols+rapid.IntRange(0, 20).Draw(t, "gap"), cols+rapid.IntRange(0, 20).Draw(t, "gap of dst")
		limit := rapid.SampledFrom([]int{1, 100, 16383, 32767}).Draw(t, "limit")
		x := drawFloats(t, r, "x", (rows-1)*ldx+cols)
		for range r.IntN(3) {
			x[r.IntN(len(x))] = []float32{-inf, inf, float32(math.NaN()), 1e-38, -1e-45, math.MaxFloat32}[r.IntN(6)]
		}
		zero := r.IntN(rows)
		if rapid.Bool().Draw(t, "a row of zeros or nearly") {
			for j := range cols {
				x[zero*ldx+j] = float32(r.IntN(2)) * 1e-40
			}
		}
		want, wantScale := make([]int16, (rows-1)*ldd+cols), make([]float32, rows)
		onISA(Scalar, func() { QuantizeRows(want, ldd, x, ldx, rows, cols, limit, wantScale) })
		for i := range rows {
			row := x[i*ldx:][:cols]
			top := AbsMax(row)
			sameBits(t, []float32{top / float32(limit)}, wantScale[i:i+1])
			if float32(limit)/top > math.MaxFloat32 || top > math.MaxFloat32 || top != top {
				continue
			}
			for j, v := range row {
				got := want[i*ldd+j]
				require.LessOrEqual(t, max(got, -got), int16(limit))
				require.InDelta(t, float64(v)*float64(limit)/float64(top), float64(got), 0.51)
			}
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				dst, untouched := guarded[int16](len(want), -7777)
				clear(dst)
				scale := make([]float32, rows)
				QuantizeRows(dst, ldd, x, ldx, rows, cols, limit, scale)
				untouched(t, isa)
				require.Equal(t, want, dst, isa)
				sameBits(t, wantScale, scale, isa)
				inPlace := append([]float32(nil), x...)
				ints := unsafe.Slice((*int16)(unsafe.Pointer(&inPlace[0])), 2*len(inPlace))
				QuantizeRows(ints, 2*ldx, inPlace, ldx, rows, cols, limit, scale)
				for i := range rows {
					require.Equal(t, want[i*ldd:][:cols], ints[i*2*ldx:][:cols], isa)
				}
			})
		}
	})
}

func TestSoftmaxOfPairsIsItsThreeSteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		rows, n := rapid.IntRange(1, 9).Draw(t, "rows"), rapid.IntRange(1, 70).Draw(t, "n")
		cols := rapid.SampledFrom([]int{16, 48, 64, 64, 64, 80}).Draw(t, "cols")
		ldx, lda, ldb := cols+rapid.IntRange(0, 20).Draw(t, "gap of x"), 2*n+rapid.IntRange(0, 9).Draw(t, "gap of a"), 2*cols+rapid.IntRange(0, 20).Draw(t, "gap of b")
		limit := rapid.SampledFrom([]int{1, 100, 32767}).Draw(t, "limit")
		a, b := make([]int16, (rows-1)*lda+2*n), make([]int8, (n-1)*ldb+2*cols)
		for i := range a {
			a[i] = int16(r.Uint32())
		}
		for i := range b {
			b[i] = int8(r.Uint32())
		}
		scale, keyScale, weight := drawFloats(t, r, "scale", rows), drawFloats(t, r, "keyScale", cols), drawFloats(t, r, "weight", cols)
		for i := range scale {
			scale[i] *= 1e-6 // scores of some units
		}
		for range r.IntN(3) {
			x := [][]float32{scale, keyScale, weight}[r.IntN(3)]
			x[r.IntN(len(x))] = []float32{0, float32(math.Copysign(0, -1)), float32(math.NaN()), float32(math.Inf(1)), 1e-38}[r.IntN(5)]
		}
		start := drawFloats(t, r, "top", rows)
		if rapid.Bool().Draw(t, "first page") {
			for i := range start {
				start[i] = float32(math.Inf(-1))
			}
		}
		size := (rows-1)*ldx + cols
		want, top, sum, worth := make([]int16, rows*cols), append([]float32(nil), start...), make([]float32, rows), make([]float32, rows)
		onISA(Scalar, func() {
			x := make([]float32, size)
			AddPairs(x, ldx, a, lda, scale, b, ldb, rows, cols, n, Ahead{})
			ExpRows(x, ldx, rows, cols, keyScale, weight, top, sum)
			QuantizeRows(want, cols, x, ldx, rows, cols, limit, worth)
		})
		ahead := Ahead{First: make([]byte, r.IntN(300)), Apart: r.IntN(5000)} // changes nothing
		for _, isa := range Supported() {
			onISA(isa, func() {
				x, untouched := guarded[float32](size, -7777)
				for i := range x {
					x[i] = float32(math.NaN())
				}
				gotTop, gotSum, gotWorth := append([]float32(nil), start...), make([]float32, rows), make([]float32, rows)
				SoftmaxPairs(x, ldx, a, lda, scale, b, ldb, rows, cols, n, keyScale, weight, gotTop, gotSum, limit, gotWorth, ahead)
				untouched(t, isa)
				sameBits(t, top, gotTop, isa)
				sameBits(t, sum, gotSum, isa)
				sameBits(t, worth, gotWorth, isa)
				ints := unsafe.Slice((*int16)(unsafe.Pointer(&x[0])), 2*len(x))
				for i := range rows {
					require.Equal(t, want[i*cols:][:cols], ints[i*2*ldx:][:cols], isa)
				}
			})
		}
	})
}

func TestSoftmaxOfHalvesIsItsTwoSteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		rows, n := rapid.IntRange(1, 9).Draw(t, "rows"), rapid.IntRange(1, 140).Draw(t, "n")
		cols := rapid.SampledFrom([]int{16, 48, 64, 64, 64, 80}).Draw(t, "cols")
		row, step := n+rapid.IntRange(0, 9).Draw(t, "gap of a"), 1
		if rapid.Bool().Draw(t, "a transposed") {
			row, step = 1, rows+rapid.IntRange(0, 9).Draw(t, "gap of a's columns")
		}
		ldx, ldb := cols+rapid.IntRange(0, 20).Draw(t, "gap of x"), cols+rapid.IntRange(0, 20).Draw(t, "gap of b")
		format := rapid.SampledFrom(halfFormats).Draw(t, "format")
		a, b := drawFloats(t, r, "a", (rows-1)*row+(n-1)*step+1), make([]uint16, (n-1)*ldb+cols)
		ToHalves(format, b, floats(r, "normal", len(b)))
		for range r.IntN(3) {
			b[r.IntN(len(b))] = uint16(r.Uint32()) // NaN and infinity, too
		}
		start := drawFloats(t, r, "top", rows)
		if rapid.Bool().Draw(t, "first page") {
			for i := range start {
				start[i] = float32(math.Inf(-1))
			}
		}
		size := (rows-1)*ldx + cols
		want, top, sum := make([]float32, size), append([]float32(nil), start...), make([]float32, rows)
		onISA(Scalar, func() {
			AddProductHalf(want, ldx, a, row, step, format, b, ldb, rows, cols, n, Ahead{})
			ExpRows(want, ldx, rows, cols, nil, nil, top, sum)
		})
		ahead := Ahead{First: make([]byte, r.IntN(300)), Apart: r.IntN(5000)} // changes nothing
		for _, isa := range Supported() {
			onISA(isa, func() {
				x, untouched := guarded[float32](size, -7777)
				for i := range x {
					x[i] = float32(math.NaN())
				}
				gotTop, gotSum := append([]float32(nil), start...), make([]float32, rows)
				SoftmaxHalf(x, ldx, a, row, step, format, b, ldb, rows, cols, n, gotTop, gotSum, ahead)
				untouched(t, isa)
				sameBits(t, top, gotTop, isa)
				sameBits(t, sum, gotSum, isa)
				for i := range rows {
					sameBits(t, want[i*ldx:][:cols], x[i*ldx:][:cols], isa)
				}
			})
		}
	})
}

func TestSoftmaxOfHalvesRejectsABrokenContract(t *testing.T) {
	x, a, b := make([]float32, 32), make([]float32, 32), make([]uint16, 64)
	for name, call := range map[string]func(){
		"columns":    func() { SoftmaxHalf(x, 15, a, 2, 1, Float16, b, 15, 1, 15, 1, x, x, Ahead{}) },
		"no columns": func() { SoftmaxHalf(x, 16, a, 2, 1, Float16, b, 16, 1, 0, 1, x, x, Ahead{}) },
		"no terms":   func() { SoftmaxHalf(x, 16, a, 2, 1, Float16, b, 16, 1, 16, 0, x, x, Ahead{}) },
		"scores":     func() { SoftmaxHalf(x[:31], 16, a, 2, 1, Float16, b, 16, 2, 16, 1, x, x, Ahead{}) },
		"a":          func() { SoftmaxHalf(x, 16, a[:3], 2, 1, Float16, b, 16, 2, 16, 2, x, x, Ahead{}) },
		"b":          func() { SoftmaxHalf(x, 16, a, 2, 1, Float16, b[:31], 16, 2, 16, 2, x, x, Ahead{}) },
		"tops":       func() { SoftmaxHalf(x, 16, a, 2, 1, Float16, b, 16, 2, 16, 1, x[:1], x, Ahead{}) },
		"sums":       func() { SoftmaxHalf(x, 16, a, 2, 1, Float16, b, 16, 2, 16, 1, x, x[:1], Ahead{}) },
	} {
		require.Panics(t, call, name)
	}
	SoftmaxHalf(nil, 0, nil, 0, 0, Float16, nil, 0, 0, 16, 1, nil, nil, Ahead{})
}

func TestPairsRejectABrokenContract(t *testing.T) {
	c, a, b := make([]float32, 32), make([]int16, 32), make([]int8, 64)
	for name, call := range map[string]func(){
		"columns":        func() { AddPairs(c, 15, a, 2, c, b, 30, 1, 15, 1, Ahead{}) },
		"rows":           func() { AddPairs(c, 16, a, 2, c, b, 32, -1, 16, 1, Ahead{}) },
		"c":              func() { AddPairs(c[:31], 16, a, 2, c, b, 32, 2, 16, 1, Ahead{}) },
		"a":              func() { AddPairs(c, 16, a[:7], 4, c, b, 32, 2, 16, 2, Ahead{}) },
		"scale":          func() { AddPairs(c, 16, a, 4, c[:1], b, 32, 2, 16, 2, Ahead{}) },
		"b":              func() { AddPairs(c, 16, a, 4, c, b[:63], 32, 2, 16, 2, Ahead{}) },
		"limit":          func() { QuantizeRows(a, 16, c, 16, 1, 16, 32768, c) },
		"no limit":       func() { QuantizeRows(a, 16, c, 16, 1, 16, 0, c) },
		"ragged columns": func() { QuantizeRows(a, 17, c, 17, 1, 17, 9, c) },
		"dst":            func() { QuantizeRows(a[:31], 16, c, 16, 2, 16, 9, c) },
		"x":              func() { QuantizeRows(a, 16, c[:31], 16, 2, 16, 9, c) },
		"row scales":     func() { QuantizeRows(a, 16, c, 16, 2, 16, 9, c[:1]) },
		"no pairs":       func() { SoftmaxPairs(c, 16, a, 2, c, b, 32, 2, 16, 0, c, c, c, c, 9, c, Ahead{}) },
		"scores":         func() { SoftmaxPairs(c[:31], 16, a, 2, c, b, 32, 2, 16, 1, c, c, c, c, 9, c, Ahead{}) },
		"key scales":     func() { SoftmaxPairs(c, 16, a, 2, c, b, 32, 2, 16, 1, c[:15], c, c, c, 9, c, Ahead{}) },
		"weights":        func() { SoftmaxPairs(c, 16, a, 2, c, b, 32, 2, 16, 1, c, c[:15], c, c, 9, c, Ahead{}) },
		"tops":           func() { SoftmaxPairs(c, 16, a, 2, c, b, 32, 2, 16, 1, c, c, c[:1], c, 9, c, Ahead{}) },
		"sums":           func() { SoftmaxPairs(c, 16, a, 2, c, b, 32, 2, 16, 1, c, c, c, c[:1], 9, c, Ahead{}) },
	} {
		require.Panics(t, call, name)
	}
	AddPairs(nil, 0, nil, 0, nil, nil, 0, 3, 16, 0, Ahead{})
	QuantizeRows(nil, 0, nil, 0, 0, 16, 9, nil)
}

// Every half is its own rounding, and what lies between two goes to the nearer, or to the even one.
func TestToHalvesRoundsHalfToEven(t *testing.T) {
	for _, f := range halfFormats {
		infinity, next := uint32(0x7c00), 0x1p16 // what would come after the largest finite half
		if f == BFloat16 {
			infinity, next = 0x7f80, 0x1p128
		}
		inf := float32(math.Inf(1))
		require.Equal(t, inf, f.Float32(uint16(infinity)))
		var x []float32
		var want []uint16
		for h := range infinity {
			low, high := f.Float32(uint16(h)), float64(f.Float32(uint16(h+1)))
			if h+1 == infinity {
				high = next
			}
			middle := float32((float64(low) + high) / 2)
			x = append(x, low, -low, math.Nextafter32(middle, 0), middle, math.Nextafter32(middle, inf), -middle)
			even := h + h&1
			want = append(want, uint16(h), uint16(h|0x8000), uint16(h), uint16(even), uint16(h+1), uint16(even|0x8000))
		}
		x = append(x, inf, -inf, math.MaxFloat32, -math.MaxFloat32, 1e-45, -1e-45, float32(math.Copysign(0, -1)))
		want = append(want, uint16(infinity), uint16(infinity|0x8000), uint16(infinity), uint16(infinity|0x8000), 0, 0x8000, 0x8000)
		for _, isa := range Supported() {
			onISA(isa, func() {
				got := make([]uint16, len(x))
				ToHalves(f, got, x)
				require.Equal(t, want, got, isa, f)
			})
		}
	}
}

// Of a NaN the sign and the upper bits stay, and it becomes quiet: it never turns into infinity.
func TestToHalvesKeepsNaN(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for f, fraction := range map[Half]int{Float16: 10, BFloat16: 7} {
		x, want := make([]float32, 1000), make([]uint16, 1000)
		for i := range x {
			bits := r.Uint32() | 0x7f800000
			if i%3 == 0 {
				bits = bits&0xff800000 | 1<<r.IntN(23) // of which often nothing is left but the quiet bit
			}
			x[i] = math.Float32frombits(bits)
			want[i] = uint16(bits>>16&0x8000 | 0x7fff>>fraction<<fraction | bits&0x7fffff>>(23-fraction) | 1<<(fraction-1))
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				got := make([]uint16, len(x))
				ToHalves(f, got, x)
				require.Equal(t, want, got, isa, f)
			})
		}
	}
}

func BenchmarkAddProductOfStoredValues(b *testing.B) {
	const dim, keys = 128, 64
	a, c := floats(rand.New(rand.NewPCG(1, 1)), "normal", 4*keys), make([]float32, 4*dim)
	single, half, int8s := make([]float32, keys*dim), make([]uint16, keys*dim), make([]int8, keys*dim)
	ints, scale := make([]int16, 4*keys), make([]float32, 4)
	for name, f := range map[string]func(){
		"float32":  func() { AddProduct(c, dim, a, keys, 1, single, dim, 4, dim, keys, Ahead{}) },
		"float16":  func() { AddProductHalf(c, dim, a, keys, 1, Float16, half, dim, 4, dim, keys, Ahead{}) },
		"bfloat16": func() { AddProductHalf(c, dim, a, keys, 1, BFloat16, half, dim, 4, dim, keys, Ahead{}) },
		"int8": func() {
			QuantizeRows(ints, keys, a, keys, 4, keys, math.MaxInt16, scale)
			AddPairs(c, dim, ints, keys, scale, int8s, 2*dim, 4, dim, keys/2, Ahead{})
		},
	} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				f()
			}
		})
	}
}
