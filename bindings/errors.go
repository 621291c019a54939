//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/tokenfile"
	"github.com/bitnet-rust/bitnet_rust/core/functional"
	"github.com/bitnet-rust/bitnet_rust/core/infer"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// errArgument marks a bad argument that the bridge itself finds.
var errArgument = errors.New("bad argument")

// errWrite marks a place that cannot be written to, be it missing or closed to us.
var errWrite = errors.New("cannot write")

// codes maps the core's sentinel errors to the exception each becomes; the
// first match wins, so the specific ones stand first.
var codes = []struct {
	sentinel error
	code     C.int
}{
	{context.Canceled, C.BN_CANCELED},
	{train.ErrNoCheckpoint, C.BN_CHECKPOINT},
	{train.ErrDamaged, C.BN_CHECKPOINT},
	{train.ErrMismatch, C.BN_CHECKPOINT},
	{train.ErrLocked, C.BN_CHECKPOINT},
	{pool.ErrOutOfMemory, C.BN_MEMORY},
	{pool.ErrSize, C.BN_MEMORY},
	{tensor.ErrMemory, C.BN_MEMORY},
	{container.ErrFormat, C.BN_FORMAT},
	{tokenfile.ErrFormat, C.BN_FORMAT},
	{tokenfile.ErrDType, C.BN_DTYPE},
	{tokenfile.ErrID, C.BN_ARGUMENT},
	{tokenfile.ErrClosed, C.BN_ARGUMENT},
	{model.ErrConfig, C.BN_CONFIG},
	{tensor.ErrShape, C.BN_SHAPE},
	{tensor.ErrDType, C.BN_DTYPE},
	{tensor.ErrIndex, C.BN_INDEX},
	{tensor.ErrValue, C.BN_ARGUMENT},
	{infer.ErrArgument, C.BN_ARGUMENT},
	{infer.ErrLogits, C.BN_LOGITS},
	{infer.ErrQueueFull, C.BN_QUEUE_FULL},
	{infer.ErrDeadline, C.BN_DEADLINE},
	{infer.ErrCanceled, C.BN_REQUEST_CANCELED},
	{infer.ErrShutdown, C.BN_ARGUMENT},
	{train.ErrDiverged, C.BN_TRAINING},
	{optim.ErrNonFinite, C.BN_TRAINING},
	{quant.ErrNotFinite, C.BN_TRAINING},
	{autograd.ErrCheck, C.BN_CHECK},
	{autograd.ErrNoGrad, C.BN_AUTOGRAD},
	{autograd.ErrFreed, C.BN_AUTOGRAD},
	{autograd.ErrChanged, C.BN_AUTOGRAD},
	{autograd.ErrInPlace, C.BN_AUTOGRAD},
	{autograd.ErrGradient, C.BN_AUTOGRAD},
	{autograd.ErrNotLeaf, C.BN_AUTOGRAD},
	{functional.ErrArgument, C.BN_ARGUMENT},
	{functional.ErrBusy, C.BN_ARGUMENT},
	{train.ErrNotTrainable, C.BN_ARGUMENT},
	{optim.ErrState, C.BN_ARGUMENT},
	{optim.ErrOrder, C.BN_ARGUMENT},
	{optim.ErrClosed, C.BN_ARGUMENT},
	{train.ErrBatch, C.BN_ARGUMENT},
	{train.ErrConfig, C.BN_ARGUMENT},
	{optim.ErrArgument, C.BN_ARGUMENT},
	{model.ErrClosed, C.BN_ARGUMENT},
	{model.ErrOption, C.BN_ARGUMENT},
	{model.ErrWeight, C.BN_ARGUMENT},
	{model.ErrExport, C.BN_ARGUMENT},
	{model.ErrPreset, C.BN_ARGUMENT},
	{cpu.ErrThreads, C.BN_ARGUMENT},
	{pool.ErrEnv, C.BN_ARGUMENT},
	{pool.ErrBudgetText, C.BN_ARGUMENT},
	{errArgument, C.BN_ARGUMENT},
	{errWrite, C.BN_FILE},
	{fs.ErrNotExist, C.BN_NOT_FOUND},
}

// panicError carries a panic, which is a defect here and not the caller's.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	return fmt.Sprintf("%v\n\nThis is a defect of bitnet_rust; please report it with these lines.\n%s", e.value, e.stack)
}

// guard runs one export's body. An error or a panic becomes its code and a
// message that C frees.
func guard(errOut **C.char, body func() error) (code C.int) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // see container.FaultError
	defer func() {
		if r := recover(); r != nil {
			code = fail(errOut, recovered(r))
		}
	}()
	if err := body(); err != nil {
		return fail(errOut, err)
	}
	return C.BN_OK
}

// recovered is the error that a panic becomes.
func recovered(value any) error {
	if err := container.FaultError(value); err != nil {
		return err
	}
	return &panicError{value: value, stack: debug.Stack()}
}

func fail(errOut **C.char, err error) C.int {
	*errOut = C.CString(err.Error())
	return codeOf(err)
}

func codeOf(err error) C.int {
	for _, c := range codes {
		if errors.Is(err, c.sentinel) {
			return c.code
		}
	}
	var env *cpu.EnvError
	if errors.As(err, &env) {
		return C.BN_ARGUMENT
	}
	var defect *panicError
	if errors.As(err, &defect) {
		return C.BN_INTERNAL
	}
	if fromSystem(err) {
		return C.BN_FILE
	}
	return C.BN_ERROR
}

// fromSystem says whether the operating system refused something, as a rule about a file.
func fromSystem(err error) bool {
	var path *fs.PathError
	var link *os.LinkError
	var call *os.SyscallError
	var number syscall.Errno
	return errors.As(err, &path) || errors.As(err, &link) || errors.As(err, &call) || errors.As(err, &number)
}
