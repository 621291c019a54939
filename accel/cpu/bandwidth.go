package cpu

import (
	"slices"
	"sync/atomic"
	"time"
)

// readChunk is what one claim of a [ReadBandwidth] pass reads.
const readChunk = 4 << 20

// ReadBandwidth measures how fast threads threads together read bytes bytes of huge-page memory, in GB/s (1e9 bytes): the
// limit for everything that streams weights. bytes should be several times the last-level cache. It makes passes for about
// d, at least two: in turns each thread reads on from one place, and from eight at once, and the way that is faster on this processor counts.
// The result is its median pass and not its best one, as what is compared with it is the usual speed of something else. It is 0 when
// the memory cannot be had.
func ReadBandwidth(threads int, bytes int, d time.Duration) float64 {
	threads = clampThreads(threads)
	bytes = max(1, ceilDiv(bytes, readChunk)) * readChunk
	mem, free, err := hugeMemory(bytes)
	if err != nil {
		return 0
	}
	defer free()
	for i := 0; i < len(mem); i += 4096 { // make every page real
		mem[i] = 1
	}
	var pool workPool
	pool.size.Store(int32(threads))
	defer pool.resize(1)
	task := &readTask{mem: mem}
	var passes [2][]float64
	for pass, end := 0, time.Now().Add(d); pass < 2 || time.Now().Before(end); pass++ {
		task.side = pass%2 == 1
		start := time.Now()
		pool.run(len(mem)/readChunk, task)
		passes[pass%2] = append(passes[pass%2], float64(len(mem))/time.Since(start).Seconds()/1e9)
	}
	best := 0.0
	for _, speeds := range passes {
		slices.Sort(speeds)
		best = max(best, speeds[(len(speeds)-1)/2])
	}
	return best
}

type readTask struct {
	mem  []byte
	side bool
	sum  atomic.Uint64
}

func (t *readTask) Run(chunk int) {
	read := readSum
	if t.side {
		read = readSumSide
	}
	t.sum.Add(read(t.mem[chunk*readChunk : (chunk+1)*readChunk]))
}

// readSumRef reads b, whose length is a multiple of 256. Its result means nothing, but keeps the loop alive.
func readSumRef(b []byte) uint64 {
	var s uint64
	for len(b) >= 8 {
		s |= uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		b = b[8:]
	}
	return s
}
