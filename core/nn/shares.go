package nn

import (
	"sync"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// shares hands out the chunks of a job that is done when its weights have been read. Every thread has a share, which is one run of memory, and takes
// chunk after chunk of it, so that what was read ahead at the end of one is what it reads next. Who has none left takes the last chunk of
// whoever has most. The first chunks of a share are large, as memory is read faster in long runs, and the last ones small, as others wait for whoever is
// slow (guided self-scheduling, Polychronopoulos & Kuck 1987).
type shares struct {
	mu    sync.Mutex
	total int
	size  int             // of a share
	ends  [mostCuts]int32 // of the chunks of a share, from its beginning on
	left  []chunkRun      // of each share
	free  []int           // shares that nobody takes from at the moment
}

// mostCuts bounds the chunks of a share.
const mostCuts = 64

// chunkRun is chunks [next, end) of a share.
type chunkRun struct{ next, end int }

// open cuts total into chunks that are multiples of unit, but for the last one, each a third of what is left of its share. It returns their number: as
// often take has to be called.
func (s *shares) open(total, unit int) (chunks int) {
	threads := cpu.NumThreads()
	s.total, s.size = total, (total+unit*threads-1)/(unit*threads)*unit
	count := 0
	for end := 0; end < s.size; unit *= 2 {
		end, count = 0, 0
		for ; end < s.size && count < mostCuts; count++ {
			end = min(s.size, end+unit*max(1, (s.size-end)/(3*unit)))
			s.ends[count] = int32(end)
		}
	}
	s.left, s.free = s.left[:0], s.free[:0]
	for i := range threads {
		n := 0
		for n < count && s.begin(i, n) < total {
			n++
		}
		s.left, s.free = append(s.left, chunkRun{end: n}), append(s.free, i)
		chunks += n
	}
	return chunks
}

// begin is where a chunk of a share begins.
func (s *shares) begin(share, chunk int) int {
	if chunk == 0 {
		return share * s.size
	}
	return share*s.size + int(s.ends[chunk-1])
}

// take gives a chunk, [from, to), and the share that is to be given back when it is done. Who finds no share free, as there are more threads than when
// the job was opened, takes from the others.
func (s *shares) take() (share, from, to int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	share = noShare
	if last := len(s.free) - 1; last >= 0 {
		share, s.free = s.free[last], s.free[:last]
	}
	var of, chunk int
	if share != noShare && s.left[share].next < s.left[share].end {
		of, chunk = share, s.left[share].next
		s.left[of].next++
	} else {
		for i, r := range s.left {
			if most := s.left[of]; r.end-r.next > most.end-most.next {
				of = i
			}
		}
		s.left[of].end--
		chunk = s.left[of].end
	}
	return share, s.begin(of, chunk), min(s.begin(of, chunk+1), s.total)
}

// noShare is what needs not be given back.
const noShare = -1

func (s *shares) give(share int) {
	if share == noShare {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, share)
}
