package model

import (
	"bytes"
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
	"github.com/bitnet-rust/bitnet_rust/core/format/sentencepiece"
)

// assetSizes are the files that belong to a model beside its weights and config, and the most bytes that are read of each. The largest published
// tokenizer.json has 34 MB.
var assetSizes = map[string]int64{
	tokenizerName: maxVocabulary, "vocab.json": maxVocabulary, "merges.txt": maxVocabulary, "vocab.txt": maxVocabulary, sentencePieceName: sentencepiece.MaxSize,
	tokenizerConfigName: maxSettings, "special_tokens_map.json": maxSettings, "added_tokens.json": maxSettings, "chat_template.jinja": maxSettings,
	"chat_template.json": maxSettings, generationName: maxSettings,
}

const (
	maxVocabulary = 48 << 20
	maxSettings   = 4 << 20
	// maxAssetBytes bounds the files inside a native file together.
	maxAssetBytes = 64 << 20
)

// errText is a file that is not what its name says.
var errText = container.NewKind("not a file of a tokenizer")

// Assets reads the tokenizer and other files that belong to the model at path, by name: those inside a native file, and
// those in a model's directory, which win; of a GGUF model those that its metadata stand for; beside a
// tokenizer.model alone the tokenizer.json that it stands for. A model without any gives an empty map.
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
	for _, name := range sortedKeys(assetSizes) {
		text, err := readAsset(filepath.Join(dir, name), assetSizes[name])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[name] = string(text)
	}
	if _, ok := files[sentencePieceName]; ok && files[tokenizerName] == "" {
		if made, err := TokenizerOfSentencePiece(files, filepath.Join(dir, sentencePieceName)); err == nil { // who asks for the tokenizer is told why not
			files[tokenizerName] = made
		}
	}
	return files, nil
}

// readAsset reads a file, and refuses one with zeros where others have text: a sparse file of nothing costs nobody anything to send.
func readAsset(path string, limit int64) ([]byte, error) {
	data, err := readPieces(path, limit, func(at int, piece []byte) error {
		zero := bytes.IndexByte(piece, 0)
		if zero < 0 || filepath.Base(path) == sentencePieceName {
			return nil
		}
		return &container.Error{Kind: errText, Path: path, Field: fmt.Sprintf("byte %d", at+zero), Found: "0", Expected: "text"}
	})
	var long *ConfigError
	if errors.As(err, &long) {
		return nil, &container.Error{Kind: errText, Path: path, Field: "size", Found: "more", Expected: fmt.Sprintf("at most %d bytes", limit)}
	}
	return data, err
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
