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
	"github.com/bitnet-rust/bitnet_rust/core/tensor"
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
	model   *model.Model
	opts    EngineOptions
	next    nn.Training // of the next forward pass
	teacher *teacher    // nil without
	params  []*autograd.Param
	mem     *pool.HybridMemoryPool
	ctx     *nn.Ctx
	tape    *autograd.Tape
	rows    []nn.Row
	lengths []int // of the batch's sequences
	caches  []*nn.KVCache
	nats    []float64 // of each row
	running bool      // a step has begun
	waiting open
}

// NewEngine returns an engine for a model made by model.NewTrainable; with learned scales it calls LearnScales. The error is
// ErrNotTrainable, or an *OptionError.
func NewEngine(m *model.Model, o EngineOptions) (*Engine, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if len(m.Params()) == 0 {
		return nil, ErrNotTrainable
	}
	if o.STE != "learned_scale" && m.LearnsScales() {
		return nil, &OptionError{"ste", fmt.Sprintf("%q", o.STE), `"learned_scale", as this model has learned scales`}
	}
	e := &Engine{model: m, opts: o, mem: pool.Default()}
	var err error
	if e.teacher, err = newTeacher(o, m, e.mem); err != nil {
		return nil, err
	}
	if o.STE == "learned_scale" {
		m.LearnScales()
	}
	e.params = m.Params()
	e.SetStep(0, 0, 0)
	e.ctx = nn.NewCtx(e.mem)
	e.tape = autograd.NewTape(e.ctx)
	return e, nil
}

// Params lists the master weights and their gradients.
func (e *Engine) Params() []*autograd.Param { return e.params }

// Scratch gives the figures of the memory of steps: activations, gradients of activations and the like.
func (e *Engine) Scratch() pool.ScratchStats { return e.ctx.Scratch().Stats() }

// CacheBytes is the memory of keys and values, which steps keep from one to the next.
func (e *Engine) CacheBytes() int64 {
	n := int64(0)
	for _, c := range e.caches {
		n += c.Bytes()
	}
	return n
}

// sequences is how many the last batch had.
func (e *Engine) sequences() int { return len(e.lengths) }

// Close gives scratch memory and caches back.
func (e *Engine) Close() {
	e.end()
	e.ctx.Close()
	if e.teacher != nil {
		e.teacher.close()
		e.teacher = nil
	}
	for _, c := range e.caches {
		c.Free()
	}
	e.caches = nil
}

// Score sums up how well targets were predicted.
type Score struct {
	Nats    float64 // sum of the cross-entropies
	Targets int     // how many there were; ignored ones do not count
	Correct int     // how many of them had the highest logit

	Divergence float64 // in training with a teacher: sum of KL(teacher || model) at the temperature, in nats
}

// Loss is the mean cross-entropy in nats.
func (s Score) Loss() float64 { return s.Nats / float64(s.Targets) }

// Accuracy is the share of targets that had the highest logit.
func (s Score) Accuracy() float64 { return float64(s.Correct) / float64(s.Targets) }

// Perplexity is exp of a mean cross-entropy, kept finite.
func Perplexity(loss float64) float64 { return math.Exp(min(loss, 700)) }

// SetStep says which forward pass the next one is: update number step of a run with the given seed, and which of the update's
// batches. Random numbers and schedules depend on these three alone.
func (e *Engine) SetStep(seed uint64, step, micro int) {
	e.next = e.opts.training(seed, step, micro)
}

// SetOptions changes the options from the next SetStep on. The teacher, gradient checkpointing and whether scales are learned are what the
// engine was made with. The error is an *OptionError.
func (e *Engine) SetOptions(o EngineOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	const same = "what the engine was made with"
	switch now := e.opts; {
	case o.Teacher != now.Teacher:
		return &OptionError{"teacher", "another model", same}
	case o.GradientCheckpointing != now.GradientCheckpointing:
		return &OptionError{"gradient_checkpointing", o.GradientCheckpointing, same}
	case o.STE != now.STE && (o.STE == "learned_scale" || now.STE == "learned_scale"):
		return &OptionError{"ste", fmt.Sprintf("%q", o.STE), same}
	}
	e.opts = o
	return nil
}

