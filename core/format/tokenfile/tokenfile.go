// Package tokenfile reads and writes files of token ids: texts that were
// tokenized once and may be far larger than memory.
//
// Three kinds are read. Our own, which Create makes, is a header of 64 bytes
// and the ids, all little-endian:
//
//	bytes  0-7   "BNTOKENS"
//	       8-11  version, uint32: 1
//	      12-15  bytes of an id, uint32: 2 (uint16) or 4 (uint32)
//	      16-23  number of ids, uint64
//	      24-27  the largest id, uint32
//	      28-31  CRC-32C of the ids' bytes
//	      32-35  the id that ends a document, int32; -1: none
//	      36-39  size of the vocabulary, uint32; 0: not known
//	      40-59  zero
//	      60-63  CRC-32C of bytes 0-59
//
// The others are NumPy's .npy with one dimension, and bare ids without a header,
// as nanoGPT's prepare scripts write, whose dtype the caller has to know.
//
// Ids are read from the file where they are needed, one system call a window.
// That is as fast as a mapping (the pages are the same), and a file that is
// cut short or a disk that fails is an error then and not a memory fault; the
// process does not grow with the file.
package tokenfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"github.com/bitnet-rust/bitnet_rust/core/format/npz"
)

// Version is the version of the files that Create makes, the highest that Open takes.
const Version = 1

const (
	magic      = "BNTOKENS"
	headerSize = 64
)

// Errors, wrapped in messages that name the file, found and expected.
var (
	ErrFormat = errors.New("malformed token file")
	ErrDType  = errors.New("dtype of a token file")
	ErrID     = errors.New("token id out of range")
	ErrClosed = errors.New("token file is closed")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// dtypes are the types that ids may have, by NumPy's name, with their width.
var dtypes = map[string]int{"uint8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8, "int64": 8}

// DTypes lists them.
func DTypes() []string {
	return []string{"uint8", "uint16", "int16", "uint32", "int32", "uint64", "int64"}
}

// Info is what a file says of itself.
type Info struct {
	Kind      string `json:"kind"`       // "bitnet", "npy" or "bare"
	DType     string `json:"dtype"`      // NumPy's name
	Tokens    int    `json:"tokens"`     // how many
	Separator int32  `json:"separator"`  // ends a document; -1: none, or not known
	VocabSize int    `json:"vocab_size"` // 0: not known
	MaxID     int64  `json:"max_id"`     // largest id; -1: not known
}

// Options are what a bare file does not say, and which of a file's ids to take.
type Options struct {
	DType  string // of a bare file; others need none
	Offset int64  // bytes before the ids of a bare file
	First  int    // ids to pass over
	Tokens int    // ids to take; 0: all that follow
	Vocab  int    // ids are below it; 0: 2^31
}

// File is an open file of token ids. Its methods may be called from several
// goroutines at a time.
type File struct {
	Info
	path   string
	file   *os.File
	start  int64 // of the ids
	width  int
	vocab  int
	stored string // checksum in the header, "" if there is none
	part   string // which ids were taken, "" for all
}

// Open opens a file and checks its header against its size. When the header
// has the largest id that is checked too; otherwise every id is when it is read.
func Open(path string, o Options) (_ *File, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("tokenfile: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close() // the first error says more
		}
	}()
	stat, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("tokenfile: %w", err)
	}
	if !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s: found %v, expected a regular file", ErrFormat, path, stat.Mode().Type())
	}
	f := &File{path: path, file: file, vocab: o.Vocab, Info: Info{Separator: -1, MaxID: -1}}
	if f.vocab <= 0 || f.vocab > 1<<31 {
		f.vocab = 1 << 31
	}
	var first [8]byte
	if _, err := file.ReadAt(first[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("tokenfile: %w", err)
	}
	switch {
	case string(first[:]) == magic:
		err = f.readHeader(stat.Size())
	case string(first[:6]) == npz.Magic:
		err = f.readNPY(stat.Size())
	default:
		err = f.readBare(stat.Size(), o)
	}
	if err != nil {
		return nil, err
	}
	if err := f.take(o); err != nil {
		return nil, err
	}
	if f.MaxID >= int64(f.vocab) {
		return nil, fmt.Errorf("%w: %s: its largest id is %d: expected 0 <= id < vocab_size = %d", ErrID, path, f.MaxID, f.vocab)
	}
	return f, nil
}

func (f *File) wrong(field, found, expected string) error {
	return fmt.Errorf("%w: %s: %s: found %s, expected %s", ErrFormat, f.path, field, found, expected)
}

