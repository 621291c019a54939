package nn

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// Op is a kind of work in a step.
type Op uint8

// The kinds of work, in the order of a step.
const (
	OpEmbedding Op = iota
	OpQuantize     // a norm and the quantization of its result, or one of them
	OpQKV
	OpRoPE    // rotation, and the angles for it
	OpStoreKV // of rows that decode it is a part of attention
	OpAttention
	OpO
	OpGate
	OpUp         // and its product with the gate, when neurons are skipped
	OpGateUp     // both in one job
	OpActivation // and the norm and quantization of its result, where nothing else reads it
	OpDown
	OpAdd // to the residual stream
	OpHead
	OpSampler
	OpOther
	ops
)

var opNames = [ops]string{"embedding", "norm+quantize", "qkv", "rope", "store kv", "attention", "o", "gate", "up", "gate+up", "activation",
	"down", "residual", "head", "sampler", "other"}

// String is the name of the kind of work, as profiles print it.
func (op Op) String() string { return opNames[op] }

// Profile is where the time of steps went: how long each kind of work took in each layer, the bytes that it had to read from
// memory, and the multiplications of matrix products and attention that it made. It may record several steps at once. The times of a step's kinds of work add up to that of the step.
type Profile struct {
	began time.Time

	mu      sync.Mutex
	lanes   map[*Ctx]int
	totals  []layerTotals // of what belongs to no layer, and of each layer
	spans   []profileSpan
	dropped int64
	steps   int64
	rows    int64
	time    time.Duration
	neurons neurons
	scored  struct{ panels, computed int64 } // of heads with scores: all, and those that were computed in full precision
}

// NewProfile returns an empty profile, whose clock starts now.
func NewProfile() *Profile { return &Profile{began: time.Now(), lanes: map[*Ctx]int{}} }

// mostSpans bounds the memory of a profile, about 10 MB: some hundred tokens of a large model. Totals go on.
const mostSpans = 1 << 18

type layerTotals [ops]opTotal

type opTotal struct {
	count, bytes, products int64
	time                   time.Duration
}

// profileSpan is one piece of work, or a step.
type profileSpan struct {
	lane, layer int32
	op          Op // ops for a step
	start, time time.Duration
	amount      int64 // bytes, or rows of a step
	products    int64 // multiplications with a weight, a key or a value
}

// neurons counts the neurons of feed-forward networks that were worked on one by one.
type neurons struct {
	gates, open     int64 // gates, and those that are not zero
	inputs, nonzero int64 // inputs of the down projection, and those that are not zero
}

// recorder is the part of a profile that a step writes.
type recorder struct {
	to      *Profile
	layer   int32
	started time.Time
	last    time.Time // where the last span ended
	spans   []profileSpan
	lines   lineCounts
}

// lineCounts is filled by the chunks of a task.
type lineCounts struct{ open, read atomic.Int64 }

// Measure makes the steps that begin from now on record themselves in p; nil ends that.
func (c *Ctx) Measure(p *Profile) { c.profile.to = p }

func (r *recorder) begin() {
	r.spans, r.layer = r.spans[:0], -1
	r.started = time.Now()
	r.last = r.started
}

// did says that the time since the last call, or the step's begin, was spent on op, which read the weights of layers and multiplied
// all rows with them.
func (c *Ctx) did(op Op, layers ...*Linear) { c.didRows(op, len(c.rows), layers...) }

// didRows is did for so many rows.
func (c *Ctx) didRows(op Op, rows int, layers ...*Linear) {
	if c.profile.to == nil {
		return
	}
	bytes, products := 0, 0
	for _, l := range layers {
		if l.Ternary != nil {
			bytes += l.Ternary.Bytes()
		} else {
			bytes += l.Dense.Bytes()
		}
		products += rows * l.Out * l.In
	}
	c.didRead(op, bytes, products)
}

