package nn

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// Whoever takes how many chunks, each piece of a job is handed out once.
func TestSharesCoverEverythingOnce(t *testing.T) {
	defer func(n int) { require.NoError(t, cpu.SetNumThreads(n)) }(cpu.NumThreads())
	type piece struct{ from, to int }
	for _, threads := range []int{1, 2, 7, 64} {
		require.NoError(t, cpu.SetNumThreads(threads))
		for _, total := range []int{1, 7, 8, 9, 160, 432, 6912, 8016, 100003} {
			for _, unit := range []int{1, 8, 128} {
				for _, slow := range []int{0, 1, 5} { // so many take one chunk and keep it
					name := fmt.Sprint(threads, " threads, ", slow, " of them slow, ", total, " in units of ", unit)
					var s shares
					n := s.open(total, unit)
					var pieces []piece
					for i := range n {
						share, from, to := s.take()
						pieces = append(pieces, piece{from, to})
						if i >= min(slow, threads-1) {
							s.give(share)
						}
					}
					slices.SortFunc(pieces, func(a, b piece) int { return a.from - b.from })
					end := 0
					for _, p := range pieces {
						require.Equal(t, end, p.from, name)
						require.Less(t, p.from, p.to, name)
						require.Zero(t, p.from%unit, name)
						end = p.to
					}
					require.Equal(t, total, end, name)
				}
			}
		}
	}
}

// A thread goes on where it was as long as there is something, in ever smaller chunks.
func TestAShareIsTakenInItsOrder(t *testing.T) {
	defer func(n int) { require.NoError(t, cpu.SetNumThreads(n)) }(cpu.NumThreads())
	require.NoError(t, cpu.SetNumThreads(2))
	var s shares
	n := s.open(6912, 128)
	slow, begun, end := s.take()
	last := s.size
	for at := 0; at < s.size; {
		share, from, to := s.take()
		require.NotEqual(t, slow, share)
		require.Equal(t, at, from%s.size)
		require.LessOrEqual(t, to-from, last)
		at, last = at+to-from, to-from
		s.give(share)
		n--
	}
	_, from, to := s.take() // of the other share its end
	require.Equal(t, begun/s.size*s.size+s.size, to)
	require.Greater(t, from, end)
	require.Greater(t, n, 2)
}

// Who raises the number of threads does not wait for a step to end: more of them than there are shares, or spaces, may come for chunks of a job.
func TestMoreThreadsThanSharesAndSpaces(t *testing.T) {
	defer func(n int) { require.NoError(t, cpu.SetNumThreads(n)) }(cpu.NumThreads())
	require.NoError(t, cpu.SetNumThreads(2))
	var s shares
	end, seen := 0, map[int]int{}
	for range s.open(6912, 128) { // nobody gives a share back
		_, from, to := s.take()
		seen[from] = to
	}
	for end < 6912 {
		require.Greater(t, seen[end], end)
		end = seen[end]
	}

	c := testCtx(t)
	c.Begin(context.Background(), 1, nil, nil)
	defer c.End()
	c.spaces.open(c, 100)
	one, other, third := c.spaces.take(), c.spaces.take(), make(chan []byte)
	go func() { third <- c.spaces.take() }()
	c.spaces.give(other)
	got := <-third
	require.Same(t, &other[0], &got[0])
	c.spaces.give(one)
	c.spaces.give(got)
	c.spaces.close(c)
}