// Score predicts the batch's targets and adds the result to s, sequence by sequence: a text cut into batches of any size
// gives the same bits, which are those of infer.Engine.LogLikelihood. None of the options count here.
func (e *Engine) Score(ctx context.Context, b Batch, s *Score) error { return e.run(ctx, b, pass{}, s) }

// Accumulate returns the batch's score and adds the gradient of scale times its loss to the parameters' gradients. A step
// over n batches uses scale 1/n. After an error the gradients are incomplete.
func (e *Engine) Accumulate(ctx context.Context, b Batch, scale float32) (s Score, err error) {
	err = e.run(ctx, b, pass{training: true, backward: true, scale: scale}, &s)
	return s, err
}

// pass is a way to run a batch.
type pass struct {
	training bool // the options hold
	backward bool // the gradient of scale times the loss is added
	scale    float32
}

// run adds the batch's score to s and, in a backward pass, its gradients to the parameters'.
func (e *Engine) run(ctx context.Context, b Batch, p pass, s *Score) (err error) {
	defer pool.Recover(&err)
	targets, err := e.count(b)
	if err != nil {
		return err
	}
	if err := e.model.Acquire(); err != nil {
		return err
	}
	defer e.model.Release()
	defer e.end() // whatever an error left, too
	x, err := e.begin(ctx, b, p)
	if err != nil {
		return err
	}
	if p.training && e.teacher != nil {
		defer e.teacher.end()
		d, err := e.teacher.begin(ctx, e.planKey(p), b.IDs, e.rows, e.lengths)
		if err != nil {
			return err
		}
		e.ctx.Learn(d)
	}
	correct := e.model.Head.Loss(e.ctx, x, b.Targets, p.scale/float32(targets), e.nats)
	e.ctx.Free(x)
	if p.backward {
		if err := e.tape.BackwardUntil(e.ctx.Err); err != nil {
			return err
		}
	}
	if err := e.ctx.Err(); err != nil {
		return err
	}
	e.add(s, targets, correct)
	if p.training && e.teacher != nil {
		addSequences(&s.Divergence, e.teacher.loss.KL, e.lengths)
	}
	return nil
}

// begin starts a step over the batch and runs the model up to its head. The caller ends it.
func (e *Engine) begin(ctx context.Context, b Batch, p pass) (*tensor.Tensor, error) {
	if n := len(b.IDs); p.backward && n > nn.MaxGradRows {
		return nil, fmt.Errorf("%w: %d ids: expected at most %d in a batch that is differentiated: accumulate smaller ones", ErrBatch, n, nn.MaxGradRows)
	}
	if err := e.layout(b); err != nil {
		return nil, err
	}
	e.ctx.Begin(ctx, e.planKey(p), e.rows, e.caches[:len(e.lengths)])
	e.running = true
	if p.training {
		e.ctx.Train(e.next)
	}
	if p.backward {
		e.ctx.Attach(e.tape)
	}
	return e.model.Forward(e.ctx, b.IDs)
}

// end ends the step that runs, if one does.
func (e *Engine) end() {
	if e.running {
		e.running, e.waiting = false, open{}
		e.tape.Reset()
		e.ctx.End()
	}
}

// add adds a batch whose nats are there to a score.
func (e *Engine) add(s *Score, targets, correct int) {
	addSequences(&s.Nats, e.nats, e.lengths)
	s.Targets += targets
	s.Correct += correct
}

// addSequences adds values to a total, sequence by sequence: the sum is the same to the bit in batches of any size.
func addSequences(total *float64, values []float64, lengths []int) {
	for _, n := range lengths {
		sum := 0.0
		for _, v := range values[:n] {
			sum += v
		}
		*total += sum
		values = values[n:]
	}
}

