package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bitnet-rust/bitnet_rust/core/pool"
	"go.uber.org/goleak"

	"github.com/bitnet-rust/bitnet_rust/core/nn"
)

// The kernels' workers belong to the process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/bitnet-rust/bitnet_rust/accel/cpu.(*workPool).work"))
}

// numbered is n examples of three tokens that say which example they are.
func numbered(t *testing.T, n int) *Examples {
	t.Helper()
	c := ExamplesConfig{Length: 8}
	for i := range int32(n) {
		c.IDs = append(c.IDs, i, i, i)
		c.Lengths = append(c.Lengths, 3)
	}
	e, err := NewExamples(c)
	require.NoError(t, err)
	return e
}

// seen lists the examples of each batch of an update.
func seen(set []Batch) (all [][]int32) {
	for _, b := range set {
		var ids []int32
		for at, s := 0, 0; s < len(b.Lengths); s++ {
			ids = append(ids, b.IDs[at])
			at += b.Lengths[s]
		}
		all = append(all, ids)
	}
	return all
}

func next(t *testing.T, l *Loader, step int, more bool) [][]int32 {
	t.Helper()
	set, err := l.Next(context.Background(), step, more)
	require.NoError(t, err)
	return seen(set)
}

func TestTheLastUpdateOfAnEpochHasWhatIsLeft(t *testing.T) {
	l, err := NewLoader(numbered(t, 7), Sampling{BatchSize: 2, Accumulation: 2, Order: OrderSequential})
	require.NoError(t, err)
	require.Equal(t, 2, l.sampling.UpdatesPerEpoch(7))
	for range 2 { // epochs
		require.Equal(t, [][]int32{{0, 1}, {2, 3}}, next(t, l, 0, false))
		require.Equal(t, [][]int32{{4, 5}, {6}}, next(t, l, 1, false))
	}
	require.Equal(t, [][]int32{{0, 1}, {2, 3}}, next(t, l, 2, false))

	l, err = NewLoader(numbered(t, 7), Sampling{BatchSize: 2, Accumulation: 1, Order: OrderSequential, DropLast: true})
	require.NoError(t, err)
	require.Equal(t, [][]int32{{4, 5}}, next(t, l, 2, false))
	require.Equal(t, [][]int32{{0, 1}}, next(t, l, 3, false), "the seventh is left out")
}

func TestShuffledEpochsSeeEveryExampleOnce(t *testing.T) {
	l, err := NewLoader(numbered(t, 23), Sampling{BatchSize: 3, Accumulation: 2, Seed: 9})
	require.NoError(t, err)
	require.Equal(t, OrderShuffled, l.sampling.Order, "the order of examples when nothing is said")
	var epochs [2][]int32
	for e := range epochs {
		for u := range 4 {
			for _, b := range next(t, l, 4*e+u, true) {
				epochs[e] = append(epochs[e], b...)
			}
		}
	}
	l.Close()
	require.NotEqual(t, epochs[0], epochs[1])
	for _, e := range epochs {
		slices.Sort(e)
		for i, id := range e {
			require.Equal(t, int32(i), id)
		}
	}
}

// An update is a function of seed and number: made ahead or at once, after its predecessor or out of turn.
func TestPrefetchChangesNothing(t *testing.T) {
	text := make([]int32, 500)
	for i := range text {
		text[i] = int32(i)
	}
	stream, err := NewTokens(text, 16)
	require.NoError(t, err)
	for _, d := range []Dataset{stream, numbered(t, 11)} {
		for _, order := range Orders() {
			s := Sampling{BatchSize: 3, Accumulation: 2, Order: order, Seed: 5}
			ahead, err := NewLoader(d, s)
			require.NoError(t, err)
			for _, step := range []int{0, 1, 2, 3, 30, 31, 2, 4} {
				fresh, err := NewLoader(d, s)
				require.NoError(t, err)
				want, err := fresh.Next(context.Background(), step, false)
				require.NoError(t, err)
				got, err := ahead.Next(context.Background(), step, true)
				require.NoError(t, err)
				require.Equal(t, len(want), len(got))
				for i := range want {
					require.Equal(t, want[i].IDs, got[i].IDs)
					require.Equal(t, want[i].Targets, got[i].Targets)
					require.Equal(t, want[i].Lengths, got[i].Lengths)
				}
			}
			ahead.Close()
			ahead.Close()
		}
	}
}