// didRead is did with the bytes read and the multiplications made.
func (c *Ctx) didRead(op Op, bytes, products int) {
	r := &c.profile
	if r.to == nil {
		return
	}
	now := time.Now()
	r.spans = append(r.spans, profileSpan{layer: r.layer, op: op, start: r.last.Sub(r.to.began), time: now.Sub(r.last), amount: int64(bytes), products: int64(products)})
	r.last = now
}

// enter says which layer the work that follows belongs to; -1 is none.
func (c *Ctx) enter(layer int) { c.profile.layer = int32(layer) }

// endProfile hands a step over.
func (c *Ctx) endProfile() {
	r := &c.profile
	if r.to == nil {
		return
	}
	r.layer = -1
	c.didRead(OpOther, 0, 0)
	p := r.to
	p.mu.Lock()
	defer p.mu.Unlock()
	lane, known := p.lanes[c]
	if !known {
		lane = len(p.lanes)
		p.lanes[c] = lane
	}
	took := r.last.Sub(r.started)
	p.steps++
	p.rows += int64(len(c.rows))
	p.time += took
	p.keep(profileSpan{lane: int32(lane), op: ops, layer: -1, start: r.started.Sub(p.began), time: took, amount: int64(len(c.rows))})
	for _, s := range r.spans {
		s.lane = int32(lane)
		p.add(s)
	}
}

// add counts a span, with the lock held.
func (p *Profile) add(s profileSpan) {
	for len(p.totals) <= int(s.layer)+1 {
		p.totals = append(p.totals, layerTotals{})
	}
	t := &p.totals[s.layer+1][s.op]
	t.count++
	t.bytes += s.amount
	t.products += s.products
	t.time += s.time
	p.keep(s)
}

func (p *Profile) keep(s profileSpan) {
	if len(p.spans) == mostSpans {
		p.dropped++
		return
	}
	p.spans = append(p.spans, s)
}

// Sampled says that tokens were chosen since start, between two steps.
func (p *Profile) Sampled(start time.Time) {
	took := time.Since(start)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.time += took
	p.add(profileSpan{layer: -1, op: OpSampler, start: start.Sub(p.began), time: took})
}

// cacheBytes is what attention reads: the keys and values of one layer of the step's sequences, once.
func (c *Ctx) cacheBytes() int {
	n := 0
	for i, at := range c.rows {
		if i+1 == len(c.rows) || c.rows[i+1].Seq != at.Seq {
			n += c.caches[at.Seq].layerBytes(int(at.Pos) + 1)
		}
	}
	return n
}

// countGates counts the open gates [from, to) of all rows, and the neurons that are read for any of them.
func (c *Ctx) countGates(h []float32, rows, cols, from, to int, all bool) {
	if c.profile.to == nil || rows == 1 && !all {
		return
	}
	countLines(&c.profile.lines, rows, cols, from, to, all, func(i int) int { return positive(h[i]) })
}

// countInputs counts the inputs [from, to) of the down projection that are not zero.
func (c *Ctx) countInputs(q quantized, from, to int, all bool) {
	if c.profile.to == nil || q.rows == 1 && !all {
		return
	}
	countLines(&c.profile.lines, q.rows, q.stride, from, to, all, func(i int) int {
		if q.q[i] != 0 {
			return 1
		}
		return 0
	})
}

// countRow is the count of a single row, of which n neurons are on and read: it takes no time of its own.
func (c *Ctx) countRow(rows, n int, all bool) {
	if c.profile.to != nil && rows == 1 && !all {
		c.profile.lines.open.Add(int64(n))
		c.profile.lines.read.Add(int64(n))
	}
}

func countLines(k *lineCounts, rows, stride, from, to int, all bool, on func(i int) int) {
	open, read := 0, 0
	for i := from; i < to; i++ {
		n := 0
		for r := range rows {
			n += on(r*stride + i)
		}
		open += n
		if n > 0 || all {
			read++
		}
	}
	k.open.Add(int64(open))
	k.read.Add(int64(read))
}

