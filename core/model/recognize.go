package model

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
)

// ErrOther is a file or a directory that is sound as far as can be seen, and something else than what is asked for: a checkpoint of a training run, token ids,
// a GGUF file under the name of another format. It comes as a *container.Error, and matches container.ErrFormat.
var ErrOther = container.NewKind("not a model of that kind")

// fileKind is what the first bytes of a file say that it is.
type fileKind string

const (
	kindGGUF        fileKind = "a GGUF file"
	kindONNX        fileKind = "an ONNX model"
	kindNative      fileKind = "a native file"
	kindSafetensors fileKind = "a safetensors file"
	kindCheckpoint  fileKind = "a checkpoint of a training run"
	kindTokens      fileKind = "token ids of texts"
	kindZip         fileKind = "a zip archive, as torch.save makes them"
)

// extensions are how the names of files end that are models.
var extensions = map[fileKind]string{kindGGUF: GGUFExt, kindONNX: ONNXExt, kindNative: NativeExt, kindSafetensors: ".safetensors"}

// magic says what a file is by its first bytes, "" if that is not known; family says that it begins as all do that are made of safetensors.
func magic(r io.ReaderAt) (kind fileKind, family bool) {
	var first [16]byte
	n, _ := r.ReadAt(first[:], 0)
	switch head := first[:n]; {
	case bytes.HasPrefix(head, []byte("GGUF")):
		return kindGGUF, false
	case bytes.HasPrefix(head, []byte("BNTOKENS")):
		return kindTokens, false
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return kindZip, false
	case len(head) < 9:
		return "", false
	case head[8] == '{' && binary.LittleEndian.Uint64(head) <= uint64(nativeLimits.Header):
		return kindSafetensors, true
	case head[0] == 0x08 && head[1] < 0x80 && head[2] == 0x12: // a ModelProto: ir_version, and then the name of who wrote it
		return kindONNX, false
	}
	return "", false
}

// recognize says what a file of size bytes is, "" if that is not known. Nothing behind its header is read.
func recognize(r io.ReaderAt, size int64) fileKind {
	kind, family := magic(r)
	if !family {
		return kind
	}
	f, err := container.OpenReader("", r, size)
	if err != nil {
		return ""
	}
	file, err := safetensors.Read(f, nativeLimits)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }() // nothing of it is kept
	switch file.Metadata()[keyFormat] {
	case snapshotFormat:
		return kindCheckpoint
	case nativeFormat:
		return kindNative
	}
	return kindSafetensors
}

// notNative is the error about what is read from r in place of a native file, which failed with err.
func notNative(r io.ReaderAt, name string, err error) error {
	kind, family := magic(r)
	var where *container.Error
	switch {
	case family && !(errors.As(err, &where) && where.Field == keyFormat):
		kind = "" // damaged
	case family && where.Found == strconv.Quote(snapshotFormat):
		kind = kindCheckpoint
	}
	if kind == "" {
		return err
	}
	return otherError(name, kind, "a native file ("+NativeExt+"), the only one that is read from a file object; the others are loaded by their path")
}

// fileKindOf is recognize of the file at path; of one with the name of a model no more than its first bytes count.
func fileKindOf(path string) fileKind {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() { // opening a pipe would wait
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // it was only read
	if !hasModelName(path) {
		return recognize(f, info.Size())
	}
	kind, _ := magic(f)
	return kind
}

func otherError(path string, found fileKind, expected string) error {
	return &container.Error{Kind: ErrOther, Path: path, Found: string(found), Expected: expected}
}

const (
	trainedModel = "a model, as a run saves it beside its checkpoints; --resume of bitnet train and bitnet finetune, or resume_from of Trainer.train, goes on with the run"
	forTraining  = "a model; bitnet train --data takes token ids"
)

// checkName is the error about a file that is no model, or has not the name that a model of its format has; nil for one with a name of models and
// for one that nothing is known about.
func checkName(path string) error {
	kind := fileKindOf(path)
	if hasModelName(path) {
		if kind == kindGGUF && !strings.EqualFold(filepath.Ext(path), GGUFExt) {
			return otherError(path, kind, "a name that ends in "+GGUFExt)
		}
		return nil
	}
	if part := unfinished.FindStringSubmatch(filepath.Base(path)); part != nil {
		return otherError(path, "a file that was being written", "the whole one, "+filepath.Join(filepath.Dir(path), part[1]))
	}
	switch kind {
	case kindCheckpoint:
		return otherError(path, kind, trainedModel)
	case kindTokens:
		return otherError(path, kind, forTraining)
	case kindGGUF, kindNative, kindSafetensors, kindONNX:
		return otherError(path, kind, "a name that ends in "+extensions[kind])
	}
	if whole, ok := strings.CutSuffix(path, ONNXExt+".data"); ok && exists(whole+ONNXExt) {
		return otherError(path, "the data of an ONNX model", "that, "+whole+ONNXExt)
	}
	return nil
}

// hasModelName says whether a file's name is one of the weights of a model.
func hasModelName(path string) bool {
	ext := strings.ToLower(filepath.Ext(path))
	return slices.Contains([]string{NativeExt, ".safetensors", GGUFExt, ONNXExt, ".json"}, ext)
}

// unfinished is the name of what package atomicfile writes to.
var unfinished = regexp.MustCompile(`^\.(.+)\.[0-9a-f]{8,}\.tmp$`)

// noModelIn is the error about a directory that is none of a model.
func noModelIn(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	for _, e := range entries { // in the order of their names
		name := e.Name()
		file := filepath.Join(path, name)
		switch {
		case e.IsDir() || strings.HasPrefix(name, "."):
		case name == "adapter_config.json":
			return otherError(path, "an adapter of peft", "a whole model, as its merge_and_unload() and save_pretrained make one")
		case isPickle(name):
			switch kind := fileKindOf(file); kind {
			case kindCheckpoint:
				return otherError(path, "a directory of checkpoints of a training run, such as "+fileKind(name), trainedModel)
			case kindTokens:
				continue
			}
			return pickleError(file)
		}
	}
	models := slices.DeleteFunc(entries, func(e os.DirEntry) bool {
		return e.IsDir() || strings.HasSuffix(e.Name(), ".json") || !hasModelName(e.Name())
	})
	hint := ""
	if len(models) > 0 {
		hint = fmt.Sprintf(" (pass %s itself if that is the model)", filepath.Join(path, models[0].Name()))
	}
	return container.Worded(fs.ErrNotExist, "model: directory %s holds none of %s, and no %s file%s", path, strings.Join(modelNames, ", "), GGUFExt, hint)
}

// modelNames are the files by which a directory is one of a model, beside any GGUF file.
var modelNames = []string{NativeName, NativeIndex, safetensors.SingleName, safetensors.IndexName, ONNXName}
