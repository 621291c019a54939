package cpu

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// The matrices of BitNet b1.58 2B4T: rows x columns.
var (
	shapes2B = [][2]int{{2560, 2560}, {640, 2560}, {6912, 2560}, {2560, 6912}}
	head2B   = [2]int{128256, 2560}
)

// benchBytes is how much memory a streaming benchmark goes through: far more than the caches.
const benchBytes = 512 << 20

// readLimit measures the read bandwidth once per number of threads and instruction set, in the same run as the kernels.
var readLimit = func() func(threads int) float64 {
	var mu sync.Mutex
	known := map[int]float64{}
	return func(threads int) float64 {
		mu.Lock()
		defer mu.Unlock()
		if known[threads] == 0 {
			known[threads] = ReadBandwidth(threads, benchBytes, 400*time.Millisecond)
		}
		return known[threads]
	}
}()

// hugeBytes maps n bytes in huge pages for one benchmark. Every odd byte has the exponent of a number near one, so that the
// floats read from it are ordinary; an operation on denormal numbers takes many times longer.
func hugeBytes(b *testing.B, n int) []byte {
	mem, free, err := hugeMemory(n)
	if err != nil {
		b.Skip(err)
	}
	b.Cleanup(free)
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < min(n, 1<<20); i += 2 {
		mem[i], mem[i+1] = byte(r.IntN(3)|r.IntN(3)<<2|r.IntN(3)<<4|r.IntN(3)<<6), byte(0x3c+r.IntN(4))
	}
	for done := 1 << 20; done < n; done *= 2 {
		copy(mem[done:], mem[:done])
	}
	return mem
}

// benchMatrix is a ternary (f nil) or dense product cut into chunks of panels.
type benchMatrix struct {
	f                          *DenseFormat
	panels                     []byte
	rows, cols, tokens, chunks int
	xi                         []int8
	xf                         []float32
	x16                        Int16Rows
	xsum, di                   []int32
	df, scale                  []float32
}

func newBenchMatrix(f *DenseFormat, rows, cols, tokens, chunks int) *benchMatrix {
	r := rand.New(rand.NewPCG(3, 4))
	m := &benchMatrix{f: f, rows: rows, cols: cols, tokens: tokens, chunks: chunks}
	if f == nil {
		m.xi, m.xsum, m.di = make([]int8, tokens*cols), make([]int32, tokens), make([]int32, tokens*rows)
		for i := range m.xi {
			m.xi[i] = int8(r.IntN(255) - 127)
			m.xsum[i/cols] += int32(m.xi[i])
		}
		return m
	}
	m.xf, m.df = floats(r, "normal", tokens*cols), make([]float32, tokens*rows)
	if f.Integer() {
		if *f == DenseInt8 {
			m.scale = floats(r, "positive", rows)
		}
		m.x16 = quantizedRows(m.xf, tokens, cols)
	}
	return m
}

func (m *benchMatrix) bytes() int {
	if m.f == nil {
		return TernaryBytes(m.rows, m.cols)
	}
	return DenseBytes(*m.f, m.rows, m.cols)
}

func (m *benchMatrix) Run(chunk int) {
	n := m.rows / PanelRows
	p0, p1 := chunk*n/m.chunks, (chunk+1)*n/m.chunks
	switch {
	case m.f == nil:
		TernaryMatMul(m.di[p0*PanelRows:], m.rows, m.panels, m.cols, p0, p1, m.xi, m.cols, m.xsum, m.tokens)
	case m.f.Integer():
		DenseIntMatMul(m.df[p0*PanelRows:], m.rows, *m.f, m.panels, m.scale, m.cols, p0, p1, m.x16, m.tokens, false)
	default:
		DenseMatMul(m.df[p0*PanelRows:], m.rows, *m.f, m.panels, m.scale, m.cols, p0, p1, m.xf, m.cols, m.tokens)
	}
}

// stream multiplies with one copy of the matrix after the other through all of mem and reports the bandwidth.
func (m *benchMatrix) stream(b *testing.B, mem []byte, threads int) {
	threadsFor(b, threads)
	limit := readLimit(threads)
	size := m.bytes()
	copies := max(1, len(mem)/size)
	b.ResetTimer()
	for i := range b.N {
		m.panels = mem[i%copies*size:][:size]
		Parallel(m.chunks, m)
	}
	gbs := float64(size) * float64(b.N) / b.Elapsed().Seconds() / 1e9
	b.ReportMetric(gbs, "GB/s")
	b.ReportMetric(gbs/limit, "of-limit")
	b.ReportMetric(limit, "limit-GB/s")
	m.reportOps(b)
}

