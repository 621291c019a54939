package tokenfile

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/bitnet-rust/bitnet_rust/core/format/atomicfile"
)

// Writer writes a token file piece by piece. The file appears with Commit, complete.
type Writer struct {
	path      string
	file      *atomicfile.File
	out       *bufio.Writer
	vocab     int
	separator int32
	width     int
	count     uint64
	max       uint32
	sum       uint32
	raw       []byte
}

// Create begins a token file. Its ids are below vocab and stored as uint16 where that suffices; separator is the id that ends a document,
// -1 if there is none. Whoever has a Writer calls Commit or Abort.
func Create(path string, vocab int, separator int32) (*Writer, error) {
	if vocab < 1 || vocab > 1<<31 {
		return nil, fmt.Errorf("%w: vocab_size = %d: expected 1 to 2^31", ErrID, vocab)
	}
	if separator < -1 || int(separator) >= vocab {
		return nil, fmt.Errorf("%w: separator = %d: expected -1 or an id below vocab_size = %d", ErrID, separator, vocab)
	}
	file, err := atomicfile.Create(path)
	if err != nil {
		return nil, err
	}
	w := &Writer{path: path, file: file, out: bufio.NewWriterSize(file, 1<<20), vocab: vocab, separator: separator, width: 2}
	if vocab > 1<<16 {
		w.width = 4
	}
	if _, err := w.out.Write(make([]byte, headerSize)); err != nil { // the header comes last
		w.Abort()
		return nil, fmt.Errorf("tokenfile: %s: %w", path, err)
	}
	return w, nil
}

// Count is how many ids were written.
func (w *Writer) Count() int { return int(w.count) }

// Write appends ids.
func (w *Writer) Write(ids []int32) error {
	w.raw = w.raw[:0]
	for i, id := range ids {
		if id < 0 || int(id) >= w.vocab {
			return fmt.Errorf("%w: id %d of %s is %d: expected 0 <= id < vocab_size = %d", ErrID, w.count+uint64(i), w.path, id, w.vocab)
		}
		w.max = max(w.max, uint32(id))
		if w.width == 2 {
			w.raw = binary.LittleEndian.AppendUint16(w.raw, uint16(id))
		} else {
			w.raw = binary.LittleEndian.AppendUint32(w.raw, uint32(id))
		}
	}
	w.sum = crc32.Update(w.sum, castagnoli, w.raw)
	w.count += uint64(len(ids))
	if _, err := w.out.Write(w.raw); err != nil {
		return fmt.Errorf("tokenfile: %s: %w", w.path, err)
	}
	return nil
}

// Commit completes the file and gives it its name.
func (w *Writer) Commit() error {
	defer w.Abort()
	if err := w.out.Flush(); err != nil {
		return fmt.Errorf("tokenfile: %s: %w", w.path, err)
	}
	if _, err := w.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("tokenfile: %s: %w", w.path, err)
	}
	if _, err := w.file.Write(w.header()); err != nil {
		return fmt.Errorf("tokenfile: %s: %w", w.path, err)
	}
	return w.file.Commit()
}

func (w *Writer) header() []byte {
	le := binary.LittleEndian
	h := append(make([]byte, 0, headerSize), magic...)
	h = le.AppendUint32(h, Version)
	h = le.AppendUint32(h, uint32(w.width))
	h = le.AppendUint64(h, w.count)
	h = le.AppendUint32(h, w.max)
	h = le.AppendUint32(h, w.sum)
	h = le.AppendUint32(h, uint32(w.separator))
	h = le.AppendUint32(h, uint32(w.vocab))
	h = h[:60]
	return le.AppendUint32(h, crc32.Checksum(h, castagnoli))
}

// Abort gives up what is not committed.
func (w *Writer) Abort() { w.file.Abort() }
