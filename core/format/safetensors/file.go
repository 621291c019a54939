package safetensors

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
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
	*container.File
	header *header
}

var _ container.Set = (*File)(nil)

// Open maps a file and validates its header. The file's tensors are read from
// the disk when their bytes are first touched, see container.Open.
//
// Errors: a container.Error naming what is wrong, or the system's error (test
// with errors.Is(err, fs.ErrNotExist)).
func Open(path string) (*File, error) {
	f, err := container.Open(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
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
	return &File{f, h}, nil
}

// OpenSet opens a checkpoint: a .safetensors file, an index file (.json), or a
// directory with model.safetensors or model.safetensors.index.json in it.
func OpenSet(path string) (container.Set, error) {
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

// Tensors lists the file's tensors by offset. After Close it still works.
func (f *File) Tensors() []container.Info {
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
func (f *File) Tensor(name string) (container.View, error) {
	i, ok := f.header.byName[name]
	if !ok {
		return container.View{}, &container.Error{Kind: container.ErrTensorMissing, Path: f.Path(), Tensor: name}
	}
	t := &f.header.tensors[i]
	begin := f.header.dataStart + int(t.Offset)
	data, err := f.Part(begin, begin+int(t.Size))
	if err != nil {
		return container.View{}, fmt.Errorf("tensor %s: %w", container.Quote(name), err)
	}
	return container.View{Name: t.Name, DType: t.DType, Shape: slices.Clone(t.Shape), Data: data, File: f.File}, nil
}
