//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"context"
	"fmt"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
)

// chunkPanic is a job for the worker pool that breaks in one chunk.
type chunkPanic struct{}

func (chunkPanic) Run(chunk int) {
	if chunk == 2 {
		panic("made by selftest_panic: chunk")
	}
}

// kernelCheck is one of cpu.SelfTest's as Python sees it.
type kernelCheck struct {
	Kernel string `json:"kernel"`
	ISA    string `json:"isa"`
	Error  string `json:"error"` // "" when it is right
}

//export bn_selftest_kernels
func bn_selftest_kernels(out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		list := []kernelCheck{}
		for _, c := range cpu.SelfTest() {
			check := kernelCheck{Kernel: c.Kernel, ISA: c.ISA.String()}
			if c.Err != nil {
				check.Error = c.Err.Error()
			}
			list = append(list, check)
		}
		return jsonOut(out, list)
	})
}

// bn_selftest_panic panics in the place that a test wants to see contained:
// in the call itself, by a fault of the processor, in a worker of the pool, or in
// the goroutine of a long call.
//
//export bn_selftest_panic
func bn_selftest_panic(place *C.char, poll C.bn_poll, state unsafe.Pointer, errOut **C.char) C.int {
	return guard(errOut, func() error {
		switch p := C.GoString(place); p {
		case "call":
			var none []int
			return fmt.Errorf("%d", none[len(p)])
		case "fault": // a SIGSEGV, which Go's handler turns into a panic unless someone put another handler over it
			var none *runner
			return none.close()
		case "worker":
			cpu.Parallel(8, chunkPanic{})
			return nil
		case "goroutine":
			return newInterrupts(poll, state).await(func(context.Context) error { panic("made by selftest_panic: goroutine") })
		default:
			return fmt.Errorf("%w: place = %q", errArgument, p)
		}
	})
}
