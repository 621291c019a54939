// Package main is the bridge between Python and the Go core: built with
//
//	go build -buildmode=c-shared -tags pyext -o _bitnet.abi3.so ./bindings
//
// it is a CPython extension module for the limited API of Python 3.11, so one
// file serves 3.11 and everything newer.
//
// Two layers meet here. The .c files know Python: they check argument types,
// take NumPy arrays through the buffer protocol, release the GIL and raise
// exceptions. The //export functions know Go: they turn pointers and lengths
// into slices, call core/model and core/infer, and turn errors and panics into
// a code and a message. Neither layer decides anything about models; what a
// reader looks for is in core/.
//
// Rules that hold for every export:
//   - its body runs inside [guard], so that a panic becomes an exception;
//   - a Go object crosses as a cgo.Handle owned by exactly one Python object,
//     which gives it back in tp_dealloc; Python code never sees the number;
//   - memory that Go writes results to belongs to the caller, and Go keeps no
//     pointer to it after the call;
//   - a call that can take long is cancelled through [interrupts], which runs
//     Python's signal handlers on the calling thread.
//
// The build tag pyext keeps all of it, and Python.h, out of plain go vet ./...
// and go test ./...
package main

func main() {}
