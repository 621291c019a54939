package infer

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Event is what happened to a request of a Scheduler: a token, the last one with Finish, or the error that ended it. Exactly one event
// of a request has Finish or Err.
type Event struct {
	ID     uint64 // of the request
	Token         // unless Err is set
	Cached int    // tokens of the prompt that did not have to be computed: their keys and values were there
	Finish string // "" while the request goes on, else FinishStop or FinishLength
	Err    error
}

// Last reports whether the request has ended.
func (e *Event) Last() bool { return e.Finish != "" || e.Err != nil }

// Mailbox collects the events of any number of requests for one reader. The zero value is ready.
type Mailbox struct {
	mu     sync.Mutex
	events []Event
	closed bool
	ready  chan struct{} // has room for one
}

// Wait returns the events since the last Wait, as soon as there are some; io.EOF when the mailbox was closed and is empty. It takes over
// the slice that an earlier Wait returned.
func (m *Mailbox) Wait(ctx context.Context, old []Event) ([]Event, error) {
	clear(old)
	for {
		m.mu.Lock()
		list, closed, ready := m.events, m.closed, m.signal()
		if len(list) > 0 {
			m.events = old[:0]
		}
		m.mu.Unlock()
		switch {
		case len(list) > 0:
			return list, nil
		case closed:
			return nil, io.EOF
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close makes Wait end once the events that are left were read.
func (m *Mailbox) Close() {
	m.mu.Lock()
	m.closed = true
	m.wake()
	m.mu.Unlock()
}

// put adds what came of requests, and wakes the reader once.
func (m *Mailbox) put(list ...outcome) {
	m.mu.Lock()
	for i := range list {
		o := &list[i]
		m.events = append(m.events, Event{ID: o.r.handle.id, Token: o.tok, Cached: o.r.found, Finish: o.finish, Err: o.err})
	}
	m.wake()
	m.mu.Unlock()
}

func (m *Mailbox) wake() {
	select {
	case m.signal() <- struct{}{}:
	default:
	}
}

func (m *Mailbox) signal() chan struct{} {
	if m.ready == nil {
		m.ready = make(chan struct{}, 1)
	}
	return m.ready
}

// Handle is a request that a Scheduler has accepted.
type Handle struct {
	id       uint64
	s        *Scheduler
	box      *Mailbox
	deadline time.Time
	canceled atomic.Bool
	stopped  atomic.Bool

	events []Event // that Next took from the mailbox
	next   int
	ended  bool // Next has returned the last one
}

// ID is the request's number in events.
func (h *Handle) ID() uint64 { return h.id }

// Cancel ends the request before the scheduler's next step, with ErrCanceled as its last event, unless it has ended. It may be called from
// any goroutine.
func (h *Handle) Cancel() {
	if !h.canceled.Swap(true) {
		h.s.nudge()
	}
}

// Stop is Cancel for a reader that has found its end in the tokens, such as a stop text: the last event has ErrStopped, and the request
// counts as finished.
func (h *Handle) Stop() {
	if !h.stopped.Swap(true) {
		h.s.nudge()
	}
}

// Next waits for the request's next event; io.EOF after the last one. It is for requests with a mailbox of their own, and serves one
// goroutine at a time.
func (h *Handle) Next(ctx context.Context) (Event, error) {
	if h.ended {
		return Event{}, io.EOF
	}
	if h.next == len(h.events) {
		list, err := h.box.Wait(ctx, h.events)
		if err != nil {
			h.events, h.next = nil, 0
			return Event{}, err
		}
		h.events, h.next = list, 0
	}
	e := h.events[h.next]
	h.next++
	h.ended = e.Last()
	return e, nil
}
