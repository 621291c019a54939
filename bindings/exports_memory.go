//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"fmt"
	"runtime/cgo"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/core/functional"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

//export bn_memory_stats
func bn_memory_stats(out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error { return jsonOut(out, pool.Default().Stats()) })
}

// bn_set_memory_budget reads a text as BITNET_MEMORY_BUDGET has it; an empty one is what the machine has.
//
//export bn_set_memory_budget
func bn_set_memory_budget(text *C.char, errOut **C.char) C.int {
	return guard(errOut, func() (err error) {
		var bytes int64
		if budget := C.GoString(text); budget != "" {
			if bytes, err = pool.ParseBudget(budget); err != nil {
				return err
			}
		}
		pool.Default().SetBudget(bytes)
		return nil
	})
}

//export bn_trim_memory
func bn_trim_memory(given *C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		functional.Trim()
		*given = C.int64_t(pool.Default().Trim())
		return nil
	})
}

// leak is a live block as Python sees it.
type leak struct {
	Tag   string   `json:"tag"`
	Bytes int      `json:"bytes"`
	Refs  int      `json:"references"`
	Stack []string `json:"stack"`
}

//export bn_memory_blocks
func bn_memory_blocks(out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		leaks := pool.Default().Leaks()
		if leaks == nil {
			return fmt.Errorf("%w: places of allocation are recorded only when %s=1 is set before the process starts", errArgument, pool.EnvDebug)
		}
		list := make([]leak, len(leaks))
		for i, l := range leaks {
			list[i] = leak(l)
		}
		return jsonOut(out, list)
	})
}

// pressure passes the pool's calls on to a Python thread that waits for them. The pool calls from whatever
// goroutine allocates, where Python code must not run: it may hold the model that the callback asks for.
type pressure struct {
	rises  chan pool.Stats // one at most: while a callback runs, further rises are one
	closed chan struct{}
	close  func()
}

//export bn_pressure_new
func bn_pressure_new(threshold C.double, out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		if !(threshold > 0 && threshold <= 1) {
			return fmt.Errorf("%w: threshold = %v: expected a share of the budget above 0 and at most 1", errArgument, threshold)
		}
		p := &pressure{rises: make(chan pool.Stats, 1), closed: make(chan struct{})}
		cancel := pool.Default().OnPressure(float64(threshold), func(s pool.Stats) {
			select {
			case p.rises <- s:
			default:
			}
		})
		p.close = sync.OnceFunc(func() { cancel(); close(p.closed) })
		*out = C.uintptr_t(cgo.NewHandle(p))
		return nil
	})
}

// bn_pressure_wait gives the statistics at the next rise, or leaves *out alone when the watch is closed.
//
//export bn_pressure_wait
func bn_pressure_wait(h C.uintptr_t, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		p := value[*pressure](h)
		select {
		case s := <-p.rises:
			return jsonOut(out, s)
		case <-p.closed:
			return nil
		}
	})
}

//export bn_pressure_close
func bn_pressure_close(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error { value[*pressure](h).close(); return nil })
}

//export bn_pressure_free
func bn_pressure_free(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		value[*pressure](h).close()
		cgo.Handle(h).Delete()
		return nil
	})
}
