package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// MaxHeader is the largest header the format allows, in bytes. It bounds what
// parsing a hostile file can cost.
const MaxHeader = 100_000_000

// maxTokens bounds the JSON tokens of a header or index, and so the time that a
// hostile one of the largest size costs. A tensor takes about 14: this is room
// for eighteen thousand in one file, several times what models have.
const maxTokens = 1 << 18

// maxToken bounds a string of the header, such as a model card in its metadata,
// or the space between two: the JSON decoder holds all of it, several times over.
const maxToken = 4 << 20

const metadataKey = "__metadata__"

// header is the validated content of a file's JSON part.
type header struct {
	tensors   []container.Info // by offset
	metadata  map[string]string
	dataStart int // where offsets count from, in bytes from the start of the file
}

// readHeader parses and validates the whole header of a file.
func readHeader(f *container.File, limits Limits) (*header, error) {
	path, size := f.Path(), f.Size()
	if size < 8 {
		return nil, &container.Error{Kind: ErrFileTooShort, Path: path, Field: "size",
			Found: fmt.Sprintf("%d bytes", size), Expected: "at least 8"}
	}
	length, err := f.Part(0, 8)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(length)
	if n > uint64(limits.header()) {
		return nil, &container.Error{Kind: ErrHeaderTooLarge, Path: path, Field: "header length",
			Found: strconv.FormatUint(n, 10) + startOf(length), Expected: fmt.Sprintf("at most %d", limits.header())}
	}
	if n > uint64(size-8) {
		return nil, &container.Error{Kind: ErrHeaderTruncated, Path: path, Field: "header length",
			Found: strconv.FormatUint(n, 10), Expected: fmt.Sprintf("at most the %d bytes that follow", size-8)}
	}
	text, err := f.Part(8, 8+int(n))
	if err != nil {
		return nil, err
	}
	return parseHeader(path, text, int64(size)-8-int64(n), limits)
}

// parseHeader parses and validates the JSON part, of a file with so many bytes of data.
func parseHeader(path string, text []byte, dataSize int64, limits Limits) (*header, error) {
	h := &header{dataStart: 8 + len(text)}
	if !utf8.Valid(text) {
		at := 0
		for r, size := utf8.DecodeRune(text); r != utf8.RuneError || size > 1; r, size = utf8.DecodeRune(text[at:]) {
			at += size
		}
		return nil, &container.Error{Kind: ErrHeaderUTF8, Path: path, Field: "header",
			Found: fmt.Sprintf("byte 0x%02x at byte %d", text[at], 8+at), Expected: "UTF-8"}
	}
	if len(text) == 0 || text[0] != '{' {
		return nil, &container.Error{Kind: ErrHeaderJSON, Path: path, Field: "header",
			Found: container.Quote(string(text[:min(len(text), 16)])), Expected: "an object starting with '{'"}
	}
	text = bytes.TrimRight(text, " ") // padding up to the data
	if at := longToken(text); at >= 0 {
		return nil, &container.Error{Kind: ErrHeaderJSON, Path: path, Field: "header",
			Found: fmt.Sprintf("more than %d bytes without an end at byte %d", maxToken, at), Expected: "names of tensors and their entries"}
	}
	p := &parser{path: path, most: cmp.Or(limits.Tensors, math.MaxInt), dec: json.NewDecoder(bytes.NewReader(text))}
	p.dec.UseNumber()
	if err := p.parse(h); err != nil {
		return nil, err
	}
	if err := h.layout(path, dataSize); err != nil {
		return nil, err
	}
	return h, nil
}

// longToken is where a string, or what stands between two, is longer than maxToken; -1 if nowhere.
func longToken(text []byte) int {
	start := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			start = i
		}
		if i-start > maxToken {
			return start
		}
	}
	return -1
}

// startOf says what a file is that has another format's first bytes: checkpoints are renamed in the hope that it helps.
func startOf(content []byte) string {
	for _, f := range []struct{ magic, what string }{
		{"PK\x03\x04", "a zip archive, as PyTorch's pickles are"}, {"\x80\x02", "a pickle"}, {"\x80\x04", "a pickle"}, {"GGUF", "a GGUF file"}, {"\x1f\x8b", "a gzip file"},
		{"\x89HDF", "an HDF5 file"}, {"version ", "a pointer of Git LFS: the file itself was not downloaded"},
	} {
		if bytes.HasPrefix(content, []byte(f.magic)) {
			return ", the start of " + f.what
		}
	}
	return ""
}

