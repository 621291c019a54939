package safetensors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/bitnet-rust/bitnet_rust/core/format/atomicfile"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

var shardPattern = regexp.MustCompile(`^model-\d{5}-of-\d{5}(\.[a-z]+)$`)

// WriteSharded writes a checkpoint into an existing directory as Hugging Face
// does: model.safetensors when everything fits maxShard bytes of tensor data,
// else model-00001-of-0000N.safetensors, ... and the index. Tensors fill shards
// in the order given; a tensor larger than maxShard gets a shard of its own.
// Each file is replaced atomically, the index last; then checkpoint files of an
// earlier save that the new one does not use are removed. It returns the names
// of the tensor files.
func WriteSharded(dir string, tensors []container.Tensor, metadata map[string]string, maxShard int64) ([]string, error) {
	return WriteShards(dir, ext, tensors, metadata, maxShard)
}

// Shards says into how many files WriteShards divides the tensors.
func Shards(tensors []container.Tensor, maxShard int64) (int, error) {
	groups, _, err := container.Shards(tensors, Size, maxShard)
	return len(groups), err
}

// WriteShards is WriteSharded for files whose names end in suffix instead of
// .safetensors.
func WriteShards(dir, suffix string, tensors []container.Tensor, metadata map[string]string, maxShard int64) ([]string, error) {
	if maxShard < 1 {
		return nil, &container.Error{Kind: container.ErrSize, Path: dir, Field: "max shard size", Found: fmt.Sprint(maxShard), Expected: "at least 1"}
	}
	if _, _, err := encodeHeader(dir, tensors, metadata); err != nil { // names repeat across shards too
		return nil, err
	}
	groups, total, err := container.Shards(tensors, Size, maxShard)
	if err != nil {
		return nil, err
	}
	single, index := "model"+suffix, "model"+suffix+indexExt
	if len(groups) == 1 {
		if err := Write(filepath.Join(dir, single), tensors, metadata); err != nil {
			return nil, err
		}
		return []string{single}, removeStale(dir, suffix, single)
	}
	weightMap := map[string]string{}
	var names []string
	for i, group := range groups {
		name := fmt.Sprintf("model-%05d-of-%05d%s", i+1, len(groups), suffix)
		if err := Write(filepath.Join(dir, name), group, metadata); err != nil {
			return nil, err
		}
		for _, t := range group {
			weightMap[t.Name] = name
		}
		names = append(names, name)
	}
	content := map[string]any{"metadata": map[string]any{"total_size": total}, "weight_map": weightMap}
	err = atomicfile.Write(filepath.Join(dir, index), func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(content)
	})
	if err != nil {
		return nil, err
	}
	return names, removeStale(dir, suffix, append([]string{index}, names...)...)
}

// IsShard says whether a file has a name that WriteShards gives to files with this suffix.
func IsShard(name, suffix string) bool {
	shard := shardPattern.FindStringSubmatch(name)
	return name == "model"+suffix || name == "model"+suffix+indexExt || shard != nil && shard[1] == suffix
}

// removeStale deletes checkpoint files of other saves: a reader would prefer a
// left-over model.safetensors to the new index.
func removeStale(dir, suffix string, keep ...string) error {
	kept := map[string]bool{}
	for _, name := range keep {
		kept[name] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	var errs []error
	for _, e := range entries {
		name := e.Name()
		if kept[name] || !IsShard(name, suffix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("safetensors: %w", err))
		}
	}
	return errors.Join(errs...)
}
