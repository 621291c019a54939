package gguf

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

const (
	magic            = "GGUF"
	alignmentKey     = "general.alignment"
	defaultAlignment = 32
	maxAlignment     = 1 << 20
	maxName          = 1<<16 - 1 // bytes of a key, as the format says; tensors' names are far shorter
	maxDims          = 4         // GGML_MAX_DIMS
	maxNesting       = 4         // arrays in arrays

	smallestEntry  = 8 + 1 + 4 + 1     // bytes of a metadata entry: key of one byte, type, a byte
	smallestTensor = 8 + 1 + 4 + 4 + 8 // bytes of a tensor without dimensions
)

// header is what stands before the tensors' bytes, checked.
type header struct {
	version   int
	meta      Metadata
	alignment int
	tensors   []container.Info // by offset
	dataStart int              // where offsets count from, in bytes from the start of the file
}

// parser reads the header from the start of a file. It remembers the first
// error; after it every read gives zero.
type parser struct {
	path string
	data []byte
	at   int
	err  error
}

func readHeader(path string, content []byte) (*header, error) {
	p := &parser{path: path, data: content}
	h := &header{meta: Metadata{path: path, values: map[string]value{}}, alignment: defaultAlignment}
	p.start(h)
	tensors := p.count("number of tensors", smallestTensor)
	entries := p.count("number of metadata entries", smallestEntry)
	for i := 0; i < entries && p.err == nil; i++ {
		p.entry(h)
	}
	if p.err != nil {
		return nil, p.err
	}
	if err := h.readAlignment(); err != nil {
		return nil, err
	}
	for i := 0; i < tensors && p.err == nil; i++ {
		p.tensor(h)
	}
	if p.err != nil {
		return nil, p.err
	}
	return h, h.layout(path, len(content), p.at)
}

// start reads magic and version.
func (p *parser) start(h *header) {
	if len(p.data) < 4 || string(p.data[:4]) != magic {
		found := p.data[:min(4, len(p.data))]
		e := &container.Error{Kind: ErrMagic, Path: p.path, Field: "magic", Found: container.Quote(string(found)), Expected: strconv.Quote(magic)}
		if bytes.Equal(found, []byte("ggjt")) || bytes.Equal(found, []byte("tjgg")) || bytes.Equal(found, []byte("lmgg")) {
			e.Found += ", a format before GGUF"
		}
		p.err = e
		return
	}
	p.at = 4
	version := uint32(p.uint(4, "version"))
	h.version = int(version)
	if p.err != nil || version == 2 || version == 3 {
		return
	}
	e := &container.Error{Kind: ErrVersion, Path: p.path, Field: "version", Found: fmt.Sprint(version), Expected: "2 or 3"}
	if swapped := bits.ReverseBytes32(version); swapped <= 3 {
		e.Found = fmt.Sprintf("version %d of a big-endian file", swapped)
		e.Expected = "a little-endian file"
	}
	p.err = e
}

// entry reads a key with its value and puts the value's place into the header.
func (p *parser) entry(h *header) {
	key := p.name("metadata key", "")
	kind := valueType(p.uint(4, key))
	v := value{kind: kind}
	if kind == typeArray {
		v.elem, v.n = p.arrayHead(key)
	}
	begin := p.at
	p.skip(v, key, 1)
	if p.err != nil {
		return
	}
	if h.meta.Has(key) {
		p.fail(ErrDuplicate, "", key, "it twice", "it once")
		return
	}
	v.raw = string(p.data[begin:p.at])
	h.meta.keys = append(h.meta.keys, key)
	h.meta.values[key] = v
}

// skip checks a value and passes it.
func (p *parser) skip(v value, key string, depth int) {
	switch {
	case p.err != nil:
	case v.kind == typeArray:
		p.skipElements(v, key, depth)
	case v.kind == typeString:
		p.take(int(min(p.uint(8, key), 1<<62)), key)
	case v.kind == typeBool:
		if b := p.take(1, key); len(b) == 1 && b[0] > 1 {
			p.fail(ErrValue, "", key, fmt.Sprintf("a bool of value %d", b[0]), "0 or 1")
		}
	case int(v.kind) < len(sizes):
		p.take(sizes[v.kind], key)
	default:
		p.fail(ErrValue, "", key, v.kind.String(), "a type of 0 to 12")
	}
}

