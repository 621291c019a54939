package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/autograd"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// Errors of this package.
var (
	ErrNotTrainable = errors.New("train: the model has no master weights")
	ErrBatch        = errors.New("train: bad batch")
	ErrConfig       = errors.New("train: bad configuration")
	ErrDiverged     = errors.New("train: diverged")
)

// Engine computes losses and gradients of one model. It serves one goroutine at a time.
type Engine struct {
	model  *model.Model
	params []*autograd.Param
	mem    *pool.HybridMemoryPool
	ctx    *nn.Ctx
	tape   *autograd.Tape
	rows   []nn.Row
	caches []*nn.KVCache
	nats   []float64 // of each row
}

// NewEngine returns an engine for a model made by model.NewTrainable.
func NewEngine(m *model.Model) (*Engine, error) {
	params := m.Params()
	if len(params) == 0 {
		return nil, ErrNotTrainable
	}
	e := &Engine{model: m, params: params, mem: pool.Default()}
	e.ctx = nn.NewCtx(e.mem)
	e.tape = autograd.NewTape(e.ctx)
	return e, nil
}

// Params lists the master weights and their gradients.
func (e *Engine) Params() []*autograd.Param { return e.params }

// Close gives scratch memory and caches back.
func (e *Engine) Close() {
	e.ctx.Close()
	for _, c := range e.caches {
		c.Free()
	}
	e.caches = nil
}

// Batch is sequences of equal length, one after the other.
type Batch struct {
	IDs     []int32 // [sequences, length] token ids
	Targets []int32 // [sequences, length] the token after each, or nn.IgnoreTarget
	Length  int
}

// Score sums up how well targets were predicted.
type Score struct {
	Nats    float64 // sum of the cross-entropies
	Targets int     // how many there were; ignored ones do not count
	Correct int     // how many of them had the highest logit
}

// Loss is the mean cross-entropy in nats.
func (s Score) Loss() float64 { return s.Nats / float64(s.Targets) }

// Accuracy is the share of targets that had the highest logit.
func (s Score) Accuracy() float64 { return float64(s.Correct) / float64(s.Targets) }

// Perplexity is exp of a mean cross-entropy, kept finite.
func Perplexity(loss float64) float64 { return math.Exp(min(loss, 700)) }

// Score predicts the batch's targets and adds the result to s, sequence by sequence: a text cut into batches of any size
// gives the same bits, which are those of infer.Engine.LogLikelihood.
func (e *Engine) Score(ctx context.Context, b Batch, s *Score) error { return e.run(ctx, b, 0, s) }

// Accumulate returns the batch's score and adds the gradient of scale times its loss to the parameters' gradients. A step
// over n batches uses scale 1/n. After an error the gradients are incomplete.
func (e *Engine) Accumulate(ctx context.Context, b Batch, scale float32) (s Score, err error) {
	return s, e.run(ctx, b, scale, &s)
}

// run adds the batch's score to s and, unless scale is 0, its gradients to the parameters'.
func (e *Engine) run(ctx context.Context, b Batch, scale float32, s *Score) (err error) {
	defer pool.Recover(&err)
	targets, err := e.layout(b)
	if err != nil {
		return err
	}
	if err := e.model.Acquire(); err != nil {
		return err
	}
	defer e.model.Release()
	key := uint64(len(b.IDs))<<32 | uint64(b.Length)<<1
	if scale != 0 {
		key |= 1
	}
	e.ctx.Begin(ctx, key, e.rows, e.caches[:len(b.IDs)/b.Length])
	defer e.ctx.End()
	if scale != 0 {
		defer e.tape.Reset() // whatever an error left
		e.ctx.Attach(e.tape)
	}
	x, err := e.model.Forward(e.ctx, b.IDs)
	if err != nil {
		return err
	}
	correct := e.model.Head.Loss(e.ctx, x, b.Targets, scale/float32(targets), e.nats)
	e.ctx.Free(x)
	if scale != 0 {
		if err := e.tape.BackwardUntil(e.ctx.Err); err != nil {
			return err
		}
	}
	if err := e.ctx.Err(); err != nil {
		return err
	}
	for rest := e.nats; len(rest) > 0; rest = rest[b.Length:] {
		sum := 0.0
		for _, n := range rest[:b.Length] {
			sum += n
		}
		s.Nats += sum
	}
	s.Targets += targets
	s.Correct += correct
	return nil
}

// layout checks the batch, sets up rows and caches for it, and counts its targets.
func (e *Engine) layout(b Batch) (targets int, err error) {
	cfg := e.model.Config
	switch {
	case b.Length < 1 || b.Length > cfg.MaxPositionEmbeddings:
		return 0, fmt.Errorf("%w: length %d: expected 1 to max_position_embeddings = %d", ErrBatch, b.Length, cfg.MaxPositionEmbeddings)
	case len(b.IDs) == 0 || len(b.IDs)%b.Length != 0:
		return 0, fmt.Errorf("%w: %d ids: expected a positive multiple of the length %d", ErrBatch, len(b.IDs), b.Length)
	case len(b.Targets) != len(b.IDs):
		return 0, fmt.Errorf("%w: %d targets for %d ids", ErrBatch, len(b.Targets), len(b.IDs))
	}
	for i, id := range b.IDs {
		if id < 0 || int(id) >= cfg.VocabSize {
			return 0, fmt.Errorf("%w: ids[%d] = %d: expected 0 <= id < vocab_size = %d", ErrBatch, i, id, cfg.VocabSize)
		}
		t := b.Targets[i]
		if t == nn.IgnoreTarget {
			continue
		}
		if t < 0 || int(t) >= cfg.VocabSize {
			return 0, fmt.Errorf("%w: targets[%d] = %d: expected 0 <= id < vocab_size = %d or %d", ErrBatch, i, t, cfg.VocabSize, nn.IgnoreTarget)
		}
		targets++
	}
	if targets == 0 {
		return 0, fmt.Errorf("%w: every target is ignored", ErrBatch)
	}
	e.nats = slices.Grow(e.nats[:0], len(b.IDs))[:len(b.IDs)]
	sequences := len(b.IDs) / b.Length
	e.rows = e.rows[:0]
	for s := range sequences {
		for i := range b.Length {
			e.rows = append(e.rows, nn.Row{Seq: int32(s), Pos: int32(i)})
		}
	}
	for len(e.caches) < sequences {
		e.caches = append(e.caches, nn.NewKVCache(e.mem, cfg.NumHiddenLayers, cfg.NumKeyValueHeads, cfg.HeadDim))
	}
	for _, c := range e.caches[:sequences] {
		if err := c.Grow(b.Length); err != nil {
			return 0, err
		}
	}
	return targets, nil
}
