// Package protobuf walks over messages of Google's protocol buffers, of which
// formats are made, without their schemas and without copies.
package protobuf

import (
	"encoding/binary"
	"fmt"
)

// Wire types. Groups (3 and 4) are of a version that no format read here used.
const (
	Varint  = 0 // an integer, seven bits a byte
	Fixed64 = 1 // eight bytes
	Bytes   = 2 // a length and so many bytes: texts, messages, lists
	Fixed32 = 5 // four bytes
)

// Field is one field of a message.
type Field struct {
	Number int    // of the schema
	Wire   int    // Varint to Fixed32
	Value  uint64 // of Varint
	Data   []byte // of Bytes; of the fixed ones their bytes
	At     int    // where Data begins, in bytes from the start of the file
}

// Walk calls each with the fields of a message, which begins at byte at of the
// file. Its error is that of each, or what broken makes of a place in the file
// and of what was expected there.
func Walk(message []byte, at int, broken func(at int, expected string) error, each func(f Field) error) error {
	for pos := 0; pos < len(message); {
		tag, n := binary.Uvarint(message[pos:])
		if n <= 0 {
			return broken(at+pos, "a tag")
		}
		pos += n
		f := Field{Number: int(min(tag>>3, 1<<30)), Wire: int(tag & 7), At: at + pos}
		switch f.Wire {
		case Varint:
			if f.Value, n = binary.Uvarint(message[pos:]); n <= 0 {
				return broken(at+pos, "an integer")
			}
			pos += n
		case Fixed64, Fixed32, Bytes:
			size := uint64(8)
			if f.Wire == Fixed32 {
				size = 4
			} else if f.Wire == Bytes {
				if size, n = binary.Uvarint(message[pos:]); n <= 0 {
					return broken(at+pos, "a length")
				}
				pos += n
			}
			if size > uint64(len(message)-pos) {
				return broken(at+pos, fmt.Sprintf("%d bytes before the message ends, not %d", size, len(message)-pos))
			}
			f.Data, f.At = message[pos:pos+int(size)], at+pos
			pos += int(size)
		default:
			return broken(at+pos, fmt.Sprintf("a field of another wire type than %d", f.Wire))
		}
		if f.Number == 0 {
			return broken(at+pos, "a field number")
		}
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}
