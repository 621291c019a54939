package gguf

import "github.com/bitnet-rust/bitnet_rust/core/format/container"

// What can be wrong with one file, in the order in which it is checked; each
// matches container.ErrFormat. Kinds that all formats share are in container.
var (
	ErrMagic     = kind("not a GGUF file")
	ErrVersion   = kind("unsupported version")
	ErrTruncated = kind("file ends too early")
	ErrCount     = kind("more entries than the file has room for")
	ErrKey       = kind("impossible name")
	ErrDuplicate = kind("a name appears twice")
	ErrValue     = kind("malformed metadata value")
	ErrNesting   = kind("arrays are nested deeper than this reader goes")
	ErrAlignment = kind("impossible alignment")
	ErrShape     = kind("impossible shape")
	ErrDType     = kind("unknown tensor type")
	ErrOffset    = kind("tensor does not start at a multiple of the alignment")
	ErrBounds    = kind("tensor lies past the end of the file")
	ErrOverlap   = kind("tensors overlap")
)

// What can be wrong with a split file, with a metadata entry that is asked for,
// and with the bytes of a tensor.
var (
	ErrSplit   = kind("split file is malformed")
	ErrMissing = kind("no such metadata entry")
	ErrType    = kind("metadata entry has another type")
	ErrDecode  = kind("tensor cannot be decoded")
)

func kind(text string) error { return container.NewKind("gguf: " + text) }
