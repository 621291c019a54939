package safetensors

import "github.com/bitnet-rust/bitnet_rust/core/format/container"

// What can be wrong with one file, in the order in which it is checked; each
// matches container.ErrFormat. Kinds that all formats share are in container.
var (
	ErrFileTooShort    = kind("file too short for a header")
	ErrHeaderTooLarge  = kind("header too large")
	ErrHeaderTruncated = kind("header runs past the end of the file")
	ErrHeaderJSON      = kind("header is not valid JSON")
	ErrHeaderUTF8      = kind("header is not valid UTF-8")
	ErrNesting         = kind("header is nested deeper than the format allows")
	ErrDuplicateKey    = kind("a key appears twice")
	ErrMetadata        = kind("metadata is not a map from string to string")
	ErrField           = kind("tensor entry is malformed")
	ErrDType           = kind("unknown dtype")
	ErrShape           = kind("impossible shape")
	ErrOffsets         = kind("offsets are reversed")
	ErrOutOfBounds     = kind("tensor lies past the end of the file")
	ErrOverlap         = kind("tensors overlap")
	ErrHole            = kind("unused bytes between tensors")
	ErrTrailing        = kind("unused bytes after the last tensor")
)

// What can be wrong with a sharded checkpoint, and with a tensor to be written.
var (
	ErrIndex        = kind("index file is malformed")
	ErrShardName    = kind("shard name is not a plain file name")
	ErrShardMissing = kind("shard is missing")
	ErrShardTensor  = kind("tensor is not in the shard that the index names")
	ErrName         = kind("impossible tensor name")
)

func kind(text string) error { return container.NewKind("safetensors: " + text) }
