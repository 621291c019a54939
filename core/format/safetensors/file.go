package safetensors

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// IndexName is the name of the file that ties shards together, and SingleName
// that of a checkpoint in one file, as Hugging Face writes them.
const (
	SingleName = "model" + ext
	IndexName  = "model" + ext + indexExt

	ext      = ".safetensors"
	indexExt = ".index.json"
)

// File is one open safetensors file. Its methods may be called from several
// goroutines, Close included.
type File struct {
	container.Indexed
	metadata map[string]string
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
	return Read(f, Limits{})
}

// OpenBytes validates content that is already in memory, under a name used in
// errors. The views alias content.
func OpenBytes(name string, content []byte) (*File, error) {
	return Read(container.OpenBytes(name, content), Limits{})
}

// Limits bound what a header may have, and so what a hostile one costs. Zero
// values are those of the format: MaxHeader, and as many tensors as fit.
type Limits struct {
	Header  int // bytes
	Tensors int // how many
}

func (l Limits) header() int { return cmp.Or(l.Header, MaxHeader) }

// Read validates the header of a file that was opened in any way; after an error
// the file is closed.
func Read(f *container.File, limits Limits) (*File, error) {
	h, err := readHeader(f, limits)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &File{container.Index(f, h.tensors, h.dataStart), h.metadata}, nil
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
	return nil, container.Worded(fs.ErrNotExist, "safetensors: directory %s holds neither %s nor %s", path, SingleName, IndexName)
}

// Metadata returns a copy of the header's __metadata__, never nil.
func (f *File) Metadata() map[string]string {
	if f.metadata == nil {
		return map[string]string{}
	}
	return maps.Clone(f.metadata)
}