func (f *File) readHeader(size int64) error {
	var h [headerSize]byte
	if _, err := f.file.ReadAt(h[:], 0); err != nil {
		return f.wrong("header", fmt.Sprintf("%d bytes", size), fmt.Sprintf("%d", headerSize))
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(h[at:]) }
	if found, want := crc32.Checksum(h[:60], castagnoli), u32(60); found != want {
		return f.wrong("header's crc32c", fmt.Sprintf("%08x", found), fmt.Sprintf("%08x", want))
	}
	if v := u32(8); v != Version {
		return f.wrong("version", fmt.Sprint(v), fmt.Sprintf("%d (a newer bitnet_rust wrote the file)", Version))
	}
	switch w := u32(12); w {
	case 2:
		f.DType = "uint16"
	case 4:
		f.DType = "uint32"
	default:
		return f.wrong("bytes of an id", fmt.Sprint(w), "2 or 4")
	}
	f.Kind, f.width, f.start = "bitnet", dtypes[f.DType], headerSize
	if n := binary.LittleEndian.Uint64(h[16:]); n != uint64(size-headerSize)/uint64(f.width) || (size-headerSize)%int64(f.width) != 0 {
		return f.wrong("size", fmt.Sprintf("%d bytes", size), fmt.Sprintf("a header of %d and %d ids of %d", headerSize, n, f.width))
	}
	f.Tokens = int(size-headerSize) / f.width
	f.Separator, f.VocabSize, f.MaxID = int32(u32(32)), int(u32(36)), int64(u32(24))
	f.stored = fmt.Sprintf("%08x", u32(28))
	return nil
}

func (f *File) readNPY(size int64) error {
	h, err := npz.ReadHeader(io.NewSectionReader(f.file, 0, size))
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrFormat, f.path, err)
	}
	width, ok := dtypes[h.DType]
	switch {
	case !ok || h.BigEndian && width > 1:
		order := ""
		if h.BigEndian {
			order = "big-endian "
		}
		return fmt.Errorf("%w: %s: found %s%s, expected little-endian %v", ErrDType, f.path, order, h.DType, DTypes())
	case len(h.Shape) != 1:
		return f.wrong("shape", fmt.Sprint(h.Shape), "one dimension")
	case size-h.Size != int64(h.Shape[0])*int64(width):
		return f.wrong("size", fmt.Sprintf("%d data bytes", size-h.Size), fmt.Sprintf("%d ids of %d", h.Shape[0], width))
	}
	f.Kind, f.DType, f.width, f.start, f.Tokens = "npy", h.DType, width, h.Size, h.Shape[0]
	return nil
}

func (f *File) readBare(size int64, o Options) error {
	width, ok := dtypes[o.DType]
	switch {
	case o.DType == "":
		return fmt.Errorf("%w: %s has no header: say which dtype its ids have, such as \"uint16\" for nanoGPT's files", ErrDType, f.path)
	case !ok:
		return fmt.Errorf("%w: found %q, expected one of %q", ErrDType, o.DType, DTypes())
	case o.Offset < 0 || o.Offset > size:
		return f.wrong("offset", fmt.Sprint(o.Offset), fmt.Sprintf("0 to %d, the file's size", size))
	case o.Tokens == 0 && (size-o.Offset)%int64(width) != 0: // who says how many takes what is before the rest
		return f.wrong("size", fmt.Sprintf("%d bytes", size-o.Offset), fmt.Sprintf("a multiple of %d, the width of %s", width, o.DType))
	}
	f.Kind, f.DType, f.width, f.start, f.Tokens = "bare", o.DType, width, o.Offset, int(size-o.Offset)/width
	return nil
}

// take narrows the file to the ids that are wanted.
func (f *File) take(o Options) error {
	switch {
	case o.First < 0 || o.First > f.Tokens:
		return f.wrong("first", fmt.Sprint(o.First), fmt.Sprintf("0 to %d, what the file has", f.Tokens))
	case o.Tokens < 0 || o.Tokens > f.Tokens-o.First:
		return f.wrong("tokens", fmt.Sprint(o.Tokens), fmt.Sprintf("0 to %d, what the file has", f.Tokens-o.First))
	}
	n := o.Tokens
	if n == 0 {
		n = f.Tokens - o.First
	}
	if n < f.Tokens {
		f.part = fmt.Sprintf(" %d+%d", o.First, n)
	}
	f.start += int64(o.First) * int64(f.width)
	f.Tokens = n
	return nil
}

// Path is the file's.
func (f *File) Path() string { return f.path }

// Len is the number of ids.
func (f *File) Len() int { return f.Tokens }

// Close closes the file. Later reads fail with ErrClosed.
func (f *File) Close() error { return f.file.Close() }

// pieceIDs is how many ids are read at a time.
const pieceIDs = 4096

