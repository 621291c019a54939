package model

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/gguf"
	"github.com/bitnet-rust/bitnet_rust/core/format/onnx"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
)

// Keys of a native file's metadata that say what a model is and where it is from. They are free text to a reader.
const (
	KeyCard       = "model_card"       // Markdown, as in the README.md of a Hugging Face repository
	KeyLicense    = "license"          // an SPDX identifier, or the text
	KeyProvenance = "provenance"       // JSON, see Provenance
	KeyHistory    = "training_history" // JSON: a list of training runs, oldest first
)

// maxCardBytes bounds a model card that is taken along; maxMetadataBytes all of what a caller adds.
const (
	maxCardBytes     = 1 << 20
	maxMetadataBytes = 4 << 20
)

// Provenance says of which files a model was made.
type Provenance struct {
	Source   string       `json:"source"`             // of the hub "owner/name", else the file or directory, without those above it
	Revision string       `json:"revision,omitempty"` // the commit, of the hub
	Format   string       `json:"format"`             // "hf", "gguf" or "onnx"
	Files    []SourceFile `json:"files"`              // config and weights; without those that were gone
}

// SourceFile is one of them, as it was when the model was first saved.
type SourceFile struct {
	Name   string `json:"name"`   // without directories
	Bytes  int64  `json:"bytes"`  // its size
	SHA256 string `json:"sha256"` // as the hub lists it
}

// reservedKeys have a meaning in the format itself.
var reservedKeys = []string{keyFormat, keyVersion, keyProducer, keyCreated, keyConfig, keyTensors, keyShards}

func checkMetadata(meta map[string]string) error {
	size := 0
	for _, key := range sortedKeys(meta) {
		size += len(key) + len(meta[key])
		if key == "" || slices.Contains(reservedKeys, key) {
			return fmt.Errorf("%w: metadata %q: must be a key other than %s, which the format itself has", ErrOption, key, strings.Join(reservedKeys, ", "))
		}
	}
	if size > maxMetadataBytes {
		return fmt.Errorf("%w: metadata of %d bytes: must be at most %d", ErrOption, size, maxMetadataBytes)
	}
	return nil
}

// metadata is what a native file says of the model beside the format's own keys: what the model was loaded with, or what the place says that it
// was loaded from, and what is given.
func (m *Model) metadata(ctx context.Context, given map[string]string) (map[string]string, error) {
	meta := map[string]string{}
	if path := m.Info.Path; path != "" && m.Info.Metadata == nil {
		if m.origin.Load() == nil {
			said := map[string]string{}
			if err := describe(ctx, path, said); err != nil {
				return nil, err
			}
			m.origin.Store(&said)
		}
		maps.Copy(meta, *m.origin.Load())
	}
	maps.Copy(meta, m.Info.Metadata)
	for key, value := range given {
		meta[key] = value
		if value == "" {
			delete(meta, key)
		}
	}
	return meta, nil
}

// notes are what a file of another format can say of the model: the entries it was loaded with, or what the place says that it was loaded from.
func (m *Model) notes() map[string]string {
	if m.Info.Metadata != nil || m.Info.Path == "" {
		return m.Info.Metadata
	}
	if said := m.origin.Load(); said != nil {
		return *said
	}
	meta := map[string]string{}
	if strings.EqualFold(filepath.Ext(m.Info.Path), GGUFExt) {
		if set, err := gguf.OpenSet(m.Info.Path); err == nil {
			describeGGUF(set, meta)
			_ = set.Close() // nothing of it is kept
		}
	} else if !strings.EqualFold(filepath.Ext(m.Info.Path), ONNXExt) {
		describeCard(filepath.Join(hfDir(m.Info.Path), cardName), meta)
	}
	return meta
}

// ggufNotes are the keys of a model's metadata that GGUF files have as general.*.
var ggufNotes = []string{KeyLicense, "author", "description", "organization", "url", "version"}

// describeGGUF takes them from a file.
func describeGGUF(set gguf.Set, meta map[string]string) {
	for _, key := range ggufNotes {
		if text, err := set.Metadata().String("general." + key); err == nil && text != "" {
			meta[key] = strings.ToValidUTF8(text, "\uFFFD")
		}
	}
}

