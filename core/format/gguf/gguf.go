// Package gguf reads and writes GGUF, the container of llama.cpp and its
// relatives: one file, or several that its metadata ties together, with typed
// metadata (architecture, hyperparameters, tokenizer) and tensors in block
// formats.
//
// A file is, all numbers little-endian,
//
//	4 bytes    "GGUF"
//	uint32     version, 2 or 3
//	uint64     number of tensors
//	uint64     number of metadata entries
//	entries    key, type of the value (uint32), value
//	tensors    name, number of dimensions (uint32), dimensions (uint64 each, the fastest first),
//	           type (uint32), offset (uint64)
//	padding    to a multiple of general.alignment (32 if that key is absent)
//	the rest   the tensors' bytes, each at its offset counted from here, padded to the alignment
//
// where a string is its length (uint64) and its bytes, and an array the type of
// its elements (uint32), their number (uint64) and the elements. Version 2 and 3
// differ in nothing that concerns a little-endian file.
//
// The bytes come from strangers. Open checks every number against the file's
// real size before it believes it, allocates only in proportion to bytes that
// are there, and hands out views of the mapped file. Each way to be wrong has
// its own error value, see errors.go.
//
// Dequantize decodes blocks as the Python package gguf does, to the last bit.
// Codes and the functions beside it read and write the ternary types: there the
// weights of a BitNet model are, and no float comes between.
package gguf

import (
	"maps"
	"slices"
)

// The types of tensors that this package decodes, under the names of GGML.
const (
	F32   = "F32"
	F16   = "F16"
	BF16  = "BF16"
	Q4_0  = "Q4_0"
	Q8_0  = "Q8_0"
	Q4_K  = "Q4_K"
	Q6_K  = "Q6_K"
	TQ1_0 = "TQ1_0"
	TQ2_0 = "TQ2_0"
	I2_S  = "I2_S" // bitnet.cpp only

	IQ1_BN = "IQ1_BN" // ik_llama.cpp only
	IQ2_BN = "IQ2_BN"
)

// dtype is a type of GGML: its number in files and the shape of its blocks.
type dtype struct {
	id     uint32
	values int // of a block
	bytes  int // of a block
}

// i2sTail is what an I2_S tensor has behind its codes: the scale, and padding.
const i2sTail = 32

// dtypes are all types whose block sizes are known; those above can be decoded.
// I2_S has four codes to a byte and its scale behind them.
var dtypes = map[string]dtype{
	F32: {0, 1, 4}, F16: {1, 1, 2}, BF16: {30, 1, 2}, "F64": {28, 1, 8},
	"I8": {24, 1, 1}, "I16": {25, 1, 2}, "I32": {26, 1, 4}, "I64": {27, 1, 8},
	Q4_0: {2, 32, 18}, "Q4_1": {3, 32, 20}, "Q5_0": {6, 32, 22}, "Q5_1": {7, 32, 24}, Q8_0: {8, 32, 34}, "Q8_1": {9, 32, 40},
	"Q2_K": {10, 256, 84}, "Q3_K": {11, 256, 110}, Q4_K: {12, 256, 144}, "Q5_K": {13, 256, 176}, Q6_K: {14, 256, 210}, "Q8_K": {15, 256, 292},
	"IQ2_XXS": {16, 256, 66}, "IQ2_XS": {17, 256, 74}, "IQ3_XXS": {18, 256, 98}, "IQ1_S": {19, 256, 50}, "IQ4_NL": {20, 32, 18},
	"IQ3_S": {21, 256, 110}, "IQ2_S": {22, 256, 82}, "IQ4_XS": {23, 256, 136}, "IQ1_M": {29, 256, 56}, "MXFP4": {39, 32, 17},
	TQ1_0: {34, 256, 54}, TQ2_0: {35, 256, 66}, I2_S: {36, 4, 1}, IQ1_BN: {134, 64, 13}, IQ2_BN: {135, 64, 16},
}

// rowScales are the bytes of the scale with which a row begins.
var rowScales = map[string]int{IQ1_BN: 2, IQ2_BN: 4}

var dtypeNames = func() map[uint32]string {
	out := map[uint32]string{}
	for name, d := range dtypes {
		out[d.id] = name
	}
	return out
}()

// DTypes lists the types whose size is known, sorted.
func DTypes() []string { return slices.Sorted(maps.Keys(dtypes)) }

// Block returns how many values a block of a type has and how many bytes it
// takes, zeros for an unknown type.
func Block(name string) (values, size int) { return dtypes[name].values, dtypes[name].bytes }

// Bytes returns the size of a tensor of n values whose rows have cols, and
// whether there is such a tensor: rows are whole blocks.
func Bytes(name string, n, cols int) (int, bool) {
	d, ok := dtypes[name]
	if !ok || n < 0 || cols < 1 || cols%d.values != 0 || n%cols != 0 || n/d.values > maxBytes/d.bytes {
		return 0, false
	}
	size := n/d.values*d.bytes + n/cols*rowScales[name]
	if name == I2_S {
		size += i2sTail
	}
	return size, true
}

// maxBytes is the largest tensor that sizes are computed for.
const maxBytes = 1 << 50
