package cpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Kernels with several outputs against their scalar twins, over ragged lengths.
func TestBackwardKernelsGiveTheBitsOfTheirFormulas(t *testing.T) {
	kernels := map[string]struct {
		outputs int
		run     func(out [4][]float32, in [5][]float32, s float32)
	}{
		"ReLU2Grad": {2, func(o [4][]float32, in [5][]float32, _ float32) { ReLU2Grad(o[0], o[1], in[0], in[1], in[2]) }},
		"RMSNormGrad": {2, func(o [4][]float32, in [5][]float32, s float32) {
			RMSNormGrad(o[0], o[1], in[0], in[1], in[2], s, false)
		}},
		"RMSNormGrad, added": {2, func(o [4][]float32, in [5][]float32, s float32) {
			RMSNormGrad(o[0], o[1], in[0], in[1], in[2], s, true)
		}},
		"Rotate": {2, func(o [4][]float32, in [5][]float32, _ float32) { Rotate(o[0], o[1], in[2], in[3], -1) }},
		"AbsMaxColumns": {1, func(o [4][]float32, in [5][]float32, s float32) {
			for i, v := range o[0] {
				o[0][i] = float32(math.Abs(float64(v)))
			}
			AbsMaxColumns(o[0], in[0], s)
		}},
		"SGD": {2, func(o [4][]float32, in [5][]float32, s float32) {
			SGD(&SGDStep{Scale: s, L2: 0.01, Momentum: 0.9, Mix: 0.7, Rate: -0.1}, o[0], in[0], o[1])
		}},
		"SGD, Nesterov": {2, func(o [4][]float32, in [5][]float32, s float32) {
			SGD(&SGDStep{Scale: s, L2: 0.01, Momentum: 0.9, Mix: 0.7, Rate: -0.1, Nesterov: true}, o[0], in[0], o[1])
		}},
		"Adam": {3, func(o [4][]float32, in [5][]float32, s float32) {
			for i, v := range o[2] {
				o[2][i] = float32(math.Abs(float64(v)))
			}
			c := AdamStep{Scale: s, L2: 0.01, Keep: 0.99, Mix: 0.1, Beta2: 0.95, Mix2: 0.05, Root: 0.3, Eps: 1e-8, Rate: -1e-3}
			Adam(&c, o[0], in[0], o[1], o[2])
		}},
	}
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		k := kernels[names(kernels).Draw(t, "kernel")]
		n := rapid.IntRange(0, 150).Draw(t, "n")
		s := rapid.SampledFrom([]float32{1, 0.5, 0, -3.25}).Draw(t, "s")
		var in [5][]float32
		for i := range in {
			in[i] = drawFloats(t, r, "in", n)
		}
		start := drawFloats(t, r, "out", 4*n)
		var want [4][]float32
		for _, isa := range Supported() {
			onISA(isa, func() {
				var out [4][]float32
				var checks []func(require.TestingT, ...any)
				for i := range k.outputs {
					o, untouched := guarded[float32](n, -7777)
					copy(o, start[i*n:])
					out[i], checks = o, append(checks, untouched)
				}
				k.run(out, in, s)
				for i := range k.outputs {
					checks[i](t, isa)
					if isa != Scalar {
						sameBits(t, want[i], out[i], "%v: output %d", isa, i)
					}
				}
				if isa == Scalar {
					want = out
				}
			})
		}
	})
}

// The gradients against differences of the functions.
func TestReLU2AndRMSNormGradientsAreDerivatives(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const n, step = 23, 1e-3
	x, w, dy := floats(r, "normal", n), floats(r, "normal", n), floats(r, "normal", n)
	loss := func(f func(x, w []float64, i int) float64, x, w []float32, at int, of string) float64 {
		var side [2]float64
		for k, d := range []float64{step, -step} {
			xs, ws := make([]float64, n), make([]float64, n)
			for i := range n {
				xs[i], ws[i] = float64(x[i]), float64(w[i])
			}
			if of == "x" {
				xs[at] += d
			} else {
				ws[at] += d
			}
			for i := range n {
				side[k] += float64(dy[i]) * f(xs, ws, i)
			}
		}
		return (side[0] - side[1]) / (2 * step)
	}
	gated := func(g, u []float64, i int) float64 { p := max(g[i], 0); return p * p * u[i] }
	norm := func(x, w []float64, i int) float64 {
		ms := 0.0
		for _, v := range x {
			ms += v * v / n
		}
		return x[i] / math.Sqrt(ms+1e-5) * w[i]
	}
	dg, du, dx, dw := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	ReLU2Grad(dg, du, x, w, dy)
	RMSNormGrad(dx, dw, x, w, dy, 1/float32(math.Sqrt(float64(SumSquares(x)/n)+1e-5)), false)
	for i := range n {
		require.InDelta(t, loss(gated, x, w, i, "x"), dg[i], 1e-2)
		require.InDelta(t, loss(gated, x, w, i, "w"), du[i], 1e-3)
		require.InDelta(t, loss(norm, x, w, i, "x"), dx[i], 1e-3)
		require.InDelta(t, loss(norm, x, w, i, "w"), dw[i], 1e-3)
	}
}

