package train

import (
	"fmt"
	"math/rand/v2"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// Examples is sequences of tokens, each an example by itself. It is a Dataset.
type Examples struct {
	ids, targets []int32
	spans        []exampleSpan
	groups       []int // group i is spans[groups[i]:groups[i+1]]
	length       int
	packed       bool

	// Truncated is how many examples were longer than the context, Skipped how many had no target and are left out.
	Truncated, Skipped int
}

// exampleSpan is where an example's inputs lie.
type exampleSpan struct{ from, to int }

// ExamplesConfig describes the sequences of NewExamples.
type ExamplesConfig struct {
	IDs []int32 // of all examples, one after the other
	// Targets are what should follow each id, or nn.IgnoreTarget; nil: the next id of the example, whose last id is then a target only.
	Targets []int32
	Lengths []int // of the examples; their sum is len(IDs)
	// Length is the most tokens of an example that the model reads; what is beyond is cut off.
	Length int
	// Pack puts as many whole neighbors together as fit Length. They count as one example, and do not see each other.
	Pack bool
}

// NewExamples makes a dataset of sequences. It keeps the slices.
func NewExamples(c ExamplesConfig) (*Examples, error) {
	if c.Length < 1 {
		return nil, fmt.Errorf("%w: length %d: expected at least 1", ErrBatch, c.Length)
	}
	if c.Targets != nil && len(c.Targets) != len(c.IDs) {
		return nil, fmt.Errorf("%w: %d targets for %d ids", ErrBatch, len(c.Targets), len(c.IDs))
	}
	e := &Examples{ids: c.IDs, targets: c.Targets, length: c.Length, packed: c.Pack}
	at := 0
	for i, n := range c.Lengths {
		if n < 0 || n > len(c.IDs)-at {
			return nil, fmt.Errorf("%w: lengths[%d] = %d: the lengths must sum to the %d ids", ErrBatch, i, n, len(c.IDs))
		}
		e.note(at, n)
		at += n
	}
	if at != len(c.IDs) {
		return nil, fmt.Errorf("%w: lengths: they sum to %d, there are %d ids", ErrBatch, at, len(c.IDs))
	}
	if len(e.spans) == 0 {
		return nil, fmt.Errorf("%w: %d examples, none with a target: expected at least one", ErrBatch, len(c.Lengths))
	}
	e.group()
	return e, nil
}

// note adds the example of n ids from at on, unless it has no target.
func (e *Examples) note(at, n int) {
	inputs := n
	if e.targets == nil {
		inputs = n - 1
	}
	if inputs > e.length {
		inputs = e.length
		e.Truncated++
	}
	counts := e.targets == nil && inputs > 0
	for i := at; i < at+inputs && !counts; i++ {
		counts = e.targets[i] != nn.IgnoreTarget
	}
	if !counts {
		e.Skipped++
		return
	}
	e.spans = append(e.spans, exampleSpan{at, at + inputs})
}

func (e *Examples) group() {
	sum := 0
	for i, s := range e.spans {
		n := s.to - s.from
		if !e.packed || i == 0 || sum+n > e.length {
			e.groups = append(e.groups, i)
			sum = 0
		}
		sum += n
	}
	e.groups = append(e.groups, len(e.spans))
}

// Len is how many examples there are, those put together counted as one.
func (e *Examples) Len() int { return len(e.groups) - 1 }

// Example implements Dataset.
func (e *Examples) Example(b *Batch, i int) error {
	for _, s := range e.spans[e.groups[i]:e.groups[i+1]] {
		b.IDs = append(b.IDs, e.ids[s.from:s.to]...)
		if e.targets == nil {
			b.Targets = append(b.Targets, e.ids[s.from+1:s.to+1]...)
		} else {
			b.Targets = append(b.Targets, e.targets[s.from:s.to]...)
		}
		b.Lengths = append(b.Lengths, s.to-s.from)
	}
	return nil
}

// Draw appends any of the examples.
func (e *Examples) Draw(b *Batch, r *rand.Rand) error { return e.Example(b, r.IntN(e.Len())) }

// Order is OrderShuffled.
func (e *Examples) Order() Order { return OrderShuffled }

// Identity implements Dataset.
func (e *Examples) Identity() (Identity, error) {
	lengths := make([]int32, 0, len(e.spans))
	for _, s := range e.spans {
		lengths = append(lengths, int32(s.to-s.from))
	}
	return Identity{
		Kind: "examples", Examples: e.Len(), Tokens: len(e.ids), Length: e.length, Packed: e.packed,
		CRC32C: idsChecksum(e.ids, e.targets, lengths),
	}, nil
}
