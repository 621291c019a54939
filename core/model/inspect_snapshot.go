package model

import (
	"context"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
)

// inspectSnapshot lists a checkpoint of a training run, whose tensors have checksums as those of a native file.
func inspectSnapshot(path string) (*inspected, error) {
	set, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	table, err := snapshotTable(set)
	if err != nil {
		_ = set.Close() // the first error says more
		return nil, err
	}
	f := &inspected{info: &FileInfo{Path: path, Format: "checkpoint", Metadata: map[string]any{}}, set: set, numbers: (*scan).floats}
	for key, value := range set.Metadata() {
		if key != keyTensors {
			f.info.Metadata[key] = value
		}
	}
	f.codes = func(*scan, container.View) (*TernaryStats, error) { return nil, nil }
	f.plan = func(context.Context, *loader) error {
		for _, t := range set.Tensors() {
			v, err := set.Tensor(t.Name)
			if err != nil {
				return err
			}
			if err := v.Check(t.Shape, safetensors.F32); err != nil {
				return err
			}
			if _, listed := table[t.Name]; !listed {
				return unlisted(path, t.Name)
			}
		}
		return checkCount(set, table)
	}
	f.sum = func(s *scan, name string) error {
		v, err := set.Tensor(name)
		if err != nil {
			return err
		}
		var have checksum
		if err := s.pieces(v, 1, func(_ int, piece []byte) error { have.update(piece); return nil }); err != nil {
			return err
		}
		return have.compare(table[name], path, name)
	}
	return f, nil
}

// isMoment says whether a tensor of a checkpoint is the optimizer's.
func isMoment(name string) bool { return strings.HasPrefix(name, "optimizer.") }
