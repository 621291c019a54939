package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
)

// KernelCheck says whether a kernel computes on an instruction set, bit by bit, what portable Go defines.
type KernelCheck struct {
	Kernel string // its name
	ISA    ISA    // that it was run with
	Err    error  // the first result that is another, or nil
}

// selfTests are kernels on ragged shapes and random numbers; each gives the bits of all its results.
var selfTests = []struct {
	name string
	run  func(r *rand.Rand) []uint32
}{
	{"ternary matrix times vector", func(r *rand.Rand) []uint32 { return testTernary(r, 1) }},
	{"ternary matrix times batch", func(r *rand.Rand) []uint32 { return testTernary(r, 9) }},
	{"base 3 matrix times vector", testBase3},
	{"float32 matrix", func(r *rand.Rand) []uint32 { return testDense(r, DenseF32) }},
	{"bfloat16 matrix", func(r *rand.Rand) []uint32 { return testDense(r, DenseBF16) }},
	{"float16 matrix", func(r *rand.Rand) []uint32 { return testDense(r, DenseF16) }},
	{"int8 matrix", func(r *rand.Rand) []uint32 { return testDenseInt(r, DenseInt8) }},
	{"int4 matrix", func(r *rand.Rand) []uint32 { return testDenseInt(r, DenseInt4) }},
	{"attention", testAttention},
	{"norm and quantization", testNorm},
	{"activations", testActivations},
}

// selfTesting keeps two self-tests from choosing instruction sets for each other.
var selfTesting sync.Mutex

// SelfTest runs kernels of every kind on each instruction set of this processor and compares them with [Scalar], and the ternary products
// with a sum over the weights. It takes some milliseconds. What runs beside it gets another instruction set for a moment, and the same results.
func SelfTest() []KernelCheck {
	selfTesting.Lock()
	defer selfTesting.Unlock()
	before := Active()
	defer active.Store(uint32(before))
	var checks []KernelCheck
	for _, t := range selfTests {
		var want []uint32
		for _, isa := range Supported() { // Scalar first
			active.Store(uint32(isa))
			got := t.run(rand.New(rand.NewPCG(1, 2)))
			c := KernelCheck{Kernel: t.name, ISA: isa}
			if isa == Scalar {
				want = got
			}
			c.Err = firstDifference(got, want)
			checks = append(checks, c)
		}
	}
	checks = append(checks, KernelCheck{"ternary matrix times batch, by its definition", Scalar, checkTernaryDefinition()})
	return checks
}

func firstDifference(got, want []uint32) error {
	for i, w := range want {
		if got[i] != w {
			return fmt.Errorf("cpu: result %d of %d has bits %#x: expected %#x", i, len(want), got[i], w)
		}
	}
	return nil
}

