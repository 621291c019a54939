package nn

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

type profileJSON struct {
	Steps, Rows int64
	Seconds     float64
	GateDensity *float64 `json:"gate_density"`
	DownDensity *float64 `json:"down_density"`
	Rescored    *float64 `json:"head_rescored"`
	Totals      []struct {
		Layer   *int
		Op      string
		Count   int64
		Seconds float64
		Bytes   int64

		Multiplications int64
	}
	Ops     []string
	Spans   [][6]int64
	Dropped int64
}

func read(t *testing.T, p *Profile) (out profileJSON) {
	t.Helper()
	text, err := json.Marshal(p)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &out))
	return out
}

// layer is an attention and a feed-forward network whose neurons can be skipped.
func layer(t *testing.T, hidden, neurons int) (a *Attention, f *FeedForward) {
	t.Helper()
	r := rand.New(rand.NewPCG(8, 8))
	a = &Attention{Layer: 2, Heads: 2, KVHeads: 1, Dim: 16}
	a.Q, _ = ternary(r, 32, hidden, false)
	a.K, _ = ternary(r, 16, hidden, false)
	a.V, _ = ternary(r, 16, hidden, false)
	a.O, _ = ternary(r, hidden, 32, false)
	f = &FeedForward{Act: ReLU2}
	f.Gate, _ = ternary(r, neurons, hidden, false)
	up, _ := ternary(r, neurons, hidden, false)
	down, _ := ternary(r, hidden, neurons, false)
	f.Up, f.Down = byLines(up, quant.RowLines), byLines(down, quant.ColumnLines)
	return a, f
}

func TestTheTimesOfAProfileAddUpToItsSteps(t *testing.T) {
	const hidden, neurons, steps = 48, 70, 3
	a, f := layer(t, hidden, neurons)
	c, p := testCtx(t), NewProfile()
	x := matrix(t, randoms(rand.New(rand.NewPCG(1, 1)), hidden), 1, hidden)
	caches := []*KVCache{newCache(t, 8, 1, 16)}
	rope, err := NewRoPE(16, 10000, nil)
	require.NoError(t, err)
	c.Measure(p)
	for pos := range steps {
		c.Begin(context.Background(), 1, []Row{{Pos: int32(pos)}}, caches)
		angles := rope.Angles(c)
		c.Free(a.Forward(c, x, nil, angles))
		c.Free(f.Forward(c, x, nil))
		angles.Free(c)
		c.End()
	}
	p.Sampled(time.Now().Add(-time.Millisecond))
	got := read(t, p)
	require.EqualValues(t, steps, got.Steps)
	require.EqualValues(t, steps, got.Rows)

	sum, bytes, products := 0.0, map[string]int64{}, map[string]int64{}
	for _, one := range got.Totals {
		sum += one.Seconds
		bytes[one.Op] += one.Bytes
		products[one.Op] += one.Multiplications
		if inLayer := one.Op != "sampler" && one.Op != "other" && (one.Op != "rope" || one.Layer != nil); inLayer {
			require.Equal(t, 2, *one.Layer, one.Op)
		}
	}
	assert.InDelta(t, got.Seconds, sum, 1e-9)
	assert.EqualValues(t, steps*(a.Q.Ternary.Bytes()+a.K.Ternary.Bytes()+a.V.Ternary.Bytes()), bytes["qkv"])
	assert.GreaterOrEqual(t, bytes["gate+up"], int64(steps*f.Gate.Ternary.Bytes()))
	assert.EqualValues(t, (1+2+3)*2*4*16, bytes["attention"]) // keys and values of 16 floats
	assert.Zero(t, bytes["rope"])
	assert.EqualValues(t, steps*(32+16+16)*hidden, products["qkv"])
	assert.EqualValues(t, (1+2+3)*2*2*16, products["attention"]) // with keys and with values of two heads
	assert.Zero(t, products["rope"])

	var whole, parts, end int64 // spans lie one after another within their step
	for _, s := range got.Spans {
		switch {
		case int(s[2]) == len(got.Ops):
			whole += s[4]
			end = s[3]
			assert.EqualValues(t, 1, s[5])
		case got.Ops[s[2]] != "sampler":
			assert.Equal(t, end, s[3])
			end += s[4]
			parts += s[4]
		}
	}
	assert.Equal(t, whole, parts)
	assert.Zero(t, got.Dropped)
}

// What is read of the up and down projections is the lines of neurons that are on.
func TestAProfileCountsTheNeuronsThatAreRead(t *testing.T) {
	const hidden, neurons = 48, 300
	_, f := layer(t, hidden, neurons)
	defer cpu.SetSkipZeros(true)
	for _, rows := range []int{1, 3} {
		f.Gate.Bias = make([]float32, neurons)
		for i := range f.Gate.Bias { // every third gate is open for all rows
			f.Gate.Bias[i] = -1e6
			if i%3 == 0 {
				f.Gate.Bias[i] = 1e6
			}
		}
		for _, skip := range []bool{true, false} {
			cpu.SetSkipZeros(skip)
			c, p := testCtx(t), NewProfile()
			c.Measure(p)
			x := matrix(t, randoms(rand.New(rand.NewPCG(2, 2)), rows*hidden), rows, hidden)
			c.Begin(context.Background(), 1, positions(rows), nil)
			f.Forward(c, x, nil)
			c.End()
			got, bytes, products := read(t, p), map[string]int64{}, map[string]int64{}
			for _, one := range got.Totals {
				bytes[one.Op] += one.Bytes
				products[one.Op] += one.Multiplications
			}
			read := int64(neurons)
			if skip {
				read = neurons / 3
			}
			assert.Equal(t, int64(f.Gate.Ternary.Bytes())+read*int64(cpu.LineBytes(hidden)), bytes["gate+up"], skip)
			assert.EqualValues(t, rows*(neurons+neurons/3)*hidden, products["gate+up"], "all gates, and the neurons behind open ones")
			assert.InDelta(t, *got.DownDensity*float64(rows*neurons*hidden), float64(products["down"]), 1e-6)
			assert.InDelta(t, 1.0/3, *got.GateDensity, 1e-9)
			assert.LessOrEqual(t, *got.DownDensity, *got.GateDensity)
			if skip && rows == 1 { // of several, what any reads
				assert.InDelta(t, *got.DownDensity*neurons*float64(cpu.LineBytes(hidden)), float64(bytes["down"]), 1e-6)
			}
		}
	}
}

func TestALongProfileKeepsItsTotals(t *testing.T) {
	p := NewProfile()
	for range mostSpans + 5 {
		p.Sampled(time.Now())
	}
	got := read(t, p)
	require.Len(t, got.Spans, mostSpans)
	require.EqualValues(t, 5, got.Dropped)
	require.EqualValues(t, mostSpans+5, got.Totals[0].Count)
}
