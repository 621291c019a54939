package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// assetNames are the files that belong to a model beside its weights and config.
var assetNames = []string{
	"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
	"generation_config.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model",
}

// maxAssetBytes bounds one asset, and all of those inside a native file together: several times the largest published tokenizer.
const maxAssetBytes = 256 << 20

// Assets reads the tokenizer and other files that belong to the model at path, by name: those inside a native file, and
// those in a model's directory, which win; of a GGUF model those that its metadata stand for. A model without any gives an empty map.
func Assets(path string) (map[string]string, error) {
	files := map[string]string{}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if nativeIn(path) == "" && onnxPath(path) == "" {
		if file, err := ggufPath(path); err == nil && file != "" { // a directory of several models may have a tokenizer for all
			return ggufAssets(file)
		}
	}
	dir, native := path, nativeIn(path)
	if !info.IsDir() {
		dir, native = filepath.Dir(path), ""
		if isNative(path) {
			native = path
		}
	}
	if native != "" {
		if err := nativeAssets(native, files); err != nil {
			return nil, err
		}
	}
	if !info.IsDir() && native != "" && filepath.Base(path) != NativeName && filepath.Base(path) != NativeIndex {
		return files, nil // a file that stands alone has its own
	}
	for _, name := range assetNames {
		text, err := readLimited(filepath.Join(dir, name), maxAssetBytes)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[name] = string(text)
	}
	return files, nil
}

func nativeAssets(path string, files map[string]string) error {
	f, err := openNative(path)
	if err != nil {
		return err
	}
	return f.lastAssets(files)
}

// lastAssets is assets of a file that is closed afterwards.
func (f *nativeFile) lastAssets(files map[string]string) (err error) {
	defer func() { _ = f.Close() }() // the texts are copies
	defer container.CatchFault(&err)
	return f.assets(context.Background(), files)
}

// assets adds the files inside to files.
func (f *nativeFile) assets(ctx context.Context, files map[string]string) error {
	for _, info := range f.Tensors() {
		if f.tensors[info.Name].Layout != layoutFile {
			continue
		}
		v, err := f.listed(info.Name)
		if err != nil {
			return err
		}
		data, err := v.bytes(ctx, true)
		if err != nil {
			return err
		}
		text := unsafe.String(unsafe.SliceData(data), len(data)) // it may be large, and nobody else has data
		if v.plain() {
			text = strings.Clone(text) // out of the mapping
		}
		files[strings.TrimPrefix(info.Name, filePrefix)] = text
	}
	return nil
}

// SetAssets gives the model tokenizer and other texts by plain file name, which Save and SaveHF write instead of those of
// the place that it was loaded from.
func (m *Model) SetAssets(files map[string]string) error {
	for name := range files {
		if !plainFileName(name) {
			return fmt.Errorf("%w: file name %q: must be a name without directories", ErrOption, name)
		}
	}
	own := maps.Clone(files)
	m.files.Store(&own)
	return nil
}

// OwnAssets are the texts that SetAssets gave, or that came with the stream of LoadReader; nil for a model that takes those of its path.
func (m *Model) OwnAssets() map[string]string {
	if own := m.files.Load(); own != nil {
		return maps.Clone(*own)
	}
	return nil
}

// plainFileName says whether a name stays in its directory on every system.
func plainFileName(name string) bool {
	return name != "." && filepath.IsLocal(name) && !strings.ContainsAny(name, "/\\:\x00")
}
