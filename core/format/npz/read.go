package npz

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"codeberg.org/sbinet/npyio/npy"
)

const (
	// DefaultLimit bounds the memory of one Load, in bytes.
	DefaultLimit = 4 << 30
	// maxHeader bounds an array's text header: NumPy's own are about 100 bytes.
	maxHeader = 64 << 10
	// maxDeflate is the best ratio deflate can reach; an entry that claims more lies.
	maxDeflate = 1032
)

// Load reads all arrays of an .npz file by name (without ".npy"), or the one
// array of an .npy file under the name "". It takes at most DefaultLimit bytes
// of memory.
func Load(path string) (map[string]Array, error) { return LoadLimit(path, DefaultLimit) }

// LoadLimit is Load with another limit in bytes on the sum of the arrays.
func LoadLimit(path string, limit int64) (map[string]Array, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("npz: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("npz: %w", err)
	}
	arrays, err := Read(f, info.Size(), limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return arrays, nil
}

// Read reads an .npz or .npy file of the given size from r.
func Read(r io.ReaderAt, size, limit int64) (map[string]Array, error) {
	var magic [6]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("npz: %w", err)
	}
	if magic == npy.Magic {
		a, err := readArray(io.NewSectionReader(r, 0, size), size, limit)
		return map[string]Array{"": a}, err
	}
	archive, err := zip.NewReader(r, size)
	if err != nil {
		return nil, fmt.Errorf("%w: neither an npy file nor a zip archive: %v", ErrFormat, err)
	}
	out := map[string]Array{}
	for _, entry := range archive.File {
		name := strings.TrimSuffix(entry.Name, ".npy")
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("%w: array %.100q appears twice", ErrFormat, name)
		}
		a, err := readEntry(entry, limit)
		if err != nil {
			return nil, fmt.Errorf("array %.100q: %w", name, err)
		}
		limit -= int64(len(a.data))
		out[name] = a
	}
	return out, nil
}

// Magic is how an .npy file begins.
var Magic = string(npy.Magic[:])

// Header is what an .npy file says before its elements.
type Header struct {
	DType     string // NumPy's name
	BigEndian bool   // order of the bytes of an element
	Fortran   bool   // column-major
	Shape     []int  // slowest dimension first; empty for a scalar
	Size      int64  // of the header in bytes: where the elements begin
}

// ReadHeader reads the header of an .npy stream and leaves r at the elements. It is for arrays that are too large to load; how many
// bytes follow is for the caller to check.
func ReadHeader(r io.Reader) (Header, error) {
	h, size, err := readHeader(r)
	if err != nil {
		return Header{}, err
	}
	dtype, order, err := parseDType(h.Descr.Type)
	if err != nil {
		return Header{}, err
	}
	if _, ok := elements(h.Descr.Shape); !ok {
		return Header{}, fmt.Errorf("%w: impossible shape %.200v", ErrFormat, h.Descr.Shape)
	}
	return Header{DType: dtype, BigEndian: order == '>', Fortran: h.Descr.Fortran, Shape: slices.Clone(h.Descr.Shape), Size: size}, nil
}

func readEntry(entry *zip.File, limit int64) (Array, error) {
	claimed, stored := entry.UncompressedSize64, entry.CompressedSize64
	if claimed/maxDeflate > stored || claimed > 1<<62 {
		return Array{}, fmt.Errorf("%w: claims %d bytes from %d compressed ones", ErrFormat, claimed, stored)
	}
	r, err := entry.Open()
	if err != nil {
		return Array{}, fmt.Errorf("%w: %v", ErrFormat, err)
	}
	defer r.Close()
	return readArray(r, int64(claimed), limit)
}

