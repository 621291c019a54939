package container

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"
)

// mappings has the files that are mapped now: *File -> nil.
var mappings sync.Map

// FaultError explains a recovered panic (also one that wraps the runtime's, as
// cpu.TaskPanic does). If it is a memory fault inside a mapped file, somebody
// has cut the file short or its disk failed, and the result is an Error of
// kind ErrUnreadable that names the file. Otherwise it is nil.
//
// Without debug.SetPanicOnFault in the goroutine that reads the mapping, such
// a fault ends the process and there is nothing to recover.
func FaultError(recovered any) error {
	err, _ := recovered.(error)
	var fault interface{ Addr() uintptr }
	if !errors.As(err, &fault) {
		return nil
	}
	var found error
	mappings.Range(func(key, _ any) bool {
		found = key.(*File).faultAt(fault.Addr())
		return found == nil
	})
	return found
}

// CatchFault makes a memory fault inside a mapped file the error of the
// function that defers it. It has to be deferred after what closes the file, and
// so run before it: a file that was closed is none that a fault could be in.
// Other panics go on.
func CatchFault(err *error) {
	r := recover()
	if r == nil {
		return
	}
	fault := FaultError(r)
	if fault == nil {
		panic(r)
	}
	*err = fault
}

func (f *File) faultAt(addr uintptr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := addr - uintptr(unsafe.Pointer(unsafe.SliceData(f.data)))
	if at >= uintptr(len(f.data)) {
		return nil
	}
	return &Error{Kind: ErrUnreadable, Path: f.path, Found: fmt.Sprintf("a fault at byte %d", at),
		Expected: fmt.Sprintf("the %d bytes that it had when it was opened", len(f.data))}
}
