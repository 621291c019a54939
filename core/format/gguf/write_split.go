package gguf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// WriteSplit writes a model into an existing directory as llama-gguf-split does:
// name.gguf when all tensors fit into most bytes, else name-00001-of-0000N.gguf
// and so on, the entries in the first. A tensor of more than most bytes has a
// file of its own. Other files of a model of this name are removed. It returns
// the names of the files.
//
// Files appear one after the other, the first one last, and one that was there
// under its name is gone before any is written. So a reader finds a whole model or,
// while it is being written and after an error, one with a file missing, never
// parts of two.
//
// Errors: those of Write, and ErrSplit for more files than readers open.
func WriteSplit(dir, name string, entries []Entry, tensors []container.Tensor, most int64) ([]string, error) {
	if most < 1 {
		return nil, &container.Error{Kind: container.ErrSize, Path: dir, Field: "max shard size", Found: fmt.Sprint(most), Expected: "at least 1"}
	}
	if _, _, err := encodeHeader(dir, entries, tensors); err != nil { // names repeat across files too
		return nil, err
	}
	parts, _, err := container.Shards(tensors, Size, most)
	if err != nil {
		return nil, err
	}
	if len(parts) > maxSplits {
		return nil, &container.Error{Kind: ErrSplit, Path: dir, Field: "max shard size", Found: fmt.Sprintf("%d, and so %d files", most, len(parts)),
			Expected: fmt.Sprintf("a size that makes at most %d", maxSplits)}
	}
	names := make([]string, len(parts))
	for i := range parts {
		names[i] = SplitName(name, i, len(parts))
	}
	if len(parts) == 1 {
		names[0] = name + ".gguf"
	} else if err := os.Remove(filepath.Join(dir, names[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("gguf: %w", err)
	}
	for i, part := range slices.Backward(parts) {
		var own []Entry
		if i == 0 {
			own = slices.Clone(entries)
		}
		if len(parts) > 1 {
			own = append(own, Entry{splitNumber, uint16(i)}, Entry{splitCount, uint16(len(parts))}, Entry{splitTensors, int32(len(tensors))})
		}
		if err := Write(filepath.Join(dir, names[i]), own, part); err != nil {
			return nil, err
		}
	}
	return names, removeOthers(dir, name, names)
}

// removeOthers deletes what was there of a model of this name.
func removeOthers(dir, name string, keep []string) error {
	found, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("gguf: %w", err)
	}
	var errs []error
	for _, e := range found {
		if slices.Contains(keep, e.Name()) || e.Name() != name+".gguf" && SplitPrefix(e.Name()) != name {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("gguf: %w", err))
		}
	}
	return errors.Join(errs...)
}
