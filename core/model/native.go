package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

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
//   - matrices and files may be compressed: U8 tensors that hold Zstandard frames, at the end of the container,
//   - the metadata holds
//     format          "bitnet"
//     format_version  a number; a reader refuses versions above its own
//     producer        the program that wrote the file
//     created         when, RFC 3339, UTC
//     config          the model's config.json
//     tensors         JSON {tensor: {layout, shape, scale, crc32c, compression}}: layout is panel16, dense16-f32, dense16x2-bf16, dense16x2-f16,
//     dense16x4-int8, dense16x8-int4g64, vector or file; shape the logical one; scale that of a panel16 matrix; crc32c
//     the Castagnoli checksum of the tensor's bytes, before compression, in hexadecimal; compression "zstd" or absent
//     shards          of a model in several files, how many
//     and whatever else its writer was given, such as the keys of metadata.go.
//
// A model in several files is model-00001-of-0000N.bitnet, ... with model.bitnet.index.json, as Hugging Face has it; all of them have
// the same metadata.
const (
	NativeExt     = ".bitnet"
	NativeName    = "model" + NativeExt
	NativeIndex   = NativeName + indexExt
	NativeVersion = 2

	// plainVersion is that of a single file without compression, which programs that know no other version read.
	plainVersion = 1

	nativeFormat   = "bitnet"
	nativeProducer = "bitnet_rust"
	filePrefix     = "file/"
	nativeAlign    = 64
	indexExt       = ".index.json"
)

// nativeLimits bound the header of a native file, and so what a hostile one costs: more than what a model of a thousand layers has.
var nativeLimits = safetensors.Limits{Header: 8 << 20, Tensors: 20_000}

// The keys of the metadata that the format itself gives a meaning.
const (
	keyFormat   = "format"
	keyVersion  = "format_version"
	keyProducer = "producer"
	keyCreated  = "created"
	keyConfig   = "config"
	keyTensors  = "tensors"
	keyShards   = "shards"
)

// What can be wrong with a native file beyond its container. Both match container.ErrFormat.
var (
	// ErrVersion is a file written in a later version of the format.
	ErrVersion = container.NewKind("unsupported version of the native format")
	// ErrChecksum is a tensor whose bytes are not those that were written.
	ErrChecksum = container.NewKind("checksum does not match")
	// ErrCompression is a compressed tensor that does not give the bytes its shape needs.
	ErrCompression = container.NewKind("compressed tensor cannot be read")
	// ErrShards is a file that does not belong to the others of its model.
	ErrShards = container.NewKind("files of different models")
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
	"dense16-f32": cpu.DenseF32, "dense16x2-bf16": cpu.DenseBF16, "dense16x2-f16": cpu.DenseF16, "dense16x4-int8": cpu.DenseInt8, "dense16x8-int4g64": cpu.DenseInt4,
}

// matrixLayouts are the names of both.
func matrixLayouts() []string { return append(sortedKeys(ternaryLayouts), sortedKeys(denseLayouts)...) }

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

	Compression string `json:"compression,omitempty"`
}

// checksum is a CRC-32C, eight hexadecimal digits in JSON.
type checksum uint32

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (c *checksum) update(b []byte) { *c = checksum(crc32.Update(uint32(*c), castagnoli, b)) }

func (c checksum) String() string { return fmt.Sprintf("%08x", uint32(c)) }

// compare is an error unless the checksum is the one that a tensor should have.
func (c checksum) compare(want checksum, path, tensor string) error {
	if c == want {
		return nil
	}
	return &container.Error{Kind: ErrChecksum, Path: path, Tensor: tensor, Field: "crc32c", Found: c.String(), Expected: want.String()}
}

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

// nativeFile is an open native file, or the files of one model, whose metadata has been read.
type nativeFile struct {
	container.Set
	size    int // of the tensors, in bytes
	meta    map[string]string
	tensors map[string]nativeTensor
}

// openNative opens a file, or an index with its files, and checks that they are of this format, of a version this package reads, and that
// their list of tensors is that of the container.
func openNative(path string) (*nativeFile, error) {
	if strings.HasSuffix(strings.ToLower(path), indexExt) {
		set, err := safetensors.OpenIndex(path, NativeExt, nativeLimits)
		if err != nil {
			return nil, err
		}
		shards := set.Shards()
		for _, s := range shards[min(1, len(shards)):] {
			if !maps.Equal(s.Metadata(), shards[0].Metadata()) {
				err := &container.Error{Kind: ErrShards, Path: s.Path(), Field: "metadata", Found: "other metadata than in " + shards[0].Path(), Expected: "the same in all files of a model"}
				return nil, errors.Join(err, set.Close())
			}
		}
		return newNative(set, set.Metadata(), len(shards))
	}
	file, err := container.Open(path)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return readNative(file)
}

