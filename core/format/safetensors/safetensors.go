// Package safetensors reads and writes the safetensors container: a plain file
// of named tensors that can be mapped into memory and used in place.
//
// A file is
//
//	8 bytes    n, length of the header, little-endian uint64
//	n bytes    JSON: {"name": {"dtype": "BF16", "shape": [r, c], "data_offsets": [begin, end]}, ...,
//	                  "__metadata__": {"key": "value", ...}}, may be padded with spaces
//	the rest   the tensors' bytes, row-major, little-endian; offsets count from here
//
// The bytes come from strangers, so the package trusts none of them: Open
// parses the header, validates every number in it against the file's real size
// (header length, dtype, shape product, offsets, overlaps, holes), and only
// then hands out views. It never allocates by a number read from the file, only
// in proportion to bytes that are there. Each way to be wrong has its own error
// value, see errors.go; tests_go/testdata/attacks holds a file for each.
//
// Checkpoints too large for one file are split: model.safetensors.index.json
// maps every tensor to its shard. OpenSet hides the difference behind
// container.Set.
package safetensors
