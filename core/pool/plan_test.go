package pool

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// checkPlan demands that blocks that live at the same time never share a byte, that all lie on Align borders inside the extent, and that
// the extent is not below what must fit.
func checkPlan(t require.TestingT, p *plan) {
	iv := p.intervals()
	for i, a := range iv {
		require.Zero(t, p.offsets[i]%Align)
		require.GreaterOrEqual(t, p.offsets[i], 0)
		require.LessOrEqual(t, p.offsets[i]+a.size, p.extent)
		for j := i + 1; j < len(iv) && j < a.end; j++ {
			b := iv[j]
			if p.offsets[i] < p.offsets[j]+b.size && p.offsets[j] < p.offsets[i]+a.size {
				require.Failf(t, "overlap", "block %d %+v at %d and block %d %+v at %d", i, a, p.offsets[i], j, b, p.offsets[j])
			}
		}
	}
	require.GreaterOrEqual(t, p.extent, p.bound)
	require.GreaterOrEqual(t, p.bound, p.peakLive)
}

func efficiency(p *plan) float64 { return float64(p.peakLive) / float64(p.extent) }

// drawTrace draws any trace: blocks are freed in any order, some never.
func drawTrace(t *rapid.T) (tr trace) {
	var live []int32
	size := rapid.OneOf(rapid.IntRange(0, 200), rapid.IntRange(0, 1<<20), rapid.SampledFrom([]int{0, 64, 4096}))
	for range rapid.IntRange(0, 60).Draw(t, "allocs") {
		live = append(live, tr.alloc(size.Draw(t, "size")))
		for len(live) > 0 && rapid.IntRange(0, 2).Draw(t, "free") > 0 {
			i := rapid.IntRange(0, len(live)-1).Draw(t, "which")
			tr.free(live[i])
			live = slices.Delete(live, i, i+1)
		}
	}
	return tr
}

func TestPlannedBlocksThatLiveTogetherNeverOverlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkPlan(t, newPlan(drawTrace(t))) })
}

func TestAnEmptyTraceNeedsNoArena(t *testing.T) {
	p := newPlan(trace{})
	checkPlan(t, p)
	assert.Zero(t, p.extent)
}

func TestPeakIsTheMostThatLivesAtOnce(t *testing.T) {
	var tr trace
	a := tr.alloc(100)
	b := tr.alloc(50)
	tr.free(a)
	tr.free(b)
	c := tr.alloc(130)
	tr.alloc(10)
	tr.free(c)
	tr.alloc(60)
	p := newPlan(tr)
	checkPlan(t, p)
	assert.Equal(t, 150, p.peakLive)
	assert.Equal(t, 256, p.bound) // 128 + 64 and 192 + 64
	assert.Equal(t, 256, p.extent)
}

// tracer writes model-like traces: alloc returns a function that frees.
type tracer struct{ trace }

func (t *tracer) buf(n int) (free func()) {
	b := t.alloc(n)
	return func() { t.free(b) }
}

type shape struct{ dim, ffn, layers, heads, kv, headDim, vocab int }

var shapes = map[string]shape{
	"tiny": {256, 688, 4, 4, 2, 64, 512},
	"0.7B": {1536, 4096, 24, 16, 16, 96, 32002},
	"2B":   {2560, 6912, 30, 20, 5, 128, 128256},
	"8B":   {4096, 14336, 32, 32, 8, 128, 128256},
}

// forward is the trace of an inference step over so many rows, of which the last of each sequence gets logits.
func (t *tracer) forward(m shape, rows, sequences int) {
	const f32 = 4
	freeX := t.buf(f32 * rows * m.dim)
	for range m.layers {
		freeQ8 := t.buf(rows * roundUp(m.dim, 16))
		freeScale := t.buf(f32 * rows)
		freeSum := t.buf(f32 * rows)
		freeQKV := t.buf(f32 * rows * (m.heads + 2*m.kv) * m.headDim)
		freeQ8()
		freeScale()
		freeAttn := t.buf(f32 * rows * m.heads * m.headDim)
		freeScores := t.buf(f32 * m.heads * 512)
		freeScores()
		freeQKV()
		freeSum()
		freeA8 := t.buf(rows * m.heads * m.headDim)
		freeAScale := t.buf(f32 * rows)
		freeAttn()
		freeO := t.buf(f32 * rows * m.dim)
		freeA8()
		freeAScale()
		freeO()
		freeM8 := t.buf(rows * roundUp(m.dim, 16))
		freeGateUp := t.buf(f32 * 2 * rows * m.ffn)
		freeM8()
		freeH8 := t.buf(rows * m.ffn)
		freeHScale := t.buf(f32 * rows)
		freeGateUp()
		freeDown := t.buf(f32 * rows * m.dim)
		freeH8()
		freeHScale()
		freeDown()
	}
	freeLast := t.buf(f32 * sequences * m.dim)
	freeX()
	freeLogits := t.buf(f32 * sequences * m.vocab)
	freeLast()
	freeLogits()
}