// layout sorts the tensors by offset and checks that they tile the data.
func (h *header) layout(path string, dataSize int64) error {
	slices.SortFunc(h.tensors, func(a, b container.Info) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Size, b.Size), cmp.Compare(a.Name, b.Name))
	})
	position := int64(0)
	for i, t := range h.tensors {
		end := t.Offset + t.Size
		e := &container.Error{Path: path, Tensor: t.Name, Field: "data_offsets",
			Found: fmt.Sprintf("[%d, %d]", t.Offset, end)}
		switch {
		case end > dataSize:
			e.Kind, e.Expected = ErrOutOfBounds, fmt.Sprintf("at most the %d data bytes of the file", dataSize)
			return e
		case t.Offset < position:
			e.Kind, e.Expected = ErrOverlap, fmt.Sprintf("a begin of %d, where tensor %s ends", position, container.Quote(h.tensors[i-1].Name))
			return e
		case t.Offset > position:
			e.Kind, e.Expected = ErrHole, fmt.Sprintf("a begin of %d", position)
			return e
		}
		position = end
	}
	if position != dataSize {
		return &container.Error{Kind: ErrTrailing, Path: path, Field: "size",
			Found: fmt.Sprintf("%d data bytes", dataSize), Expected: fmt.Sprintf("%d", position)}
	}
	return nil
}

// parser walks the header token by token. The grammar has three levels and the
// parser follows it literally, so nesting cannot make it recurse.
type parser struct {
	path   string
	dec    *json.Decoder
	most   int // tensors
	tokens int // read so far
}

func (p *parser) parse(h *header) error {
	if err := p.open('{', ErrHeaderJSON, "", "header"); err != nil {
		return err
	}
	seen := map[string]struct{}{}
	for p.dec.More() {
		name, err := p.key(seen, "")
		if err != nil {
			return err
		}
		switch {
		case name == metadataKey:
			err = p.parseMetadata(h)
		case len(h.tensors) == p.most:
			err = &container.Error{Kind: ErrHeaderTooLarge, Path: p.path, Field: "header", Found: "more tensors", Expected: fmt.Sprintf("at most %d", p.most)}
		default:
			err = p.parseTensor(h, name)
		}
		if err != nil {
			return err
		}
	}
	if _, err := p.token(); err != nil { // the closing brace
		return err
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return &container.Error{Kind: ErrHeaderJSON, Path: p.path, Field: "header",
			Found: fmt.Sprintf("more text at byte %d", p.dec.InputOffset()), Expected: "one object, then spaces"}
	}
	return nil
}

func (p *parser) parseMetadata(h *header) error {
	if err := p.open('{', ErrMetadata, "", metadataKey); err != nil {
		return err
	}
	h.metadata = map[string]string{}
	seen := map[string]struct{}{}
	for p.dec.More() {
		key, err := p.key(seen, metadataKey)
		if err != nil {
			return err
		}
		t, err := p.token()
		if err != nil {
			return err
		}
		value, ok := t.(string)
		if !ok {
			return p.unexpected(t, ErrMetadata, "", metadataKey+"."+container.Clip(key), "a string")
		}
		h.metadata[key] = value
	}
	_, err := p.token()
	return err
}

func (p *parser) parseTensor(h *header, name string) error {
	if err := p.open('{', ErrField, name, "entry"); err != nil {
		return err
	}
	t := container.Info{Name: name, Path: p.path}
	var shape, offsets []uint64
	seen := map[string]struct{}{}
	for p.dec.More() {
		field, err := p.key(seen, name)
		if err != nil {
			return err
		}
		switch field {
		case "dtype":
			token, err := p.token()
			if err != nil {
				return err
			}
			text, ok := token.(string)
			if !ok {
				return p.unexpected(token, ErrField, name, field, "a string")
			}
			t.DType = text
		case "shape":
			shape, err = p.numbers(name, field)
		case "data_offsets":
			offsets, err = p.numbers(name, field)
		default:
			err = &container.Error{Kind: ErrField, Path: p.path, Tensor: name, Field: "entry",
				Found: "key " + container.Quote(field), Expected: "dtype, shape and data_offsets"}
		}
		if err != nil {
			return err
		}
	}
	if _, err := p.token(); err != nil {
		return err
	}
	for _, field := range []string{"dtype", "shape", "data_offsets"} {
		if _, ok := seen[field]; !ok {
			return &container.Error{Kind: ErrField, Path: p.path, Tensor: name, Field: field, Found: "nothing", Expected: "a value"}
		}
	}
	if err := p.validate(&t, shape, offsets); err != nil {
		return err
	}
	h.tensors = append(h.tensors, t)
	return nil
}

