package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bitnet-rust/bitnet_rust/core/format/atomicfile"
	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// dataAlign is the alignment of the first data byte in a written file: one
// cache line, so that a mapped tensor can be read with aligned vector loads.
const dataAlign = 64

// Size returns a tensor's size in bytes by its dtype and shape, or a
// container.Error of kind ErrDType or ErrShape.
func Size(t container.Tensor) (int64, error) {
	width, ok := dtypeBits[t.DType]
	if !ok {
		return 0, &container.Error{Kind: ErrDType, Tensor: t.Name, Field: "dtype", Found: container.Quote(t.DType), Expected: dtypeList()}
	}
	size, ok := byteSize(t.Shape, width)
	if !ok {
		return 0, &container.Error{Kind: ErrShape, Tensor: t.Name, Field: "shape", Found: fmt.Sprint(t.Shape), Expected: "a whole number of bytes below 2^59"}
	}
	return size, nil
}

// ByAlignment sorts tensors so that wide dtypes come first, keeping the order
// otherwise. Written in this order every tensor starts at a multiple of its
// element size, which readers that make typed arrays in place rely on.
func ByAlignment(tensors []container.Tensor) {
	slices.SortStableFunc(tensors, func(a, b container.Tensor) int { return cmp.Compare(dtypeBits[b.DType], dtypeBits[a.DType]) })
}

// Write creates or replaces a file with the tensors, laid out in the order
// given, and the metadata (may be nil). The file appears under its name only
// when it is complete and on the disk. The data starts at a multiple of 64
// bytes.
//
// Errors: a container.Error when a name repeats or is reserved, a dtype is unknown
// or a tensor gives another number of bytes than its shape says; else what the
// system or a Stream function returned.
func Write(path string, tensors []container.Tensor, metadata map[string]string) error {
	head, sizes, err := encodeHeader(path, tensors, metadata)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, func(w io.Writer) error {
		if _, err := w.Write(head); err != nil {
			return fmt.Errorf("safetensors: %w", err)
		}
		for i, t := range tensors {
			if err := t.Write(w, path, sizes[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// WriteTo writes the same bytes as Write to a stream.
func WriteTo(w io.Writer, tensors []container.Tensor, metadata map[string]string) error {
	head, sizes, err := encodeHeader("", tensors, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	for i, t := range tensors {
		if err := t.Write(w, "", sizes[i]); err != nil {
			return err
		}
	}
	return nil
}

// CheckHeader says why Read would not take the header that Write makes, or nil.
func CheckHeader(tensors []container.Tensor, metadata map[string]string, limits Limits) error {
	head, sizes, err := encodeHeader("", tensors, metadata)
	if err != nil {
		return err
	}
	data := int64(0)
	for _, size := range sizes {
		data += size
	}
	if n := len(head) - 8; n > limits.header() {
		return &container.Error{Kind: ErrHeaderTooLarge, Field: "header length", Found: fmt.Sprint(n), Expected: fmt.Sprintf("at most %d", limits.header())}
	}
	_, err = parseHeader("", head[8:], data, limits)
	return err
}

// encodeHeader validates the tensors and renders the file's first part, length
// and padding included.
func encodeHeader(path string, tensors []container.Tensor, metadata map[string]string) (head []byte, sizes []int64, err error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	b.WriteByte('{')
	if len(metadata) > 0 {
		fmt.Fprintf(&b, "%s:{", encodeString(metadataKey))
		for i, key := range slices.Sorted(maps.Keys(metadata)) {
			if n := b.Len() + len(key) + len(metadata[key]); n > MaxHeader { // before rendering it
				return nil, nil, headerTooLarge(path, n)
			}
			if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
				return nil, nil, &container.Error{Kind: ErrMetadata, Path: path, Field: metadataKey, Found: container.Quote(key) + ": " + container.Quote(metadata[key]), Expected: "valid UTF-8"}
			}
			fmt.Fprintf(&b, "%s%s:%s", comma(i), encodeString(key), encodeString(metadata[key]))
		}
		b.WriteByte('}')
	}
	seen := make(map[string]struct{}, len(tensors))
	offset := int64(0)
	for i, t := range tensors {
		size, err := check(t, path, seen)
		if err != nil {
			return nil, nil, err
		}
		if i > 0 || len(metadata) > 0 {
			b.WriteByte(',')
		}
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		dims := strings.ReplaceAll(fmt.Sprint(shape), " ", ",")
		fmt.Fprintf(&b, `%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, encodeString(t.Name), t.DType, dims, offset, offset+size)
		sizes = append(sizes, size)
		offset += size
	}
	b.WriteByte('}')
	for b.Len()%dataAlign != 0 {
		b.WriteByte(' ')
	}
	if n := b.Len() - 8; n > MaxHeader {
		return nil, nil, headerTooLarge(path, n)
	}
	head = b.Bytes()
	binary.LittleEndian.PutUint64(head, uint64(len(head)-8))
	return head, sizes, nil
}

func headerTooLarge(path string, n int) error {
	return &container.Error{Kind: ErrHeaderTooLarge, Path: path, Field: "header length", Found: fmt.Sprint(n), Expected: fmt.Sprintf("at most %d", MaxHeader)}
}

// check validates one tensor against those before it and returns its size.
func check(t container.Tensor, path string, seen map[string]struct{}) (int64, error) {
	e := &container.Error{Path: path, Tensor: t.Name, Field: "name"}
	if t.Name == "" || t.Name == metadataKey || !utf8.ValidString(t.Name) {
		e.Kind, e.Found, e.Expected = ErrName, container.Quote(t.Name), "non-empty UTF-8 other than "+metadataKey
		return 0, e
	}
	if _, twice := seen[t.Name]; twice {
		e.Kind, e.Found, e.Expected = ErrDuplicateKey, container.Quote(t.Name)+" twice", "it once"
		return 0, e
	}
	seen[t.Name] = struct{}{}
	size, err := Size(t)
	if err != nil {
		err.(*container.Error).Path = path
		return 0, err
	}
	if t.Stream == nil && int64(len(t.Data)) != size {
		e.Kind, e.Field = container.ErrSize, "data"
		e.Found, e.Expected = fmt.Sprintf("%d bytes", len(t.Data)), fmt.Sprintf("%d for shape %v of %s", size, t.Shape, t.DType)
		return 0, e
	}
	return size, nil
}

func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

// encodeString renders a JSON string without escaping HTML characters.
func encodeString(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string cannot fail
	return strings.TrimSuffix(b.String(), "\n")
}
