package optim

import "math"

const (
	// chunkLen is the number of elements of one piece of work. It is part of the numbers: sums over gradients add up
	// chunk by chunk. 16384 elements of Adam are 256 KB of reading, enough to be worth a claim from the worker pool.
	chunkLen = 1 << 14
	// maxElements bounds one parameter, so that sizes in bytes fit.
	maxElements = math.MaxInt / 64
)

// span is one piece of work: elements lo to hi of one parameter.
type span struct{ param, lo, hi int }

// cut cuts tensors of the given lengths into spans, in order. No span covers two tensors.
func cut(lengths []int) []span {
	var spans []span
	for i, n := range lengths {
		for lo := 0; lo < n; lo += chunkLen {
			spans = append(spans, span{i, lo, min(lo+chunkLen, n)})
		}
	}
	return spans
}
