package gguf

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/bitnet-rust/bitnet_rust/core/format/atomicfile"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// Entry is a metadata entry to be written: a bool, string, float32, float64 or
// an integer with a stated width, or a slice of one of these.
type Entry struct {
	Key   string // "general.name"
	Value any    // of one of the types above
}

// Size returns a tensor's size in bytes, or a container.Error of kind ErrDType
// or ErrShape.
func Size(t container.Tensor) (int64, error) {
	if _, ok := dtypes[t.DType]; !ok {
		return 0, &container.Error{Kind: ErrDType, Tensor: t.Name, Field: "dtype", Found: container.Quote(t.DType), Expected: fmt.Sprintf("one of %v", DTypes())}
	}
	size, ok := sizeOf(t.DType, t.Shape)
	if !ok || len(t.Shape) > maxDims {
		return 0, &container.Error{Kind: ErrShape, Tensor: t.Name, Field: "shape", Found: fmt.Sprintf("%v of %s", t.Shape, t.DType),
			Expected: fmt.Sprintf("at most %d dimensions, rows of whole blocks of %d values", maxDims, dtypes[t.DType].values)}
	}
	return int64(size), nil
}

// Write creates or replaces a file of version 3 with the entries and tensors in
// the order given, aligned to 32 bytes. The file appears under its name only
// when it is complete and on the disk.
//
// Errors: a container.Error when a name repeats or is impossible, a type is
// unknown, a shape does not fit its type, or a tensor gives another number of
// bytes than its shape says; else what the system or a Stream function returned.
func Write(path string, entries []Entry, tensors []container.Tensor) error {
	head, sizes, err := encodeHeader(path, entries, tensors)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		if _, err := w.Write(head); err != nil {
			return fmt.Errorf("gguf: %w", err)
		}
		var padding [defaultAlignment]byte
		for i, t := range tensors {
			if err := t.Write(w, path, sizes[i]); err != nil {
				return err
			}
			if _, err := w.Write(padding[:pad(sizes[i])]); err != nil {
				return fmt.Errorf("gguf: %w", err)
			}
		}
		return nil
	})
}

// pad is the number of bytes from n to the next multiple of the alignment.
func pad(n int64) int64 { return -n & (defaultAlignment - 1) }

// encodeHeader checks everything and renders what stands before the tensors'
// bytes.
func encodeHeader(path string, entries []Entry, tensors []container.Tensor) (head []byte, sizes []int64, err error) {
	e := &encoder{path: path}
	e.b = append(e.b, magic...)
	e.uint(4, 3)
	e.uint(8, uint64(len(tensors)))
	e.uint(8, uint64(len(entries)))
	seen := map[string]bool{}
	for _, entry := range entries {
		e.name(entry.Key, "metadata key", seen)
		e.entry(entry)
	}
	clear(seen)
	offset := int64(0)
	for _, t := range tensors {
		size, err := Size(t)
		if err != nil {
			return nil, nil, err
		}
		e.name(t.Name, "tensor name", seen)
		e.uint(4, uint64(len(t.Shape)))
		for _, d := range slices.Backward(t.Shape) {
			e.uint(8, uint64(d))
		}
		e.uint(4, uint64(dtypes[t.DType].id))
		e.uint(8, uint64(offset))
		sizes = append(sizes, size)
		offset += size + pad(size)
	}
	e.b = append(e.b, make([]byte, pad(int64(len(e.b))))...)
	return e.b, sizes, e.err
}

// encoder appends to a header. It remembers the first error.
type encoder struct {
	path string
	b    []byte
	err  error
}

func (e *encoder) fail(kind error, field, found, expected string) {
	if e.err == nil {
		e.err = &container.Error{Kind: kind, Path: e.path, Field: field, Found: found, Expected: expected}
	}
}

func (e *encoder) name(s, field string, seen map[string]bool) {
	switch {
	case s == "" || len(s) > maxName || !utf8.ValidString(s):
		e.fail(ErrKey, field, container.Quote(s), fmt.Sprintf("UTF-8 of 1 to %d bytes", maxName))
	case seen[s]:
		e.fail(ErrDuplicate, field, container.Quote(s)+" twice", "it once")
	}
	seen[s] = true
	e.text(s)
}

func (e *encoder) uint(n int, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	e.b = append(e.b, b[:n]...)
}

func (e *encoder) text(s string) {
	e.uint(8, uint64(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) entry(entry Entry) {
	if kind, ok := kindOf(entry.Value); ok {
		e.uint(4, uint64(kind))
		e.scalar(entry.Value)
		return
	}
	switch v := entry.Value.(type) {
	case []string:
		elements(e, typeString, v)
	case []float32:
		elements(e, typeFloat32, v)
	case []float64:
		elements(e, typeFloat64, v)
	case []bool:
		elements(e, typeBool, v)
	case []uint8:
		elements(e, typeUint8, v)
	case []int8:
		elements(e, typeInt8, v)
	case []uint16:
		elements(e, typeUint16, v)
	case []int16:
		elements(e, typeInt16, v)
	case []uint32:
		elements(e, typeUint32, v)
	case []int32:
		elements(e, typeInt32, v)
	case []uint64:
		elements(e, typeUint64, v)
	case []int64:
		elements(e, typeInt64, v)
	default:
		e.fail(ErrValue, entry.Key, fmt.Sprintf("%T", entry.Value), "a bool, string, float, sized integer, or a slice of these")
	}
}

func elements[T any](e *encoder, kind valueType, values []T) {
	e.uint(4, uint64(typeArray))
	e.uint(4, uint64(kind))
	e.uint(8, uint64(len(values)))
	for _, v := range values {
		e.scalar(v)
	}
}

func kindOf(v any) (valueType, bool) {
	switch v.(type) {
	case uint8:
		return typeUint8, true
	case int8:
		return typeInt8, true
	case uint16:
		return typeUint16, true
	case int16:
		return typeInt16, true
	case uint32:
		return typeUint32, true
	case int32:
		return typeInt32, true
	case float32:
		return typeFloat32, true
	case bool:
		return typeBool, true
	case string:
		return typeString, true
	case uint64:
		return typeUint64, true
	case int64:
		return typeInt64, true
	case float64:
		return typeFloat64, true
	}
	return 0, false
}

func (e *encoder) scalar(v any) {
	switch v := v.(type) {
	case string:
		e.text(v)
	case bool:
		n := uint64(0)
		if v {
			n = 1
		}
		e.uint(1, n)
	case float32:
		e.uint(4, uint64(math.Float32bits(v)))
	case float64:
		e.uint(8, math.Float64bits(v))
	case uint64:
		e.uint(8, v)
	default:
		n, _ := integer(v)
		kind, _ := kindOf(v)
		e.uint(sizes[kind], uint64(n))
	}
}
