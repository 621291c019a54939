package npz

import (
	"archive/zip"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"codeberg.org/sbinet/npyio/npy"

	"github.com/bitnet-rust/bitnet_rust/core/format/atomicfile"
)

// codes is the dtype as the npy header spells it.
var codes = map[string]string{
	"bool": "|b1", "int8": "|i1", "uint8": "|u1", "int16": "<i2", "uint16": "<u2", "float16": "<f2",
	"int32": "<i4", "uint32": "<u4", "float32": "<f4", "int64": "<i8", "uint64": "<u8", "float64": "<f8",
}

// Save writes an uncompressed .npz (numpy.savez), replacing the file in one
// step. Arrays are written in name order, so equal content gives equal bytes.
func Save(path string, arrays map[string]Array) error { return save(path, arrays, zip.Store) }

// SaveCompressed writes a deflated .npz (numpy.savez_compressed).
func SaveCompressed(path string, arrays map[string]Array) error {
	return save(path, arrays, zip.Deflate)
}

func save(path string, arrays map[string]Array, method uint16) error {
	return atomicfile.Write(path, func(w io.Writer) error {
		archive := zip.NewWriter(w)
		for _, name := range slices.Sorted(maps.Keys(arrays)) {
			entry, err := archive.CreateHeader(&zip.FileHeader{Name: name + ".npy", Method: method})
			if err == nil {
				err = writeArray(entry, arrays[name])
			}
			if err != nil {
				return fmt.Errorf("npz: array %.100q: %w", name, err)
			}
		}
		return archive.Close()
	})
}

// SaveArray writes one array as .npy, replacing the file in one step.
func SaveArray(path string, a Array) error {
	return atomicfile.Write(path, func(w io.Writer) error { return writeArray(w, a) })
}

// writeArray writes header and data. npyio writes vectors and float64 matrices
// only, so the header, one line of text, is made here.
func writeArray(w io.Writer, a Array) error {
	code, ok := codes[a.DType]
	if !ok {
		return fmt.Errorf("%w: found %q", ErrDType, a.DType)
	}
	dims := strings.Trim(strings.ReplaceAll(fmt.Sprint(a.Shape), " ", ", "), "[]")
	if len(a.Shape) == 1 {
		dims += ","
	}
	text := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", code, dims)
	const fixed, align = 10, 64
	text += strings.Repeat(" ", (align-(fixed+len(text)+1)%align)%align) + "\n"
	head := append(npy.Magic[:len(npy.Magic):len(npy.Magic)], 1, 0)
	head = binary.LittleEndian.AppendUint16(head, uint16(len(text)))
	for _, part := range [][]byte{head, []byte(text), a.data} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}
