package train

import (
	"context"
	"fmt"
	"slices"

	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/nn"
	"github.com/bitnet-rust/bitnet_rust/core/pool"
)

// teacher runs the model that is learned from, beside the step that learns.
type teacher struct {
	model    *model.Model
	ctx      *nn.Ctx
	caches   []*nn.KVCache
	loss     nn.Distillation
	running  bool // a step is open
	acquired bool
}

// newTeacher returns nil without a teacher.
func newTeacher(o EngineOptions, student *model.Model, mem *pool.HybridMemoryPool) (*teacher, error) {
	m := o.Teacher
	switch {
	case m == nil:
		return nil, nil
	case m == student:
		return nil, &OptionError{"teacher", "the trained model", "another model"}
	case m.Config.VocabSize != student.Config.VocabSize:
		return nil, &OptionError{"teacher.vocab_size", m.Config.VocabSize, fmt.Sprintf("that of the trained model, %d", student.Config.VocabSize)}
	}
	t := &teacher{model: m, ctx: nn.NewCtx(mem), loss: nn.Distillation{Alpha: 0.5, Temperature: 2}}
	if o.DistillationAlpha > 0 {
		t.loss.Alpha = float32(o.DistillationAlpha)
	}
	if o.DistillationTemperature > 0 {
		t.loss.Temperature = float32(o.DistillationTemperature)
	}
	return t, nil
}

// begin runs the teacher over the batch and makes its part of the loss ready. end is to be called in any case.
func (t *teacher) begin(ctx context.Context, key uint64, ids []int32, rows []nn.Row, lengths []int) (*nn.Distillation, error) {
	if err := t.model.Acquire(); err != nil {
		return nil, fmt.Errorf("teacher: %w", err)
	}
	t.acquired = true
	cfg := t.model.Config
	for s, n := range lengths {
		if n > cfg.MaxPositionEmbeddings {
			return nil, fmt.Errorf("%w: length %d: expected at most the teacher's max_position_embeddings = %d", ErrBatch, n, cfg.MaxPositionEmbeddings)
		}
		if s == len(t.caches) { // for one layer after another: nothing is read again
			t.caches = append(t.caches, nn.NewKVCache(pool.Default(), nn.KVFloat32, 1, cfg.NumKeyValueHeads, cfg.HeadDim))
		}
		if err := t.caches[s].Grow(n); err != nil {
			return nil, err
		}
	}
	t.ctx.Begin(ctx, key, rows, t.caches[:len(lengths)])
	t.running = true
	x, err := t.model.Forward(t.ctx, ids)
	if err != nil {
		return nil, err
	}
	d := &t.loss
	d.Teacher, d.Ctx, d.Hidden = &t.model.Head, t.ctx, x
	d.KL = slices.Grow(d.KL[:0], len(ids))[:len(ids)]
	return d, nil
}

func (t *teacher) end() {
	if t.running {
		t.ctx.End()
	}
	if t.acquired {
		t.model.Release()
	}
	t.running, t.acquired = false, false
}

func (t *teacher) close() {
	t.ctx.Close()
	for _, c := range t.caches {
		c.Free()
	}
	t.caches = nil
}

// teacherState tells one teacher from another in the identity of a run.
type teacherState struct {
	Model  *model.Config `json:"model"`
	CRC32C string        `json:"crc32c"` // of its weights
}

func (t *teacher) state() (*teacherState, error) {
	if t == nil {
		return nil, nil
	}
	if err := t.model.Acquire(); err != nil {
		return nil, fmt.Errorf("teacher: %w", err)
	}
	defer t.model.Release()
	return &teacherState{t.model.Config, fmt.Sprintf("%08x", t.model.Checksum())}, nil
}