// failing is a dataset that fails or panics at one example until it is repaired.
type failing struct {
	*Examples
	at     int
	panics bool
	fixed  bool
}

var errBroken = errors.New("broken disk")

func (f *failing) Example(b *Batch, i int) error {
	if i == f.at && !f.fixed {
		if f.panics {
			panic("defect")
		}
		return errBroken
	}
	return f.Examples.Example(b, i)
}

func TestAFailureInTheBackgroundIsTheStepsOwn(t *testing.T) {
	for _, panics := range []bool{false, true} {
		d := &failing{Examples: numbered(t, 6), at: 2, panics: panics}
		l, err := NewLoader(d, Sampling{BatchSize: 2, Accumulation: 1, Order: OrderSequential})
		require.NoError(t, err)
		require.Equal(t, [][]int32{{0, 1}}, next(t, l, 0, true), "the failure is one of the next update")
		if !panics {
			_, err = l.Next(context.Background(), 1, true)
			require.ErrorIs(t, err, errBroken)
			require.ErrorContains(t, err, "step 2")
		}
		l.Close()
		d.fixed = true
		require.Equal(t, [][]int32{{2, 3}}, next(t, l, 1, true), "an update may be asked for again")
		l.Close()
	}
}

func TestACanceledRunGetsNoBatch(t *testing.T) {
	l, err := NewLoader(numbered(t, 6), Sampling{BatchSize: 2, Accumulation: 1})
	require.NoError(t, err)
	before := next(t, l, 0, true)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = l.Next(ctx, 1, true)
	require.ErrorIs(t, err, context.Canceled)
	l.Close()
	require.Equal(t, before, next(t, l, 0, false))
}

func TestBadSamplingsAreNamed(t *testing.T) {
	for message, s := range map[string]Sampling{
		"batch_size = 0":                    {Accumulation: 1},
		"accumulation = 0":                  {BatchSize: 1},
		`order = "sorted": expected one of`: {BatchSize: 1, Accumulation: 1, Order: "sorted"},
		"batch_size x accumulation = 8":     {BatchSize: 4, Accumulation: 2, DropLast: true},
	} {
		_, err := NewLoader(numbered(t, 7), s)
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, message)
	}
}

func TestWindowsOfAStream(t *testing.T) {
	text := []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	d, err := NewTokens(text, 4)
	require.NoError(t, err)
	require.Equal(t, 2, d.Len())
	var b Batch
	require.NoError(t, d.Example(&b, 0))
	require.NoError(t, d.Example(&b, 1))
	require.Equal(t, Batch{IDs: text[:8], Targets: text[1:9], Lengths: []int{4, 4}}, b)

	starts := map[int32]bool{}
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		b.reset()
		require.NoError(t, d.Draw(&b, r))
		require.Equal(t, b.IDs[0]+1, b.Targets[0])
		starts[b.IDs[0]] = true
	}
	require.Len(t, starts, 6, "every place where a window and its last target fit")
}

// 9 ends a document: what follows is a sequence of its own, which 9 does not predict.
func TestDocumentsDoNotSeeEachOther(t *testing.T) {
	end, ignore := int32(9), int32(nn.IgnoreTarget)
	d, err := NewStream(IDs{1, 2, 9, 3, 9, 9, 4, 5, 6, 7}, 8, &end)
	require.NoError(t, err)
	var b Batch
	require.NoError(t, d.Example(&b, 0))
	require.Equal(t, []int{3, 2, 1, 2}, b.Lengths)
	require.Equal(t, []int32{2, 9, ignore, 9, ignore, ignore, 5, 6}, b.Targets)
}