func TestQuantizeColumns16IsQuantizeInt16OfTheTranspose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		rows, cols := rapid.IntRange(0, 140).Draw(t, "rows"), rapid.IntRange(1, 40).Draw(t, "cols")
		ldx := cols + rapid.IntRange(0, 5).Draw(t, "gap")
		x, f := drawFloats(t, r, "x", rows*ldx), drawFloats(t, r, "f", rows)
		s := floats(r, "positive", cols)
		for c := range s {
			s[c] *= 1000
		}
		width := ceilDiv(rows, Int16Cols) * Int16Cols
		stride := width + rapid.IntRange(0, 9).Draw(t, "stride")
		size := (cols-1)*stride + width
		for _, isa := range Supported() {
			onISA(isa, func() {
				hi, untouchedHi := guarded[int8](size, 77)
				lo, untouchedLo := guarded[int8](size, 77)
				dst := Int16Rows{Hi: hi, Lo: lo, Stride: stride, SumHi: make([]int32, cols), SumLo: make([]int32, cols)}
				QuantizeColumns16(dst, x, ldx, rows, cols, f, s)
				untouchedHi(t, isa)
				untouchedLo(t, isa)
				for c := range cols {
					column := make([]float32, rows)
					for i := range column {
						column[i] = x[i*ldx+c] * f[i]
					}
					wantHi, wantLo := make([]int8, width), make([]int8, width)
					sumHi, sumLo := QuantizeInt16(wantHi, wantLo, column, s[c])
					require.Equal(t, wantHi, hi[c*stride:][:width], "%v: hi of column %d", isa, c)
					require.Equal(t, wantLo, lo[c*stride:][:width], "%v: lo of column %d", isa, c)
					require.Equal(t, []int32{sumHi, sumLo}, []int32{dst.SumHi[c], dst.SumLo[c]}, "%v: sums of column %d", isa, c)
				}
			})
		}
	})
}

func TestSumsInFloat64AddInFourLanes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := floats(source(t), rapid.SampledFrom([]string{"normal", "tiny", "huge", "denormal"}).Draw(t, "x"), rapid.IntRange(0, 150).Draw(t, "n"))
		abs, squares := [4]float64{1, 2, 3, 4}, [4]float64{1, 2, 3, 4}
		for i, v := range x {
			abs[i%4] += math.Abs(float64(v))
			squares[i%4] += float64(v) * float64(v)
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				lanes := [4]float64{1, 2, 3, 4}
				AddAbs64(&lanes, x)
				require.Equal(t, abs, lanes, isa)
				lanes = [4]float64{1, 2, 3, 4}
				AddSquares64(&lanes, x)
				require.Equal(t, squares, lanes, isa)
			})
		}
	})
}

func TestPackTernaryRowIsALaneOfPackTernary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, half := rapid.IntRange(1, 100).Draw(t, "n"), rapid.SampledFrom([]float32{0, 0.5, 1e-25}).Draw(t, "half")
		w, codes := drawFloats(t, source(t), "w", n), make([]int8, n)
		for i, v := range w {
			if v > half {
				codes[i] = 1
			} else if v < -half {
				codes[i] = -1
			}
		}
		want := make([]byte, TernaryBytes(1, n))
		PackTernary(want, codes, 1, n)
		for _, isa := range Supported() {
			onISA(isa, func() {
				lane, untouched := guarded[byte](len(want)-60, 77)
				PackTernaryRow(lane, w, half)
				untouched(t, isa)
				for i, v := range lane {
					if i%BlockBytes < 4 {
						require.Equal(t, want[i], v, "%v: byte %d", isa, i)
					} else {
						require.Equal(t, byte(77), v, "%v: byte %d is of another row", isa, i)
					}
				}
			})
		}
	})
}

func TestPackedColumnsAreTheTranspose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		rows, cols := rapid.IntRange(1, 40).Draw(t, "rows"), rapid.IntRange(1, 90).Draw(t, "cols")
		ld := cols + rapid.IntRange(0, 20).Draw(t, "gap")
		x, w := make([]int8, (rows-1)*ld+cols), drawFloats(t, r, "w", (rows-1)*ld+cols)
		half := rapid.SampledFrom([]float32{0, 0.3, 1e-25}).Draw(t, "half")
		codes, ternary := make([]float32, cols*rows), make([]int8, cols*rows)
		for i := range rows {
			for c := range cols {
				v := int8(r.IntN(256) - 128)
				x[i*ld+c], codes[c*rows+i] = v, float32(v)
				switch v := w[i*ld+c]; {
				case v > half:
					ternary[c*rows+i] = 1
				case v < -half:
					ternary[c*rows+i] = -1
				}
			}
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				dst, untouched := guarded[byte](DenseBytes(DenseInt8, cols, rows), 77)
				PackInt8Columns(dst, x, ld, rows, cols)
				untouched(t, isa)
				require.Equal(t, packDense(DenseInt8, codes, cols, rows), dst, isa)
				want := make([]byte, TernaryBytes(cols, rows))
				PackTernary(want, ternary, cols, rows)
				dst, untouched = guarded[byte](len(want), 77)
				PackTernaryColumns(dst, w, ld, rows, cols, half)
				untouched(t, isa)
				require.Equal(t, want, dst, isa)
			})
		}
	})
}

