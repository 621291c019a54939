package infer

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/bitnet-rust/bitnet_rust/core/logs"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Request is what a Scheduler is asked to continue.
type Request struct {
	Prompt   []int32        // token ids, at least one
	Params   SamplingParams // how it goes on, and when it ends
	Priority int            // higher goes first; each riseSteps steps of waiting count as one level
	Client   string         // requests of equal priority start in the order in which their clients were served least
	Deadline time.Time      // the request ends with ErrDeadline when it is not finished by then; zero: none
	Mailbox  *Mailbox       // for its events; nil: one of its own, which Handle.Next reads
}

// Scheduler continues requests from any number of goroutines as one batch: they join and leave at every step, prompts are read in pieces
// between the tokens of the others, equal prefixes are computed and stored once, and when key/value memory ends the least important
// request waits. The tokens and log-probabilities of a request are those that it would get alone.
//
// One goroutine owns the batch and takes the steps. It ends with Close or Shutdown.
type Scheduler struct {
	e       *Engine
	o       SchedulerOptions
	now     func() time.Time
	b       *batch
	tune    *tuner // nil: every step as large as MaxBatchTokens
	stop    context.Context
	cancel  context.CancelFunc
	wake    chan struct{} // has room for one: something came, was canceled, or the end is near
	done    chan struct{} // closed when the goroutine has ended
	arrived []*request    // memory for those that takeIn takes

	mu      sync.Mutex
	inbox   []*request
	open    int // requests that have not ended
	lastID  uint64
	closing bool
	m       Metrics
	made    rate
	read    rate
	counted batchCounts // what made and read have of the batch
}

// NewScheduler starts a scheduler. Its key/value memory is taken from the engine's pool as it is needed. It fails with ErrArgument, and where
// the model, or the draft's, is closed or damaged.
func NewScheduler(e *Engine, o SchedulerOptions) (*Scheduler, error) {
	return newScheduler(e, o, time.Now)
}

func newScheduler(e *Engine, o SchedulerOptions, now func() time.Time) (*Scheduler, error) {
	o, err := o.resolve(e)
	if err != nil {
		return nil, err
	}
	if _, err := e.version(); err != nil {
		return nil, err
	}
	pages := int(o.KVBytes / o.pageBytes(e))
	s := &Scheduler{
		e: e, o: o, now: now, b: newBatch(e, o.MaxSequences, pages), wake: make(chan struct{}, 1), done: make(chan struct{}),
		m: Metrics{
			TimeToFirstToken: newHistogram(secondBounds), TimePerToken: newHistogram(secondBounds), StepTime: newHistogram(secondBounds),
			BatchSize: newHistogram(sizeBounds),
		},
	}
	s.b.rows = o.MaxBatchTokens
	s.b.drafter = newDrafter(o.Draft, pages)
	if o.Mode == ModeLatency {
		s.tune = newTuner(o)
		s.b.rows = s.tune.limit()
	}
	s.stop, s.cancel = context.WithCancel(context.Background())
	s.snapshot() // metrics are complete from the start
	logs.Get().Debug("scheduler started", "sequences", o.MaxSequences, "batch_tokens", o.MaxBatchTokens, "pages", pages, "mode", o.Mode)
	go s.run()
	return s, nil
}

// Model returns the model that the scheduler runs.
func (s *Scheduler) Model() *model.Model { return s.e.model }

// Options returns the options with what was left open filled in.
func (s *Scheduler) Options() SchedulerOptions { return s.o }

// Submit adds a request, whose prompt is copied. It fails with ErrArgument, with ErrQueueFull when as many requests wait as may, with
// ErrShutdown once the scheduler closes.
func (s *Scheduler) Submit(req Request) (*Handle, error) {
	r, err := s.e.newRequest(slices.Clone(req.Prompt), req.Params)
	if err != nil {
		return nil, err
	}
	if need := pagesFor(r.prompt + 1); need > s.b.kv.limit {
		return nil, &ArgumentError{"prompt", r.prompt, fmt.Sprintf("expected a length that fits kv_bytes = %d, which is %d tokens of keys and values",
			s.o.KVBytes, s.b.kv.limit*nn.PageTokens)}
	}
	box := req.Mailbox
	if box == nil {
		box = new(Mailbox)
	}
	now := s.now()
	r.priority, r.times.submitted = req.Priority, now
	r.handle = &Handle{s: s, box: box, deadline: req.Deadline}

	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return nil, ErrShutdown
	case s.open >= s.o.MaxSequences+s.o.MaxQueue:
		s.m.Rejected++
		return nil, &QueueFullError{Waiting: s.open - s.o.MaxSequences, Limit: s.o.MaxQueue}
	}
	s.lastID++
	r.order, r.handle.id, r.from = s.lastID, s.lastID, req.Client
	s.inbox = append(s.inbox, r)
	s.open++
	s.m.Submitted++
	s.nudge()
	return r.handle, nil
}

// nudge wakes the goroutine if it waits.
func (s *Scheduler) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Shutdown refuses further requests and waits until those that were accepted have ended. When ctx ends first the rest is canceled, and
// its error returned.
func (s *Scheduler) Shutdown(ctx context.Context) error {
	s.refuse()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		s.Close()
		return ctx.Err()
	}
}

// Close cancels all requests, ends the goroutine and gives the memory back. Closing twice does nothing.
func (s *Scheduler) Close() {
	s.refuse()
	s.cancel()
	<-s.done
}

func (s *Scheduler) refuse() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.nudge()
}