func TestExamplesOfDifferentLengths(t *testing.T) {
	ignore := int32(nn.IgnoreTarget)
	e, err := NewExamples(ExamplesConfig{
		IDs: []int32{1, 2, 3, 4, 5, 6, 7, 8, 9}, Lengths: []int{3, 0, 1, 5}, Length: 3,
	})
	require.NoError(t, err)
	require.Equal(t, 2, e.Len())
	require.Equal(t, 2, e.Skipped, "the empty one and the one whose only token has nothing to predict it")
	require.Equal(t, 1, e.Truncated)
	var b Batch
	require.NoError(t, e.Example(&b, 0))
	require.NoError(t, e.Example(&b, 1))
	require.Equal(t, Batch{IDs: []int32{1, 2, 5, 6, 7}, Targets: []int32{2, 3, 6, 7, 8}, Lengths: []int{2, 3}}, b)

	e, err = NewExamples(ExamplesConfig{
		IDs: []int32{1, 2, 3, 4, 5, 6}, Targets: []int32{ignore, 3, ignore, ignore, ignore, 7}, Lengths: []int{2, 2, 2}, Length: 8, Pack: true,
	})
	require.NoError(t, err)
	require.Equal(t, 1, e.Skipped, "an example without a target")
	require.Equal(t, 1, e.Len(), "two that fit in eight tokens count as one")
	b.reset()
	require.NoError(t, e.Example(&b, 0))
	require.Equal(t, Batch{IDs: []int32{1, 2, 5, 6}, Targets: []int32{ignore, 3, ignore, 7}, Lengths: []int{2, 2}}, b)
}

func TestBadExamplesAreNamed(t *testing.T) {
	for message, c := range map[string]ExamplesConfig{
		"length 0":              {IDs: []int32{1}},
		"1 targets for 2 ids":   {IDs: []int32{1, 2}, Targets: []int32{1}, Length: 4},
		"lengths[1] = 2":        {IDs: []int32{1, 2}, Lengths: []int{1, 2}, Length: 4},
		"lengths[0] = -1":       {IDs: []int32{1, 2}, Lengths: []int{-1, 2}, Length: 4},
		"they sum to 1":         {IDs: []int32{1, 2}, Lengths: []int{1}, Length: 4},
		"2 examples, none with": {IDs: []int32{1, 2}, Lengths: []int{1, 1}, Length: 4},
		"0 examples, none with": {Length: 4},
	} {
		_, err := NewExamples(c)
		require.ErrorIs(t, err, ErrBatch)
		require.ErrorContains(t, err, message)
	}
}

func TestIdentitiesTellDatasetsApart(t *testing.T) {
	seen := map[string]string{}
	for name, make := range map[string]func() (Dataset, error){
		"a stream":      func() (Dataset, error) { return NewTokens([]int32{1, 2, 3, 4}, 2) },
		"another":       func() (Dataset, error) { return NewTokens([]int32{1, 2, 3, 5}, 2) },
		"other windows": func() (Dataset, error) { return NewTokens([]int32{1, 2, 3, 4}, 3) },
		"documents":     func() (Dataset, error) { end := int32(2); return NewStream(IDs{1, 2, 3, 4}, 2, &end) },
		"examples": func() (Dataset, error) {
			return NewExamples(ExamplesConfig{IDs: []int32{1, 2, 3, 4}, Lengths: []int{2, 2}, Length: 8})
		},
		"cut elsewhere": func() (Dataset, error) {
			return NewExamples(ExamplesConfig{IDs: []int32{1, 2, 3, 4}, Lengths: []int{4}, Length: 8})
		},
		"packed": func() (Dataset, error) {
			return NewExamples(ExamplesConfig{IDs: []int32{1, 2, 3, 4}, Lengths: []int{2, 2}, Length: 8, Pack: true})
		},
		"with targets": func() (Dataset, error) {
			return NewExamples(ExamplesConfig{IDs: []int32{1, 2, 3, 4}, Targets: []int32{2, 2, 4, 4}, Lengths: []int{2, 2}, Length: 8})
		},
	} {
		d, err := make()
		require.NoError(t, err)
		id, err := d.Identity()
		require.NoError(t, err)
		text := string(mustJSON(t, id))
		require.Empty(t, seen[text], name)
		seen[text] = name
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return b
}

func TestAnUpdateThatNoMemoryHoldsIsRefused(t *testing.T) {
	data, err := NewTokens(make([]int32, 20_000), 10_000) // 350 TB
	require.NoError(t, err)
	for _, s := range []Sampling{{BatchSize: math.MaxInt32, Accumulation: 1}, {BatchSize: 1, Accumulation: math.MaxInt32}} {
		l, err := NewLoader(data, s)
		require.NoError(t, err)
		_, err = l.Next(t.Context(), 0, false)
		require.ErrorIs(t, err, pool.ErrOutOfMemory)
		require.ErrorContains(t, err, fmt.Sprintf("batch_size = %d and accumulation = %d", s.BatchSize, s.Accumulation))
	}
}
