//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/cgo"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/format/tokenfile"
)

// bn_tokens_info describes a token file as JSON; dtype and offset are those of a file without a header, or empty
// and 0; first and tokens say which ids to take, 0 and 0 for all.
//
//export bn_tokens_info
func bn_tokens_info(path, dtype *C.char, offset, first, tokens C.int64_t, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		f, err := tokenfile.Open(C.GoString(path), tokenfile.Options{DType: C.GoString(dtype), Offset: int64(offset), First: int(first), Tokens: int(tokens)})
		if err != nil {
			return err
		}
		defer f.Close()
		return jsonOut(out, f.Info)
	})
}

// bn_tokens_create begins a token file; separator -1 is none.
//
//export bn_tokens_create
func bn_tokens_create(path *C.char, vocab C.int64_t, separator C.int32_t, out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		w, err := tokenfile.Create(C.GoString(path), int(vocab), int32(separator))
		if errors.Is(err, fs.ErrNotExist) { // the place to write to
			return fmt.Errorf("%w %s: %v", errWrite, C.GoString(path), err)
		}
		if err != nil {
			return err
		}
		*out = C.uintptr_t(cgo.NewHandle(w))
		return nil
	})
}

//export bn_tokens_write
func bn_tokens_write(h C.uintptr_t, ids *C.int32_t, n C.int64_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		return value[*tokenfile.Writer](h).Write(unsafe.Slice((*int32)(ids), int(n)))
	})
}

//export bn_tokens_commit
func bn_tokens_commit(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error { return value[*tokenfile.Writer](h).Commit() })
}

//export bn_tokens_free
func bn_tokens_free(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		value[*tokenfile.Writer](h).Abort() // nothing after a commit
		cgo.Handle(h).Delete()
		return nil
	})
}
