package onnx

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
)

// Wire types of protobuf. Groups (3 and 4) are of a version that ONNX never
// used.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// field is one field of a message.
type field struct {
	number int
	wire   int
	value  uint64 // of wireVarint
	data   []byte // of wireBytes; of the fixed ones their bytes
	at     int    // where data begins, in bytes from the start of the file
}

// fields calls each with the fields of a message, which begins at byte at of
// the file.
func (p *parser) fields(message []byte, at int, each func(f field) error) error {
	for pos := 0; pos < len(message); {
		tag, n := binary.Uvarint(message[pos:])
		if n <= 0 {
			return p.broken(at+pos, "a tag")
		}
		pos += n
		f := field{number: int(min(tag>>3, 1<<30)), wire: int(tag & 7), at: at + pos}
		switch f.wire {
		case wireVarint:
			if f.value, n = binary.Uvarint(message[pos:]); n <= 0 {
				return p.broken(at+pos, "an integer")
			}
			pos += n
		case wireFixed64, wireFixed32, wireBytes:
			size := uint64(8)
			if f.wire == wireFixed32 {
				size = 4
			} else if f.wire == wireBytes {
				if size, n = binary.Uvarint(message[pos:]); n <= 0 {
					return p.broken(at+pos, "a length")
				}
				pos += n
			}
			if size > uint64(len(message)-pos) {
				return p.broken(at+pos, fmt.Sprintf("%d bytes before the message ends, not %d", size, len(message)-pos))
			}
			f.data, f.at = message[pos:pos+int(size)], at+pos
			pos += int(size)
		default:
			return p.broken(at+pos, fmt.Sprintf("a field of another wire type than %d", f.wire))
		}
		if f.number == 0 {
			return p.broken(at+pos, "a field number")
		}
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}

// message walks over a field that is a message itself.
func (p *parser) message(f field, each func(f field) error) error {
	if err := p.wants(f, wireBytes); err != nil {
		return err
	}
	return p.fields(f.data, f.at, each)
}

// wants refuses a field of another wire type.
func (p *parser) wants(f field, wire int) error {
	if f.wire != wire {
		return p.broken(f.at, fmt.Sprintf("field %d in wire type %d, not %d", f.number, wire, f.wire))
	}
	return nil
}

func (p *parser) integer(f field) (int64, error) {
	return int64(f.value), p.wants(f, wireVarint)
}

// text reads a name or another short text.
func (p *parser) text(f field, most int) (string, error) {
	if err := p.wants(f, wireBytes); err != nil {
		return "", err
	}
	if len(f.data) > most || !utf8.Valid(f.data) {
		return "", &container.Error{Kind: ErrText, Path: p.path, Field: fmt.Sprintf("byte %d", f.at),
			Found: container.Quote(string(f.data[:min(len(f.data), 256)])), Expected: fmt.Sprintf("at most %d bytes of UTF-8", most)}
	}
	return string(f.data), nil
}

// integers appends a repeated integer, which is packed or one of several
// fields, to list.
func (p *parser) integers(f field, list []int64, most int) ([]int64, error) {
	if f.wire == wireVarint {
		list = append(list, int64(f.value))
	} else if err := p.wants(f, wireBytes); err != nil {
		return nil, err
	}
	for data := f.data; len(data) > 0; {
		v, n := binary.Uvarint(data)
		if n <= 0 {
			return nil, p.broken(f.at, "integers")
		}
		list, data = append(list, int64(v)), data[n:]
		if len(list) > most {
			break
		}
	}
	if len(list) > most {
		return nil, p.tooMany("list", most)
	}
	return list, nil
}

func (p *parser) broken(at int, expected string) error {
	return &container.Error{Kind: ErrMessage, Path: p.path, Field: fmt.Sprintf("byte %d", at), Expected: expected}
}

func (p *parser) tooMany(what string, most int) error {
	return &container.Error{Kind: ErrCount, Path: p.path, Field: what, Found: fmt.Sprintf("more than %d", most), Expected: "fewer"}
}
