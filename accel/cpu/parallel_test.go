package cpu

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// taskFunc makes a Task of a function.
type taskFunc func(chunk int)

func (f taskFunc) Run(chunk int) { f(chunk) }

// countTask counts how often each chunk ran.
type countTask struct{ runs []atomic.Int32 }

func (c *countTask) Run(chunk int) { c.runs[chunk].Add(1) }

func requireOnce(t *testing.T, c *countTask) {
	t.Helper()
	for i := range c.runs {
		require.EqualValues(t, 1, c.runs[i].Load(), "chunk %d", i)
	}
}

func TestParallelRunsEachChunkOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 5} {
		threadsFor(t, threads)
		for rep := range 200 {
			chunks := rep % 40
			c := &countTask{runs: make([]atomic.Int32, chunks)}
			Parallel(chunks, c)
			requireOnce(t, c)
		}
	}
}

func TestParallelServesCallersAtTheSameTime(t *testing.T) {
	threadsFor(t, 3)
	var callers sync.WaitGroup
	for range 4 {
		callers.Add(1)
		go func() {
			defer callers.Done()
			for range 300 {
				c := &countTask{runs: make([]atomic.Int32, 9)}
				Parallel(9, c)
				requireOnce(t, c)
			}
		}()
	}
	callers.Wait()
}

func TestParallelWithinATask(t *testing.T) {
	threadsFor(t, 2)
	inner := &countTask{runs: make([]atomic.Int32, 32)}
	Parallel(4, taskFunc(func(chunk int) {
		Parallel(8, taskFunc(func(c int) { inner.Run(8*chunk + c) }))
	}))
	requireOnce(t, inner)
}

func TestParallelOnOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	threadsFor(t, 4)
	for range 50 {
		c := &countTask{runs: make([]atomic.Int32, 16)}
		Parallel(16, c)
		requireOnce(t, c)
	}
}

// meet is a task of two chunks that end only when both have begun: it needs two threads.
func meet() Task {
	var begun atomic.Int32
	return taskFunc(func(int) {
		begun.Add(1)
		for begun.Load() < 2 {
			runtime.Gosched()
		}
	})
}

func TestWorkersTakePartWhetherTheyPollOrSleep(t *testing.T) {
	threadsFor(t, 2)
	for range 5 {
		Parallel(2, meet()) // polling since the job before
		until(func() bool { return shared.workers[0].asleep.Load() })
		Parallel(2, meet()) // parked
	}
}

func until(ready func() bool) {
	for !ready() {
		runtime.Gosched()
	}
}

func goroutineName() string {
	b := make([]byte, 64)
	return string(bytes.Fields(b[:runtime.Stack(b, false)])[1])
}

func TestACallerParksUntilTheLastChunkIsDone(t *testing.T) {
	threadsFor(t, 2)
	caller := goroutineName()
	both := meet()
	finished := false
	Parallel(2, taskFunc(func(chunk int) {
		both.Run(chunk)
		if goroutineName() != caller {
			until(func() bool { return shared.waiting.Load() })
			finished = true
		}
	}))
	require.True(t, finished)
	Parallel(2, meet())
}

func TestAPanicReachesTheCaller(t *testing.T) {
	cause := errors.New("cause")
	for _, threads := range []int{1, 2} {
		threadsFor(t, threads)
		for rep := range 20 {
			err := catch(func() {
				Parallel(8, taskFunc(func(chunk int) {
					if chunk == rep%8 {
						panic(cause)
					}
				}))
			})
			var p *TaskPanic
			require.ErrorAs(t, err, &p)
			require.Equal(t, rep%8, p.Chunk)
			require.ErrorIs(t, err, cause)
			require.Contains(t, err.Error(), "parallel_test.go")
			c := &countTask{runs: make([]atomic.Int32, 8)} // the pool still works
			Parallel(8, c)
			requireOnce(t, c)
		}
	}
}

func catch(f func()) (err error) {
	defer func() { err, _ = recover().(error) }()
	f()
	return nil
}

func TestAPanicOfAWorkerReachesTheCaller(t *testing.T) {
	threadsFor(t, 2)
	caller := goroutineName()
	both := meet()
	err := catch(func() {
		Parallel(2, taskFunc(func(chunk int) {
			both.Run(chunk)
			if goroutineName() != caller {
				panic("on a worker")
			}
		}))
	})
	require.ErrorContains(t, err, "on a worker")
	require.NoError(t, errors.Unwrap(err))
}

func TestAPanicWithinAnInnerJobIsNotWrappedTwice(t *testing.T) {
	threadsFor(t, 2)
	err := catch(func() {
		Parallel(2, taskFunc(func(int) {
			Parallel(3, taskFunc(func(chunk int) {
				if chunk == 2 {
					panic("inner")
				}
			}))
		}))
	})
	p := err.(*TaskPanic)
	require.Equal(t, "inner", p.Value)
	require.Equal(t, 2, p.Chunk)
}

func TestATaskThatEndsItsGoroutineDoesNotHangThePool(t *testing.T) {
	for _, threads := range []int{1, 2} {
		threadsFor(t, threads)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			Parallel(4, taskFunc(func(int) { runtime.Goexit() }))
		}()
		<-ended
		require.NoError(t, SetNumThreads(1))
		require.NoError(t, SetNumThreads(threads))
		c := &countTask{runs: make([]atomic.Int32, 8)}
		Parallel(8, c)
		requireOnce(t, c)
	}
}

func TestAWorkerThatATaskEndedIsReported(t *testing.T) {
	threadsFor(t, 2)
	caller := goroutineName()
	both := meet()
	err := catch(func() {
		Parallel(2, taskFunc(func(chunk int) {
			both.Run(chunk)
			if goroutineName() != caller {
				runtime.Goexit()
			}
		}))
	})
	require.ErrorContains(t, err, "ended its goroutine")
}