func (p *parser) skipElements(v value, key string, depth int) {
	switch {
	case v.elem == typeArray && depth == maxNesting:
		p.fail(ErrNesting, "", key, fmt.Sprintf("an array at depth %d", depth+1), fmt.Sprintf("at most %d", maxNesting))
	case v.elem == typeArray:
		for i := 0; i < v.n && p.err == nil; i++ {
			inner := value{kind: typeArray}
			inner.elem, inner.n = p.arrayHead(key)
			p.skip(inner, key, depth+1)
		}
	case v.elem == typeString || v.elem == typeBool:
		for i := 0; i < v.n && p.err == nil; i++ {
			p.skip(value{kind: v.elem}, key, depth)
		}
	case int(v.elem) < len(sizes):
		p.take(v.n*sizes[v.elem], key) // arrayHead has checked the product
	}
}

// arrayHead reads type and number of an array's elements. The number is at
// most that of the bytes that follow.
func (p *parser) arrayHead(key string) (elem valueType, n int) {
	elem = valueType(p.uint(4, key))
	if p.err == nil && int(elem) >= len(sizes) {
		p.fail(ErrValue, "", key, "an array of "+elem.String(), "elements of a type of 0 to 12")
	}
	if p.err != nil {
		return 0, 0
	}
	least := sizes[elem]
	switch elem {
	case typeString:
		least = 8
	case typeArray:
		least = 12
	}
	return elem, p.count(key, least)
}

// tensor reads the description of a tensor.
func (p *parser) tensor(h *header) {
	name := p.name("tensor name", "")
	dims := p.uint(4, name)
	if p.err == nil && dims > maxDims {
		p.fail(ErrShape, name, "dimensions", fmt.Sprint(dims), fmt.Sprintf("at most %d", maxDims))
	}
	if p.err != nil {
		return
	}
	t := container.Info{Name: name, Path: p.path, Shape: make([]int, dims)}
	for i := range t.Shape {
		d := p.uint(8, name)
		if p.err == nil && d > maxBytes {
			p.fail(ErrShape, name, "shape", strconv.FormatUint(d, 10), fmt.Sprintf("dimensions of at most %d", maxBytes))
		}
		t.Shape[len(t.Shape)-1-i] = int(d)
	}
	id := uint32(p.uint(4, name))
	offset := p.uint(8, name)
	if p.err != nil {
		return
	}
	var known bool
	if t.DType, known = dtypeNames[id]; !known {
		p.fail(ErrDType, name, "type", fmt.Sprint(id), "a type of GGML that stores tensors, 36 (I2_S), 134 (IQ1_BN) or 135 (IQ2_BN)")
		return
	}
	size, ok := sizeOf(t.DType, t.Shape)
	if !ok {
		p.fail(ErrShape, name, "shape", fmt.Sprintf("%v of %s", t.Shape, t.DType),
			fmt.Sprintf("rows of whole blocks of %d values, and at most 2^50 bytes", dtypes[t.DType].values))
		return
	}
	if offset > maxBytes {
		p.fail(ErrBounds, name, "offset", strconv.FormatUint(offset, 10), "an offset inside the file")
		return
	}
	t.Offset, t.Size = int64(offset), int64(size)
	h.tensors = append(h.tensors, t)
}

// sizeOf is the number of bytes of a tensor.
func sizeOf(dtype string, shape []int) (int, bool) {
	n, cols := 1, 1
	for i, d := range shape {
		hi, lo := bits.Mul64(uint64(n), uint64(d))
		if hi != 0 || lo > maxBytes || d == 0 {
			return 0, false
		}
		n = int(lo)
		if i == len(shape)-1 {
			cols = d
		}
	}
	return Bytes(dtype, n, cols)
}