func TestTernaryIntMatMulIsThatOfAnInt8Matrix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := source(t)
		rows, cols := rapid.IntRange(1, 100).Draw(t, "rows"), rapid.IntRange(1, 700).Draw(t, "cols")
		tokens := rapid.IntRange(1, max(1, min(100, 600_000/(rows*cols)))).Draw(t, "tokens")
		input := ternaryInputs[names(ternaryInputs).Draw(t, "inputs")]
		c := newIntCase(r, DenseInt8, rows, cols, tokens, rapid.IntRange(0, 9).Draw(t, "gap"), func(r *rand.Rand, _ int) int { return r.IntN(3) - 1 }, input)
		scale := c.scale[0]
		w := make([]int8, rows*cols)
		for i, v := range c.w {
			w[i] = int8(v)
		}
		for i := range c.scale {
			c.scale[i] = scale
		}
		panels := make([]byte, TernaryBytes(rows, cols))
		PackTernary(panels, w, rows, cols)
		p1 := ceilDiv(rows, PanelRows)
		p0 := rapid.IntRange(0, p1-1).Draw(t, "p0")
		width := PanelRows * (p1 - p0)
		start := floats(r, "normal", tokens*width)
		for _, isa := range Supported() {
			onISA(isa, func() {
				for _, add := range []bool{false, true} {
					want := append([]float32(nil), start...)
					DenseIntMatMul(want, width, DenseInt8, c.panels, c.scale, cols, p0, p1, c.x, tokens, add)
					dst, untouched := guarded[float32](len(start), -7777)
					copy(dst, start)
					TernaryIntMatMul(dst, width, panels, scale, cols, p0, p1, c.x, tokens, add)
					untouched(t, isa)
					for i := range tokens {
						n := min(rows-PanelRows*p0, width) // padding rows are zero, of either sign
						sameBits(t, want[i*width:][:n], dst[i*width:][:n], "%v: token %d, add %v", isa, i, add)
					}
				}
			})
		}
	})
}

func TestBackwardKernelsRejectABrokenContract(t *testing.T) {
	x, q := make([]float32, 16), make([]int8, 64)
	rows := Int16Rows{Hi: q, Lo: q, Stride: 8, SumHi: make([]int32, 2), SumLo: make([]int32, 2)}
	for name, call := range map[string]func(){
		"ReLU2Grad: dg":              func() { ReLU2Grad(x[:3], x, x[:4], x, x) },
		"ReLU2Grad: dy":              func() { ReLU2Grad(x, x, x[:4], x, x[:3]) },
		"RMSNormGrad: dw":            func() { RMSNormGrad(x, x[:3], x[:4], x, x, 1, false) },
		"Rotate: sin":                func() { Rotate(x[:4], x, x, x[:3], 1) },
		"Adam: v":                    func() { Adam(&AdamStep{}, x[:4], x, x, x[:3]) },
		"SGD: b":                     func() { SGD(&SGDStep{}, x[:4], x, x[:3]) },
		"PackTernaryRow: lane":       func() { PackTernaryRow(make([]byte, 67), x[:16:16], 1); PackTernaryRow(make([]byte, 3), x, 1) },
		"AbsMaxColumns: top":         func() { AbsMaxColumns(x[:3], x[:4], 1) },
		"QuantizeColumns16: columns": func() { QuantizeColumns16(rows, x, 17, 0, -1, x, x) },
		"QuantizeColumns16: x":       func() { QuantizeColumns16(rows, x[:3], 2, 2, 2, x, x) },
		"QuantizeColumns16: f":       func() { QuantizeColumns16(rows, x, 2, 2, 2, x[:1], x) },
		"QuantizeColumns16: stride":  func() { QuantizeColumns16(rows, x, 1, 9, 2, x, x) },
		"PackInt8Columns: dst":       func() { PackInt8Columns(make([]byte, 63), q, 4, 4, 4) },
		"PackInt8Columns: x":         func() { PackInt8Columns(make([]byte, 64), q[:15], 4, 4, 4) },
		"TernaryIntMatMul: hi":       func() { TernaryIntMatMul(x, 16, make([]byte, 128), 1, 17, 0, 1, rows, 1, false) },
		"PackTernaryColumns: w":      func() { PackTernaryColumns(make([]byte, 64), x[:15], 4, 4, 4, 1) },
		"PackTernaryColumns: half":   func() { PackTernaryColumns(make([]byte, 64), x, 4, 4, 4, -1) },
	} {
		require.Panics(t, call, name)
	}
}
