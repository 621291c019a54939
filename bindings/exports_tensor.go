//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"encoding/json"
	"fmt"
	"runtime/cgo"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/functional"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// bn_tensor_new copies size bytes of row-major data into a new tensor; spec is
// a JSON object with dtype and shape.
//
//export bn_tensor_new
func bn_tensor_new(spec *C.char, data unsafe.Pointer, size C.int64_t, out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		var s struct {
			DType string `json:"dtype"`
			Shape []int  `json:"shape"`
		}
		if err := json.Unmarshal([]byte(C.GoString(spec)), &s); err != nil {
			return fmt.Errorf("%w: tensor: %w", errArgument, err)
		}
		dt, err := tensor.ParseDType(s.DType)
		if err != nil {
			return err
		}
		borrowed, err := tensor.FromBytes(dt, unsafe.Slice((*byte)(data), int(size)), s.Shape...)
		if err != nil {
			return err
		}
		t, err := borrowed.Clone()
		if err != nil {
			return err
		}
		*out = tensorHandle(autograd.New(t))
		return nil
	})
}

func tensorHandle(t *autograd.GradTensor) C.uintptr_t { return C.uintptr_t(cgo.NewHandle(t)) }

// bn_tensor_free returns 1 when the caller is to call bn_dlpack_collect, without the GIL.
//
//export bn_tensor_free
func bn_tensor_free(h C.uintptr_t) C.int {
	defer func() { _ = recover() }() // as in guard; there is nobody to tell
	t := value[*autograd.GradTensor](h)
	cgo.Handle(h).Delete()
	t.Release()
	if dropped(t.Data()) {
		return 1
	}
	return 0
}

// bn_tensor_call runs a named operation of core/functional, recorded when record is not 0. The results are count new
// handles in an array that C frees.
//
//export bn_tensor_call
func bn_tensor_call(name *C.char, operands *C.uintptr_t, n C.int64_t, params *C.char, record C.int, poll C.bn_poll, state unsafe.Pointer,
	out **C.uintptr_t, count *C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		results, err := functional.Call(newInterrupts(poll, state), autograd.Mode(record != 0), C.GoString(name), tensors(operands, n), []byte(C.GoString(params)))
		if err == nil {
			handlesOut(results, out, count)
		}
		return err
	})
}

// tensors looks handles up.
func tensors(handles *C.uintptr_t, n C.int64_t) []*autograd.GradTensor {
	out := make([]*autograd.GradTensor, int(n))
	for i, h := range unsafe.Slice(handles, int(n)) {
		out[i] = value[*autograd.GradTensor](h)
	}
	return out
}

// handlesOut makes an array of new handles that C frees; nil becomes 0.
func handlesOut(results []*autograd.GradTensor, out **C.uintptr_t, count *C.int64_t) {
	*out = (*C.uintptr_t)(C.calloc(C.size_t(len(results)+1), C.size_t(unsafe.Sizeof(C.uintptr_t(0)))))
	handles := unsafe.Slice(*out, len(results))
	for i, t := range results {
		if t != nil {
			handles[i] = tensorHandle(t)
		}
	}
	*count = C.int64_t(len(results))
}

//export bn_tensor_info
func bn_tensor_info(h C.uintptr_t, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*autograd.GradTensor](h).Data()
		return jsonOut(out, map[string]any{
			"dtype":      t.DType().String(),
			"shape":      append([]int{}, t.Shape()...),
			"strides":    append([]int{}, t.Strides()...),
			"contiguous": t.IsContiguous(),
		})
	})
}

// bn_tensor_flags says whether a tensor requires a gradient (1) and is a leaf (2).
//
//export bn_tensor_flags
func bn_tensor_flags(h C.uintptr_t, flags *C.int, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*autograd.GradTensor](h)
		if t.RequiresGrad() {
			*flags |= 1
		}
		if t.IsLeaf() {
			*flags |= 2
		}
		return nil
	})
}

// bn_tensor_read copies the elements, row-major, to size bytes at data.
//
//export bn_tensor_read
func bn_tensor_read(h C.uintptr_t, data unsafe.Pointer, size C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t, err := value[*autograd.GradTensor](h).Data().Contiguous()
		if err != nil {
			return err
		}
		if n := len(t.Bytes()); n != int(size) {
			return fmt.Errorf("%w: read: the tensor has %d bytes and the buffer %d", errArgument, n, size)
		}
		copy(unsafe.Slice((*byte)(data), int(size)), t.Bytes())
		return nil
	})
}
