package model

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// SnapshotVersion is the version of the files that WriteSnapshot makes, the highest that ReadSnapshot takes.
const SnapshotVersion = 1

// snapshotFormat is the metadata's "format" of a snapshot. Beside it, and "format_version", the metadata holds
//
//	state     what the writer wants to say of the tensors, JSON
//	tensors   JSON {tensor: CRC-32C of its bytes in hexadecimal}
//	crc32c    the checksum of the texts of state and tensors, one after the other
const (
	snapshotFormat = "bitnet-checkpoint"
	keyState       = "state"
	keySum         = "crc32c"
)

// Snapshot is tensors in full precision and a text that belongs to them: what a training run needs to go on.
type Snapshot struct {
	State   []byte           // JSON
	Tensors []SnapshotTensor // with unique names
}

// SnapshotTensor is one tensor, row-major.
type SnapshotTensor struct {
	Name  string    // unique in the snapshot
	Shape []int     // slowest dimension first
	Data  []float32 // the elements
}

// WriteSnapshot creates or replaces a file, a safetensors container with a checksum for each tensor. Whatever happens
// meanwhile, the path has the old file or the new one, complete and on the disk.
func WriteSnapshot(path string, s Snapshot) error {
	sums := make(snapshotSums, len(s.Tensors))
	for i, t := range s.Tensors {
		sums[i].data = pool.BytesOf(t.Data)
	}
	cpu.Parallel(len(sums), sums)
	out := make([]container.Tensor, len(s.Tensors))
	table := make(map[string]checksum, len(s.Tensors))
	for i, t := range s.Tensors {
		out[i] = container.Tensor{Name: t.Name, DType: safetensors.F32, Shape: t.Shape, Data: sums[i].data}
		table[t.Name] = sums[i].sum
	}
	tensors, err := json.Marshal(table)
	if err != nil {
		return fmt.Errorf("model: %w", err)
	}
	return safetensors.Write(path, out, map[string]string{
		keyFormat: snapshotFormat, keyVersion: strconv.Itoa(SnapshotVersion), keyState: string(s.State), keyTensors: string(tensors),
		keySum: textSum(string(s.State), string(tensors)).String(),
	})
}

// ReadSnapshot reads a file of WriteSnapshot and compares every checksum. The tensors are in the order of the file. What is wrong
// with its content is a *container.Error: of kind ErrVersion, ErrChecksum, or one of the container's.
func ReadSnapshot(path string) (*Snapshot, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if !info.Mode().IsRegular() { // reading a pipe would wait
		return nil, &container.Error{Kind: container.ErrNotRegular, Path: path, Field: "type", Found: info.Mode().Type().String(), Expected: "a regular file"}
	}
	content, err := os.ReadFile(path) // not mapped: what the disk cannot read is an error here and not a fault later
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	f, err := safetensors.OpenBytes(path, content)
	if err != nil {
		return nil, err
	}
	table, err := snapshotTable(f)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{State: []byte(f.Metadata()[keyState])}
	var sums snapshotSums
	for _, info := range f.Tensors() {
		v, err := f.Tensor(info.Name)
		if err != nil {
			return nil, err
		}
		if err := v.Check(info.Shape, safetensors.F32); err != nil {
			return nil, err
		}
		sums = append(sums, snapshotSum{data: v.Data})
		s.Tensors = append(s.Tensors, SnapshotTensor{info.Name, info.Shape, float32s(v.Data)})
	}
	if err := checkCount(f, table); err != nil {
		return nil, err
	}
	cpu.Parallel(len(sums), sums)
	for i, t := range s.Tensors {
		want, listed := table[t.Name]
		if !listed {
			return nil, unlisted(path, t.Name)
		}
		if err := sums[i].sum.compare(want, path, t.Name); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// snapshotTable checks the metadata and returns the tensors' checksums.
func snapshotTable(file *safetensors.File) (table map[string]checksum, err error) {
	f := &nativeFile{Set: file, meta: file.Metadata()}
	quoted := func(key string) string { return strconv.Quote(abbreviate([]byte(f.meta[key]))) }
	if f.meta[keyFormat] != snapshotFormat {
		return nil, f.metaError(keyFormat, quoted(keyFormat), strconv.Quote(snapshotFormat))
	}
	version, err := strconv.Atoi(f.meta[keyVersion])
	if err != nil || version < 1 {
		return nil, f.metaError(keyVersion, quoted(keyVersion), "a version number")
	}
	if version > SnapshotVersion {
		return nil, &container.Error{Kind: ErrVersion, Path: f.Path(), Field: keyVersion, Found: f.meta[keyVersion],
			Expected: fmt.Sprintf("at most %d (a newer bitnet_rust wrote the file)", SnapshotVersion)}
	}
	if sum := textSum(f.meta[keyState], f.meta[keyTensors]).String(); sum != f.meta[keySum] {
		return nil, &container.Error{Kind: ErrChecksum, Path: f.Path(), Field: keySum, Found: sum, Expected: quoted(keySum)}
	}
	if err := json.Unmarshal([]byte(f.meta[keyTensors]), &table); err != nil {
		return nil, f.metaError(keyTensors, err.Error(), "a JSON object from tensor to checksum")
	}
	return table, nil
}

// checkCount is an error unless there are as many checksums as tensors.
func checkCount(file *safetensors.File, table map[string]checksum) error {
	n := len(file.Tensors())
	if len(table) == n {
		return nil
	}
	return (&nativeFile{Set: file}).metaError(keyTensors, fmt.Sprintf("%d entries", len(table)), fmt.Sprintf("%d, one for each tensor", n))
}

// unlisted is the error about a tensor without a checksum.
func unlisted(path, tensor string) error {
	return &container.Error{Kind: ErrUnexpected, Path: path, Tensor: tensor, Found: "a tensor", Expected: "an entry in the metadata's " + keyTensors}
}

func textSum(texts ...string) (sum checksum) {
	for _, t := range texts {
		sum.update([]byte(t))
	}
	return sum
}

// float32s is the bytes as numbers, in place where their address allows it.
func float32s(b []byte) []float32 {
	if uintptr(unsafe.Pointer(unsafe.SliceData(b)))%unsafe.Alignof(float32(0)) == 0 {
		return pool.View[float32](b)
	}
	out := make([]float32, len(b)/4)
	copy(pool.BytesOf(out), b)
	return out
}

// snapshotSums computes checksums, one a task.
type snapshotSums []snapshotSum

type snapshotSum struct {
	data []byte
	sum  checksum
}

// Run implements cpu.Task.
func (s snapshotSums) Run(i int) { s[i].sum.update(s[i].data) }