// training is the trace of a forward pass that keeps activations and a backward pass that uses them up in reverse order.
func (t *tracer) training(m shape, rows int) {
	const f32 = 4
	var kept [][]func()
	x := t.buf(f32 * rows * m.dim)
	for range m.layers {
		layer := []func(){x}
		norm := t.buf(f32 * rows * m.dim)
		layer = append(layer, t.buf(rows*m.dim), t.buf(f32*rows), t.buf(f32*rows*(m.heads+2*m.kv)*m.headDim))
		norm()
		layer = append(layer, t.buf(f32*rows*m.heads*m.headDim), t.buf(f32*rows*m.heads))
		o := t.buf(f32 * rows * m.dim)
		layer = append(layer, t.buf(f32*rows*m.dim))
		o()
		layer = append(layer, t.buf(f32*rows*m.ffn), t.buf(f32*rows*m.ffn))
		act := t.buf(f32 * rows * m.ffn)
		layer = append(layer, t.buf(rows*m.ffn))
		act()
		kept = append(kept, layer)
		x = t.buf(f32 * rows * m.dim)
	}
	logits := t.buf(f32 * rows * m.vocab)
	dLogits := t.buf(f32 * rows * m.vocab)
	logits()
	dx := t.buf(f32 * rows * m.dim)
	dLogits()
	x()
	for _, layer := range slices.Backward(kept) {
		dAct := t.buf(f32 * rows * m.ffn)
		dGateUp := t.buf(f32 * 2 * rows * m.ffn)
		dAct()
		for _, free := range layer[6:] {
			free()
		}
		dMid := t.buf(f32 * rows * m.dim)
		dGateUp()
		dAttn := t.buf(f32 * rows * m.heads * m.headDim)
		dQKV := t.buf(f32 * rows * (m.heads + 2*m.kv) * m.headDim)
		dAttn()
		for _, free := range layer[:6] {
			free()
		}
		next := t.buf(f32 * rows * m.dim)
		dQKV()
		dMid()
		dx()
		dx = next
	}
	dx()
}

func TestPlansOfTransformerStepsWasteAtMostTwoPercent(t *testing.T) {
	for name, m := range shapes {
		traces := map[string]func(*tracer){
			"decode":    func(tr *tracer) { tr.forward(m, 1, 1) },
			"batch of7": func(tr *tracer) { tr.forward(m, 7, 7) },
			"prompt":    func(tr *tracer) { tr.forward(m, 97, 1) },
			"mixed":     func(tr *tracer) { tr.forward(m, 512, 5) },
			"training":  func(tr *tracer) { tr.training(m, 256) },
		}
		for kind, build := range traces {
			t.Run(name+" "+kind, func(t *testing.T) {
				var tr tracer
				build(&tr)
				p := newPlan(tr.trace)
				checkPlan(t, p)
				t.Logf("%d blocks, %d bytes live at the peak, %d reserved: %.4f", len(p.sizes), p.peakLive, p.extent, efficiency(p))
				assert.GreaterOrEqual(t, efficiency(p), 0.98)
			})
		}
	}
}

// Many shapes, not only the published ones; always the same, as no search is proven to come so close. Small blocks lose more than that to Align alone,
// whatever the plan, so waste is what lies above the bound.
func TestPlansOfManyTransformersWasteAtMostTwoPercent(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 7))
	n := func(lo, hi int) int { return lo + random.IntN(hi-lo+1) }
	for range 300 {
		most, vocab := 16, 60000
		if random.IntN(2) == 0 { // without blocks that are by far the largest it is harder
			most, vocab = 4, 6000
		}
		heads, headDim := n(2, most), 16*n(2, 8)
		m := shape{heads * headDim, heads * headDim * n(2, 5), n(1, 8), heads, n(1, heads), headDim, n(300, vocab)}
		var tr tracer
		if random.IntN(4) > 0 {
			tr.training(m, n(8, 128))
		} else {
			tr.forward(m, n(1, 64), 1)
		}
		p := newPlan(tr.trace)
		checkPlan(t, p)
		require.GreaterOrEqual(t, float64(p.bound)/float64(p.extent), 0.98, "%+v", m)
	}
}

func TestPlanningIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := drawTrace(t)
		assert.Equal(t, newPlan(tr).offsets, newPlan(tr).offsets)
	})
}

// hardTrace has blocks of random size and life; greedy placement alone leaves gaps in it.
func hardTrace(blocks int) (tr trace) {
	random := rand.New(rand.NewPCG(7, 7))
	var live []int32
	for range blocks {
		live = append(live, tr.alloc(64*(1+random.IntN(200))))
		for len(live) > 12 {
			i := random.IntN(len(live))
			tr.free(live[i])
			live = slices.Delete(live, i, i+1)
		}
	}
	return tr
}

func TestImprovementComesCloserToTheBoundThanTheFirstOrder(t *testing.T) {
	tr := hardTrace(120)
	iv := tr.intervals()
	order := make([]int32, len(iv))
	for i := range order {
		order[i] = int32(i)
	}
	byStart := place(iv, order, make([]int, len(iv)))
	p := newPlan(tr)
	checkPlan(t, p)
	t.Logf("bound %d, by start %d, plan %d", p.bound, byStart, p.extent)
	assert.Less(t, p.extent, byStart)
	assert.Less(t, float64(p.extent), 1.1*float64(p.bound))
}

func BenchmarkPlan(b *testing.B) {
	for name, build := range map[string]func(*tracer){
		"2B decode":   func(t *tracer) { t.forward(shapes["2B"], 1, 1) },
		"2B training": func(t *tracer) { t.training(shapes["2B"], 256) },
		"random 500":  func(t *tracer) { t.trace = hardTrace(500) },
	} {
		b.Run(name, func(b *testing.B) {
			var t tracer
			build(&t)
			var p *plan
			for b.Loop() {
				p = newPlan(t.trace)
			}
			b.ReportMetric(efficiency(p), "live/reserved")
			b.ReportMetric(float64(len(p.sizes)), "blocks")
		})
	}
}