// describe adds card, licence and provenance of the checkpoint at path. What is gone or is not to be read has none.
func describe(ctx context.Context, path string, meta map[string]string) error {
	var p Provenance
	var files []string
	if strings.EqualFold(filepath.Ext(path), GGUFExt) {
		p.Source, p.Format = filepath.Base(path), "gguf"
		if set, err := gguf.OpenSet(path); err == nil {
			files = setFiles(set)
			describeGGUF(set, meta)
			_ = set.Close() // nothing of it is kept
		}
	} else if strings.EqualFold(filepath.Ext(path), ONNXExt) {
		p.Source, p.Format = filepath.Base(path), "onnx"
		if file, err := onnx.Open(path); err == nil {
			files = setFiles(file)
			_ = file.Close() // nothing of it is kept
		}
	} else {
		dir := hfDir(path)
		p.Source, p.Revision = hubSource(dir)
		p.Format, files = "hf", []string{filepath.Join(dir, "config.json")}
		if set, err := safetensors.OpenSet(path); err == nil {
			files = append(files, setFiles(set)...)
			_ = set.Close() // nothing of it is kept
		}
		describeCard(filepath.Join(dir, cardName), meta)
	}
	p.Files = []SourceFile{}
	for _, name := range files {
		f, err := sourceFile(ctx, name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return err
		}
		p.Files = append(p.Files, f)
	}
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	meta[KeyProvenance] = string(text)
	return nil
}

// hubSnapshot is the end of a directory in the hub's cache: it says what is in it.
var hubSnapshot = regexp.MustCompile(`models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\]([0-9a-f]+)$`)

// hubSource is what the directory of a checkpoint is called.
func hubSource(dir string) (source, revision string) {
	if full, err := filepath.Abs(dir); err == nil {
		dir = full
	}
	if part := hubSnapshot.FindStringSubmatch(dir); part != nil {
		return part[1] + "/" + part[2], part[3]
	}
	return filepath.Base(dir), ""
}

// setFiles are the files that hold a checkpoint's tensors.
func setFiles(set container.Set) []string {
	var files []string
	for _, t := range set.Tensors() {
		if !slices.Contains(files, t.Path) {
			files = append(files, t.Path)
		}
	}
	return files
}

func sourceFile(ctx context.Context, path string) (SourceFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return SourceFile{}, fmt.Errorf("model: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	h := sha256.New()
	n, err := io.Copy(contextWriter{ctx, h, nil}, f)
	if err != nil {
		return SourceFile{}, fmt.Errorf("model: %w", err)
	}
	return SourceFile{Name: filepath.Base(path), Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

// describeCard takes a model card, and the licence that it begins with.
func describeCard(path string, meta map[string]string) {
	text, err := readLimited(path, maxCardBytes)
	if err != nil || len(text) == 0 {
		return
	}
	meta[KeyCard] = string(bytes.ToValidUTF8(text, []byte("\uFFFD")))
	if license := cardLicense(meta[KeyCard], path); license != "" {
		meta[KeyLicense] = license
	}
}

// cardLicense is the licence that a card begins with, "" if it does not say; path is for errors.
func cardLicense(card, path string) string {
	front, ok := strings.CutPrefix(strings.ReplaceAll(card, "\r\n", "\n"), "---\n")
	if !ok {
		return ""
	}
	front, _, ok = strings.Cut(front, "\n---")
	if !ok {
		return ""
	}
	content, err := YAMLToJSON([]byte(front), path)
	if err != nil {
		return ""
	}
	var said struct {
		License any `json:"license"`
		Name    any `json:"license_name"` // of one that has no identifier
	}
	if json.Unmarshal(content, &said) != nil {
		return ""
	}
	for _, value := range []any{said.Name, said.License} {
		if license, ok := value.(string); ok && license != "" {
			return license
		}
	}
	return ""
}

// cardName is the file of a checkpoint that has its model card.
const cardName = "README.md"

// licenseID is an identifier of SPDX.
var licenseID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+-]*$`)

// card is the README.md of a checkpoint, which begins with the licence; "" if there is neither a card nor a licence.
func card(notes map[string]string) string {
	text, license := notes[KeyCard], notes[KeyLicense]
	if license == "" || cardLicense(text, cardName) == license {
		return text
	}
	line := "license: " + license + "\n"
	if !licenseID.MatchString(license) {
		quoted, _ := compactJSON(license) // of a string never fails; YAML reads it as JSON does
		line = "license: other\nlicense_name: " + quoted + "\n"
	}
	if front, ok := strings.CutPrefix(text, "---\n"); ok && cardLicense(text, cardName) == "" && strings.Contains(front, "\n---") {
		if with := "---\n" + line + front; cardLicense(with, cardName) == license {
			return with
		}
	}
	return "---\n" + line + "---\n\n" + text
}
