package infer

import "math"

// candidate is a token that may still be drawn.
type candidate struct {
	id     int32
	key    float32 // what the selection orders by: larger is better, equal keys go by ascending id
	weight float32 // probability up to a common factor
}

// before reports whether c comes before d: the larger key, then the lower id. Ids differ, so this is a total order.
func (c candidate) before(d candidate) bool {
	return c.key > d.key || (c.key == d.key && c.id < d.id)
}

// measure says what a selection counts.
type measure bool

const (
	byCount  measure = false // every candidate counts 1
	byWeight measure = true  // a candidate counts its weight
)

func (m measure) of(c candidate) float64 {
	if m == byWeight {
		return float64(c.weight)
	}
	return 1
}

// border returns the last candidate of the shortest leading part, in the order of before, that measures at least target > 0; the
// very last candidate if all of them together measure less. It reorders c, which must not be empty.
//
// It is a quickselect that narrows by accumulated measure instead of by rank: O(len(c)) on average, nothing is sorted. Pivots come
// from a generator with a fixed seed, so the time does not depend on the order of the input, nor the result on chance.
func border(c []candidate, target float64, m measure) candidate {
	var (
		last   candidate
		passed float64 // measure of what is known to lie in the leading part; always < target
		rng    = uint64(len(c))
	)
	for len(c) > 0 {
		rng = rng*6364136223846793005 + 1442695040888963407
		front, ahead := partition(c, int((rng>>33)%uint64(len(c))), m)
		pivot := c[front]
		switch {
		case passed+ahead >= target:
			c = c[:front]
		case passed+ahead+m.of(pivot) >= target:
			return pivot
		default:
			passed += ahead + m.of(pivot)
			last, c = pivot, c[front+1:]
		}
	}
	return last
}

// partition moves the candidates before the pivot to the front and the pivot behind them. It returns the pivot's new index and the
// measure of what is in front of it.
func partition(c []candidate, at int, m measure) (front int, ahead float64) {
	end := len(c) - 1
	c[at], c[end] = c[end], c[at]
	pivot := c[end]
	for i := range c[:end] {
		if c[i].before(pivot) {
			ahead += m.of(c[i])
			c[i], c[front] = c[front], c[i]
			front++
		}
	}
	c[front], c[end] = c[end], c[front]
	return front, ahead
}

// keepThrough removes the candidates behind last and keeps the order of the others.
func keepThrough(c []candidate, last candidate) []candidate {
	n := 0
	for i := range c {
		if !last.before(c[i]) {
			c[n] = c[i]
			n++
		}
	}
	return c[:n]
}

// topBorder returns the k-th best of the values, ties by lowest index; noBorder, which comes behind every value above -inf, if there
// are fewer. buf is its working memory and is returned, perhaps grown: to at most 2k+minTopBuffer candidates.
//
// Candidates are collected above a threshold that rises whenever the buffer is full, so that almost all values cost one comparison.
func topBorder(values []float32, k int, buf []candidate) (candidate, []candidate) {
	limit := 2*k + minTopBuffer
	buf = grow(buf, min(limit, len(values)))
	kth := noBorder
	for i, v := range values {
		if v <= kth.key {
			continue
		}
		buf = append(buf, candidate{id: int32(i), key: v})
		if len(buf) == limit {
			kth = border(buf, float64(k), byCount)
			buf = keepThrough(buf, kth)
		}
	}
	if len(buf) > k {
		kth = border(buf, float64(k), byCount)
	}
	return kth, buf
}

var (
	negInf   = float32(math.Inf(-1))
	noBorder = candidate{id: -1, key: negInf}
)

// within reports whether the value at index i is the border or before it.
func (c candidate) within(i int, v float32) bool {
	return v > c.key || (v == c.key && int32(i) <= c.id)
}

const minTopBuffer = 256

// grow returns an empty slice with room for n candidates, b's memory if that suffices.
func grow(b []candidate, n int) []candidate {
	if cap(b) < n {
		return make([]candidate, 0, n)
	}
	return b[:0]
}
