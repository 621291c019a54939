//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"runtime/cgo"
	"sync"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
)

// method is a method of an object, or a function: params is JSON, so is the first result.
type method func(ctx context.Context, params []byte, operands []*autograd.GradTensor) (any, []*autograd.GradTensor, error)

// object is what a Python Object owns. Unless it is shared it lets in one call at a time and refuses others.
type object struct {
	shared  bool
	busy    sync.Mutex
	value   any // what other objects use of it
	methods map[string]method
	close   func()
}

// kinds are the objects that bn_object_new makes of operands and other objects: values of object, or runners.
var kinds = map[string]func(params []byte, operands []*autograd.GradTensor, objects []any) (*object, error){
	"backward":   newBackward,
	"optimizer":  newOptimizer,
	"scheduler":  newScheduler,
	"scaler":     newScaler,
	"model_grad": newModelGrad,
	"weights":    newWeights,
	"attention":  newAttention,
}

//export bn_object_new
func bn_object_new(kind, params *C.char, operands *C.uintptr_t, n C.int64_t, objects *C.uintptr_t, m C.int64_t, out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		build, ok := kinds[C.GoString(kind)]
		if !ok {
			return fmt.Errorf("%w: there is no kind of object %q", errArgument, C.GoString(kind))
		}
		var used []any
		for _, h := range unsafe.Slice(objects, int(m)) {
			v := cgo.Handle(h).Value()
			if o, ok := v.(*object); ok {
				v = o.value
			}
			used = append(used, v)
		}
		o, err := build([]byte(C.GoString(params)), tensors(operands, n), used)
		if err == nil {
			*out = C.uintptr_t(cgo.NewHandle(o))
		}
		return err
	})
}

//export bn_object_free
func bn_object_free(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		o := value[*object](h)
		cgo.Handle(h).Delete()
		if o.close != nil {
			o.close()
		}
		return nil
	})
}

// bn_object_call runs a method of an object, or a function when h is 0.
//
//export bn_object_call
func bn_object_call(h C.uintptr_t, name, params *C.char, operands *C.uintptr_t, n C.int64_t, poll C.bn_poll, state unsafe.Pointer,
	text **C.char, out **C.uintptr_t, count *C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		methods := functions
		if h != 0 {
			o := value[*object](h)
			if !o.shared {
				if !o.busy.TryLock() {
					return fmt.Errorf("%w: this object is busy in another call", errArgument)
				}
				defer o.busy.Unlock()
			}
			methods = o.methods
		}
		run, ok := methods[C.GoString(name)]
		if !ok {
			return fmt.Errorf("%w: there is no method %q", errArgument, C.GoString(name))
		}
		result, results, err := run(newInterrupts(poll, state), []byte(C.GoString(params)), tensors(operands, n))
		if err != nil {
			return err
		}
		if err := jsonOut(text, result); err != nil {
			return err
		}
		handlesOut(results, out, count)
		return nil
	})
}

// decode reads parameters and refuses fields that are not there.
func decode(params []byte, into any) error {
	if len(params) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(params))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", errArgument, err)
	}
	return nil
}
