package cpu

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Task is a job that is cut into numbered chunks. Run is called for each exactly once, in any order, several at once.
type Task interface{ Run(chunk int) }

// Parallel runs t.Run(0..chunks-1) on the caller and the pool's workers and returns when all are done. It allocates
// nothing. When the pool works for another caller (or is called from within a task), the chunks run on the caller alone.
//
// A panic in a chunk skips the chunks that have not started and is raised again in the caller as a [*TaskPanic].
//
// Chunks are claimed one by one from an atomic counter, so a core that is slow or taken by another process costs at most
// the chunk it holds: some four chunks per thread are a good number, as long as each streams a good 100 KB.
func Parallel(chunks int, t Task) { shared.run(chunks, t) }

// TaskPanic carries a panic out of a chunk to the caller of [Parallel].
type TaskPanic struct {
	Chunk int    // its number
	Value any    // what was passed to panic
	Stack []byte // where
}

// Error has the chunk, the value of the panic and the stack of the worker.
func (p *TaskPanic) Error() string {
	return fmt.Sprintf("cpu: panic in chunk %d: %v\n%s", p.Chunk, p.Value, p.Stack)
}

// Unwrap gives the panic's value when it is an error.
func (p *TaskPanic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// spinTime is how long a worker (or a caller that waits for the last chunk) polls before it parks. It must outlast the
// serial gaps between two matrices of a token: waking a parked thread takes about 100 us.
const spinTime = 250 * time.Microsecond

// shared is the process's pool.
var shared workPool

// workPool is a set of persistent workers with one job slot.
//
// The slot's state packs the number of chunks and the next chunk to claim in one word. A chunk is claimed by a
// compare-and-swap, and whoever succeeds holds a chunk of the job that is in the slot at that moment: the job cannot end
// before that chunk is done, so task stays valid. A worker that comes late finds no chunk left or claims one of the next
// job; both are right. So the slot can be used again and again and a job needs no allocation.
type workPool struct {
	mu      sync.Mutex // held by the caller whose job is in the slot, and while resizing
	started bool
	workers []*worker
	stopped sync.WaitGroup
	size    atomic.Int32 // number of threads, 0 before first use

	task    Task
	failure atomic.Pointer[TaskPanic]
	stop    atomic.Bool

	_       [64]byte
	state   atomic.Uint64 // chunks<<32 | next
	_       [56]byte
	done    atomic.Uint32 // finished chunks
	waiting atomic.Bool   // the caller is parked on finished
	_       [56]byte

	finished chan struct{}
}

// worker is one parked or polling goroutine.
type worker struct {
	asleep atomic.Bool
	wake   chan struct{} // one token for each asleep true -> false made by somebody else
	_      [48]byte
}

func (p *workPool) threads() int {
	if n := p.size.Load(); n > 0 {
		return int(n)
	}
	p.size.CompareAndSwap(0, int32(threadsFromEnv().n))
	return int(p.size.Load())
}

// run is Parallel.
func (p *workPool) run(chunks int, t Task) {
	const most = 1<<31 - 1
	switch {
	case chunks <= 0:
		return
	case chunks > most:
		panic(fmt.Sprintf("cpu: Parallel: %d chunks, want at most %d", chunks, most))
	case chunks == 1 || p.threads() == 1 || !p.mu.TryLock():
		runInline(chunks, t)
		return
	}
	if !p.started {
		p.start()
	}
	p.task = t
	p.done.Store(0)
	p.state.Store(uint64(chunks) << 32)
	p.wakeWorkers(chunks - 1)
	ended := false
	defer func() { p.finish(uint32(chunks), ended) }() // also when a task ends this goroutine
	for p.claimAndRun() {
	}
	ended = true
}

// finish waits for the job, frees the slot and raises the panic of a chunk again.
func (p *workPool) finish(chunks uint32, raise bool) {
	for p.claimAndRun() {
	}
	p.wait(chunks)
	p.task = nil
	failure := p.failure.Swap(nil)
	p.mu.Unlock()
	if failure != nil && raise {
		panic(failure)
	}
}

// claimAndRun claims a chunk of the job in the slot and runs it; false when none is left.
func (p *workPool) claimAndRun() bool {
	for {
		s := p.state.Load()
		chunks, next := uint32(s>>32), uint32(s)
		if next >= chunks {
			return false
		}
		if p.state.CompareAndSwap(s, s+1) {
			p.runChunk(int(next), chunks)
			return true
		}
	}
}

// claimable says whether a chunk waits for somebody.
func (p *workPool) claimable() bool {
	s := p.state.Load()
	return uint32(s) < uint32(s>>32)
}

func (p *workPool) runChunk(chunk int, chunks uint32) {
	ended := false
	defer func() {
		if !ended {
			p.failure.CompareAndSwap(nil, newTaskPanic(chunk, recover()))
		}
		if p.done.Add(1) == chunks && p.waiting.CompareAndSwap(true, false) {
			p.finished <- struct{}{}
		}
	}()
	if p.failure.Load() == nil {
		p.task.Run(chunk)
	}
	ended = true
}

func newTaskPanic(chunk int, value any) *TaskPanic {
	if inner, ok := value.(*TaskPanic); ok { // from a job within the task
		return inner
	}
	if value == nil { // the task called runtime.Goexit, as testing's FailNow does
		value = "the task ended its goroutine"
	}
	return &TaskPanic{Chunk: chunk, Value: value, Stack: debug.Stack()}
}

// wait polls until all chunks are done, and parks when that takes long.
func (p *workPool) wait(chunks uint32) {
	if poll(func() bool { return p.done.Load() == chunks }) {
		return
	}
	p.waiting.Store(true)
	if p.done.Load() == chunks && p.waiting.CompareAndSwap(true, false) {
		return
	}
	<-p.finished
}

// wakeWorkers wakes up to n parked workers. Workers that poll see the job by themselves.
func (p *workPool) wakeWorkers(n int) {
	for _, w := range p.workers {
		if n == 0 {
			return
		}
		if w.asleep.Load() && w.asleep.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
		n--
	}
}

func (p *workPool) work(w *worker) {
	defer p.stopped.Done()
	debug.SetPanicOnFault(true) // weights may be a file's mapping: when the file is cut short, the task fails and not the process
	ready := func() bool { return p.claimable() || p.stop.Load() }
	for !p.stop.Load() {
		for p.claimAndRun() {
		}
		if poll(ready) {
			continue
		}
		w.asleep.Store(true)
		if ready() && w.asleep.CompareAndSwap(true, false) {
			continue
		}
		<-w.wake
	}
}

// poll waits for ready for about spinTime and says whether it came true.
func poll(ready func() bool) bool {
	var start time.Time
	for i := 1; !ready(); i++ {
		pause()
		if i%64 != 0 {
			continue
		}
		switch now := time.Now(); {
		case start.IsZero():
			start = now
		case now.Sub(start) > spinTime:
			return false
		}
		if i%1024 == 0 {
			runtime.Gosched() // let other goroutines have this thread
		}
	}
	return true
}

// start launches the workers; the caller holds mu.
func (p *workPool) start() {
	n := p.threads() - 1
	p.stop.Store(false)
	if p.finished == nil {
		p.finished = make(chan struct{}, 1)
	}
	p.workers = make([]*worker, n)
	p.stopped.Add(n)
	for i := range p.workers {
		w := &worker{wake: make(chan struct{}, 1)}
		p.workers[i] = w
		go p.work(w) // a panic in a task is recovered in runChunk
	}
	p.started = true
}

// resize stops all workers; the next job starts the new number.
func (p *workPool) resize(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started && n == p.threads() {
		return
	}
	p.stop.Store(true)
	for _, w := range p.workers {
		if w.asleep.CompareAndSwap(true, false) {
			w.wake <- struct{}{}
		}
	}
	p.stopped.Wait()
	p.workers, p.started = nil, false
	p.size.Store(int32(n))
}

// runInline runs all chunks on the caller.
func runInline(chunks int, t Task) {
	chunk, ended := 0, false
	defer func() {
		if !ended {
			v := recover()
			if v == nil {
				return // runtime.Goexit on the caller's own goroutine
			}
			panic(newTaskPanic(chunk, v))
		}
	}()
	for ; chunk < chunks; chunk++ {
		t.Run(chunk)
	}
	ended = true
}
