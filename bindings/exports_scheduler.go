//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime/cgo"
	"runtime/debug"
	"sync"
	"time"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/infer"
)

// scheduler is what a Python Scheduler object owns. One thread waits for outcomes, which cross in C memory that stays here; any thread
// submits and cancels.
type scheduler struct {
	s        *infer.Scheduler
	box      infer.Mailbox
	events   []infer.Event // memory for the mailbox
	outcomes cArray[C.bn_outcome]
	tops     cArray[C.bn_top]

	mu   sync.Mutex
	open map[uint64]*infer.Handle
}

// bn_scheduler_new makes a scheduler; draft is the model that guesses, or 0.
//
//export bn_scheduler_new
func bn_scheduler_new(model, draft C.uintptr_t, options *C.char, out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		var o infer.SchedulerOptions
		if err := json.Unmarshal([]byte(C.GoString(options)), &o); err != nil {
			return fmt.Errorf("%w: options: %w", errArgument, err)
		}
		if draft != 0 {
			o.Draft.Engine = value[*runner](draft).engine
		}
		s, err := infer.NewScheduler(value[*runner](model).engine, o)
		if err != nil {
			return err
		}
		*out = C.uintptr_t(cgo.NewHandle(&scheduler{s: s, open: map[uint64]*infer.Handle{}}))
		return nil
	})
}

// bn_scheduler_submit adds a request. deadline is in seconds from now, infinite for none.
//
//export bn_scheduler_submit
func bn_scheduler_submit(h C.uintptr_t, ids *C.int32_t, n C.int64_t, params *C.char, priority C.int64_t, client *C.char, deadline C.double,
	id *C.uint64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		s := value[*scheduler](h)
		p, err := infer.ParseSamplingParams([]byte(C.GoString(params)), s.s.Model().Config.VocabSize)
		if err != nil {
			return err
		}
		r := infer.Request{
			Prompt: unsafe.Slice((*int32)(ids), int(n)), Params: p, Priority: int(priority), Client: C.GoString(client), Mailbox: &s.box,
		}
		if seconds := float64(deadline); !math.IsInf(seconds, 1) {
			r.Deadline = time.Now().Add(time.Duration(min(seconds, 1e9) * float64(time.Second)))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		handle, err := s.s.Submit(r)
		if err != nil {
			return err
		}
		s.open[handle.ID()] = handle
		*id = C.uint64_t(handle.ID())
		return nil
	})
}

// bn_scheduler_cancel ends a request unless it has ended; complete says that its reader has all that it wanted.
//
//export bn_scheduler_cancel
func bn_scheduler_cancel(h C.uintptr_t, id C.uint64_t, complete C.int, errOut **C.char) C.int {
	return guard(errOut, func() error {
		s := value[*scheduler](h)
		s.mu.Lock()
		defer s.mu.Unlock()
		switch handle := s.open[uint64(id)]; {
		case handle == nil:
		case complete != 0:
			handle.Stop()
		default:
			handle.Cancel()
		}
		return nil
	})
}

// bn_scheduler_wait waits for what came of requests: *n is 0 when the scheduler was closed and all was told. outcomes and tops stay valid
// until the next wait; messages are the caller's to free.
//
//export bn_scheduler_wait
func bn_scheduler_wait(h C.uintptr_t, outcomes **C.bn_outcome, n *C.int64_t, tops **C.bn_top, errOut **C.char) C.int {
	return guard(errOut, func() error {
		s := value[*scheduler](h)
		list, err := s.box.Wait(context.Background(), s.events)
		if s.events = list; err != nil { // io.EOF
			*n = 0
			return nil
		}
		alternatives := 0
		for i := range list {
			alternatives += len(list[i].Top)
		}
		co, cp := s.outcomes.take(len(list)), s.tops.take(alternatives)
		at := 0
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range list {
			e := &list[i]
			co[i] = C.bn_outcome{request: C.uint64_t(e.ID), token: tokenOut(0, e.Token, e.Finish, cp, &at), cached: C.int64_t(e.Cached)}
			if e.Err != nil {
				err := explained(e.Err)
				co[i].code, co[i].message = codeOf(err), C.CString(err.Error())
			}
			if e.Last() {
				delete(s.open, e.ID)
			}
		}
		*outcomes, *tops, *n = s.outcomes.p, s.tops.p, C.int64_t(len(list))
		return nil
	})
}

// explained gives a panic of the scheduler's goroutine the form of one of our own.
func explained(err error) error {
	var defect *infer.PanicError
	if !errors.As(err, &defect) {
		return err
	}
	found := recovered(defect.Value)
	if p, ok := found.(*panicError); ok {
		p.stack = defect.Stack
	}
	return found
}

//export bn_scheduler_metrics
func bn_scheduler_metrics(h C.uintptr_t, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error { return jsonOut(out, value[*scheduler](h).s.Metrics()) })
}

// bn_scheduler_close ends the scheduler: at once, or with drain when all requests have ended. An exception of Python meanwhile cancels the
// rest. Closing twice does nothing.
//
//export bn_scheduler_close
func bn_scheduler_close(h C.uintptr_t, drain C.int, poll C.bn_poll, state unsafe.Pointer, errOut **C.char) C.int {
	return guard(errOut, func() error {
		s := value[*scheduler](h)
		defer s.box.Close()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		if drain == 0 {
			cancel()
		}
		calls := newInterrupts(poll, state)
		ended := make(chan error, 1)
		go func() {
			defer func() {
				if r := recover(); r != nil {
					ended <- &panicError{value: r, stack: debug.Stack()}
				}
			}()
			_ = s.s.Shutdown(ctx)
			ended <- nil
		}()
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		for {
			select {
			case err := <-ended:
				if err == nil && calls.canceled.Load() {
					return context.Canceled
				}
				return err
			case <-tick.C:
				if !calls.canceled.Load() && calls.look() != nil {
					cancel()
				}
			}
		}
	})
}

//export bn_scheduler_free
func bn_scheduler_free(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		s := value[*scheduler](h)
		cgo.Handle(h).Delete()
		s.s.Close()
		s.box.Close()
		s.outcomes.free()
		s.tops.free()
		return nil
	})
}
