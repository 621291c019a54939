package cpu

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// inBase3 packs the case's panels.
func (c ternaryCase) inBase3() []byte {
	packed := make([]byte, Base3Bytes(c.rows, c.cols))
	PackBase3(packed, c.panels, c.cols, 0, ceilDiv(c.rows, PanelRows))
	return packed
}

// checkBase3 multiplies panels p0..p1 in base 3 on every instruction set.
func (c ternaryCase) checkBase3(t require.TestingT, p0, p1 int) {
	want, packed := c.want(p0, p1), c.inBase3()
	for _, isa := range Supported() {
		onISA(isa, func() {
			dst, untouched := guarded[int32](PanelRows*(p1-p0), -7777)
			Base3MatVec(dst, packed, c.cols, p0, p1, c.x, c.xsum[0])
			untouched(t, isa)
			require.Equal(t, want, dst, isa)

			size := panelBytes(c.cols)
			back, untouched8 := guarded[byte]((p1-p0)*size, 99)
			UnpackBase3(back, packed, c.cols, p0, p1)
			untouched8(t, isa)
			require.Equal(t, c.panels[p0*size:p1*size], back, isa)
		})
	}
}

func TestBase3MatVecIsExactOnRaggedShapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(1, 120).Draw(t, "rows"), rapid.IntRange(1, 700).Draw(t, "cols")
		c := newTernaryCase(source(t), rows, cols, 1, 0, ternaryWeights[names(ternaryWeights).Draw(t, "weights")], ternaryInputs[names(ternaryInputs).Draw(t, "inputs")])
		panels := ceilDiv(rows, PanelRows)
		p0 := rapid.IntRange(0, panels-1).Draw(t, "p0")
		c.checkBase3(t, p0, rapid.IntRange(p0, panels).Draw(t, "p1"))
	})
}

func TestBase3MatVecIsExactForTheMatricesOfModels(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, shape := range [][2]int{{88, 264}, {48, 2560}, {33, 6912}, {16, 80}, {32, 64}} {
		newTernaryCase(r, shape[0], shape[1], 1, 0, ternaryWeights["random"], ternaryInputs["random"]).checkBase3(t, 0, ceilDiv(shape[0], PanelRows))
	}
}

func TestBase3PanelsReadSideBySideGiveTheSameProducts(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, panels := range []int{1, sides - 1, sides, sides + 1, 3*sides + 2} {
		for _, cols := range []int{1, 64, 80, 144, 176, 320} {
			for _, input := range ternaryInputs {
				c := newTernaryCase(r, panels*PanelRows-5, cols, 1, 0, ternaryWeights["random"], input)
				eachOrder(func() { c.checkBase3(t, 0, panels) })
			}
		}
	}
}

// The fifth codes share the sums that are scaled most.
func TestBase3MatVecOfTheWidestMatrixAtTheExtremes(t *testing.T) {
	for _, input := range []string{"-128", "127"} {
		c := newTernaryCase(nil, PanelRows*sides, MaxTernaryCols, 1, 0, ternaryWeights["plus"], ternaryInputs[input])
		eachOrder(func() { c.checkBase3(t, sides-1, sides) })
		packed, dst := c.inBase3(), make([]int32, PanelRows*sides)
		Base3MatVec(dst, packed, c.cols, 0, sides, c.x, c.xsum[0])
		require.Equal(t, slices.Repeat([]int32{c.xsum[0]}, PanelRows*sides), dst)
	}
}

func TestBase3HasAByteForEveryFiveCodes(t *testing.T) {
	seen := map[[5]byte]bool{}
	for b := range 256 {
		src := make([]byte, base3Packed*BlockBytes)
		for i := range src {
			src[i] = byte(b)
		}
		require.Equal(t, b >= 243, BadBase3(src, base3Group*BlockCols, 0), "byte %d", b)
		if b >= 243 {
			continue
		}
		for _, isa := range Supported() {
			onISA(isa, func() {
				panel := make([]byte, base3Group*BlockBytes)
				UnpackBase3(panel, src, base3Group*BlockCols, 0, 1)
				codes := [5]byte{panel[0] & 3, panel[0] >> 2 & 3, panel[0] >> 4 & 3, panel[0] >> 6, panel[4*BlockBytes] & 3}
				for _, c := range codes {
					require.LessOrEqual(t, c, byte(2), "%v: byte %d", isa, b)
				}
				seen[codes] = true
				again := make([]byte, len(src))
				PackBase3(again, panel, base3Group*BlockCols, 0, 1)
				require.Equal(t, src, again, "%v: byte %d", isa, b)
			})
		}
	}
	require.Len(t, seen, 243)
}

