package train

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Order is that in which training sees a dataset's examples.
type Order string

// The orders.
const (
	OrderRandom     Order = "random"     // each drawn anew from all places, with Dataset.Draw
	OrderShuffled   Order = "shuffled"   // every example once an epoch, each epoch in another order
	OrderSequential Order = "sequential" // every example once an epoch, as they stand
)

// Orders lists them.
func Orders() []Order { return []Order{OrderRandom, OrderShuffled, OrderSequential} }

// Sampling says which examples an update of the weights sees.
type Sampling struct {
	BatchSize    int   // examples a forward pass
	Accumulation int   // forward passes an update
	Order        Order // "": the dataset's own
	// DropLast leaves out the examples at the end of an epoch that fill no whole update. Otherwise the last update has fewer.
	DropLast bool
	Seed     uint64 // of the order
}

// resolve checks s and fills in the order.
func (s Sampling) resolve(d Dataset) (Sampling, error) {
	if s.Order == "" {
		s.Order = d.Order()
	}
	switch {
	case s.BatchSize < 1:
		return s, fmt.Errorf("%w: batch_size = %d: expected at least 1", ErrConfig, s.BatchSize)
	case s.Accumulation < 1:
		return s, fmt.Errorf("%w: accumulation = %d: expected at least 1", ErrConfig, s.Accumulation)
	case s.BatchSize > math.MaxInt32/s.Accumulation:
		return s, fmt.Errorf("%w: batch_size = %d, accumulation = %d: expected at most %d examples an update", ErrConfig, s.BatchSize, s.Accumulation, math.MaxInt32)
	case !slices.Contains(Orders(), s.Order):
		return s, fmt.Errorf("%w: order = %q: expected one of %q", ErrConfig, s.Order, Orders())
	case s.DropLast && s.Order != OrderRandom && d.Len() < s.BatchSize*s.Accumulation:
		return s, fmt.Errorf("%w: drop_last = true leaves nothing of a dataset with %d examples: expected at least batch_size x accumulation = %d",
			ErrConfig, d.Len(), s.BatchSize*s.Accumulation)
	}
	return s, nil
}

// UpdatesPerEpoch is how many updates see each of n examples once.
func (s Sampling) UpdatesPerEpoch(n int) int {
	perUpdate := s.BatchSize * s.Accumulation
	if s.DropLast {
		return n / perUpdate
	}
	return (n + perUpdate - 1) / perUpdate
}

// Loader makes the batches of a run's updates, the next one's while an update is computed. What an update sees depends on the
// dataset, the sampling and its number alone. It serves one goroutine at a time.
type Loader struct {
	data     Dataset
	sampling Sampling

	epoch uint64
	order *permutation // of epoch; nil at first

	sets  [2][]Batch // one is being used, one being made
	turn  int
	ahead chan made // the update that is being made; nil: none
}

type made struct {
	step int
	set  []Batch
	err  error
}

// NewLoader checks the sampling. Whoever has called Next is to call Close.
func NewLoader(d Dataset, s Sampling) (*Loader, error) {
	s, err := s.resolve(d)
	if err != nil {
		return nil, err
	}
	return &Loader{data: d, sampling: s}, nil
}

// Next returns the batches of an update, counted from 0; they are valid until the next call. When more, the update after it is made
// in the background.
func (l *Loader) Next(ctx context.Context, step int, more bool) ([]Batch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := l.take()
	if m == nil || m.step != step || m.err != nil { // an error may have passed meanwhile
		m = &made{step: step, set: l.sets[l.turn]}
		m.set, m.err = l.update(m.set, step)
		l.sets[l.turn] = m.set
	}
	if m.err != nil {
		return nil, fmt.Errorf("step %d: %w", step+1, m.err)
	}
	l.turn = 1 - l.turn
	if more {
		l.start(step+1, l.sets[l.turn])
	}
	return m.set, nil
}

// Close waits for the background. The loader may be used again.
func (l *Loader) Close() { l.take() }

// start makes an update in the background.
func (l *Loader) start(step int, set []Batch) {
	ahead := make(chan made, 1)
	l.ahead = ahead
	go func() {
		m := made{step: step, set: set}
		defer func() {
			if r := recover(); r != nil {
				m.err = fmt.Errorf("train: making a batch: panic: %v\n%s", r, debug.Stack())
			}
			ahead <- m
		}()
		m.set, m.err = l.update(set, step)
	}()
}

// take waits for what is being made.
func (l *Loader) take() *made {
	if l.ahead == nil {
		return nil
	}
	m := <-l.ahead
	l.ahead = nil
	l.sets[l.turn] = m.set
	return &m
}

// update fills set, whose memory it uses again, with the batches of an update.
func (l *Loader) update(set []Batch, step int) ([]Batch, error) {
	s := l.sampling
	set = set[:0]
	if s.Order == OrderRandom {
		for i := range s.Accumulation {
			r := rand.New(rand.NewPCG(s.Seed, uint64(step*s.Accumulation+i)))
			b := another(&set)
			for k := range s.BatchSize {
				if err := l.data.Draw(b, r); err != nil {
					return set, err
				}
				if i == 0 && k == 0 {
					if err := s.fits(len(b.IDs)); err != nil {
						return set, err
					}
				}
			}
		}
		return set, nil
	}
	n := l.data.Len()
	updates := s.UpdatesPerEpoch(n)
	place := l.places(uint64(step/updates), n)
	first := step % updates * s.BatchSize * s.Accumulation
	end := min(n, first+s.BatchSize*s.Accumulation)
	for ; first < end; first += s.BatchSize {
		b := another(&set)
		for i := first; i < min(end, first+s.BatchSize); i++ {
			if err := l.data.Example(b, place(i)); err != nil {
				return set, err
			}
		}
	}
	return set, nil
}

// fits refuses updates that the memory budget cannot hold, whose examples have so many tokens. Those of a dataset in order cannot be:
// they are in memory.
func (s Sampling) fits(tokens int) error {
	const (
		activations = 256   // bytes a token needs in a forward and backward pass, whatever the model: there are more
		ids         = 2 * 8 // its id and target, in the update that is used and in the one that is made
	)
	bytes := float64(tokens) * float64(s.BatchSize) * (activations + float64(ids*float64(s.Accumulation)))
	return pool.Default().Check(int64(min(bytes, 1<<62)), fmt.Sprintf("batch_size = %d and accumulation = %d", s.BatchSize, s.Accumulation))
}

// another appends an empty batch, one with memory if there is one beyond the end.
func another(set *[]Batch) *Batch {
	n := len(*set)
	if n < cap(*set) {
		*set = (*set)[:n+1]
	} else {
		*set = append(*set, Batch{})
	}
	b := &(*set)[n]
	b.reset()
	return b
}

// places gives the order of an epoch's n examples.
func (l *Loader) places(epoch uint64, n int) func(int) int {
	if l.sampling.Order == OrderSequential {
		return func(i int) int { return i }
	}
	if l.order == nil || l.epoch != epoch {
		l.order, l.epoch = newPermutation(n, l.sampling.Seed, epoch), epoch
	}
	return l.order.at
}
