package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
)

// CheckpointConfig says where and how often a run is saved. The last update is always saved, and so is every update with the
// lowest evaluation loss so far.
type CheckpointConfig struct {
	Dir   string // is made if need be; "": no checkpoints
	Every int    // updates between checkpoints; 0: none but the above
	Keep  int    // how many of the newest stay, the best beside them; 0: all
}

// Best is the update with the lowest evaluation loss.
type Best struct {
	Step int     `json:"step"`
	Loss float64 `json:"loss"`
}

// checkpointState is the JSON of a checkpoint. What fixes the numbers of a run must be equal on resuming.
type checkpointState struct {
	Step      int                  `json:"step"`
	Best      *Best                `json:"best"` // null: not evaluated yet
	Run       json.RawMessage      `json:"run"`  // a runState
	Optimizer json.RawMessage      `json:"optimizer"`
	Scheduler optim.SchedulerState `json:"scheduler"`
}

// runState identifies a run.
type runState struct {
	Model  *model.Config `json:"model"`
	Config configState   `json:"config"`
	Data   *Identity     `json:"data"`
	Eval   *Identity     `json:"eval"`
}

// configState is a Config under the names of its fields in files.
type configState struct {
	Steps        int                  `json:"steps"`
	BatchSize    int                  `json:"batch_size"`
	Accumulation int                  `json:"accumulation"`
	Order        Order                `json:"order"`
	DropLast     bool                 `json:"drop_last"`
	Optimizer    optim.Config         `json:"optimizer"`
	Schedule     optim.ScheduleConfig `json:"schedule"`
	GradientClip float64              `json:"gradient_clip"`
	EvalEvery    int                  `json:"eval_every"`
	Seed         uint64               `json:"seed"`
	EngineOptions
}

// mayDiffer are the fields of a run that a resumed one may change: how long it is and how often it is looked at.
var mayDiffer = []string{"config.gradient_checkpointing", "config.steps", "config.schedule.total_steps", "config.eval_every"}

func identityOf(d Dataset) (*Identity, error) {
	if d == nil {
		return nil, nil
	}
	id, err := d.Identity()
	return &id, err
}

// optimizerPrefix stands before the names of optimizer tensors; weights have the names of the model.
const optimizerPrefix = "optimizer."

// describe renders the run's identity, once.
func (t *Trainer) describe() ([]byte, error) {
	if t.run != nil {
		return t.run, nil
	}
	c := t.config
	data, err := identityOf(t.data)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	eval, err := identityOf(t.eval)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	run, err := json.Marshal(runState{
		Model: t.engine.model.Config,
		Config: configState{c.Steps, c.BatchSize, c.Accumulation, c.Order, c.DropLast, c.Optimizer, c.Schedule, c.GradientClip,
			c.EvalEvery, c.Seed, c.EngineOptions},
		Data: data, Eval: eval,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be saved: %w", ErrConfig, err)
	}
	t.run = run
	return run, nil
}

// Best returns the update with the lowest evaluation loss so far, nil before the first evaluation.
func (t *Trainer) Best() *Best { return t.best }

// noteBest takes the loss of an evaluation after the last update; one that is no number is not the best.
func (t *Trainer) noteBest(loss float64) {
	if !math.IsNaN(loss) && !math.IsInf(loss, 0) && (t.best == nil || loss < t.best.Loss) {
		t.best = &Best{t.step, loss}
	}
}

// SaveCheckpoint writes the run as it is after the last update into the configured directory and returns the file's path. The
// file is complete or not there. Then checkpoints that need not be kept are removed.
func (t *Trainer) SaveCheckpoint() (path string, err error) {
	dir := t.config.Checkpoint.Dir
	if dir == "" {
		return "", fmt.Errorf("%w: checkpoint.dir is empty: expected a directory", ErrConfig)
	}
	if err := t.claim(); err != nil {
		return "", err
	}
	snapshot, err := t.snapshot()
	if err != nil {
		return "", err
	}
	path = checkpointPath(dir, t.step)
	if err := model.WriteSnapshot(path, snapshot); err != nil {
		return "", fmt.Errorf("train: checkpoint of step %d: %w", t.step, err)
	}
	delete(t.damaged, path)
	return path, t.prune()
}

// claim makes the directory. A run that begins does not mix its checkpoints with another's.
func (t *Trainer) claim() error {
	dir := t.config.Checkpoint.Dir
	if dir == "" || t.claimed {
		return nil
	}
	if _, err := t.describe(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	found, err := checkpointFiles(dir)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fmt.Errorf("%w: checkpoint.dir %s has checkpoints of another run: resume from it, empty it, or choose another", ErrConfig, dir)
	}
	t.claimed = true
	return nil
}

// snapshot is the state after the last update; its tensors are views.
func (t *Trainer) snapshot() (s model.Snapshot, err error) {
	state := checkpointState{Step: t.step, Best: t.best, Scheduler: t.schedule.StateDict()}
	if state.Run, err = t.describe(); err != nil {
		return s, err
	}
	opt := t.opt.StateDict()
	if state.Optimizer, err = json.Marshal(opt); err != nil {
		return s, fmt.Errorf("train: %w", err)
	}
	if s.State, err = json.Marshal(state); err != nil {
		return s, fmt.Errorf("train: %w", err)
	}
	for _, p := range t.engine.params {
		s.Tensors = append(s.Tensors, model.SnapshotTensor{Name: p.Name, Shape: p.Shape, Data: p.Data})
	}
	for _, v := range opt.Tensors() {
		s.Tensors = append(s.Tensors, model.SnapshotTensor{Name: optimizerPrefix + v.Name, Shape: v.Shape, Data: v.Data})
	}
	return s, nil
}

// prune removes checkpoints before the current one that are neither among the newest nor the best, those that could not be read,
// and what killed writers left behind.
func (t *Trainer) prune() error {
	dir, keep := t.config.Checkpoint.Dir, t.config.Checkpoint.Keep
	found, err := checkpointFiles(dir)
	if err != nil {
		return err
	}
	left, err := filepath.Glob(filepath.Join(globQuote(dir), ".step-*.ckpt.*.tmp"))
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	kept := 0
	for _, f := range found {
		if f.step > t.step {
			continue
		}
		unreadable := t.damaged[f.path]
		if !unreadable {
			kept++
		}
		best := t.best != nil && t.best.Step == f.step
		if unreadable || keep > 0 && kept > keep && !best {
			left = append(left, f.path)
		}
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("train: %w", err)
		}
	}
	return nil
}

func globQuote(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// checkpointFile is a file whose name is that of a checkpoint.
type checkpointFile struct {
	step int
	path string
}

func checkpointPath(dir string, step int) string {
	return filepath.Join(dir, fmt.Sprintf("step-%08d.ckpt", step))
}

// checkpointFiles lists a directory's checkpoints, the newest first.
func checkpointFiles(dir string) (found []checkpointFile, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	for _, e := range entries {
		digits := strings.TrimSuffix(strings.TrimPrefix(e.Name(), "step-"), ".ckpt")
		step, err := strconv.Atoi(digits)
		if path := checkpointPath(dir, step); err == nil && filepath.Base(path) == e.Name() {
			found = append(found, checkpointFile{step, path})
		}
	}
	slices.SortFunc(found, func(a, b checkpointFile) int { return b.step - a.step })
	return found, nil
}
