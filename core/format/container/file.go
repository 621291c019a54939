package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"unsafe"
)

// File is the content of one file: mapped, in memory, or read piece by piece
// from wherever it is. Its methods may be called from several goroutines, Close
// included.
type File struct {
	path   string
	size   int
	reader io.ReaderAt // nil: data is the content

	mu     sync.Mutex
	data   []byte // whole content; nil once it is given back
	mapped bool   // data is a mapping and has to be unmapped
	closed bool
}

// Open maps a file. Its bytes are read from the disk when they are first
// touched. A file that another process truncates while it is mapped faults on
// access, as any mapping does (see FaultError); writers that replace files by
// rename are harmless.
//
// Errors: an Error of kind ErrNotRegular, or the system's error (test with
// errors.Is(err, fs.ErrNotExist)).
func Open(path string) (*File, error) {
	info, err := os.Stat(path) // before opening: opening a pipe would block
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{Kind: ErrNotRegular, Path: path, Field: "type", Found: info.Mode().Type().String(), Expected: "a regular file"}
	}
	data, mapped, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("mapping %s: %w", path, err)
	}
	f := &File{path: path, size: len(data), data: data, mapped: mapped}
	if mapped {
		mappings.Store(f, nil)
	}
	return f, nil
}

// OpenBytes makes a File of content that is already in memory, under a name
// used in errors. Views alias content.
func OpenBytes(name string, content []byte) *File {
	return &File{path: name, size: len(content), data: content}
}

// OpenReader makes a File of size bytes that are read when they are asked for,
// under a name used in errors: nothing is mapped or kept. Views have no Data
// then, but Open.
func OpenReader(name string, r io.ReaderAt, size int64) (*File, error) {
	if size < 0 || int64(int(size)) != size {
		return nil, &Error{Kind: ErrNotRegular, Path: name, Field: "size", Found: fmt.Sprintf("%d bytes", size), Expected: "a number of bytes that can be addressed"}
	}
	return &File{path: name, size: int(size), reader: r}, nil
}

// Mapped says whether the content is memory, so that views have Data.
func (f *File) Mapped() bool { return f.reader == nil }

// Parse calls fn with the whole content, for reading a header. When fn fails
// the file is closed. Content that is not in memory has to be read by Part.
func (f *File) Parse(fn func(content []byte) error) error {
	f.mu.Lock()
	data := f.data
	f.mu.Unlock() // a fault while fn reads is looked up under the lock
	if err := fn(data); err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

// Path returns the name the file was opened by.
func (f *File) Path() string { return f.path }

// Size is the length of the file in bytes.
func (f *File) Size() int { return f.size }

// Part returns the bytes from begin to end, which the caller has checked
// against Size: a copy unless the content is in memory.
func (f *File) Part(begin, end int) ([]byte, error) {
	if f.reader != nil {
		part := make([]byte, end-begin)
		_, err := io.ReadFull(f.section(begin, end), part)
		return part, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, fmt.Errorf("%w: %s", ErrClosed, f.path)
	}
	return f.data[begin:end:end], nil
}

// section reads the bytes from begin to end of a file that is not in memory. An
// end that comes too early is an Error of kind ErrUnreadable.
func (f *File) section(begin, end int) io.Reader { return &section{file: f, at: begin, end: end} }

type section struct {
	file    *File
	at, end int
}

func (s *section) Read(p []byte) (int, error) {
	f := s.file
	f.mu.Lock()
	closed := f.closed
	f.mu.Unlock()
	switch {
	case closed:
		return 0, fmt.Errorf("%w: %s", ErrClosed, f.path)
	case s.at == s.end:
		return 0, io.EOF
	}
	p = p[:min(len(p), s.end-s.at)]
	n, err := f.reader.ReadAt(p, int64(s.at))
	s.at += n
	switch {
	case n == len(p):
		return n, nil
	case err == nil || errors.Is(err, io.EOF):
		return n, &Error{Kind: ErrUnreadable, Path: f.path, Found: fmt.Sprintf("an end at byte %d", s.at), Expected: fmt.Sprintf("%d bytes", f.size)}
	}
	return n, fmt.Errorf("reading %s: %w", f.path, err)
}

// open reads part, or what lies from begin to end of a file that is not in memory.
func (f *File) open(part []byte, begin, end int) io.Reader {
	if f.reader == nil {
		return bytes.NewReader(part)
	}
	return f.section(begin, end)
}

// Close refuses further requests and takes the mapping away: views handed out
// before must not be touched any more. Closing again does nothing.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	data := f.data
	f.closed, f.data = true, nil
	mappings.Delete(f)
	if !f.mapped {
		return nil
	}
	if err := unmap(data); err != nil {
		return fmt.Errorf("unmapping %s: %w", f.path, err)
	}
	return nil
}

// Advice is a hint about a part's future use.
type Advice uint8

const (
	// WillNeed starts reading the pages in the background.
	WillNeed Advice = iota
	// Sequential asks for a large read-ahead.
	Sequential
	// Random turns read-ahead off.
	Random
)

// Advise tells the system how a part of this file will be used. For content in
// memory it does nothing.
func (f *File) Advise(part []byte, a Advice) error {
	return f.withPages(part, true, func(pages []byte) error { return advise(pages, a) })
}

// ReleasePages gives the resident memory of the pages that lie wholly inside
// the part back to the system; the next access reads them again (from the page
// cache, if they are still there). Loaders call it after converting a tensor,
// so that a checkpoint of any size passes through a bounded resident set.
func (f *File) ReleasePages(part []byte) error { return f.withPages(part, false, releasePages) }

// withPages calls fn with the page-aligned range of a part: the pages that
// touch it (outer), or those fully inside it. The lock keeps Close away.
func (f *File) withPages(part []byte, outer bool, fn func([]byte) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("%w: %s", ErrClosed, f.path)
	}
	if !f.mapped || len(part) == 0 {
		return nil
	}
	base := uintptr(unsafe.Pointer(unsafe.SliceData(f.data)))
	at := uintptr(unsafe.Pointer(unsafe.SliceData(part)))
	if at < base || at+uintptr(len(part)) > base+uintptr(len(f.data)) {
		return &Error{Kind: ErrMismatch, Path: f.path, Field: "part", Found: "bytes of another file", Expected: "bytes of this one"}
	}
	page := os.Getpagesize() // the mapping itself starts on a page
	begin := int(at - base)
	end := begin + len(part)
	if outer {
		begin = begin / page * page
	} else {
		begin = (begin + page - 1) / page * page
		if end != len(f.data) { // the file's last page belongs to its last tensor alone
			end = end / page * page
		}
	}
	if begin >= end {
		return nil
	}
	if err := fn(f.data[begin:end]); err != nil {
		return fmt.Errorf("advising on %s: %w", f.path, err)
	}
	return nil
}
