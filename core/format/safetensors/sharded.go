package safetensors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// Sharded is a checkpoint of several files under one index.
type Sharded struct {
	path   string
	shards map[string]*File // by shard name
	where  map[string]*File // by tensor name
}

var _ container.Set = (*Sharded)(nil)

// OpenSharded opens a checkpoint by its index file, or by the directory that
// holds model.safetensors.index.json. All shards are opened and validated, and
// every tensor of the index is looked up in its shard, before it returns. A
// shard must be a plain file name beside the index. Tensors that a shard holds
// but the index does not name are not part of the set.
func OpenSharded(path string) (*Sharded, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, IndexName)
	}
	return OpenIndex(path, ext, Limits{})
}

// OpenIndex is OpenSharded for shards whose names end in suffix. The limits are
// those of each header; an index has at most as many bytes as a header.
func OpenIndex(path, suffix string, limits Limits) (*Sharded, error) {
	weightMap, err := readIndex(path, limits.header())
	if err != nil {
		return nil, err
	}
	s := &Sharded{path: path, shards: map[string]*File{}, where: make(map[string]*File, len(weightMap))}
	if err := s.open(filepath.Dir(path), weightMap, suffix, limits); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Sharded) open(dir string, weightMap map[string]string, suffix string, limits Limits) error {
	for _, tensor := range slices.Sorted(maps.Keys(weightMap)) {
		shard := weightMap[tensor]
		e := &container.Error{Path: s.path, Tensor: tensor, Field: "weight_map", Found: container.Quote(shard)}
		if !plainName(shard, suffix) {
			e.Kind, e.Expected = ErrShardName, "the name of a "+suffix+" file beside the index"
			return e
		}
		f := s.shards[shard]
		if f == nil {
			file, err := container.Open(filepath.Join(dir, shard))
			if errors.Is(err, fs.ErrNotExist) {
				e.Kind, e.Expected = ErrShardMissing, "a file beside the index"
				return e
			}
			if err != nil {
				return fmt.Errorf("safetensors: %w", err)
			}
			if f, err = Read(file, limits); err != nil {
				return err
			}
			s.shards[shard] = f
		}
		if !f.Has(tensor) {
			e.Kind, e.Expected = ErrShardTensor, "a shard that holds the tensor"
			return e
		}
		s.where[tensor] = f
	}
	return nil
}

// plainName says whether a shard's name stays inside the index's directory on
// every system: no separators of any kind, no "..", no drive letters.
func plainName(name, suffix string) bool {
	return len(name) <= 255 && strings.HasSuffix(name, suffix) && filepath.IsLocal(name) && !strings.ContainsAny(name, "/\\:\x00")
}

// readIndex reads {"metadata": {...}, "weight_map": {tensor: shard}}.
func readIndex(path string, most int) (map[string]string, error) {
	bad := func(field, found, expected string) error {
		return &container.Error{Kind: ErrIndex, Path: path, Field: field, Found: found, Expected: expected}
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > int64(most) {
		return nil, bad("size", fmt.Sprintf("%v of %d bytes", info.Mode(), info.Size()), fmt.Sprintf("a regular file of at most %d bytes", most))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("safetensors: %w", err)
	}
	if !utf8.Valid(text) {
		return nil, bad("text", "bytes that are not UTF-8", "JSON")
	}
	var index struct {
		WeightMap json.RawMessage `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, bad("text", err.Error(), `{"weight_map": {tensor: shard}}`)
	}
	if index.WeightMap == nil {
		return nil, bad("weight_map", "nothing", "an object from tensor to shard")
	}
	return parseWeightMap(path, index.WeightMap)
}

func parseWeightMap(path string, text []byte) (map[string]string, error) {
	p := &parser{path: path, dec: json.NewDecoder(strings.NewReader(string(text)))}
	if err := p.open('{', ErrIndex, "", "weight_map"); err != nil {
		return nil, err
	}
	out, seen := map[string]string{}, map[string]struct{}{}
	for p.dec.More() {
		tensor, err := p.key(seen, "")
		if err != nil {
			return nil, err
		}
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		shard, ok := t.(string)
		if !ok {
			return nil, &container.Error{Kind: ErrIndex, Path: path, Tensor: tensor, Field: "weight_map", Found: container.Clip(fmt.Sprint(t)), Expected: "a shard's name"}
		}
		out[tensor] = shard
	}
	return out, nil
}

// Path returns the index file.
func (s *Sharded) Path() string { return s.path }

// Shards lists the open files in name order.
func (s *Sharded) Shards() []*File {
	out := make([]*File, 0, len(s.shards))
	for _, name := range slices.Sorted(maps.Keys(s.shards)) {
		out = append(out, s.shards[name])
	}
	return out
}

// Tensors lists the index's tensors by shard and offset.
func (s *Sharded) Tensors() []container.Info {
	var out []container.Info
	for _, f := range s.Shards() {
		for _, t := range f.Tensors() {
			if s.where[t.Name] == f {
				out = append(out, t)
			}
		}
	}
	return out
}

// Has says whether the index names the tensor.
func (s *Sharded) Has(name string) bool { return s.where[name] != nil }

// Tensor returns a view into the tensor's shard.
func (s *Sharded) Tensor(name string) (container.View, error) {
	f := s.where[name]
	if f == nil {
		return container.View{}, &container.Error{Kind: container.ErrTensorMissing, Path: s.path, Tensor: name}
	}
	return f.Tensor(name)
}

// Metadata merges the shards' metadata; the first shard in name order wins.
func (s *Sharded) Metadata() map[string]string {
	out := map[string]string{}
	shards := s.Shards()
	slices.Reverse(shards)
	for _, f := range shards {
		maps.Copy(out, f.Metadata())
	}
	return out
}

// Close closes all shards.
func (s *Sharded) Close() error {
	var errs []error
	for _, f := range s.Shards() {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

var _ io.Closer = (*Sharded)(nil)
