package model

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// loader brings weights into memory in two passes. While the model is assembled, its source checks every tensor, reserves
// places in one arena and notes what has to be done; only headers and small vectors are read. Then run allocates the arena
// and does the work in the order in which the bytes lie in the file, giving back each piece of the source after its use. So
// a checkpoint with a missing tensor is refused at once, and loading needs little more memory than the loaded model.
type loader struct {
	opts LoadOptions
	head tableFormat

	places []place
	size   int
	jobs   []job
	arena  *pool.Block

	module string // whose weights are being planned

	passed []string // options that were passed over, see LoadOptions.Lenient

	mapped []mapped // matrices that were left in a file's mapping

	// wide runs jobs beside each other, for jobs that do not use the worker pool themselves and hold nothing.
	wide bool
}

// place is a range of the arena that becomes *dst.
type place struct {
	dst         *[]byte
	offset, len int
	module      string
}

// job is one piece of work. Jobs do not depend on each other.
type job struct {
	order int   // where its source lies
	bytes int64 // of its source: what progress counts
	work  func(context.Context) error

	module string
}

func newLoader(o LoadOptions, head tableFormat) *loader {
	if o.Pool == nil {
		o.Pool = pool.Default()
	}
	return &loader{opts: o, head: head}
}

// reserve promises n bytes of 64-byte aligned memory: *dst is set before any job runs.
func (l *loader) reserve(dst *[]byte, n int) {
	l.places = append(l.places, place{dst, l.size, n, l.module})
	l.size += (n + 63) &^ 63
}

// codes promises memory for the codes of t. The result is for the job that packs them: it calls pack with panels to fill.
func (l *loader) codes(t *quant.Ternary) func(pack func(panels []byte) error) error {
	l.reserve(&t.Data, t.Layout.Bytes(t.Rows, t.Cols))
	return func(pack func([]byte) error) error {
		if t.Layout == quant.Panel16 {
			return pack(t.Data)
		}
		panels, err := l.borrow(cpu.TernaryBytes(t.Rows, t.Cols))
		if err != nil {
			return err
		}
		defer panels.Release()
		if err := pack(panels.Bytes()); err != nil {
			return err
		}
		t.FromPanels(panels.Bytes())
		return nil
	}
}

// borrow gives a job memory as large as a matrix: from the pool, where too much is an error and not the end of the process.
func (l *loader) borrow(n int) (*pool.Block, error) {
	b, err := l.opts.Pool.AllocUninit(n, "weights")
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return b, nil
}

// add notes a job.
func (l *loader) add(j job) {
	j.module = l.module
	l.jobs = append(l.jobs, j)
}

// begin says whose weights are planned next.
func (l *loader) begin(module string) { l.module = module }

// run allocates the arena and does the jobs. After an error, a panic or a canceled context nothing is kept.
func (l *loader) run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if l.size > 0 {
		arena, err := l.opts.Pool.AllocUninit(l.size, "weights")
		if err != nil {
			return fmt.Errorf("model: %w", err)
		}
		l.arena = arena
		for _, p := range l.places {
			*p.dst = arena.Bytes()[p.offset : p.offset+p.len : p.offset+p.len]
		}
	}
	done := false
	defer func() {
		if !done {
			_ = l.release()
		}
	}()
	slices.SortStableFunc(l.jobs, func(a, b job) int { return cmp.Compare(a.order, b.order) })
	w := &crew{ctx: ctx, jobs: l.jobs, progress: l.opts.Progress}
	for _, j := range l.jobs {
		w.total += j.bytes
	}
	if l.wide {
		cpu.Parallel(len(w.jobs), w)
	} else {
		for i := range w.jobs {
			w.Run(i)
		}
	}
	if w.err != nil {
		return w.err
	}
	if len(w.jobs) == 0 && w.progress != nil {
		w.progress(0, 0)
	}
	done = true
	l.jobs, l.places = nil, nil
	return nil
}

// release gives the arena back.
func (l *loader) release() error {
	if l.arena != nil {
		l.arena.Release()
		l.arena = nil
	}
	return nil
}

// crew does a loader's jobs; job i is chunk i of a cpu.Task. After the first error the rest is skipped.
type crew struct {
	ctx      context.Context
	jobs     []job
	progress func(done, total int64)
	total    int64

	mu   sync.Mutex
	done int64
	err  error
}

func (w *crew) Run(i int) {
	if w.failed() {
		return
	}
	err := w.jobs[i].work(w.ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if w.err == nil {
			w.err = err
		}
		return
	}
	w.done += w.jobs[i].bytes
	if w.progress != nil {
		w.progress(w.done, w.total)
	}
}

func (w *crew) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	return w.err != nil
}