// layout sorts the tensors by offset and checks that they lie apart and inside
// the file. Bytes that belong to no tensor are padding.
func (h *header) layout(path string, size, end int) error {
	h.dataStart = (end + h.alignment - 1) / h.alignment * h.alignment
	slices.SortFunc(h.tensors, func(a, b container.Info) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Size, b.Size), cmp.Compare(a.Name, b.Name))
	})
	position, seen := int64(0), make(map[string]bool, len(h.tensors))
	for i, t := range h.tensors {
		e := &container.Error{Path: path, Tensor: t.Name, Field: "offset", Found: fmt.Sprint(t.Offset)}
		switch {
		case t.Offset%int64(h.alignment) != 0:
			e.Kind, e.Expected = ErrOffset, fmt.Sprintf("a multiple of %d", h.alignment)
			return e
		case t.Offset < position:
			e.Kind, e.Expected = ErrOverlap, fmt.Sprintf("at least %d, where tensor %s ends", position, container.Quote(h.tensors[i-1].Name))
			return e
		case t.Offset+t.Size > int64(size-h.dataStart):
			e.Kind, e.Found = ErrBounds, fmt.Sprintf("%d and %d bytes", t.Offset, t.Size)
			e.Expected = fmt.Sprintf("at most the %d bytes of the file behind its header", max(0, size-h.dataStart))
			return e
		}
		position = t.Offset + t.Size
		if seen[t.Name] {
			e.Kind, e.Field, e.Found, e.Expected = ErrDuplicate, "name", "it twice", "it once"
			return e
		}
		seen[t.Name] = true
	}
	return nil
}

func (h *header) readAlignment() error {
	if !h.meta.Has(alignmentKey) {
		return nil
	}
	n, err := h.meta.Int(alignmentKey)
	if err != nil {
		return err
	}
	if n < 8 || n > maxAlignment || n&(n-1) != 0 {
		return &container.Error{Kind: ErrAlignment, Path: h.meta.path, Field: alignmentKey, Found: fmt.Sprint(n),
			Expected: fmt.Sprintf("a power of two from 8 to %d", maxAlignment)}
	}
	h.alignment = n
	return nil
}

// name reads a key or the name of a tensor.
func (p *parser) name(field, tensor string) string {
	n := p.uint(8, field)
	if p.err == nil && (n == 0 || n > maxName) {
		p.fail(ErrKey, tensor, field, fmt.Sprintf("%d bytes", n), fmt.Sprintf("1 to %d", maxName))
	}
	b := p.take(int(n), field)
	if p.err == nil && !utf8.Valid(b) {
		p.fail(ErrKey, tensor, field, container.Quote(string(b)), "UTF-8")
	}
	return string(b)
}

// count reads a number of things of which each takes at least so many bytes.
func (p *parser) count(field string, least int) int {
	n := p.uint(8, field)
	if room := uint64(len(p.data)-p.at) / uint64(least); p.err == nil && n > room {
		p.fail(ErrCount, "", field, strconv.FormatUint(n, 10), fmt.Sprintf("at most %d in the bytes that follow", room))
		return 0
	}
	return int(n)
}

// uint reads an integer of n bytes.
func (p *parser) uint(n int, field string) uint64 {
	var b [8]byte
	copy(b[:], p.take(n, field))
	return binary.LittleEndian.Uint64(b[:])
}

func (p *parser) take(n int, field string) []byte {
	if p.err != nil {
		return nil
	}
	if n > len(p.data)-p.at {
		p.fail(ErrTruncated, "", field, fmt.Sprintf("%d bytes from byte %d on", len(p.data)-p.at, p.at), fmt.Sprint(n))
		return nil
	}
	p.at += n
	return p.data[p.at-n : p.at]
}

func (p *parser) fail(kind error, tensor, field, found, expected string) {
	p.err = &container.Error{Kind: kind, Path: p.path, Tensor: tensor, Field: container.Clip(field), Found: found, Expected: expected}
}
