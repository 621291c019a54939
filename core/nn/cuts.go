package nn

import "github.com/bitnet-rust/bitnet_rust/accel/cpu"

// mostCuts bounds the chunks of a job that is cut by [newCuts].
const mostCuts = 128

// cuts are where the chunks of a job end that is done when its weights have been read. The first are large, as memory is read faster in long
// runs, and the last ones small, as others wait for whoever is slow (guided self-scheduling, Polychronopoulos & Kuck 1987).
type cuts struct {
	n    int
	ends [mostCuts]int32
}

// newCuts cuts total into chunks that are multiples of unit, but for the last one: each a third of what would be everybody's share of the rest.
func newCuts(total, unit int) (c cuts) {
	for end := 0; end < total; unit *= 2 {
		end, c.n = 0, 0
		for ; end < total && c.n < mostCuts; c.n++ {
			end = min(total, end+unit*max(1, (total-end)/(3*unit*cpu.NumThreads())))
			c.ends[c.n] = int32(end)
		}
	}
	return c
}

// chunk gives what chunk i takes, [from, to).
func (c *cuts) chunk(i int) (from, to int) {
	if i > 0 {
		from = int(c.ends[i-1])
	}
	return from, int(c.ends[i])
}
