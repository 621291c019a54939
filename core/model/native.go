package model

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"

	"github.com/bitnet-rust/bitnet_rust/accel/cpu"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/safetensors"
	"github.com/bitnet-rust/bitnet_rust/core/quant"
)

// The native format is one file with everything a model needs, laid out so that a mapping of it can be computed with at
// once: a safetensors container in which
//
//   - each ternary matrix is a U8 tensor `<module>.weight` holding panel16 (see accel/cpu), each dense matrix one holding
//     dense16, padded with zeros to a multiple of 64 bytes; they come first, so that all of them are 64-byte aligned,
//   - row scales (`<module>.weight.row_scale`), biases and norms are F32 vectors; a bias is stored as it is added,
//   - tokenizer and other files are U8 tensors `file/<name>`,
//   - the metadata holds
//     format          "bitnet"
//     format_version  a number; a reader refuses versions above its own
//     producer        the program that wrote the file
//     created         when, RFC 3339, UTC
//     config          the model's config.json
//     tensors         JSON {tensor: {layout, shape, scale, crc32c}}: layout is panel16, dense16-f32, dense16x2-bf16,
//     dense16x4-int8, dense16x8-int4g64, vector or file; shape the logical one; scale that of a panel16 matrix; crc32c
//     the Castagnoli checksum of the tensor's bytes in hexadecimal
//     and whatever else its writer was given.
const (
	NativeExt     = ".bitnet"
	NativeName    = "model" + NativeExt
	NativeVersion = 1

	nativeFormat   = "bitnet"
	nativeProducer = "bitnet_rust"
	filePrefix     = "file/"
	nativeAlign    = 64
)

// The keys of the metadata that the format itself gives a meaning.
const (
	keyFormat   = "format"
	keyVersion  = "format_version"
	keyProducer = "producer"
	keyCreated  = "created"
	keyConfig   = "config"
	keyTensors  = "tensors"
)

// What can be wrong with a native file beyond its container. Both match container.ErrFormat.
var (
	// ErrVersion is a file written in a later version of the format.
	ErrVersion = container.NewKind("unsupported version of the native format")
	// ErrChecksum is a tensor whose bytes are not those that were written.
	ErrChecksum = container.NewKind("checksum does not match")
)

// The layouts of a native file's tensors.
const (
	layoutVector = "vector"
	layoutFile   = "file"
)

// ternaryLayouts names those of ternary matrices.
var ternaryLayouts = map[string]quant.Layout{
	"panel16": quant.Panel16, "lines16-rows": quant.RowLines, "lines16-columns": quant.ColumnLines, "panel16-base3": quant.Base3,
}

// denseLayouts names the dense16 forms by the rows and columns of a block, and int4 by the columns that share a scale too. A form whose bytes
// change gets another name.
var denseLayouts = map[string]cpu.DenseFormat{
	"dense16-f32": cpu.DenseF32, "dense16x2-bf16": cpu.DenseBF16, "dense16x4-int8": cpu.DenseInt8, "dense16x8-int4g64": cpu.DenseInt4,
}

// formerLayouts are no longer read: column-major ones, and int4 with one scale a row.
var formerLayouts = []string{"dense16-bf16", "dense16-int8", "dense16-int4", "dense16x8-int4"}

// layoutName finds what is called by a name of names.
func layoutName[T comparable](names map[string]T, layout T) string {
	for name, have := range names {
		if have == layout {
			return name
		}
	}
	panic(fmt.Sprintf("model: no name for layout %v", layout))
}

// nativeTensor is what the metadata says of one tensor.
type nativeTensor struct {
	Layout string   `json:"layout"`
	Shape  []int    `json:"shape"`
	Scale  *float32 `json:"scale,omitempty"`
	CRC32C checksum `json:"crc32c"`
}

// checksum is a CRC-32C, eight hexadecimal digits in JSON.
type checksum uint32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (c *checksum) update(b []byte) { *c = checksum(crc32.Update(uint32(*c), castagnoli, b)) }

func (c checksum) String() string { return fmt.Sprintf("%08x", uint32(c)) }

// MarshalText renders the digits.
func (c checksum) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText parses them.
func (c *checksum) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 16, 32)
	if err != nil || len(text) != 8 {
		return fmt.Errorf("crc32c %q: must be eight hexadecimal digits", text)
	}
	*c = checksum(v)
	return nil
}

// nativeFile is an open native file whose metadata has been read.
type nativeFile struct {
	*safetensors.File
	meta    map[string]string
	tensors map[string]nativeTensor
}