// run is the goroutine that owns the batch.
func (s *Scheduler) run() {
	debug.SetPanicOnFault(true) // weights may be a file's mapping: when the file is cut short, requests fail and not the process
	defer close(s.done)
	defer s.cancel()
	defer s.abandon()
	for {
		err := s.turn()
		if err == nil {
			continue
		}
		s.endAll(err)
		if s.ended() {
			s.b.close()
			return
		}
	}
}

// turn takes in what came, and takes a step if there is something to do. Its error is what the requests end with.
func (s *Scheduler) turn() (err error) {
	defer recovered(&err)
	s.takeIn()
	switch {
	case s.stop.Err() != nil:
		return ErrCanceled
	case len(s.b.active)+len(s.b.waiting) > 0:
		if err := s.step(); s.stop.Err() == nil {
			return err
		}
		return ErrCanceled // also a step that was cut short
	case s.ended():
		return ErrShutdown
	}
	select {
	case <-s.wake:
	case <-s.stop.Done():
	}
	return nil
}

// recovered makes an error of a panic: a defect, which is the end of the requests that met it and not of the process.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = &PanicError{Value: r, Stack: debug.Stack()}
		logs.Get().Error("a step panicked, which ends its requests", "error", *err)
	}
}

// ended reports whether the scheduler is closing and every request has ended.
func (s *Scheduler) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing && s.open == 0
}

// takeIn moves new requests to the batch and ends those that were stopped or canceled or are late.
func (s *Scheduler) takeIn() {
	s.mu.Lock()
	s.arrived, s.inbox = s.inbox, s.arrived[:0]
	s.mu.Unlock()
	for _, r := range s.arrived {
		s.b.add(r)
	}
	clear(s.arrived)
	now := s.now()
	s.each(func(r *request) {
		switch h := r.handle; {
		case h.stopped.Load():
			s.fail(r, ErrStopped)
		case h.canceled.Load():
			s.fail(r, ErrCanceled)
		case !h.deadline.IsZero() && !now.Before(h.deadline):
			s.fail(r, ErrDeadline)
		}
	})
	s.mu.Lock()
	s.snapshot()
	s.mu.Unlock()
}

// each calls f for every request of the batch and forgets those that it ends.
func (s *Scheduler) each(f func(*request)) {
	for _, r := range s.b.active {
		f(r)
	}
	for _, r := range s.b.waiting {
		f(r)
	}
	s.b.sweep()
}

// endAll ends requests with an error: those that were in the step, or all when there was none or the scheduler closes.
func (s *Scheduler) endAll(err error) {
	var defect *PanicError
	if len(s.b.active) == 0 || !errors.As(err, &defect) {
		s.takeIn()
		s.each(func(r *request) { s.fail(r, err) })
		return
	}
	for _, r := range s.b.active {
		s.fail(r, err)
	}
	s.b.sweep()
}

// abandon is the last resort, for a panic while requests were ended: it tells all that are left and gives no memory back.
func (s *Scheduler) abandon() {
	defect := recover()
	if defect == nil {
		return
	}
	err := &PanicError{Value: defect, Stack: debug.Stack()}
	s.refuse()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, list := range [...][]*request{s.b.active, s.b.waiting, s.inbox} {
		for _, r := range list {
			if !r.done {
				r.done = true
				s.close(err)
				r.handle.box.put(outcome{r: r, err: err})
			}
		}
	}
}

// step takes a step of the batch and tells what came of it.
func (s *Scheduler) step() error {
	start := s.now()
	list, err := s.b.step(s.stop)
	switch {
	case errors.Is(err, pool.ErrOutOfMemory) && len(s.b.active) > 0: // it does not fit alone
		s.fail(s.b.active[0], err)
		s.b.sweep()
		return nil
	case err != nil:
		return err
	}
	now := s.now()
	s.deliver(list, now)
	c := &s.b.count
	if s.tune != nil {
		s.tune.observe(c.rows, c.decoding, c.short, now.Sub(start))
		s.b.rows = s.tune.limit()
	}
	s.measure(now, now.Sub(start))
	return nil
}

// deliver tells requests what a step brought. Those that share a mailbox find all of it there at once: to wake a reader for each of its
// events would cost more than the events.
func (s *Scheduler) deliver(list []outcome, now time.Time) {
	s.mu.Lock()
	for i := range list {
		o := &list[i]
		if times := &o.r.times; o.err == nil {
			if times.first.IsZero() {
				times.first = now
				s.m.TimeToFirstToken.observe(now.Sub(times.submitted).Seconds())
			} else {
				s.m.TimePerToken.observe(now.Sub(times.last).Seconds())
			}
			times.last = now
		}
		if o.err != nil || o.finish != "" {
			s.close(o.err)
		}
	}
	s.mu.Unlock()
	for len(list) > 0 {
		box, n := list[0].r.handle.box, 1
		for n < len(list) && list[n].r.handle.box == box {
			n++
		}
		box.put(list[:n]...)
		list = list[n:]
	}
}

// fail ends a request with an error.
func (s *Scheduler) fail(r *request, err error) {
	if r.done {
		return
	}
	s.b.end(r)
	s.mu.Lock()
	s.close(err)
	s.mu.Unlock()
	r.handle.box.put(outcome{r: r, err: err})
}

// close counts a request that ends. The caller holds mu.
func (s *Scheduler) close(err error) {
	s.open--
	switch {
	case err == nil, errors.Is(err, ErrStopped):
		s.m.Finished++
	case errors.Is(err, ErrCanceled), errors.Is(err, ErrShutdown):
		s.m.Canceled++
	case errors.Is(err, ErrDeadline):
		s.m.Expired++
	default:
		s.m.Failed++
	}
}