// validate checks one entry by itself: dtype, shape product, offsets, size.
func (p *parser) validate(t *container.Info, shape, offsets []uint64) error {
	e := &container.Error{Path: p.path, Tensor: t.Name}
	width, ok := dtypeBits[t.DType]
	if !ok {
		e.Kind, e.Field, e.Found, e.Expected = ErrDType, "dtype", container.Quote(t.DType), dtypeList()
		return e
	}
	t.Shape = make([]int, len(shape))
	for i, d := range shape {
		if d > math.MaxInt {
			e.Kind, e.Field, e.Found, e.Expected = ErrShape, "shape", container.Clip(fmt.Sprint(shape)), "dimensions of at most 2^63-1"
			return e
		}
		t.Shape[i] = int(d)
	}
	size, ok := byteSize(t.Shape, width)
	if !ok {
		e.Kind, e.Field, e.Found = ErrShape, "shape", container.Clip(fmt.Sprint(shape))+" of "+t.DType
		e.Expected = "a whole number of bytes below 2^59"
		return e
	}
	if len(offsets) != 2 {
		e.Kind, e.Field, e.Found, e.Expected = ErrField, "data_offsets", fmt.Sprintf("%d numbers", len(offsets)), "two"
		return e
	}
	begin, end := offsets[0], offsets[1]
	found := fmt.Sprintf("[%d, %d]", begin, end)
	switch {
	case begin > end:
		e.Kind, e.Field, e.Found, e.Expected = ErrOffsets, "data_offsets", found, "begin <= end"
		return e
	case end > math.MaxInt64:
		e.Kind, e.Field, e.Found, e.Expected = ErrOutOfBounds, "data_offsets", found, "at most 2^63-1"
		return e
	case end-begin != uint64(size):
		e.Kind, e.Field, e.Found = container.ErrSize, "data_offsets", fmt.Sprintf("%s: %d bytes", found, end-begin)
		e.Expected = fmt.Sprintf("%d bytes for shape %s of %s", size, container.Clip(fmt.Sprint(shape)), t.DType)
		return e
	}
	t.Offset, t.Size = int64(begin), size
	return nil
}

// numbers reads a flat array of unsigned integers.
func (p *parser) numbers(tensor, field string) ([]uint64, error) {
	if err := p.open('[', ErrField, tensor, field); err != nil {
		return nil, err
	}
	out := []uint64{}
	for p.dec.More() {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		number, ok := t.(json.Number)
		if !ok {
			return nil, p.unexpected(t, ErrField, tensor, field, "unsigned integers")
		}
		n, err := strconv.ParseUint(number.String(), 10, 64)
		if err != nil {
			return nil, p.unexpected(t, ErrField, tensor, field, "unsigned integers below 2^64")
		}
		out = append(out, n)
	}
	_, err := p.token()
	return out, err
}

// key reads an object key and refuses one that was there before.
func (p *parser) key(seen map[string]struct{}, where string) (string, error) {
	t, err := p.token()
	if err != nil {
		return "", err
	}
	name := t.(string) // the decoder accepts nothing else as a key
	if _, twice := seen[name]; twice {
		e := &container.Error{Kind: ErrDuplicateKey, Path: p.path, Tensor: where, Field: "key", Found: container.Quote(name) + " twice", Expected: "it once"}
		if where == "" {
			e.Tensor, e.Field = name, "header"
		}
		return "", e
	}
	seen[name] = struct{}{}
	return name, nil
}

// open reads the delimiter that starts an object or array.
func (p *parser) open(want json.Delim, kind error, tensor, field string) error {
	t, err := p.token()
	if err != nil {
		return err
	}
	if t == want {
		return nil
	}
	e := &container.Error{Kind: kind, Path: p.path, Tensor: tensor, Field: field, Found: container.Clip(fmt.Sprintf("%v", t)), Expected: "an object"}
	if want == '[' {
		e.Expected = "an array"
	}
	return e
}

// unexpected reports a token of the wrong type; where the token opens another
// object or array the complaint is about nesting.
func (p *parser) unexpected(t json.Token, kind error, tensor, field, expected string) error {
	if _, opens := t.(json.Delim); opens {
		kind = ErrNesting
	}
	return &container.Error{Kind: kind, Path: p.path, Tensor: tensor, Field: field, Found: container.Clip(fmt.Sprintf("%v", t)), Expected: expected}
}

func (p *parser) token() (json.Token, error) {
	if p.tokens++; p.tokens > maxTokens {
		return nil, &container.Error{Kind: ErrHeaderTooLarge, Path: p.path, Field: "header",
			Found: fmt.Sprintf("more JSON at byte %d", p.dec.InputOffset()), Expected: fmt.Sprintf("at most %d JSON tokens", maxTokens)}
	}
	t, err := p.dec.Token()
	if err != nil {
		return nil, &container.Error{Kind: ErrHeaderJSON, Path: p.path, Field: "header",
			Found: fmt.Sprintf("at byte %d: %v", p.dec.InputOffset(), err), Expected: "valid JSON"}
	}
	return t, nil
}