// planKey names the memory plan of a pass over a batch of the current lengths.
func (e *Engine) planKey(p pass) uint64 {
	key := uint64(14695981039346656037) // FNV-1a over the lengths
	for _, n := range e.lengths {
		key = (key ^ uint64(n)) * 1099511628211
	}
	if p.training {
		key = (key ^ memoryKind(e.next)) * 1099511628211
	}
	key <<= 2
	if p.training {
		key |= 1
	}
	if p.backward {
		key |= 2
	}
	return key
}

// count checks the batch's targets and counts those that are not ignored.
func (e *Engine) count(b Batch) (targets int, err error) {
	if len(b.Targets) != len(b.IDs) {
		return 0, fmt.Errorf("%w: %d targets for %d ids", ErrBatch, len(b.Targets), len(b.IDs))
	}
	vocab := e.model.Config.VocabSize
	for i, t := range b.Targets {
		if t == nn.IgnoreTarget {
			continue
		}
		if t < 0 || int(t) >= vocab {
			return 0, fmt.Errorf("%w: targets[%d] = %d: expected 0 <= id < vocab_size = %d or %d", ErrBatch, i, t, vocab, nn.IgnoreTarget)
		}
		targets++
	}
	if targets == 0 && len(b.IDs) > 0 {
		return 0, fmt.Errorf("%w: every target is ignored", ErrBatch)
	}
	return targets, nil
}

// layout checks the batch's tokens and sets up rows and caches for it.
func (e *Engine) layout(b Batch) error {
	cfg := e.model.Config
	if err := e.split(b); err != nil {
		return err
	}
	for i, id := range b.IDs {
		if id < 0 || int(id) >= cfg.VocabSize {
			return fmt.Errorf("%w: ids[%d] = %d: expected 0 <= id < vocab_size = %d", ErrBatch, i, id, cfg.VocabSize)
		}
	}
	e.nats = slices.Grow(e.nats[:0], len(b.IDs))[:len(b.IDs)]
	e.rows = e.rows[:0]
	for s, n := range e.lengths {
		for i := range n {
			e.rows = append(e.rows, nn.Row{Seq: int32(s), Pos: int32(i)})
		}
		if s == len(e.caches) {
			layers := cfg.NumHiddenLayers
			if e.opts.GradientCheckpointing {
				layers = 1
			}
			e.caches = append(e.caches, nn.NewKVCache(e.mem, nn.KVFloat32, layers, cfg.NumKeyValueHeads, cfg.HeadDim))
		}
		if err := e.caches[s].Grow(n); err != nil {
			return err
		}
	}
	return nil
}

// split finds the lengths of the batch's sequences.
func (e *Engine) split(b Batch) error {
	limit := e.model.Config.MaxPositionEmbeddings
	e.lengths = append(e.lengths[:0], b.Lengths...)
	if len(b.Lengths) == 0 {
		switch {
		case b.Length < 1 || b.Length > limit:
			return fmt.Errorf("%w: length %d: expected 1 to max_position_embeddings = %d", ErrBatch, b.Length, limit)
		case len(b.IDs) == 0 || len(b.IDs)%b.Length != 0:
			return fmt.Errorf("%w: %d ids: expected a positive multiple of the length %d", ErrBatch, len(b.IDs), b.Length)
		}
		for range len(b.IDs) / b.Length {
			e.lengths = append(e.lengths, b.Length)
		}
		return nil
	}
	left := len(b.IDs)
	for i, n := range e.lengths {
		if n < 1 || n > limit {
			return fmt.Errorf("%w: lengths[%d] = %d: expected 1 to max_position_embeddings = %d", ErrBatch, i, n, limit)
		}
		left -= n
	}
	if left != 0 {
		return fmt.Errorf("%w: lengths add up to %d: expected the number of ids, %d", ErrBatch, len(b.IDs)-left, len(b.IDs))
	}
	return nil
}
