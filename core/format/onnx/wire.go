package onnx

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/bitnet-rust/bitnet_rust/core/format/container"
	"github.com/bitnet-rust/bitnet_rust/core/format/protobuf"
)

// fields calls each with the fields of a message, which begins at byte at of
// the file.
func (p *parser) fields(message []byte, at int, each func(f field) error) error {
	return protobuf.Walk(message, at, p.broken, each)
}

type field = protobuf.Field

// message walks over a field that is a message itself.
func (p *parser) message(f field, each func(f field) error) error {
	if err := p.wants(f, protobuf.Bytes); err != nil {
		return err
	}
	return p.fields(f.Data, f.At, each)
}

// wants refuses a field of another wire type.
func (p *parser) wants(f field, wire int) error {
	if f.Wire != wire {
		return p.broken(f.At, fmt.Sprintf("field %d in wire type %d, not %d", f.Number, wire, f.Wire))
	}
	return nil
}

func (p *parser) integer(f field) (int64, error) {
	return int64(f.Value), p.wants(f, protobuf.Varint)
}

// text reads a name or another short text.
func (p *parser) text(f field, most int) (string, error) {
	if err := p.wants(f, protobuf.Bytes); err != nil {
		return "", err
	}
	if len(f.Data) > most || !utf8.Valid(f.Data) {
		return "", &container.Error{Kind: ErrText, Path: p.path, Field: fmt.Sprintf("byte %d", f.At),
			Found: container.Quote(string(f.Data[:min(len(f.Data), 256)])), Expected: fmt.Sprintf("at most %d bytes of UTF-8", most)}
	}
	return string(f.Data), nil
}

// integers appends a repeated integer, which is packed or one of several
// fields, to list.
func (p *parser) integers(f field, list []int64, most int) ([]int64, error) {
	if f.Wire == protobuf.Varint {
		list = append(list, int64(f.Value))
	} else if err := p.wants(f, protobuf.Bytes); err != nil {
		return nil, err
	}
	for data := f.Data; len(data) > 0; {
		v, n := binary.Uvarint(data)
		if n <= 0 {
			return nil, p.broken(f.At, "integers")
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
