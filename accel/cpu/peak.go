package cpu

import (
	"sync"
	"time"
)

// What [PeakFLOPS] multiplies, a chunk of it 64 KiB by 64 rows, and how often; the fastest counts.
const (
	peakPanels = 4
	peakCols   = 256
	peakTokens = 64
	peakRuns   = 12
)

// peak is a measured figure, of a number of threads and an ISA.
type peak struct {
	sync.Mutex
	isa     ISA
	threads int
	value   float64
}

var peaks, ternaryPeaks peak

// of is the figure for the present threads and ISA, measured if need be.
func (p *peak) of(measure func(threads int) float64) float64 {
	p.Lock()
	defer p.Unlock()
	threads, isa := NumThreads(), Active()
	if p.threads != threads || p.isa != isa {
		p.threads, p.isa, p.value = threads, isa, measure(threads)
	}
	return p.value
}

// PeakFLOPS is how many float32 multiplications and additions a second [DenseMatMul] makes on all threads with its operands in the
// caches: what a training step could at best do in full precision. It is measured once for a number of threads and an ISA, in
// about 20 ms.
func PeakFLOPS() float64 { return peaks.of(measurePeak) }

// PeakTernary is how many multiplications a second, each with its addition, [TernaryMatMul] makes on all threads with its operands in the
// caches: what the ternary layers of a long prompt could at best do. It is measured as PeakFLOPS is.
func PeakTernary() float64 { return ternaryPeaks.of(measureTernaryPeak) }

func measurePeak(threads int) float64 {
	t := &peakTask{panels: make([]byte, DenseBytes(DenseF32, PanelRows*peakPanels, peakCols)), x: make([]float32, peakTokens*peakCols)}
	for range 4 * threads {
		t.dst = append(t.dst, make([]float32, peakTokens*PanelRows*peakPanels))
	}
	return 2 * fastest(t, len(t.dst), peakPanels*PanelRows*peakCols*peakTokens)
}

// fastest is how many multiplications a second the fastest of some runs of a task makes, each chunk of it so many.
func fastest(t Task, chunks, each int) float64 {
	best := 0.0
	for range peakRuns {
		start := time.Now()
		Parallel(chunks, t)
		best = max(best, float64(chunks*each)/time.Since(start).Seconds())
	}
	return best
}

type peakTask struct {
	panels []byte
	x      []float32
	dst    [][]float32 // one a chunk
}

// Run implements Task.
func (t *peakTask) Run(chunk int) {
	DenseMatMul(t.dst[chunk], PanelRows*peakPanels, DenseF32, t.panels, nil, peakCols, 0, peakPanels, t.x, peakCols, peakTokens)
}

// What [PeakTernary] multiplies, a chunk of it 64 KiB of codes by 64 rows of as much.
const (
	ternaryPeakPanels = 16
	ternaryPeakCols   = 1024
)

func measureTernaryPeak(threads int) float64 {
	t := &ternaryPeakTask{
		panels: make([]byte, TernaryBytes(PanelRows*ternaryPeakPanels, ternaryPeakCols)), x: make([]int8, peakTokens*ternaryPeakCols), sums: make([]int32, peakTokens),
	}
	for range 4 * threads {
		t.dst = append(t.dst, make([]int32, peakTokens*PanelRows*ternaryPeakPanels))
	}
	return fastest(t, len(t.dst), ternaryPeakPanels*PanelRows*ternaryPeakCols*peakTokens)
}

type ternaryPeakTask struct {
	panels []byte
	x      []int8
	sums   []int32
	dst    [][]int32 // one a chunk
}

// Run implements Task.
func (t *ternaryPeakTask) Run(chunk int) {
	TernaryMatMul(t.dst[chunk], PanelRows*ternaryPeakPanels, t.panels, ternaryPeakCols, 0, ternaryPeakPanels, t.x, ternaryPeakCols, t.sums, peakTokens)
}
