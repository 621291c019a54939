package safetensors

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"unsafe"
)

// IndexName is the name of the file that ties shards together, and SingleName
// that of a checkpoint in one file, as Hugging Face writes them.
const (
	SingleName = "model.safetensors"
	IndexName  = "model.safetensors.index.json"
)

// File is one open safetensors file. Its methods may be called from several
// goroutines, Close included.
type File struct {
	path   string
	header *header
	size   int

	mu     sync.Mutex
	data   []byte // whole content; nil once it is given back
	mapped bool   // data is a mapping and has to be unmapped
	refs   int    // 1 for the File itself, plus one per Retain
	closed bool
}

var _ Set = (*File)(nil)

// Open maps a file and validates its header. The file's tensors are read from
// the disk when their bytes are first touched. A file that another process
// truncates while it is mapped faults on access, as any mapping does (see
// FaultError); writers that replace files by rename (as Write does) are
// harmless.
//
// Errors: a FormatError naming what is wrong, or the system's error (test with
// errors.Is(err, fs.ErrNotExist)).
func Open(path string) (*File, error) {
	info, err := os.Stat(path) // before opening: opening a pipe would block
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, &FormatError{Kind: ErrNotRegular, Path: path, Field: "type",
			Found: info.Mode().Type().String(), Expected: "a regular file"}
	}
	data, mapped, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: mapping %s: %w", path, err)
	}
	f, err := newFile(path, data, mapped)
	if err != nil && mapped {
		err = errors.Join(err, unmap(data))
	}
	return f, err
}

// OpenBytes validates content that is already in memory, under a name used in
// errors. The views alias content.
func OpenBytes(name string, content []byte) (*File, error) { return newFile(name, content, false) }

func newFile(path string, data []byte, mapped bool) (*File, error) {
	h, err := readHeader(path, data)
	if err != nil {
		return nil, err
	}
	f := &File{path: path, header: h, size: len(data), data: data, mapped: mapped, refs: 1}
	if mapped {
		mappings.Store(f, nil)
	}
	return f, nil
}

// OpenSet opens a checkpoint: a .safetensors file, an index file (.json), or a
// directory with model.safetensors or model.safetensors.index.json in it.
func OpenSet(path string) (Set, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	if !info.IsDir() {
		if filepath.Ext(path) == ".json" {
			return OpenSharded(path)
		}
		return Open(path)
	}
	single := filepath.Join(path, SingleName)
	if _, err := os.Stat(single); err == nil {
		return Open(single)
	}
	index := filepath.Join(path, IndexName)
	if _, err := os.Stat(index); err == nil {
		return OpenSharded(index)
	}
	return nil, fmt.Errorf("safetensors: directory %s holds neither %s nor %s: %w", path, SingleName, IndexName, fs.ErrNotExist)
}

// Path returns the name the file was opened by.
func (f *File) Path() string { return f.path }

// Size is the length of the file in bytes.
func (f *File) Size() int { return f.size }

// Tensors lists the file's tensors by offset. After Close it still works.
func (f *File) Tensors() []Info {
	out := slices.Clone(f.header.tensors)
	for i := range out {
		out[i].Shape = slices.Clone(out[i].Shape)
	}
	return out
}

// Has says whether the file holds the tensor.
func (f *File) Has(name string) bool {
	_, ok := f.header.byName[name]
	return ok
}

// Metadata returns a copy of the header's __metadata__, never nil.
func (f *File) Metadata() map[string]string {
	if f.header.metadata == nil {
		return map[string]string{}
	}
	return maps.Clone(f.header.metadata)
}

// Tensor returns a view of the named tensor.
func (f *File) Tensor(name string) (View, error) {
	i, ok := f.header.byName[name]
	if !ok {
		return View{}, &FormatError{Kind: ErrTensorMissing, Path: f.path, Tensor: name}
	}
	t := &f.header.tensors[i]
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return View{}, fmt.Errorf("%w: %s: tensor %s", ErrClosed, f.path, quote(name))
	}
	begin := f.header.dataStart + int(t.Offset)
	end := begin + int(t.Size)
	return View{Name: t.Name, DType: t.DType, Shape: slices.Clone(t.Shape), Data: f.data[begin:end:end], file: f}, nil
}

// Retain keeps the mapping alive past Close until a matching Release, for a
// holder whose views must outlive the opener.
func (f *File) Retain() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("%w: %s", ErrClosed, f.path)
	}
	f.refs++
	return nil
}

// Release undoes one Retain.
func (f *File) Release() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refs < 1 || (f.refs == 1 && !f.closed) {
		panic("safetensors: Release without Retain")
	}
	return f.drop()
}

// Close refuses further requests and, unless the file is retained, takes the
// mapping away: views handed out before must not be touched any more. Closing
// again does nothing.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return f.drop()
}

func (f *File) drop() error {
	f.refs--
	if f.refs > 0 {
		return nil
	}
	data := f.data
	f.data = nil
	mappings.Delete(f)
	if !f.mapped {
		return nil
	}
	if err := unmap(data); err != nil {
		return fmt.Errorf("safetensors: unmapping %s: %w", f.path, err)
	}
	return nil
}

// Advise tells the system how a view of this file will be used. For content in
// memory it does nothing.
func (f *File) Advise(v View, a Advice) error {
	return f.withPages(v, true, func(pages []byte) error { return advise(pages, a) })
}

// ReleasePages gives the resident memory of the pages that lie wholly inside
// the view back to the system; the next access reads them again (from the page
// cache, if they are still there). Loaders call it after converting a tensor,
// so that a checkpoint of any size passes through a bounded resident set.
func (f *File) ReleasePages(v View) error { return f.withPages(v, false, releasePages) }

// withPages calls fn with the page-aligned range of a view: the pages that
// touch it (outer), or those fully inside it. The lock keeps Close away.
func (f *File) withPages(v View, outer bool, fn func([]byte) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.data == nil {
		return fmt.Errorf("%w: %s: tensor %s", ErrClosed, f.path, quote(v.Name))
	}
	if !f.mapped || len(v.Data) == 0 {
		return nil
	}
	base := uintptr(unsafe.Pointer(unsafe.SliceData(f.data)))
	at := uintptr(unsafe.Pointer(unsafe.SliceData(v.Data)))
	if v.file != f || at < base || at+uintptr(len(v.Data)) > base+uintptr(len(f.data)) {
		return &FormatError{Kind: ErrMismatch, Path: f.path, Tensor: v.Name, Field: "view", Found: "a view of another file", Expected: "one of this file"}
	}
	page := os.Getpagesize() // the mapping itself starts on a page
	begin := int(at - base)
	end := begin + len(v.Data)
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
		return fmt.Errorf("safetensors: advising on %s: tensor %s: %w", f.path, quote(v.Name), err)
	}
	return nil
}