func TestBadBase3FindsAnyDamagedByteFromWhereverItStarts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, cols := rapid.IntRange(1, 70).Draw(t, "rows"), rapid.IntRange(1, 400).Draw(t, "cols")
		packed := newTernaryCase(source(t), rows, cols, 0, 0, ternaryWeights["random"], nil).inBase3()
		start := BlockBytes * rapid.IntRange(0, len(packed)/BlockBytes-1).Draw(t, "start")
		require.False(t, BadBase3(packed[start:], cols, start))
		i := rapid.IntRange(start, len(packed)-1).Draw(t, "at")
		if i%base3Stride(cols) < ceilDiv(cols, BlockCols)/base3Group*base3Packed*BlockBytes {
			packed[i] = byte(rapid.IntRange(243, 255).Draw(t, "value"))
		} else {
			packed[i] |= 3 << (2 * rapid.IntRange(0, 3).Draw(t, "field"))
		}
		require.True(t, BadBase3(packed[start:], cols, start))
	})
}

func TestBase3TakesFourFifthsOfPanels(t *testing.T) {
	require.Equal(t, TernaryBytes(2560, 2560)*4/5, Base3Bytes(2560, 2560))
	for cols := range 500 {
		require.LessOrEqual(t, Base3Bytes(16, cols), TernaryBytes(16, cols), cols)
	}
}

func TestBase3WithoutColumnsIsZero(t *testing.T) {
	dst := []int32{9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9}
	Base3MatVec(dst, nil, 0, 0, 1, nil, 0)
	require.Equal(t, append(make([]int32, 16), 9), dst)
}

func TestBase3RejectsABrokenContract(t *testing.T) {
	packed, panels, x, dst := make([]byte, Base3Bytes(32, 96)), make([]byte, TernaryBytes(32, 96)), make([]int8, 96), make([]int32, 32)
	for name, call := range map[string]func(){
		"short dst":        func() { Base3MatVec(dst[:31], packed, 96, 0, 2, x, 0) },
		"short x":          func() { Base3MatVec(dst, packed, 96, 0, 2, x[:95], 0) },
		"short src":        func() { Base3MatVec(dst, packed[1:], 96, 0, 2, x, 0) },
		"reversed panels":  func() { Base3MatVec(dst, packed, 96, 2, 1, x, 0) },
		"too many columns": func() { Base3MatVec(dst, packed, MaxTernaryCols+1, 0, 0, x, 0) },
		"pack: short dst":  func() { PackBase3(packed[1:], panels, 96, 0, 2) },
		"pack: short src":  func() { PackBase3(packed, panels[1:], 96, 0, 2) },
		"unpack: short":    func() { UnpackBase3(panels[1:], packed, 96, 0, 2) },
		"unpack: past src": func() { UnpackBase3(panels, packed, 96, 1, 3) },
	} {
		require.Panics(t, call, name)
	}
}

// BenchmarkBase3Gemv sets base 3 against panels, from memory and in the second-level cache, with a row and in turns of one matrix.
func BenchmarkBase3Gemv(b *testing.B) {
	mem := hugeBytes(b, benchBytes)
	for _, s := range shapes2B {
		for _, where := range []string{"memory", "cache"} {
			rows, threads := s[0], 2
			if where == "cache" {
				rows, threads = 512, 1
			}
			m := newBenchMatrix(nil, rows, s[1], 1, 16*threads)
			for _, l := range []struct {
				name string
				size int
				run  Task
			}{
				{"panels", TernaryBytes(rows, s[1]), m},
				{"base3", Base3Bytes(rows, s[1]), taskFunc(func(chunk int) {
					n := rows / PanelRows
					p0, p1 := chunk*n/m.chunks, (chunk+1)*n/m.chunks
					if p0 < p1 {
						Base3MatVec(m.di[p0*PanelRows:], m.panels, m.cols, p0, p1, m.xi, m.xsum[0])
					}
				})},
			} {
				b.Run(l.name+"/"+where+"/"+fmt.Sprintf("%dx%d", rows, s[1]), func(b *testing.B) {
					threadsFor(b, threads)
					copies := len(mem) / l.size
					if where == "cache" {
						copies = 1
					}
					for i := range b.N {
						m.panels = mem[i%copies*l.size:][:l.size]
						Parallel(m.chunks, l.run)
					}
					b.ReportMetric(float64(l.size)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
					b.ReportMetric(float64(rows)*float64(s[1])*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gweights/s")
				})
			}
		}
	}
}