func (m *benchMatrix) reportOps(b *testing.B) {
	b.ReportMetric(2*float64(m.rows)*float64(m.cols)*float64(m.tokens)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gops")
}

func eachVector(b *testing.B, f func(b *testing.B)) {
	for _, isa := range Supported() {
		if isa != Scalar {
			b.Run(isa.String(), func(b *testing.B) { onISA(isa, func() { f(b) }) })
		}
	}
}

// BenchmarkTernaryGemv streams weights from memory for one token.
func BenchmarkTernaryGemv(b *testing.B) {
	mem := hugeBytes(b, benchBytes)
	eachVector(b, func(b *testing.B) {
		for _, s := range shapes2B {
			for _, threads := range []int{1, 2} {
				b.Run(fmt.Sprintf("%dx%d/threads=%d", s[0], s[1], threads), func(b *testing.B) {
					newBenchMatrix(nil, s[0], s[1], 1, 4*threads).stream(b, mem, threads)
				})
			}
		}
	})
}

// BenchmarkTernaryGemm multiplies one matrix, which stays in cache, with many tokens.
func BenchmarkTernaryGemm(b *testing.B) {
	mem := hugeBytes(b, 16<<20)
	eachVector(b, func(b *testing.B) {
		for _, s := range shapes2B {
			for _, tokens := range []int{4, 16, 64, 256} {
				for _, threads := range []int{1, 2} {
					b.Run(fmt.Sprintf("%dx%d/tokens=%d/threads=%d", s[0], s[1], tokens, threads), func(b *testing.B) {
						threadsFor(b, threads)
						m := newBenchMatrix(nil, s[0], s[1], tokens, 4*threads)
						m.panels = mem[:m.bytes()]
						b.ResetTimer()
						for range b.N {
							Parallel(m.chunks, m)
						}
						m.reportOps(b)
					})
				}
			}
		}
	})
}

// BenchmarkHead streams the output matrix of the model, the largest dense one, for one and for a few tokens.
func BenchmarkHead(b *testing.B) {
	mem := hugeBytes(b, DenseBytes(DenseF32, head2B[0], head2B[1]))
	eachVector(b, func(b *testing.B) {
		for _, f := range allFormats {
			for _, tokens := range []int{1, 4, 12} {
				for _, threads := range []int{1, 2} {
					b.Run(fmt.Sprintf("%v/tokens=%d/threads=%d", f, tokens, threads), func(b *testing.B) {
						newBenchMatrix(&f, head2B[0], head2B[1], tokens, 16*threads).stream(b, mem, threads)
					})
				}
			}
		}
	})
}

// BenchmarkVectors times the element-wise and attention kernels on data in cache, in ns per element.
func BenchmarkVectors(b *testing.B) {
	const n, keys, dim = 6912, 1024, 128
	r := rand.New(rand.NewPCG(5, 6))
	x, y, w := floats(r, "normal", n), make([]float32, n), floats(r, "normal", n)
	kv, scores, square := floats(r, "normal", keys*dim), floats(r, "positive", keys), make([]float32, 64*dim)
	q8, lo, acc := make([]int8, n), make([]int8, n), make([]int32, n)
	for _, isa := range Supported() {
		for _, k := range []struct {
			name     string
			elements int
			run      func()
		}{
			{"SumSquares", n, func() { SumSquares(x) }},
			{"AbsMax", n, func() { AbsMax(x) }},
			{"ScaleMul", n, func() { ScaleMul(y, x, w, 0.5) }},
			{"QuantizeInt8", n, func() { QuantizeInt8(q8, x, 30) }},
			{"QuantizeInt16", n, func() { QuantizeInt16(q8, lo, x, 8000) }},
			{"Silu", n, func() { Silu(y, x) }},
			{"ReLU2", n, func() { ReLU2(y, x) }},
			{"Mul", n, func() { Mul(y, x, w) }},
			{"DequantRow", n, func() { DequantRow(y, acc, 0.5) }},
			{"ExpSum", n, func() { copy(y, x); ExpSum(y, 1) }},
			{"MaxF32", n, func() { MaxF32(x) }},
			{"AddProduct/1", keys * dim, func() { AddProduct(y, dim, scores, keys, 1, kv, dim, 1, dim, keys, Ahead{}) }},
			{"AddProduct/64", 64 * keys * dim, func() { AddProduct(square, dim, kv, dim, 1, kv, dim, 64, dim, min(keys, dim), Ahead{}) }},
		} {
			b.Run(k.name+"/"+isa.String(), func(b *testing.B) {
				onISA(isa, func() {
					for range b.N {
						k.run()
					}
				})
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(k.elements), "ns/element")
			})
		}
	}
}

// BenchmarkParallel is the cost of an empty job.
func BenchmarkParallel(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			threadsFor(b, threads)
			t := taskFunc(func(int) {})
			b.ReportAllocs()
			for range b.N {
				Parallel(8, t)
			}
		})
	}
}
