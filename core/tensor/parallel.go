package tensor

import "github.com/bitnet-rust/bitnet_rust/accel/cpu"

// grain is the number of elements from which a second thread pays.
const grain = 32 * chunk

// parallel runs body over pieces of [0, n) that each hold at least minimum
// items, on the worker pool when there is more than one piece. Pieces never
// share an output element, so results do not depend on how they are cut.
func parallel(n, minimum int, body func(lo, hi int)) {
	pieces := min(n/max(minimum, 1), 8*cpu.NumThreads())
	if pieces < 2 {
		if n > 0 {
			body(0, n)
		}
		return
	}
	cpu.Parallel(pieces, rangeTask{n, pieces, body})
}

type rangeTask struct {
	n, pieces int
	body      func(lo, hi int)
}

func (t rangeTask) Run(i int) {
	// n/pieces first: i*n could overflow for no reason.
	size, rest := t.n/t.pieces, t.n%t.pieces
	lo := i*size + min(i, rest)
	hi := lo + size
	if i < rest {
		hi++
	}
	t.body(lo, hi)
}