func normals(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func floatBits(parts ...[]float32) (bits []uint32) {
	for _, part := range parts {
		for _, v := range part {
			bits = append(bits, math.Float32bits(v))
		}
	}
	return bits
}

func intBits(x []int32) []uint32 {
	bits := make([]uint32, len(x))
	for i, v := range x {
		bits[i] = uint32(v)
	}
	return bits
}

// ternaryProduct is a random ternary matrix and int8 activations.
func ternaryProduct(r *rand.Rand, rows, cols, tokens int) (w, x []int8, ldx int, xsum []int32) {
	w = make([]int8, rows*cols)
	for i := range w {
		w[i] = int8(r.IntN(3) - 1)
	}
	ldx = ceilDiv(cols, BlockCols) * BlockCols
	x, xsum = make([]int8, tokens*ldx), make([]int32, tokens)
	for t := range tokens {
		for k := range cols {
			x[t*ldx+k] = int8(r.IntN(256) - 128)
			xsum[t] += int32(x[t*ldx+k])
		}
	}
	return w, x, ldx, xsum
}

const selfTestRows, selfTestCols = 37, 531 // no multiples of a panel or block

func testTernary(r *rand.Rand, tokens int) []uint32 {
	w, x, ldx, xsum := ternaryProduct(r, selfTestRows, selfTestCols, tokens)
	panels := make([]byte, TernaryBytes(selfTestRows, selfTestCols))
	PackTernary(panels, w, selfTestRows, selfTestCols)
	count := ceilDiv(selfTestRows, PanelRows)
	dst := make([]int32, tokens*count*PanelRows)
	TernaryMatMul(dst, count*PanelRows, panels, selfTestCols, 0, count, x, ldx, xsum, tokens)
	return intBits(dst)
}

// checkTernaryDefinition compares the product that all others are compared with to the sum that it stands for.
func checkTernaryDefinition() error {
	const tokens = 9
	active.Store(uint32(Scalar))
	got := testTernary(rand.New(rand.NewPCG(1, 2)), tokens)
	w, x, ldx, _ := ternaryProduct(rand.New(rand.NewPCG(1, 2)), selfTestRows, selfTestCols, tokens)
	width := ceilDiv(selfTestRows, PanelRows) * PanelRows
	want := make([]int32, tokens*width)
	for t := range tokens {
		for row := range selfTestRows {
			for k := range selfTestCols {
				want[t*width+row] += int32(w[row*selfTestCols+k]) * int32(x[t*ldx+k])
			}
		}
	}
	return firstDifference(got, intBits(want))
}

func testBase3(r *rand.Rand) []uint32 {
	w, x, _, xsum := ternaryProduct(r, selfTestRows, selfTestCols, 1)
	panels := make([]byte, TernaryBytes(selfTestRows, selfTestCols))
	PackTernary(panels, w, selfTestRows, selfTestCols)
	count := ceilDiv(selfTestRows, PanelRows)
	packed := make([]byte, Base3Bytes(selfTestRows, selfTestCols))
	PackBase3(packed, panels, selfTestCols, 0, count)
	dst := make([]int32, count*PanelRows)
	Base3MatVec(dst, packed, selfTestCols, 0, count, x, xsum[0])
	return intBits(dst)
}

// densePanels packs random weights, which the format holds exactly.
func densePanels(r *rand.Rand, f DenseFormat, rows, cols int) []byte {
	panels := make([]byte, DenseBytes(f, rows, cols))
	ClearDense(f, panels, cols)
	for row := range rows {
		for col := range cols {
			v := math.Float32bits(float32(r.NormFloat64()))
			at := panels[DenseOffset(f, cols, row, col):]
			switch f {
			case DenseF32:
				binary.LittleEndian.PutUint32(at, v)
			case DenseBF16:
				binary.LittleEndian.PutUint16(at, uint16(v>>16))
			case DenseF16: // with an exponent of up to 14, that of no infinity
				binary.LittleEndian.PutUint16(at, uint16(v>>16)&0xbfff)
			case DenseInt8:
				at[0] = byte(1 + r.IntN(255))
			case DenseInt4:
				shift := 4 * (col / 4 % 2)
				at[0] = at[0]&^(15<<shift) | byte(r.IntN(16))<<shift
				if col%Int4Group == 0 {
					binary.LittleEndian.PutUint16(panels[Int4ScaleOffset(cols, row, col):], uint16(v>>16))
				}
			}
		}
	}
	return panels
}

func testDense(r *rand.Rand, f DenseFormat) []uint32 {
	const tokens = 5
	panels := densePanels(r, f, selfTestRows, selfTestCols)
	ldx := DenseCols(f, selfTestCols)
	x := make([]float32, tokens*ldx)
	for t := range tokens {
		copy(x[t*ldx:], normals(r, selfTestCols))
	}
	count := ceilDiv(selfTestRows, PanelRows)
	dst := make([]float32, tokens*count*PanelRows)
	DenseMatMul(dst, count*PanelRows, f, panels, normals(r, selfTestRows), selfTestCols, 0, count, x, ldx, tokens)
	return floatBits(dst)
}

func testDenseInt(r *rand.Rand, f DenseFormat) []uint32 {
	const tokens = 5
	panels := densePanels(r, f, selfTestRows, selfTestCols)
	stride := ceilDiv(selfTestCols, Int16Cols) * Int16Cols
	x := Int16Rows{
		Hi: make([]int8, tokens*stride), Lo: make([]int8, tokens*stride), Stride: stride,
		SumHi: make([]int32, tokens), SumLo: make([]int32, tokens), Inv: make([]float32, tokens),
	}
	for t := range tokens {
		row := normals(r, selfTestCols)
		s := Int16Max / AbsMax(row)
		x.SumHi[t], x.SumLo[t] = QuantizeInt16(x.Hi[t*stride:], x.Lo[t*stride:], row, s)
		x.Inv[t] = 1 / s
	}
	var scale []float32
	if f == DenseInt4 {
		x.Eights = make([]int32, tokens*x.Groups())
		for i := range tokens * stride {
			x.Eights[i/stride*x.Groups()+i%stride/Int4Group] -= 8 * (256*int32(x.Hi[i]) + int32(x.Lo[i]))
		}
	} else {
		scale = normals(r, selfTestRows)
	}
	count := ceilDiv(selfTestRows, PanelRows)
	dst := make([]float32, tokens*count*PanelRows)
	DenseIntMatMul(dst, count*PanelRows, f, panels, scale, selfTestCols, 0, count, x, tokens, false)
	return floatBits(dst)
}

// testAttention is the scores of queries and keys, their softmax, and the sum of values.
func testAttention(r *rand.Rand) []uint32 {
	const rows, size, keys = 5, 80, 48
	q, k, v := normals(r, rows*size), normals(r, keys*size), normals(r, keys*size)
	turned, scores := make([]float32, size*keys), make([]float32, rows*keys)
	Transpose(turned, keys, k, size, keys, size)
	AddProduct(scores, keys, q, size, 1, turned, keys, rows, keys, size, Ahead{})
	top, sum := slices.Repeat([]float32{float32(math.Inf(-1))}, rows), make([]float32, rows)
	ExpRows(scores, keys, rows, keys, normals(r, keys), normals(r, keys), top, sum)
	out := make([]float32, rows*size)
	AddProduct(out, size, scores, keys, 1, v, size, rows, size, keys, Ahead{})
	return floatBits(scores, top, sum, out, []float32{Dot(q, k[:len(q)]), MaxF32(q)})
}

func testNorm(r *rand.Rand) []uint32 {
	x, w := normals(r, selfTestCols), normals(r, selfTestCols)
	y, codes := make([]float32, selfTestCols), make([]int8, selfTestCols)
	ScaleMul(y, x, w, 1/float32(math.Sqrt(float64(SumSquares(x)))))
	sum := QuantizeInt8(codes, y, 127/AbsMax(y))
	bits := append(floatBits(y), uint32(sum))
	for _, c := range codes {
		bits = append(bits, uint32(int32(c)))
	}
	return bits
}

func testActivations(r *rand.Rand) []uint32 {
	x, exp := normals(r, selfTestCols), normals(r, selfTestCols)
	parts := [][]float32{exp}
	for _, f := range []func(dst, x []float32){ReLU2, Silu, Sigmoid, Tanh, NormalCDF} {
		y := make([]float32, len(x))
		f(y, x)
		parts = append(parts, y)
	}
	return floatBits(append(parts, []float32{ExpSum(exp, 3)})...)
}
