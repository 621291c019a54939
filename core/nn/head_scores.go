package nn

import (
	"math"
	"sync/atomic"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// MostTop is up to how many of the largest logits [Head.ForwardTop] finds.
const MostTop = 256

// ForwardTop is Forward for callers that use, of each row, the k largest logits alone and those that equal the last of them: these have the bits
// that Forward gives them. The others are int8 scores, all of them smaller. The head must have Scores, and 0 < k <= MostTop.
//
// The scores and their bounds (quant.Scores) leave a few rows of the table whose logits may be among the largest; these are computed, in
// whole panels.
func (h *Head) ForwardTop(c *Ctx, x *tensor.Tensor, rows []int32, k int, out []float32) {
	n, dim := len(rows), x.Dim(1)
	last := h.normalized(c, x, rows)
	t := &c.top
	*t = topTask{w: h.Proj.Dense, s: h.Scores, out: out, k: min(k, h.Proj.Out)}
	planes, meta := c.allocInts(&t.ints, n, dim, false)
	c.quant16 = quantize16Task{x: last.Float32s(), dim: dim, q: t.ints}
	c.eachRow(n, &c.quant16)
	c.multiply(denseTask{w: &h.Scores.Dense, out: out, ints: t.ints}, n)

	panels := (h.Proj.Out + cpu.PanelRows - 1) / cpu.PanelRows
	t.chunks = min(panels, chunksPerThread*cpu.NumThreads())
	mem := c.scratch.Alloc(8 * n * (2 + t.chunks*t.k))
	all := pool.View[float64](mem)
	t.length, t.least, t.heaps = all[:n], all[n:2*n], all[2*n:]
	for r := range n {
		t.length[r] = length(last.Float32s()[r*dim : (r+1)*dim])
	}
	var backing []byte
	t.x, t.stride, backing = c.padded(last, cpu.DenseCols(t.w.Format, dim))
	cpu.Parallel(t.chunks*n, (*topBounds)(t))
	for r := range n {
		t.least[r] = t.kth(r)
	}
	cpu.Parallel(t.chunks*n, (*topPanels)(t))
	c.didTop(t, n*panels)
	if backing != nil {
		c.scratch.Free(backing)
	}
	c.scratch.Free(mem)
	c.freeInts(planes, meta)
	c.Free(last)
}

// length is the Euclidean length of x, or a little more.
func length(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(float64(v) * float64(v))
	}
	return math.Sqrt(sum) * (1 + 1e-9)
}

// topTask finds the largest logits: chunk i of a row is a run of panels of the table.
type topTask struct {
	w        *quant.Dense
	s        *quant.Scores
	ints     cpu.Int16Rows
	x        []float32 // [rows, stride]
	stride   int
	length   []float64 // [rows] of x
	least    []float64 // [rows] no logit below it is among the k largest
	heaps    []float64 // [rows, chunks, k] the largest lower bounds of logits, as heaps with the smallest first
	out      []float32 // [rows, vocab_size]
	k        int
	chunks   int
	computed atomic.Int64 // panels
}

// part is row r, table rows [from, to).
func (t *topTask) part(chunk int) (r, from, to int) {
	r, chunk = chunk/t.chunks, chunk%t.chunks
	panels := (t.w.Rows + cpu.PanelRows - 1) / cpu.PanelRows
	return r, chunk * panels / t.chunks * cpu.PanelRows, min(t.w.Rows, (chunk+1)*panels/t.chunks*cpu.PanelRows)
}

// bound is how far the score of table row i may lie from its logit, for row r.
func (t *topTask) bound(r, i int) float64 {
	return float64(float64(t.s.Slack[i])*t.length[r]) + float64(float64(t.s.Spread[i])*float64(t.ints.Inv[r]))
}

type topBounds topTask

// Run collects the largest lower bounds of a chunk.
func (b *topBounds) Run(chunk int) {
	t := (*topTask)(b)
	r, from, to := t.part(chunk)
	heap := t.heaps[chunk*t.k : (chunk+1)*t.k]
	for i := range heap {
		heap[i] = math.Inf(-1)
	}
	for i, score := range t.out[r*t.w.Rows+from : r*t.w.Rows+to] {
		if low := float64(score) - t.bound(r, from+i); low > heap[0] {
			replaceLeast(heap, low)
		}
	}
}

// replaceLeast puts x in the place of a heap's smallest element.
func replaceLeast(heap []float64, x float64) {
	i := 0
	for {
		child := 2*i + 1
		if child >= len(heap) {
			break
		}
		if child+1 < len(heap) && heap[child+1] < heap[child] {
			child++
		}
		if x <= heap[child] {
			break
		}
		heap[i] = heap[child]
		i = child
	}
	heap[i] = x
}

// kth is the k-th largest lower bound of row r: at least k logits are as large.
func (t *topTask) kth(r int) float64 {
	heap := t.heaps[r*t.chunks*t.k:][:t.k]
	for _, low := range t.heaps[(r*t.chunks+1)*t.k : (r+1)*t.chunks*t.k] {
		if low > heap[0] {
			replaceLeast(heap, low)
		}
	}
	return heap[0]
}

type topPanels topTask

// Run computes the panels of a chunk that have a row whose logit may be as large.
func (b *topPanels) Run(chunk int) {
	t := (*topTask)(b)
	r, from, to := t.part(chunk)
	out := t.out[r*t.w.Rows:]
	var logits [cpu.PanelRows]float32
	for i := from; i < to; i++ {
		if float64(out[i])+t.bound(r, i) < t.least[r] {
			continue
		}
		p := i / cpu.PanelRows
		cpu.DenseMatMul(logits[:], cpu.PanelRows, t.w.Format, t.w.Panels, nil, t.w.Cols, p, p+1, t.x[r*t.stride:], t.stride, 1)
		end := min((p+1)*cpu.PanelRows, to)
		copy(out[p*cpu.PanelRows:end], logits[:])
		t.computed.Add(1)
		i = end - 1
	}
}