// didAttention is did for the rows' attention to the keys and values up to them.
func (c *Ctx) didAttention(a *Attention) {
	if c.profile.to == nil {
		return
	}
	keys := 0
	for _, at := range c.rows {
		keys += int(at.Pos) + 1
	}
	c.didRead(OpAttention, c.cacheBytes(), 2*keys*a.Heads*a.Dim)
}

// didLines is did for the lines of so many weights that count functions have counted, of n neurons in all rows, and for whole layers in the
// same job.
func (c *Ctx) didLines(op Op, weights, n int, others ...*Linear) {
	r := &c.profile
	if r.to == nil {
		return
	}
	open, read := r.lines.open.Swap(0), r.lines.read.Swap(0)
	bytes, products := int(read)*cpu.LineBytes(weights), int(open)*weights
	for _, l := range others {
		bytes += l.Ternary.Bytes()
		products += len(c.rows) * l.Out * l.In
	}
	c.didRead(op, bytes, products)
	p := r.to
	p.mu.Lock()
	defer p.mu.Unlock()
	if op != OpDown {
		p.neurons.gates += int64(n)
		p.neurons.open += open
	} else {
		p.neurons.inputs += int64(n)
		p.neurons.nonzero += open
	}
}

// didTop is did for a head with scores that has gone over so many panels, of which it computed some in full precision.
func (c *Ctx) didTop(t *topTask, panels int) {
	computed := int(t.computed.Load())
	c.didRead(OpHead, t.bytes(), (panels+computed)*cpu.PanelRows*t.w.Cols)
	if p := c.profile.to; p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.scored.panels += int64(panels)
		p.scored.computed += int64(computed)
	}
}

// bytes is what the rows of a head with scores have read.
func (t *topTask) bytes() int {
	return t.s.Bytes() + int(t.computed.Load())*cpu.DenseBytes(t.w.Format, cpu.PanelRows, t.w.Cols)
}

// MarshalJSON gives the totals and the spans.
func (p *Profile) MarshalJSON() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	type total struct {
		Layer   *int    `json:"layer"` // null: of no layer
		Op      string  `json:"op"`
		Count   int64   `json:"count"`
		Seconds float64 `json:"seconds"`
		Bytes   int64   `json:"bytes"`

		Multiplications int64 `json:"multiplications"`
	}
	out := struct {
		Steps       int64    `json:"steps"`
		Rows        int64    `json:"rows"`
		Seconds     float64  `json:"seconds"`
		GateDensity *float64 `json:"gate_density"` // null where no neuron was worked on by itself
		DownDensity *float64 `json:"down_density"`
		Rescored    *float64 `json:"head_rescored"` // null where no head had scores
		Totals      []total  `json:"totals"`
		Ops         []string `json:"ops"`
		// lane, layer (-1: none), index of ops (their number: a step), start and duration in ns, bytes (rows of a step)
		Spans   [][6]int64 `json:"spans"`
		Dropped int64      `json:"dropped"`
	}{
		Steps: p.steps, Rows: p.rows, Seconds: p.time.Seconds(), Dropped: p.dropped, Ops: opNames[:], Totals: []total{},
		GateDensity: share(p.neurons.open, p.neurons.gates), DownDensity: share(p.neurons.nonzero, p.neurons.inputs),
		Rescored: share(p.scored.computed, p.scored.panels),
		Spans:    make([][6]int64, len(p.spans)),
	}
	for i := range p.totals {
		for op, t := range p.totals[i] {
			if t.count == 0 {
				continue
			}
			one := total{Op: opNames[op], Count: t.count, Seconds: t.time.Seconds(), Bytes: t.bytes, Multiplications: t.products}
			if layer := i - 1; layer >= 0 {
				one.Layer = &layer
			}
			out.Totals = append(out.Totals, one)
		}
	}
	for i, s := range p.spans {
		out.Spans[i] = [6]int64{int64(s.lane), int64(s.layer), int64(s.op), s.start.Nanoseconds(), s.time.Nanoseconds(), s.amount}
	}
	return json.Marshal(out)
}

func share(part, of int64) *float64 {
	if of == 0 {
		return nil
	}
	x := float64(part) / float64(of)
	return &x
}