func TestResizingStopsWorkers(t *testing.T) {
	require.NoError(t, SetNumThreads(1))
	before := goleak.IgnoreCurrent()
	for _, n := range []int{4, 2, 6, 6, 1} {
		require.NoError(t, SetNumThreads(n))
		require.Equal(t, n, NumThreads())
		Parallel(4, taskFunc(func(int) {}))
	}
	goleak.VerifyNone(t, before)
}

func TestResizingWhileOthersWork(t *testing.T) {
	threadsFor(t, 2)
	var stop atomic.Bool
	var callers sync.WaitGroup
	for range 2 {
		callers.Add(1)
		go func() {
			defer callers.Done()
			for !stop.Load() {
				c := &countTask{runs: make([]atomic.Int32, 5)}
				Parallel(5, c)
				requireOnce(t, c)
			}
		}()
	}
	for i := range 60 {
		require.NoError(t, SetNumThreads(1+i%4))
	}
	stop.Store(true)
	callers.Wait()
}

func TestSetNumThreadsNamesItsRange(t *testing.T) {
	for _, n := range []int{0, -3, MaxThreads + 1} {
		err := SetNumThreads(n)
		require.ErrorIs(t, err, ErrThreads)
		require.ErrorContains(t, err, "1 to 1024")
	}
	if most := math.MaxInt32; most+1 > 0 { // where int has 64 bits
		require.Panics(t, func() { Parallel(most+1, taskFunc(func(int) {})) })
	}
}

// matmulTask is how the engine uses the pool: a chunk is a range of panels.
type matmulTask struct {
	c      ternaryCase
	dst    []int32
	chunks int
}

func (m *matmulTask) Run(chunk int) {
	panels := ceilDiv(m.c.rows, PanelRows)
	p0, p1 := chunk*panels/m.chunks, (chunk+1)*panels/m.chunks
	TernaryMatMul(m.dst[p0*PanelRows:], panels*PanelRows, m.c.panels, m.c.cols, p0, p1, m.c.x, m.c.ldx, m.c.xsum, m.c.tokens)
}

func TestParallelMatMulAllocatesNothingAndIsExact(t *testing.T) {
	for _, threads := range []int{1, 2} {
		threadsFor(t, threads)
		for _, tokens := range []int{1, 5} {
			c := newTernaryCase(rand.New(rand.NewPCG(1, 2)), 300, 264, tokens, 0, ternaryWeights["random"], ternaryInputs["random"])
			m := &matmulTask{c: c, dst: make([]int32, tokens*304), chunks: 7}
			Parallel(m.chunks, m)
			require.Equal(t, c.want(0, 19), m.dst)
			require.Zero(t, testing.AllocsPerRun(100, func() { Parallel(m.chunks, m) }))
		}
	}
}

func TestKernelsAllocateNothing(t *testing.T) {
	for _, isa := range Supported() {
		onISA(isa, func() {
			c := newDenseCase(rand.New(rand.NewPCG(1, 2)), DenseBF16, 40, 64, 2, 0, "normal", true)
			dst := make([]float32, 96)
			require.Zero(t, testing.AllocsPerRun(20, func() {
				var x [70]float32
				var q [70]int8
				DenseMatMul(dst, 48, c.f, c.panels, c.scale, c.cols, 0, 3, c.x, c.ldx, 2)
				AddProduct(x[:16], 16, dst, 4, 1, dst, 16, 1, 16, 4, Ahead{})
				Dot(x[:], dst)
				ExpSum(x[:], MaxF32(x[:]))
				ScaleMul(x[:], x[:], x[:], SumSquares(x[:]))
				QuantizeInt8(q[:], x[:], AbsMax(x[:]))
				QuantizeInt16(q[:], q[:], x[:], 1)
				Silu(x[:], x[:])
				ReLU2(x[:], x[:])
				Mul(x[:], x[:], x[:])
				Add(x[:], x[:], x[:])
			}), isa)
		})
	}
}

// Products with integers, for a few tokens and for many; what they work in is kept from call to call.
func TestIntegerProductsAllocateNothing(t *testing.T) {
	const rows, cols = 16 * 11, 320
	for _, isa := range Supported() {
		for _, tokens := range []int{1, 2, 9, 17, 33} {
			r := rand.New(rand.NewPCG(1, 2))
			ternary := newTernaryCase(r, rows, cols, tokens, 0, ternaryWeights["random"], ternaryInputs["random"])
			q8 := newIntCase(r, DenseInt8, rows, cols, tokens, 0, randomCode, ternaryInputs["random"])
			q4 := newIntCase(r, DenseInt4, rows, cols, tokens, 0, randomCode, ternaryInputs["random"])
			lines, sums, floats := ternary.asLines(), make([]int32, tokens*rows), make([]float32, tokens*rows)
			onISA(isa, func() {
				space := make([]byte, LinesSpace(cols))
				require.Zero(t, testing.AllocsPerRun(3, func() {
					TernaryMatMul(sums, rows, ternary.panels, cols, 0, rows/PanelRows, ternary.x, ternary.ldx, ternary.xsum, tokens)
					for _, m := range lines {
						TernaryLinesMatMul(sums, rows, m, 0, rows/PanelRows, ternary.x, ternary.ldx, ternary.xsum, tokens, space)
					}
					DenseIntMatMul(floats, rows, q8.f, q8.panels, q8.scale, cols, 0, rows/PanelRows, q8.x, tokens, false)
					DenseIntMatMul(floats, rows, q4.f, q4.panels, q4.scale, cols, 0, rows/PanelRows, q4.x, tokens, false)
				}), "%v: %d tokens", isa, tokens)
			})
		}
	}
}
