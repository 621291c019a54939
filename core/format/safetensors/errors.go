package safetensors

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrFormat is the root of every complaint about a file's content. Each way a
// file can be wrong has its own sentinel below it: errors.Is works with both.
var ErrFormat = errors.New("safetensors")

// What can be wrong with one file, in the order in which it is checked.
var (
	ErrNotRegular      = kind("not a regular file")
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
	ErrSize            = kind("byte size does not follow from shape and dtype")
	ErrOutOfBounds     = kind("tensor lies past the end of the file")
	ErrOverlap         = kind("tensors overlap")
	ErrHole            = kind("unused bytes between tensors")
	ErrTrailing        = kind("unused bytes after the last tensor")
)

// What can be wrong with a sharded checkpoint, and with a request to a valid one.
var (
	ErrIndex         = kind("index file is malformed")
	ErrShardName     = kind("shard name is not a plain file name")
	ErrShardMissing  = kind("shard is missing")
	ErrShardTensor   = kind("tensor is not in the shard that the index names")
	ErrTensorMissing = kind("no such tensor")
	ErrMismatch      = kind("tensor is not what the caller needs")
	ErrName          = kind("impossible tensor name")
	ErrUnreadable    = kind("mapped file cannot be read any more")
)

// ErrClosed is returned by every method of a File or Sharded after Close. It is
// a mistake of the caller, not of the file, and so no ErrFormat.
var ErrClosed = errors.New("safetensors: file is closed")

func kind(text string) error { return fmt.Errorf("%w: %s", ErrFormat, text) }

// FormatError says what is wrong and where: the file, the tensor and the field
// (both may be empty), what was found there and what should have been. Kind is
// one of the sentinels of this package and what errors.Is sees.
type FormatError struct {
	Kind            error
	Path            string
	Tensor, Field   string
	Found, Expected string
}

// Error renders the parts that are set, in one line.
func (e *FormatError) Error() string {
	var b strings.Builder
	b.WriteString(e.Kind.Error())
	if e.Path != "" {
		b.WriteString(": " + e.Path)
	}
	if e.Tensor != "" {
		b.WriteString(": tensor " + quote(e.Tensor))
	}
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	if e.Found != "" {
		b.WriteString(": found " + e.Found)
	}
	if e.Expected != "" {
		b.WriteString(", expected " + e.Expected)
	}
	return b.String()
}

// Unwrap gives the sentinel.
func (e *FormatError) Unwrap() error { return e.Kind }

// quote quotes text from a file for a message, cut to a readable length: a
// hostile file may hold names of many megabytes.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}

// clip cuts a rendered value (a long shape) to a readable length.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
