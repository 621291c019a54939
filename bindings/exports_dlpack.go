//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"fmt"
	"runtime"
	"runtime/cgo"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
	"weak"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
)

// The codes of dtypes in DLPack.
const (
	dlInt    = 0
	dlUInt   = 1
	dlFloat  = 2
	dlBFloat = 4
	dlBool   = 6
)

var dlTypes = map[tensor.DType]C.DLDataType{
	tensor.Float32:  {code: dlFloat, bits: 32, lanes: 1},
	tensor.Float16:  {code: dlFloat, bits: 16, lanes: 1},
	tensor.BFloat16: {code: dlBFloat, bits: 16, lanes: 1},
	tensor.Int8:     {code: dlInt, bits: 8, lanes: 1},
	tensor.UInt8:    {code: dlUInt, bits: 8, lanes: 1},
	tensor.Int32:    {code: dlInt, bits: 32, lanes: 1},
	tensor.Int64:    {code: dlInt, bits: 64, lanes: 1},
	tensor.Bool:     {code: dlBool, bits: 8, lanes: 1},
}

// dlBits is how bfloat16 goes to and comes from libraries that do not know it: as its bits.
var dlBits = C.DLDataType{code: dlUInt, bits: 16, lanes: 1}

// borrowed is memory of another library. The one who lent it is told when no tensor over it is reachable any more. It has a pointer, as
// small objects without one share blocks, and one that is in use keeps the others of its block.
type borrowed struct{ loan *loan }

// Release makes it a tensor.Releaser; it does nothing, as others may still see the memory.
func (*borrowed) Release() {}

// loan is what a producer of DLPack gave.
type loan struct {
	managed   unsafe.Pointer
	versioned C.int
	borrower  weak.Pointer[borrowed]
}

// loans are the ones that have not ended.
var loans struct {
	sync.Mutex
	open map[*loan]struct{}
}

// lend notes the loan of b, whose producer will be told.
func lend(b *borrowed) {
	l := b.loan
	l.borrower = weak.Make(b)
	loans.Lock()
	defer loans.Unlock()
	if loans.open == nil {
		loans.open = map[*loan]struct{}{}
	}
	loans.open[l] = struct{}{}
	runtime.AddCleanup(b, func(l *loan) {
		loans.Lock()
		defer loans.Unlock()
		l.end()
	}, l)
}

// end notes that nobody uses the memory any more, once; the caller has locked loans.
func (l *loan) end() {
	if _, open := loans.open[l]; open {
		delete(loans.open, l)
		C.bn_dlpack_done(l.managed, l.versioned)
	}
}

// droppedBytes are those of tensors over borrowed memory that Python let go of since the collector was last asked to look. It counts its own
// heap alone, and would let gigabytes of others' memory wait for a few megabytes of that.
var droppedBytes atomic.Int64

const mostDroppedBytes = 64 << 20

// dropped says whether it is time for bn_dlpack_collect, after Python let go of t.
func dropped(t *tensor.Tensor) bool {
	if _, foreign := t.Owner().(*borrowed); !foreign {
		return false
	}
	return droppedBytes.Add(int64(t.Len()*t.DType().Size())) >= mostDroppedBytes
}

// bn_dlpack_collect runs the collector, and ends the loans that no tensor needs: bn_dlpack_done has been called for them when it returns.
//
//export bn_dlpack_collect
func bn_dlpack_collect() {
	defer func() { _ = recover() }() // as in guard; there is nobody to tell
	droppedBytes.Store(0)
	runtime.GC()
	loans.Lock()
	defer loans.Unlock()
	for l := range loans.open {
		if l.borrower.Value() == nil {
			l.end()
		}
	}
}

// bn_dlpack_import makes a tensor over the memory that t describes; bits says that its 16-bit numbers are bfloat16. On success bn_dlpack_done is
// called with managed and versioned when nobody uses the memory any more.
//
//export bn_dlpack_import
func bn_dlpack_import(t *C.DLTensor, bits C.int, managed unsafe.Pointer, versioned C.int, out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		if t.device.device_type != C.BN_DL_CPU {
			return fmt.Errorf("%w: the array is in the memory of another device (DLPack device type %d): move it to the CPU first", errArgument, int(t.device.device_type))
		}
		dtype, err := importedType(t.dtype, bits != 0)
		if err != nil {
			return err
		}
		n := int(t.ndim)
		if n < 0 {
			return fmt.Errorf("%w: the array has %d axes: expected 0 or more", errArgument, n)
		}
		shape, strides := make([]int, n), make([]int, n)
		for i, length := range unsafe.Slice(t.shape, n) {
			shape[i] = int(length)
		}
		if t.strides != nil {
			for i, step := range unsafe.Slice(t.strides, n) {
				strides[i] = int(step)
			}
		} else {
			step := 1
			for i := n - 1; i >= 0; i-- {
				strides[i] = step
				step *= max(shape[i], 1)
			}
		}
		owner := &borrowed{&loan{managed: managed, versioned: versioned}}
		x, err := tensor.FromForeign(dtype, unsafe.Add(t.data, uintptr(t.byte_offset)), owner, shape, strides)
		if err != nil {
			return err
		}
		*out = tensorHandle(autograd.New(x))
		lend(owner) // last, as on error the producer's capsule has its memory still
		return nil
	})
}

func importedType(t C.DLDataType, bits bool) (tensor.DType, error) {
	if bits && t == dlBits {
		return tensor.BFloat16, nil
	}
	for dtype, known := range dlTypes {
		if t == known {
			return dtype, nil
		}
	}
	return 0, fmt.Errorf("%w: an array of DLPack type (code %d, %d bits, %d lanes) has no tensor dtype", tensor.ErrDType, int(t.code), int(t.bits), int(t.lanes))
}

// exported keeps the memory of a tensor in its place for another library.
type exported struct {
	data *tensor.Tensor
	pin  runtime.Pinner
}

// bn_dlpack_export describes a tensor in out, whose shape and strides are one array that C frees. Its memory stays until
// bn_dlpack_free(share). With bits, bfloat16 is called uint16.
//
//export bn_dlpack_export
func bn_dlpack_export(h C.uintptr_t, bits C.int, out *C.DLTensor, share *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*autograd.GradTensor](h).Data()
		first, err := t.First()
		if err != nil {
			return err
		}
		e := &exported{data: t}
		if first != nil {
			e.pin.Pin(first)
		}
		n := t.NDim()
		sizes := (*C.int64_t)(C.calloc(C.size_t(2*n+1), C.size_t(unsafe.Sizeof(C.int64_t(0)))))
		for i, size := range slices.Concat(t.Shape(), t.Strides()) {
			unsafe.Slice(sizes, 2*n)[i] = C.int64_t(size)
		}
		dtype := dlTypes[t.DType()]
		if bits != 0 && t.DType() == tensor.BFloat16 {
			dtype = dlBits
		}
		*out = C.DLTensor{data: first, device: C.DLDevice{device_type: C.BN_DL_CPU}, ndim: C.int32_t(n), dtype: dtype, shape: sizes}
		out.strides = (*C.int64_t)(unsafe.Add(unsafe.Pointer(sizes), n*8))
		*share = C.uintptr_t(cgo.NewHandle(e))
		return nil
	})
}

//export bn_dlpack_free
func bn_dlpack_free(share C.uintptr_t) {
	defer func() { _ = recover() }() // as in guard; there is nobody to tell
	e := value[*exported](share)
	cgo.Handle(share).Delete()
	e.pin.Unpin()
}
