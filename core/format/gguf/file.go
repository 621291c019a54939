package gguf

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// Set is an open GGUF model: a file, or all files of a split one.
type Set interface {
	container.Set
	// Metadata is that of the file, or of the first of several.
	Metadata() *Metadata
}

// File is one open file. Its methods may be called from several goroutines,
// Close included.
type File struct {
	container.Indexed
	version int
	meta    Metadata
}

// Open maps a file and validates its header, see container.Open. A file that is
// one of several opens as it is; OpenSet opens them all.
//
// Errors: a container.Error naming what is wrong, or the system's error (test
// with errors.Is(err, fs.ErrNotExist)).
func Open(path string) (*File, error) {
	f, err := container.Open(path)
	if err != nil {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	return newFile(f)
}

// OpenBytes validates content that is already in memory, under a name used in
// errors. The views alias content.
func OpenBytes(name string, content []byte) (*File, error) {
	return newFile(container.OpenBytes(name, content))
}

func newFile(f *container.File) (*File, error) {
	var h *header
	err := f.Parse(func(content []byte) (err error) {
		h, err = readHeader(f.Path(), content)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &File{container.Index(f, h.tensors, h.dataStart), h.version, h.meta}, nil
}

// Version is the version of the format that the file states, 2 or 3.
func (f *File) Version() int { return f.version }

// Metadata returns the file's entries. After Close they are still there.
func (f *File) Metadata() *Metadata { return &f.meta }

// The entries that tie split files together.
const (
	splitNumber  = "split.no"
	splitCount   = "split.count"
	splitTensors = "split.tensors.count"
	maxSplits    = 1 << 12
)

// splitPattern is the name of one of several files, as llama-gguf-split writes
// them.
var splitPattern = regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})\.gguf$`)

// SplitName is the name of file i, counted from 0, of n.
func SplitName(prefix string, i, n int) string {
	return fmt.Sprintf("%s-%05d-of-%05d.gguf", prefix, i+1, n)
}

// SplitPrefix is what the names of all files begin with that a file of this name
// belongs to, "" if it is none of several.
func SplitPrefix(name string) string {
	if parts := splitPattern.FindStringSubmatch(name); parts != nil {
		return parts[1]
	}
	return ""
}

// OpenSet opens a file, or, when it is one of several, all of them: they lie in
// one directory under names that end in -00001-of-0000N.gguf.
func OpenSet(path string) (Set, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	if !f.Metadata().Has(splitCount) {
		return f, nil
	}
	n, err := f.Metadata().Int(splitCount)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if n == 1 {
		return f, nil
	}
	return openSplit(f, n)
}

// Split is a model of several files.
type Split struct {
	path  string
	files []*File
	where map[string]*File
}

var _, _ Set = (*File)(nil), (*Split)(nil)

// openSplit opens the other files beside one, which it takes over.
func openSplit(one *File, n int) (*Split, error) {
	s := &Split{path: one.Path(), files: make([]*File, 0, max(0, min(n, maxSplits))), where: map[string]*File{}}
	if err := s.open(one, n); err != nil {
		return nil, errors.Join(err, one.Close(), s.Close())
	}
	return s, nil
}

func (s *Split) open(one *File, n int) error {
	bad := func(field, found, expected string) error {
		return &container.Error{Kind: ErrSplit, Path: one.Path(), Field: field, Found: found, Expected: expected}
	}
	if n < 1 || n > maxSplits {
		return bad(splitCount, strconv.Itoa(n), fmt.Sprintf("1 to %d", maxSplits))
	}
	dir, base := filepath.Split(one.Path())
	parts := splitPattern.FindStringSubmatch(base)
	if parts == nil || parts[3] != fmt.Sprintf("%05d", n) {
		return bad("name", container.Quote(base), fmt.Sprintf("a name that ends in -00001-of-%05d.gguf, as the file says that it is one of %d", n, n))
	}
	total := 0
	for i := range n {
		path := filepath.Join(dir, SplitName(parts[1], i, n))
		f, err := one, error(nil)
		if path != filepath.Clean(one.Path()) {
			f, err = Open(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return bad(splitCount, fmt.Sprintf("no file %s", path), fmt.Sprintf("all %d files beside each other", n))
		}
		if err != nil {
			return err
		}
		s.files = append(s.files, f)
		if err := s.add(f, i, n); err != nil {
			return err
		}
		total += len(f.Tensors())
	}
	first := s.files[0].Metadata()
	if first.Has(splitTensors) {
		if want, err := first.Int(splitTensors); err != nil || want != total {
			return errors.Join(err, bad(splitTensors, fmt.Sprintf("%d tensors", total), fmt.Sprint(want)))
		}
	}
	return nil
}

// add takes the tensors of file i.
func (s *Split) add(f *File, i, n int) error {
	for key, want := range map[string]int{splitNumber: i, splitCount: n} {
		if got, err := f.Metadata().Int(key); err != nil || got != want {
			return errors.Join(err, &container.Error{Kind: ErrSplit, Path: f.Path(), Field: key, Found: fmt.Sprint(got), Expected: fmt.Sprint(want)})
		}
	}
	for _, t := range f.Tensors() {
		if other := s.where[t.Name]; other != nil {
			return &container.Error{Kind: ErrDuplicate, Path: f.Path(), Tensor: t.Name, Field: "name", Found: "it in " + other.Path() + " too", Expected: "it once"}
		}
		s.where[t.Name] = f
	}
	return nil
}

// Path returns what the set was opened by.
func (s *Split) Path() string { return s.path }

// Files lists the files in order.
func (s *Split) Files() []*File { return slices.Clone(s.files) }

// Metadata returns the entries of the first file.
func (s *Split) Metadata() *Metadata { return s.files[0].Metadata() }

// Tensors lists the tensors by file and offset.
func (s *Split) Tensors() []container.Info {
	var out []container.Info
	for _, f := range s.files {
		out = append(out, f.Tensors()...)
	}
	return out
}

// Has says whether one of the files holds the tensor.
func (s *Split) Has(name string) bool { return s.where[name] != nil }

// Tensor returns a view into the tensor's file.
func (s *Split) Tensor(name string) (container.View, error) {
	f := s.where[name]
	if f == nil {
		return container.View{}, &container.Error{Kind: container.ErrTensorMissing, Path: s.path, Tensor: name}
	}
	return f.Tensor(name)
}

// Close closes all files.
func (s *Split) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
