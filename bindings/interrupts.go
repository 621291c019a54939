//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"context"
	"runtime/debug"
	"sync/atomic"
	"time"
	"unsafe"
)

// pollEvery is how often a long call lets Python run its signal handlers: far
// below the half second in which Ctrl-C must act, far above the cost of taking
// the GIL.
const pollEvery = 40 * time.Millisecond

// interrupts is the context of one call. The core asks Err between layers and
// between chunks of work, as with any context; when the last look at Python is
// [pollEvery] ago, Err looks again, on the calling thread, which is the only
// one where Python runs signal handlers. So no further goroutine or thread
// takes part, and a call that ends sooner never waits for the GIL.
//
// Err also answers other goroutines of the call: then poll sees a foreign
// thread and leaves Python alone.
type interrupts struct {
	poll        C.bn_poll
	state       unsafe.Pointer
	next        atomic.Int64 // nanoseconds since start after which to look again
	start       time.Time
	canceled    atomic.Bool
	done, total atomic.Int64 // progress to report
}

func newInterrupts(poll C.bn_poll, state unsafe.Pointer) *interrupts {
	c := &interrupts{poll: poll, state: state, start: time.Now()}
	c.next.Store(int64(pollEvery))
	return c
}

// progress notes how far the call is; the next look at Python reports it.
func (c *interrupts) progress(done, total int64) {
	c.total.Store(total)
	c.done.Store(done)
	_ = c.Err()
}

// Err is context.Canceled once Python has raised an exception.
func (c *interrupts) Err() error {
	if c.canceled.Load() {
		return context.Canceled
	}
	due, now := c.next.Load(), int64(time.Since(c.start))
	if now < due || !c.next.CompareAndSwap(due, now+int64(pollEvery)) {
		return nil
	}
	return c.look()
}

// look calls Python now.
func (c *interrupts) look() error {
	if C.bn_call_poll(c.poll, c.state, C.int64_t(c.done.Load()), C.int64_t(c.total.Load())) != 0 {
		c.canceled.Store(true)
		return context.Canceled
	}
	return nil
}

// await runs work in a goroutine and looks at Python until it ends: for work
// whose own goroutine does not ask Err often enough, such as reading files.
func (c *interrupts) await(work func(context.Context) error) error {
	ended := make(chan error, 1)
	go func() {
		debug.SetPanicOnFault(true) // as in guard
		defer func() {
			if r := recover(); r != nil {
				ended <- recovered(r)
			}
		}()
		ended <- work(c)
	}()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err == nil && c.total.Load() > 0 {
				_ = c.look() // the last word of the progress
			}
			if err == nil && c.canceled.Load() {
				return context.Canceled
			}
			return err
		case <-tick.C:
			_ = c.look()
		}
	}
}

// Done is nil: nothing waits on this context, everything asks Err.
func (c *interrupts) Done() <-chan struct{} { return nil }

// Deadline is none.
func (c *interrupts) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value is nil.
func (c *interrupts) Value(any) any { return nil }
