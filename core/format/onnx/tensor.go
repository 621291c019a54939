package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/protobuf"
)

// The types of tensors under the names that other formats have for them.
const (
	F32  = "F32"
	F16  = "F16"
	BF16 = "BF16"
	F64  = "F64"
	I8   = "I8"
	U8   = "U8"
	I64  = "I64"
	I2   = "I2" // two's complement, four in a byte, the first in its lowest bits
)

// dtypes are the types of onnx.proto with the bits of an element.
var dtypes = map[int64]struct {
	name string
	bits int
}{
	1: {F32, 32}, 2: {U8, 8}, 3: {I8, 8}, 4: {"U16", 16}, 5: {"I16", 16}, 6: {"I32", 32}, 7: {I64, 64}, 9: {"BOOL", 8},
	10: {F16, 16}, 11: {F64, 64}, 12: {"U32", 32}, 13: {"U64", 64}, 14: {"C64", 64}, 15: {"C128", 128}, 16: {BF16, 16},
	17: {"F8_E4M3", 8}, 18: {"F8_E4M3FNUZ", 8}, 19: {"F8_E5M2", 8}, 20: {"F8_E5M2FNUZ", 8}, 21: {"U4", 4}, 22: {"I4", 4},
	23: {"F4", 4}, 24: {"F8_E8M0", 8}, 25: {"U2", 2}, I2Type: {I2, 2},
}

// I2Type is the number of I2 in onnx.proto.
const I2Type = 26

const (
	tensorDims, tensorDType, tensorFloats, tensorInts, tensorName, tensorRaw = 1, 2, 4, 5, 8, 9
	tensorDoubles, tensorExternal, tensorLocation, stringType                = 10, 13, 14, 8
	tensorInt64s, tensorUint64s, tensorStrings                               = 7, 11, 6

	maxBytes     = 1 << 50
	maxDataFiles = 1 << 12
	maxWide      = 1 << 20 // integers of more than 16 bits that are stored one by one: shapes and indices, no weights
)

// tensor reads an initializer, or under another name a constant.
func (p *parser) tensor(f field, name string) error {
	t := container.Info{Name: name, Path: p.path}
	var (
		dims            []int64
		dtype, location int64
		raw, typed      field
		pieces          int
		external        = map[string]string{}
	)
	err := p.message(f, func(f field) (err error) {
		switch f.Number {
		case tensorDims:
			dims, err = p.integers(f, dims, maxDims)
		case tensorDType:
			dtype, err = p.integer(f)
		case tensorName:
			if name == "" {
				t.Name, err = p.text(f, maxName)
			}
		case tensorRaw:
			raw = f
			err = p.wants(f, protobuf.Bytes)
		case tensorFloats, tensorDoubles, tensorInts, tensorInt64s, tensorUint64s, tensorStrings:
			typed = f
			pieces++
		case tensorLocation:
			location, err = p.integer(f)
		case tensorExternal:
			key, value, err := p.entry(f, maxName)
			if len(external) < maxInts {
				external[key] = value
			}
			return err
		}
		return err
	})
	if err != nil {
		return err
	}
	if t.Name == "" {
		return p.broken(f.At, "a name of every initializer")
	}
	if dtype == stringType {
		return nil // nothing that a model computes with
	}
	if err := p.describe(&t, dims, dtype); err != nil {
		return err
	}
	at := place{index: len(p.model.tensors), file: p.model.file}
	switch {
	case location != 0:
		at.file, err = p.outside(&t, external)
	case raw.Number != 0:
		t.Offset = int64(raw.At)
		err = p.sized(t, len(raw.Data))
	case pieces == 1 && typed.Wire == protobuf.Bytes:
		t.Offset = int64(typed.At)
		at.typed, err = p.typed(&t, typed)
	case t.Size > 0:
		return &container.Error{Kind: ErrSize, Path: p.path, Tensor: t.Name, Field: "data", Found: "numbers that are not together",
			Expected: "raw_data, packed numbers or a data file"}
	}
	if err != nil {
		return err
	}
	if p.model.Has(t.Name) {
		return &container.Error{Kind: ErrDuplicate, Path: p.path, Tensor: t.Name, Found: "it twice", Expected: "it once"}
	}
	if len(p.model.tensors) == maxTensors {
		return p.tooMany("tensors", maxTensors)
	}
	p.model.places[t.Name] = at
	p.model.tensors = append(p.model.tensors, t)
	return nil
}

// describe fills in type, shape and size.
func (p *parser) describe(t *container.Info, dims []int64, dtype int64) error {
	kind, ok := dtypes[dtype]
	if !ok {
		return &container.Error{Kind: ErrDType, Path: p.path, Tensor: t.Name, Field: "data_type", Found: fmt.Sprint(dtype), Expected: "a type of onnx.proto"}
	}
	t.DType, t.Shape = kind.name, make([]int, len(dims))
	n := uint64(1)
	for i, d := range dims {
		hi, lo := bits.Mul64(n, uint64(d))
		if d < 0 || hi != 0 || lo > maxBytes {
			return &container.Error{Kind: ErrShape, Path: p.path, Tensor: t.Name, Field: "dims", Found: container.Clip(fmt.Sprint(dims)),
				Expected: "sizes of at most 2^50 bytes"}
		}
		n, t.Shape[i] = lo, int(d)
	}
	t.Size = int64((n*uint64(kind.bits) + 7) / 8)
	return nil
}