var pieces = sync.Pool{New: func() any { return new([8 * pieceIDs]byte) }}

// ReadIDs fills dst with the ids from position at on, all of which must be there, and checks each.
func (f *File) ReadIDs(dst []int32, at int) error {
	if at < 0 || at > f.Tokens-len(dst) {
		return fmt.Errorf("tokenfile: %s: ids %d to %d: expected positions in 0 to %d", f.path, at, at+len(dst), f.Tokens)
	}
	buf := pieces.Get().(*[8 * pieceIDs]byte)
	defer pieces.Put(buf)
	for len(dst) > 0 {
		n := min(pieceIDs, len(dst))
		raw := buf[:n*f.width]
		if _, err := f.file.ReadAt(raw, f.start+int64(at)*int64(f.width)); err != nil {
			return f.failure(err, at)
		}
		if err := f.decode(dst[:n], raw, at); err != nil {
			return err
		}
		dst, at = dst[n:], at+n
	}
	return nil
}

func (f *File) failure(err error, at int) error {
	switch {
	case errors.Is(err, os.ErrClosed):
		return fmt.Errorf("%w: %s", ErrClosed, f.path)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %s: it ends before id %d: expected the %d ids that it had when it was opened", ErrFormat, f.path, at, f.Tokens)
	}
	return fmt.Errorf("tokenfile: %s: id %d: %w", f.path, at, err)
}

// decode turns bytes into ids; the first of them is id number at of the file.
func (f *File) decode(dst []int32, raw []byte, at int) error {
	le := binary.LittleEndian
	for i := range dst {
		var id int64
		switch f.DType {
		case "uint8":
			id = int64(raw[i])
		case "uint16":
			id = int64(le.Uint16(raw[2*i:]))
		case "int16":
			id = int64(int16(le.Uint16(raw[2*i:])))
		case "uint32":
			id = int64(le.Uint32(raw[4*i:]))
		case "int32":
			id = int64(int32(le.Uint32(raw[4*i:])))
		default:
			id = int64(le.Uint64(raw[8*i:])) // of uint64, 2^63 and up are negative: no ids either
		}
		if id < 0 || id >= int64(f.vocab) {
			return fmt.Errorf("%w: %s: id %d is %d: expected 0 <= id < vocab_size = %d", ErrID, f.path, at+i, id, f.vocab)
		}
		dst[i] = int32(id)
	}
	return nil
}

// A fingerprint reads whole files up to samples x sampleBytes, and of larger ones as many pieces spread evenly.
const (
	samples     = 64
	sampleBytes = 64 << 10
)

// Fingerprint tells this file's ids from others: the checksum in its header, or one of at most 4 MiB of the file and its size.
func (f *File) Fingerprint() (string, error) {
	if f.stored != "" {
		return f.stored + f.part, nil
	}
	size := int64(f.Tokens) * int64(f.width)
	sum := crc32.Update(0, castagnoli, binary.LittleEndian.AppendUint64([]byte(f.DType), uint64(size)))
	buf := make([]byte, sampleBytes)
	for _, at := range samplePlaces(size) {
		n, err := f.file.ReadAt(buf[:min(sampleBytes, size-at)], f.start+at)
		if err != nil {
			return "", f.failure(err, int(at+int64(n))/f.width)
		}
		sum = crc32.Update(sum, castagnoli, buf[:n])
	}
	return fmt.Sprintf("%08x", sum), nil
}

// samplePlaces are where a fingerprint reads.
func samplePlaces(size int64) (places []int64) {
	if size <= samples*sampleBytes {
		for at := int64(0); at < size; at += sampleBytes {
			places = append(places, at)
		}
		return places
	}
	for i := range int64(samples) {
		places = append(places, (size-sampleBytes)*i/(samples-1)) // the first and the last piece among them
	}
	return places
}

// Verify reads all ids, checks each, and compares the checksum of a whole file with the header's.
func (f *File) Verify() error {
	ids, sum := make([]int32, pieceIDs), uint32(0)
	raw := make([]byte, pieceIDs*f.width)
	for at := 0; at < f.Tokens; at += pieceIDs {
		n := min(pieceIDs, f.Tokens-at)
		if _, err := f.file.ReadAt(raw[:n*f.width], f.start+int64(at)*int64(f.width)); err != nil {
			return f.failure(err, at)
		}
		if err := f.decode(ids[:n], raw, at); err != nil {
			return err
		}
		sum = crc32.Update(sum, castagnoli, raw[:n*f.width])
	}
	if found := fmt.Sprintf("%08x", sum); f.stored != "" && f.part == "" && found != f.stored {
		return f.wrong("crc32c", found, f.stored)
	}
	return nil
}
