//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
)

// errArgument marks a bad argument that the bridge itself finds.
var errArgument = errors.New("bad argument")

// errClosed answers a call on a model or generation after its Close.
var errClosed = errors.New("closed")

// codes maps the core's sentinel errors to the exception each becomes; the
// first match wins, so the specific ones stand first.
var codes = []struct {
	sentinel error
	code     C.int
}{
	{context.Canceled, C.BN_CANCELED},
	{errArgument, C.BN_ARGUMENT},
	{errClosed, C.BN_ARGUMENT},
	{fs.ErrNotExist, C.BN_NOT_FOUND},
}

// guard runs one export's body. An error becomes its code and a message that C
// frees; a panic becomes BN_INTERNAL with the stack, since it is a defect here
// and not the caller's.
func guard(errOut **C.char, body func() error) (code C.int) {
	defer func() {
		if r := recover(); r != nil {
			code = C.BN_INTERNAL
			*errOut = C.CString(fmt.Sprintf("%v\n\nThis is a defect of bitnet_rust; please report it with these lines.\n%s", r, debug.Stack()))
		}
	}()
	err := body()
	if err == nil {
		return C.BN_OK
	}
	*errOut = C.CString(err.Error())
	for _, c := range codes {
		if errors.Is(err, c.sentinel) {
			return c.code
		}
	}
	return C.BN_ERROR
}