// sized refuses another number of bytes than the shape asks for.
func (p *parser) sized(t container.Info, found int) error {
	if int64(found) == t.Size {
		return nil
	}
	return &container.Error{Kind: ErrSize, Path: p.path, Tensor: t.Name, Field: "data", Found: fmt.Sprintf("%d bytes", found),
		Expected: fmt.Sprintf("%d for %s %v", t.Size, t.DType, t.Shape)}
}

// typed finds out about numbers in the fields for types. Floats lie there as
// they are in memory; the rest takes joinNumbers.
func (p *parser) typed(t *container.Info, f field) (join bool, err error) {
	if f.Number == tensorFloats && t.DType == F32 || f.Number == tensorDoubles && t.DType == F64 {
		return false, p.sized(*t, len(f.Data))
	}
	if f.Number != tensorInts && f.Number != tensorInt64s && f.Number != tensorUint64s || t.DType == F32 || t.DType == F64 || width(t.DType) < 8 {
		return false, &container.Error{Kind: ErrDType, Path: p.path, Tensor: t.Name, Field: "data", Found: fmt.Sprintf("%s in field %d", t.DType, f.Number),
			Expected: "raw_data"}
	}
	count := 0
	for _, b := range f.Data { // of integers of any length, the last byte of each
		if b < 0x80 {
			count++
		}
	}
	elements := int64(1)
	for _, d := range t.Shape {
		elements *= int64(d)
	}
	if int64(count) != elements {
		return false, &container.Error{Kind: ErrSize, Path: p.path, Tensor: t.Name, Field: "data", Found: fmt.Sprintf("%d numbers", count),
			Expected: fmt.Sprintf("%d for %v", elements, t.Shape)}
	}
	if count > maxWide && width(t.DType) > 16 { // a byte of the file would become up to eight
		return false, &container.Error{Kind: ErrSize, Path: p.path, Tensor: t.Name, Field: "data", Found: fmt.Sprintf("%d numbers of %s one by one", count, t.DType),
			Expected: fmt.Sprintf("at most %d, or raw_data", maxWide)}
	}
	t.Size = int64(len(f.Data))
	return true, nil
}

// width is the bits of an element.
func width(dtype string) int {
	for _, kind := range dtypes {
		if kind.name == dtype {
			return kind.bits
		}
	}
	return 0
}

// joinNumbers makes bytes of integers, which may be the bits of short floats.
func joinNumbers(v container.View) ([]byte, error) {
	size := min(width(v.DType)/8, 8)
	out := make([]byte, 0, size*v.Elements())
	for data := v.Data; len(data) > 0; {
		n, used := binary.Uvarint(data)
		if used <= 0 {
			return nil, &container.Error{Kind: ErrMessage, Path: v.Path(), Tensor: v.Name, Expected: "integers"}
		}
		data = data[used:]
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		out = append(out, b[:size]...)
	}
	return out, nil
}

// outside finds the place of a tensor in a data file.
func (p *parser) outside(t *container.Info, said map[string]string) (*container.File, error) {
	e := &container.Error{Kind: ErrDataFile, Path: p.path, Tensor: t.Name, Field: "location", Found: container.Quote(said["location"])}
	f, err := p.dataFile(said["location"], e)
	if err != nil {
		return nil, err
	}
	number := func(key string, otherwise int64) int64 {
		text, ok := said[key]
		if !ok {
			return otherwise
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	offset, length := number("offset", 0), number("length", t.Size)
	if offset < 0 || length != t.Size || offset > int64(f.Size())-length {
		e.Field, e.Found = "place in "+f.Path(), container.Clip(fmt.Sprintf("offset %s, length %s", said["offset"], said["length"]))
		e.Expected = fmt.Sprintf("%d bytes among the %d of the file", t.Size, f.Size())
		return nil, e
	}
	t.Offset, t.Path = offset, f.Path()
	return f, nil
}

// dataFile maps a data file once. It has to lie beside the model: a model must
// not name other files of whoever loads it, neither by a path nor by a symbolic
// link. Links as the cache of a hub has them, of model and data alike to one
// other directory, are fine.
func (p *parser) dataFile(name string, e *container.Error) (*container.File, error) {
	if f := p.model.data[name]; f != nil {
		return f, nil
	}
	if name == "" || p.beside == "" || !filepath.IsLocal(name) || name == "." || strings.ContainsAny(name, "/\\:\x00") {
		e.Expected = "the name of a file beside the model"
		return nil, e
	}
	if len(p.model.data) == maxDataFiles {
		return nil, p.tooMany("data files", maxDataFiles)
	}
	path := filepath.Join(filepath.Dir(p.beside), name)
	model, err := filepath.EvalSymlinks(p.beside)
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(p.beside))
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		e.Expected = "a file beside the model"
		return nil, e
	}
	if err != nil {
		return nil, fmt.Errorf("onnx: data file %s: %w", path, err)
	}
	if at := filepath.Dir(real); at != dir && at != filepath.Dir(model) {
		e.Found, e.Expected = e.Found+", a link to "+container.Quote(real), "a file beside the model"
		return nil, e
	}
	f, err := container.Open(real) // and not path, which may have become another link
	if err != nil {
		return nil, fmt.Errorf("onnx: %w", err)
	}
	p.model.data[name] = f
	return f, nil
}