// openNative opens a file and checks that it is of this format, of a version this package reads, and that its list of
// tensors is that of the container.
func openNative(path string) (*nativeFile, error) {
	file, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	f := &nativeFile{File: file, meta: file.Metadata()}
	if err := f.readMetadata(); err != nil {
		_ = file.Close() // the first error says more
		return nil, err
	}
	return f, nil
}

func (f *nativeFile) readMetadata() error {
	if found := f.meta[keyFormat]; found != nativeFormat {
		return f.metaError(keyFormat, strconv.Quote(abbreviate([]byte(found))), strconv.Quote(nativeFormat))
	}
	version, err := strconv.Atoi(f.meta[keyVersion])
	if err != nil || version < 1 {
		return f.metaError(keyVersion, strconv.Quote(abbreviate([]byte(f.meta[keyVersion]))), "a version number")
	}
	if version > NativeVersion {
		return &container.Error{Kind: ErrVersion, Path: f.Path(), Field: keyVersion, Found: f.meta[keyVersion],
			Expected: fmt.Sprintf("at most %d (a newer bitnet_rust wrote the file)", NativeVersion)}
	}
	if err := json.Unmarshal([]byte(f.meta[keyTensors]), &f.tensors); err != nil {
		return f.metaError(keyTensors, err.Error(), "a JSON object from tensor to layout, shape and checksum")
	}
	listed := 0
	for _, t := range f.Tensors() {
		if _, ok := f.tensors[t.Name]; !ok {
			return &container.Error{Kind: ErrUnexpected, Path: f.Path(), Tensor: t.Name, Found: "a tensor", Expected: "an entry in the metadata's " + keyTensors}
		}
		listed++
	}
	if listed != len(f.tensors) {
		return f.metaError(keyTensors, fmt.Sprintf("%d entries", len(f.tensors)), fmt.Sprintf("%d, one for each tensor", listed))
	}
	return nil
}

func (f *nativeFile) metaError(field, found, expected string) error {
	return &container.Error{Kind: safetensors.ErrMetadata, Path: f.Path(), Field: field, Found: found, Expected: expected}
}

// tensor returns a tensor that must have the layout, the logical shape and the stored dtype and size.
func (f *nativeFile) tensor(name, layout string, shape []int, dtype string, stored int) (container.View, nativeTensor, error) {
	v, err := f.Tensor(name)
	if err != nil {
		return v, nativeTensor{}, err
	}
	t := f.tensors[name]
	e := &container.Error{Kind: container.ErrMismatch, Path: f.Path(), Tensor: name}
	switch {
	case t.Layout != layout:
		e.Field, e.Found, e.Expected = "layout", abbreviate([]byte(t.Layout)), layout
	case fmt.Sprint(t.Shape) != fmt.Sprint(shape):
		e.Field, e.Found, e.Expected = "shape", abbreviate([]byte(fmt.Sprint(t.Shape))), fmt.Sprint(shape)
	default:
		return v, t, v.Check([]int{stored}, dtype)
	}
	return v, t, e
}

// scaleOf is the scale of a panel16 matrix.
func (f *nativeFile) scaleOf(name string, t nativeTensor) (float32, error) {
	if t.Scale != nil && *t.Scale > 0 && !math.IsInf(float64(*t.Scale), 0) {
		return *t.Scale, nil
	}
	found := "none"
	if t.Scale != nil {
		found = fmt.Sprint(*t.Scale)
	}
	return 0, &container.Error{Kind: ErrValue, Path: f.Path(), Tensor: name, Field: "scale", Found: found, Expected: "a positive, finite scale"}
}

// verify reads a tensor's bytes and compares their checksum. each, when not nil, sees every piece that was read.
func (f *nativeFile) verify(ctx context.Context, v container.View, each func(at int, piece []byte) error) error {
	const piece = 1 << 20
	var sum checksum
	for at := 0; at < len(v.Data); at += piece {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := v.Data[at:min(at+piece, len(v.Data))]
		sum.update(b)
		if each != nil {
			if err := each(at, b); err != nil {
				return err
			}
		}
	}
	if want := f.tensors[v.Name].CRC32C; sum != want {
		return &container.Error{Kind: ErrChecksum, Path: f.Path(), Tensor: v.Name, Field: "crc32c", Found: sum.String(), Expected: want.String()}
	}
	return nil
}

// stored is the size of a panel tensor in the file.
func stored(n int) int { return (n + nativeAlign - 1) / nativeAlign * nativeAlign }

// writePadded writes panels and the zeros up to their stored size.
func writePadded(w io.Writer, panels []byte) error {
	if _, err := w.Write(panels); err != nil {
		return err
	}
	var zeros [nativeAlign]byte
	_, err := w.Write(zeros[:stored(len(panels))-len(panels)])
	return err
}