// readNative is openNative for one file that was opened in any way.
func readNative(file *container.File) (*nativeFile, error) {
	f, err := safetensors.Read(file, nativeLimits)
	if err != nil {
		return nil, err
	}
	return newNative(f, f.Metadata(), 1)
}

// newNative reads the metadata of files, which are closed after an error.
func newNative(set container.Set, meta map[string]string, files int) (*nativeFile, error) {
	f := &nativeFile{Set: set, meta: meta}
	if err := f.readMetadata(files); err != nil {
		_ = set.Close() // the first error says more
		return nil, err
	}
	return f, nil
}

func (f *nativeFile) readMetadata(files int) error {
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
	if said, ok := f.meta[keyShards]; ok && said != strconv.Itoa(files) {
		return &container.Error{Kind: ErrShards, Path: f.Path(), Field: keyShards, Found: fmt.Sprintf("%d files", files),
			Expected: abbreviate([]byte(said)) + ": open the directory, or its " + NativeIndex}
	}
	if len(f.meta[keyConfig]) > maxConfigBytes {
		return f.metaError(keyConfig, fmt.Sprintf("%d bytes", len(f.meta[keyConfig])), fmt.Sprintf("at most %d", maxConfigBytes))
	}
	return f.readTensors()
}

// readTensors reads what the metadata says of the tensors. An entry has no other keys than nativeTensor: whatever else was to be known of a
// tensor's bytes, a reader that does not know it would misread them.
func (f *nativeFile) readTensors() error {
	text, infos := f.meta[keyTensors], f.Tensors()
	most := 2
	for _, t := range infos {
		most += 6*len(t.Name) + 1024 // a name in JSON escapes, and more than any entry has
		f.size += int(t.Size)
	}
	if len(text) > most {
		return f.metaError(keyTensors, fmt.Sprintf("%d bytes", len(text)), fmt.Sprintf("at most %d for %d tensors", most, len(infos)))
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f.tensors); err != nil {
		return f.metaError(keyTensors, err.Error(), "a JSON object from tensor to layout, shape and checksum")
	}
	files := 0 // bytes
	for _, t := range infos {
		said, ok := f.tensors[t.Name]
		if !ok {
			return &container.Error{Kind: ErrUnexpected, Path: t.Path, Tensor: t.Name, Found: "a tensor", Expected: "an entry in the metadata's " + keyTensors}
		}
		if said.Compression != "" && said.Compression != CompressionZstd {
			return &container.Error{Kind: container.ErrMismatch, Path: t.Path, Tensor: t.Name, Field: "compression", Found: container.Quote(said.Compression), Expected: CompressionZstd}
		}
		if said.Layout == layoutFile && len(said.Shape) == 1 {
			if said.Shape[0] > maxAssetBytes-files {
				return f.shapeError(t.Name, fmt.Sprintf("files of at most %d bytes in all", maxAssetBytes))
			}
			files += max(0, said.Shape[0])
		}
	}
	if len(infos) != len(f.tensors) {
		return f.metaError(keyTensors, fmt.Sprintf("%d entries", len(f.tensors)), fmt.Sprintf("%d, one for each tensor", len(infos)))
	}
	return nil
}

func (f *nativeFile) metaError(field, found, expected string) error {
	return &container.Error{Kind: safetensors.ErrMetadata, Path: f.Path(), Field: field, Found: found, Expected: expected}
}

// nativeView is a tensor of a native file. size is that of its bytes, which the file may have in fewer.
type nativeView struct {
	container.View
	entry nativeTensor
	size  int
}

// plain says whether Data is the tensor's bytes.
func (v nativeView) plain() bool { return v.entry.Compression == "" && v.File.Mapped() }

// tensor returns a tensor that must have the layout, the logical shape and, before compression, the stored dtype and number of elements.
func (f *nativeFile) tensor(name, layout string, shape []int, dtype string, stored int) (nativeView, error) {
	v, err := f.Tensor(name)
	if err != nil {
		return nativeView{}, err
	}
	t := f.tensors[name]
	e := &container.Error{Kind: container.ErrMismatch, Path: v.Path(), Tensor: name}
	switch {
	case t.Layout != layout:
		e.Field, e.Found, e.Expected = "layout", abbreviate([]byte(t.Layout)), layout
	case !slices.Equal(t.Shape, shape):
		e.Field, e.Found, e.Expected = "shape", container.Clip(fmt.Sprint(t.Shape)), fmt.Sprint(shape)
	case t.Compression != "":
		if dtype == safetensors.F32 {
			stored *= 4
		}
		n := nativeView{v, t, stored}
		return n, n.checkCompressed()
	default:
		return nativeView{v, t, v.Size()}, v.Check([]int{stored}, dtype)
	}
	return nativeView{}, e
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

// stored is the size of a panel tensor in the file.
func stored(n int) int { return (n + nativeAlign - 1) / nativeAlign * nativeAlign }
