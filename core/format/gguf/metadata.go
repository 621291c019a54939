package gguf

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// valueType is the type of a metadata value in files.
type valueType uint32

const (
	typeUint8 valueType = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

// sizes are the bytes of a value, 0 for those that say it themselves.
var sizes = [...]int{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}

func (t valueType) String() string {
	names := [...]string{"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "string", "array", "uint64", "int64", "float64"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// value is a metadata value as it stands in the file: it was checked when the
// file was opened and is decoded when somebody asks for it.
type value struct {
	kind valueType
	elem valueType // of an array
	n    int       // of an array
	raw  string
}

// Metadata is what a file says about its model. Numbers may be asked for in any
// type that holds the value.
type Metadata struct {
	path   string
	keys   []string
	values map[string]value
}

// NewMetadata is the metadata of a file with these entries; path is for errors.
func NewMetadata(path string, entries []Entry) (*Metadata, error) {
	head, _, err := encodeHeader(path, entries, nil)
	if err != nil {
		return nil, err
	}
	h, err := readHeader(path, head)
	if err != nil {
		return nil, err
	}
	return &h.meta, nil
}

// Keys lists the entries in the order of the file.
func (m *Metadata) Keys() []string { return m.keys }

// Has says whether there is an entry.
func (m *Metadata) Has(key string) bool {
	_, ok := m.values[key]
	return ok
}

// Any decodes an entry: an integer, float32, float64, bool or string of the
// type in the file, or a slice of one of these; arrays of arrays are []any. It
// is nil for an entry that is not there.
func (m *Metadata) Any(key string) any {
	v, ok := m.values[key]
	if !ok {
		return nil
	}
	c := &cursor{data: v.raw}
	return c.decode(v)
}

// Len is the number of elements of an array, 0 for any other entry.
func (m *Metadata) Len(key string) int { return m.values[key].n }

// Size is the number of bytes that an entry takes in the file, 0 for one that
// is not there.
func (m *Metadata) Size(key string) int { return len(m.values[key].raw) }

// String returns an entry that is a string.
func (m *Metadata) String(key string) (string, error) {
	s, ok := m.Any(key).(string)
	if !ok {
		return "", m.wrong(key, "a string")
	}
	return s, nil
}

// Bool returns an entry that is a bool.
func (m *Metadata) Bool(key string) (bool, error) {
	b, ok := m.Any(key).(bool)
	if !ok {
		return false, m.wrong(key, "a bool")
	}
	return b, nil
}

// Int returns an entry that is an integer of any width.
func (m *Metadata) Int(key string) (int, error) {
	n, ok := integer(m.Any(key))
	if !ok {
		return 0, m.wrongNumber(key, "an integer")
	}
	return n, nil
}

// Float returns an entry that is a number.
func (m *Metadata) Float(key string) (float64, error) {
	switch x := m.Any(key).(type) {
	case float32:
		return float64(x), nil
	case float64:
		return x, nil
	default:
		n, ok := integer(x)
		if !ok {
			return 0, m.wrongNumber(key, "a number")
		}
		return float64(n), nil
	}
}

// Strings returns an entry that is an array of strings.
func (m *Metadata) Strings(key string) ([]string, error) {
	s, ok := m.Any(key).([]string)
	if !ok {
		return nil, m.wrong(key, "an array of strings")
	}
	return s, nil
}

func integer(x any) (int, bool) {
	switch x := x.(type) {
	case uint8:
		return int(x), true
	case int8:
		return int(x), true
	case uint16:
		return int(x), true
	case int16:
		return int(x), true
	case uint32:
		return int(x), true
	case int32:
		return int(x), true
	case uint64:
		return int(x), x <= math.MaxInt
	case int64:
		return int(x), true
	}
	return 0, false
}

// wrongNumber is wrong for an entry that integer did not take, though it may be one.
func (m *Metadata) wrongNumber(key, expected string) error {
	if x, ok := m.Any(key).(uint64); ok {
		return &container.Error{Kind: ErrType, Path: m.path, Field: key, Found: fmt.Sprint(x), Expected: expected + " below 2^63"}
	}
	return m.wrong(key, expected)
}

// wrong says that an entry is missing or of another type.
func (m *Metadata) wrong(key, expected string) error {
	e := &container.Error{Kind: ErrMissing, Path: m.path, Field: key, Expected: expected}
	if v, ok := m.values[key]; ok {
		e.Kind, e.Found = ErrType, v.kind.String()
		if v.kind == typeArray {
			e.Found = fmt.Sprintf("an array of %d %ss", v.n, v.elem)
		}
	}
	return e
}

// cursor reads through bytes that were checked.
type cursor struct {
	data string
	at   int
}

func (c *cursor) decode(v value) any {
	if v.kind == typeArray {
		return c.array(v.elem, v.n)
	}
	return c.scalar(v.kind)
}

func (c *cursor) scalar(t valueType) any {
	switch t {
	case typeUint8:
		return uint8(c.bits(1))
	case typeInt8:
		return int8(c.bits(1))
	case typeUint16:
		return uint16(c.bits(2))
	case typeInt16:
		return int16(c.bits(2))
	case typeUint32:
		return uint32(c.bits(4))
	case typeInt32:
		return int32(c.bits(4))
	case typeFloat32:
		return math.Float32frombits(uint32(c.bits(4)))
	case typeBool:
		return c.bits(1) != 0
	case typeString:
		return c.text()
	case typeUint64:
		return c.bits(8)
	case typeInt64:
		return int64(c.bits(8))
	default:
		return math.Float64frombits(c.bits(8))
	}
}

func (c *cursor) array(elem valueType, n int) any {
	switch elem {
	case typeUint8:
		return list[uint8](c, elem, n)
	case typeInt8:
		return list[int8](c, elem, n)
	case typeUint16:
		return list[uint16](c, elem, n)
	case typeInt16:
		return list[int16](c, elem, n)
	case typeUint32:
		return list[uint32](c, elem, n)
	case typeInt32:
		return list[int32](c, elem, n)
	case typeFloat32:
		return list[float32](c, elem, n)
	case typeBool:
		return list[bool](c, elem, n)
	case typeString:
		out := make([]string, n) // there may be hundreds of thousands
		for i := range out {
			out[i] = c.text()
		}
		return out
	case typeUint64:
		return list[uint64](c, elem, n)
	case typeInt64:
		return list[int64](c, elem, n)
	case typeFloat64:
		return list[float64](c, elem, n)
	}
	out := make([]any, n)
	for i := range out {
		inner := valueType(c.bits(4))
		out[i] = c.array(inner, int(c.bits(8)))
	}
	return out
}

func list[T any](c *cursor, elem valueType, n int) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = c.scalar(elem).(T)
	}
	return out
}

// bits reads an integer of n bytes.
func (c *cursor) bits(n int) uint64 {
	var b [8]byte
	copy(b[:n], c.data[c.at:c.at+n])
	c.at += n
	return binary.LittleEndian.Uint64(b[:])
}

func (c *cursor) text() string {
	n := int(c.bits(8))
	c.at += n
	return c.data[c.at-n : c.at]
}
