package train

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Batch is sequences of tokens, one after the other; they do not see each other. They may differ in length, which costs nothing:
// there is no padding.
type Batch struct {
	IDs     []int32 // the sequences' token ids
	Targets []int32 // as many: what should follow each, or nn.IgnoreTarget
	Length  int     // of every sequence, when Lengths is empty
	Lengths []int   // of each sequence
}

// CountTargets is how many positions count in the batch's loss.
func (b *Batch) CountTargets() (n int) {
	for _, t := range b.Targets {
		if t != nn.IgnoreTarget {
			n++
		}
	}
	return n
}

func (b *Batch) reset() {
	b.IDs, b.Targets, b.Lengths, b.Length = b.IDs[:0], b.Targets[:0], b.Lengths[:0], 0
}

// Dataset is examples that a model is trained or evaluated on. Its methods may be called from several goroutines at a time.
type Dataset interface {
	// Len is how many examples there are in order: at least one.
	Len() int
	// Example appends example i, 0 <= i < Len(), to b.
	Example(b *Batch, i int) error
	// Draw appends an example chosen with r: of a stream a window that may start at any token.
	Draw(b *Batch, r *rand.Rand) error
	// Order is that in which training sees the examples when its configuration does not say.
	Order() Order
	// Identity tells this dataset from others, for checkpoints.
	Identity() (Identity, error)
}

// Identity is what a checkpoint notes of a dataset.
type Identity struct {
	Kind      string `json:"kind"`                // "stream" or "examples"
	Examples  int    `json:"examples"`            // how many an epoch has
	Tokens    int    `json:"tokens"`              // in all of them
	Length    int    `json:"length"`              // the most tokens of an example
	Separator *int32 `json:"separator,omitempty"` // that ends a document; nil: documents are not kept apart
	Packed    bool   `json:"packed,omitempty"`    // examples were put together
	CRC32C    string `json:"crc32c"`              // of the ids, int32 little-endian, or what a file says of itself
}

// TokenSource is a long sequence of token ids. Its methods may be called from several goroutines at a time.
type TokenSource interface {
	// Len is how many ids there are.
	Len() int
	// ReadIDs fills dst with the ids from position at on, all of which are there.
	ReadIDs(dst []int32, at int) error
	// Fingerprint tells this source from others without reading more than a few megabytes of it.
	Fingerprint() (string, error)
}

// IDs is a TokenSource in memory.
type IDs []int32

// Len implements TokenSource.
func (s IDs) Len() int { return len(s) }

// ReadIDs implements TokenSource.
func (s IDs) ReadIDs(dst []int32, at int) error {
	copy(dst, s[at:])
	return nil
}

// Fingerprint is the checksum of all ids.
func (s IDs) Fingerprint() (string, error) { return idsChecksum(s), nil }

func idsChecksum(parts ...[]int32) string {
	sum := uint32(0)
	for _, p := range parts {
		sum = crc32.Update(sum, crc32.MakeTable(crc32.Castagnoli), pool.BytesOf(p))
	}
	return fmt.Sprintf("%08x", sum)
}

// Tokens is a text as a stream of token ids, cut into windows. It is a Dataset.
type Tokens struct {
	source    TokenSource
	length    int
	separator *int32
}

// NewTokens cuts ids into windows of length tokens, each with the token that follows it as its last target.
func NewTokens(ids []int32, length int) (*Tokens, error) { return NewStream(IDs(ids), length, nil) }

// NewStream is NewTokens of any source. With a separator, the token that ends a document, the documents in a window do not see each
// other: each is a sequence of its own with positions from 0, and what follows a separator is no target.
func NewStream(source TokenSource, length int, separator *int32) (*Tokens, error) {
	if n := source.Len(); length < 1 || n <= length {
		return nil, fmt.Errorf("%w: %d tokens with windows of %d: expected at least one window and the token after it", ErrBatch, n, length)
	}
	return &Tokens{source, length, separator}, nil
}

// Len is how many windows lie one behind the other in the text.
func (t *Tokens) Len() int { return (t.source.Len() - 1) / t.length }

// Example appends window i of those.
func (t *Tokens) Example(b *Batch, i int) error { return t.add(b, i*t.length) }

// Draw appends a window at a random place.
func (t *Tokens) Draw(b *Batch, r *rand.Rand) error { return t.add(b, r.IntN(t.source.Len()-t.length)) }

// Order is OrderRandom.
func (t *Tokens) Order() Order { return OrderRandom }

// Identity implements Dataset.
func (t *Tokens) Identity() (Identity, error) {
	print, err := t.source.Fingerprint()
	return Identity{Kind: "stream", Examples: t.Len(), Tokens: t.source.Len(), Length: t.length, Separator: t.separator, CRC32C: print}, err
}

func (t *Tokens) add(b *Batch, at int) error {
	first := len(b.IDs)
	b.IDs = append(b.IDs, make([]int32, t.length+1)...)
	window := b.IDs[first:]
	if err := t.source.ReadIDs(window, at); err != nil {
		b.IDs = b.IDs[:first]
		return err
	}
	b.Targets = append(b.Targets, window[1:]...)
	b.IDs = b.IDs[:first+t.length]
	if t.separator == nil {
		b.Lengths = append(b.Lengths, t.length)
		return nil
	}
	start := 0
	for i, id := range window[:t.length] {
		if id == *t.separator {
			b.Targets[first+i] = nn.IgnoreTarget
		}
		if id == *t.separator || i == t.length-1 {
			b.Lengths = append(b.Lengths, i+1-start)
			start = i + 1
		}
	}
	return nil
}
