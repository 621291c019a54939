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

var peaks struct {
	sync.Mutex
	isa     ISA
	threads int
	flops   float64
}

// PeakFLOPS is how many float32 multiplications and additions a second [DenseMatMul] makes on all threads with its operands in the
// caches: what a training step could at best do in full precision. It is measured once for a number of threads and an ISA, in
// about 20 ms.
func PeakFLOPS() float64 {
	peaks.Lock()
	defer peaks.Unlock()
	threads, isa := NumThreads(), Active()
	if peaks.threads != threads || peaks.isa != isa {
		peaks.threads, peaks.isa, peaks.flops = threads, isa, measurePeak(threads)
	}
	return peaks.flops
}

func measurePeak(threads int) float64 {
	t := &peakTask{panels: make([]byte, DenseBytes(DenseF32, PanelRows*peakPanels, peakCols)), x: make([]float32, peakTokens*peakCols)}
	for range 4 * threads {
		t.dst = append(t.dst, make([]float32, peakTokens*PanelRows*peakPanels))
	}
	flops := 2 * float64(len(t.dst)) * peakPanels * PanelRows * peakCols * peakTokens
	best := 0.0
	for range peakRuns {
		start := time.Now()
		Parallel(len(t.dst), t)
		best = max(best, flops/time.Since(start).Seconds())
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