// readArray reads one npy stream of a known length.
func readArray(r io.Reader, size, limit int64) (Array, error) {
	header, err := ReadHeader(r)
	if err != nil {
		return Array{}, err
	}
	dtype, shape, width, length := header.DType, header.Shape, widths[header.DType], header.Size
	n, _ := elements(shape)
	want := int64(n) * int64(width)
	if want > limit {
		return Array{}, fmt.Errorf("%w: %d bytes for shape %v of %s, limit %d", ErrTooBig, want, shape, dtype, limit)
	}
	if size-length != want {
		return Array{}, fmt.Errorf("%w: found %d data bytes, expected %d for shape %v of %s", ErrFormat, size-length, want, shape, dtype)
	}
	// ReadAll grows with what arrives: a lying size costs nothing.
	data, err := io.ReadAll(io.LimitReader(r, want+1))
	if err != nil {
		return Array{}, fmt.Errorf("%w: %v", ErrFormat, err)
	}
	if int64(len(data)) != want {
		return Array{}, fmt.Errorf("%w: found %d data bytes, expected %d", ErrFormat, len(data), want)
	}
	if header.BigEndian {
		swap(data, width)
	}
	if header.Fortran {
		data = rowMajor(data, shape, width)
	}
	return Array{DType: dtype, Shape: slices.Clone(shape), data: data}, nil
}

// readHeader reads the header's bytes after checking their number, and lets
// npyio parse them. npyio slices by positions it found in the text, so a
// malformed text can make it panic; that is contained here.
func readHeader(r io.Reader) (header npy.Header, length int64, err error) {
	fixed := make([]byte, 10, 12)
	if _, err := io.ReadFull(r, fixed); err != nil {
		return header, 0, fmt.Errorf("%w: file too short for a header: %v", ErrFormat, err)
	}
	if [6]byte(fixed) != npy.Magic {
		return header, 0, fmt.Errorf("%w: found magic %q, expected %q", ErrFormat, fixed[:6], npy.Magic)
	}
	n := int(binary.LittleEndian.Uint16(fixed[8:]))
	switch fixed[6] {
	case 1:
	case 2, 3:
		fixed = fixed[:12]
		if _, err := io.ReadFull(r, fixed[10:]); err != nil {
			return header, 0, fmt.Errorf("%w: file too short for a header: %v", ErrFormat, err)
		}
		n = int(binary.LittleEndian.Uint32(fixed[8:]))
		fixed[6] = 2 // version 3 differs in the text's encoding only
	default:
		return header, 0, fmt.Errorf("%w: found version %d, expected 1 to 3", ErrFormat, fixed[6])
	}
	if n > maxHeader {
		return header, 0, fmt.Errorf("%w: found a header of %d bytes, expected at most %d", ErrFormat, n, maxHeader)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return header, 0, fmt.Errorf("%w: header of %d bytes runs past the end: %v", ErrFormat, n, err)
	}
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("%w: header %.200q", ErrFormat, text)
		}
	}()
	parsed, err := npy.NewReader(io.MultiReader(bytes.NewReader(fixed), bytes.NewReader(text)))
	if err != nil {
		return header, 0, fmt.Errorf("%w: header %.200q: %v", ErrFormat, text, err)
	}
	return parsed.Header, int64(len(fixed) + n), nil
}

var descr = regexp.MustCompile(`^'([<>|=])([a-z])([0-9]+)'$`)

// parseDType turns a descr such as '<f4' into NumPy's name and the byte order.
func parseDType(text string) (name string, order byte, err error) {
	m := descr.FindStringSubmatch(text)
	if m != nil {
		kinds := map[string]string{
			"b1": "bool", "i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "f2": "float16", "i4": "int32",
			"u4": "uint32", "f4": "float32", "i8": "int64", "u8": "uint64", "f8": "float64",
		}
		if name, ok := kinds[m[2]+m[3]]; ok {
			return name, m[1][0], nil
		}
	}
	return "", 0, fmt.Errorf("%w: found %.100s, expected a bool, integer or real number", ErrDType, text)
}

func swap(data []byte, width int) {
	for i := 0; i+width <= len(data); i += width {
		slices.Reverse(data[i : i+width])
	}
}

// rowMajor reorders a column-major array.
func rowMajor(data []byte, shape []int, width int) []byte {
	out := make([]byte, 0, len(data))
	index := make([]int, len(shape))
	for range len(data) / width {
		at := 0
		for axis := len(shape) - 1; axis >= 0; axis-- {
			at = at*shape[axis] + index[axis]
		}
		out = append(out, data[at*width:(at+1)*width]...)
		for axis := len(shape) - 1; axis >= 0; axis-- {
			index[axis]++
			if index[axis] < shape[axis] {
				break
			}
			index[axis] = 0
		}
	}
	return out
}
