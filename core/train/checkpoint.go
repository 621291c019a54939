package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bitnet-rust/bitnet_rust/core/logs"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
)

// CheckpointConfig says where and how often a run is saved. The last update is always saved, and so is every update with the
// best evaluation so far.
type CheckpointConfig struct {
	Dir   string `json:"dir"`   // is made if need be; "": no checkpoints
	Every int    `json:"every"` // updates between checkpoints; 0: none but the above
	Keep  int    `json:"keep"`  // how many of the newest stay, the best beside them; 0: all
}

// checkpointState is the JSON of a checkpoint. What fixes the numbers of a run must be equal on resuming.
type checkpointState struct {
	Step      int                  `json:"step"`
	Tokens    int64                `json:"tokens"`
	Skips     int                  `json:"skips"`
	Open      *Record              `json:"open"` // null: all is done that belongs to the update
	Progress  progress             `json:"progress"`
	Run       json.RawMessage      `json:"run"` // a runState
	Optimizer json.RawMessage      `json:"optimizer"`
	Scheduler optim.SchedulerState `json:"scheduler"`
	Scaler    *optim.ScalerState   `json:"scaler"` // null: there is none
}

// runState identifies a run.
type runState struct {
	Model  *model.Config `json:"model"`
	Config Config        `json:"config"`
	Data   *Identity     `json:"data"`
	Eval   *Identity     `json:"eval"`

	Teacher *teacherState `json:"teacher,omitempty"`
}

// mayDiffer are the fields of a run that a resumed one may change: how long it is, how often it is looked at, and when it is given up.
var mayDiffer = []string{
	"config.gradient_checkpointing", "config.max_steps", "config.epochs", "config.scheduler.total_steps", "config.scheduler.decay_steps", "config.eval_every", "config.log_every", "config.weight_changes", "config.peak_flops",
	"config.early_stopping", "config.early_stopping.patience", "config.early_stopping.min_delta",
}

func identityOf(d Dataset) (*Identity, error) {
	if d == nil {
		return nil, nil
	}
	id, err := d.Identity()
	return &id, err
}

// What stands before the names of tensors of the optimizer and of the best weights; weights have the names of the model.
const (
	optimizerPrefix = "optimizer."
	bestPrefix      = "best."
)

// describe renders the run's identity, once.
func (t *Trainer) describe() ([]byte, error) {
	if t.run != nil {
		return t.run, nil
	}
	state := runState{Model: t.engine.model.Config, Config: t.config}
	state.Config.Checkpoint = CheckpointConfig{}
	var err error
	if state.Data, err = identityOf(t.data); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if state.Eval, err = identityOf(t.eval); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if state.Teacher, err = t.engine.teacher.state(); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	run, err := json.Marshal(state)
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be saved: %w", ErrConfig, err)
	}
	t.run = run
	return run, nil
}

// SaveCheckpoint writes the run as it is after the last update into the configured directory and returns the file's path. The
// file is complete or not there. Then checkpoints that need not be kept are removed.
func (t *Trainer) SaveCheckpoint() (path string, err error) {
	dir := t.config.Checkpoint.Dir
	if dir == "" {
		return "", fmt.Errorf("%w: checkpoint_dir is empty: expected a directory", ErrConfig)
	}
	release, err := t.claim()
	if err != nil {
		return "", err
	}
	defer release()
	path = checkpointPath(dir, t.step)
	start := time.Now()
	if err := t.WriteCheckpoint(path); err != nil {
		return "", err
	}
	logs.Get().Info("checkpoint saved", "path", path, "step", t.step, "seconds", time.Since(start).Seconds())
	delete(t.damaged, path)
	if err := t.prune(); err != nil {
		return "", err
	}
	return path, t.tell(func(c Callback) error { return c.Checkpoint(t, path) })
}

// WriteCheckpoint writes the run as it is after the last update to a file, which is complete or not there. Nobody is told and nothing
// removed.
func (t *Trainer) WriteCheckpoint(path string) error {
	snapshot, err := t.snapshot()
	if err != nil {
		return err
	}
	if err := model.WriteSnapshot(path, snapshot); err != nil {
		return fmt.Errorf("train: checkpoint of step %d: %w", t.step, err)
	}
	return nil
}

// claim makes the directory and locks it until release. A run that begins does not mix its checkpoints with another's.
func (t *Trainer) claim() (release func(), err error) {
	dir := t.config.Checkpoint.Dir
	if dir == "" || t.lock != nil {
		return func() {}, nil
	}
	if !t.claimed {
		if _, err := t.describe(); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, fmt.Errorf("train: checkpoint_dir: %w", err)
		}
	}
	if t.lock, err = lockDirectory(dir); err != nil {
		return nil, err
	}
	release = func() {
		if t.lock != nil {
			_ = t.lock.Close() // nothing was written that matters
			t.lock = nil
		}
	}
	if !t.claimed {
		found, err := checkpointFiles(dir)
		if err == nil && len(found) > 0 {
			err = fmt.Errorf("%w: checkpoint_dir %s has checkpoints of another run: resume from it, empty it, or choose another", ErrConfig, dir)
		}
		if err != nil {
			release()
			return nil, err
		}
		t.claimed = true
	}
	return release, nil
}

// snapshot is the state after the last update; its tensors are views.
func (t *Trainer) snapshot() (s model.Snapshot, err error) {
	if err := t.whole(); err != nil {
		return s, err
	}
	state := checkpointState{
		Step: t.step, Tokens: t.tokens, Skips: t.skips, Open: t.open, Progress: t.progress, Scheduler: t.schedule.StateDict(),
	}
	if t.scaler != nil {
		scaler := t.scaler.StateDict()
		state.Scaler = &scaler
	}
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
	for i, p := range t.engine.params {
		last, best := p.Data, []float32(nil)
		if t.best != nil {
			best = t.best.values[i]
		}
		if t.restored {
			last, best = best, last
		}
		s.Tensors = append(s.Tensors, model.SnapshotTensor{Name: p.Name, Shape: p.Shape, Data: last})
		if best != nil {
			s.Tensors = append(s.Tensors, model.SnapshotTensor{Name: bestPrefix + p.Name, Shape: p.Shape, Data: best})
		}
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
		best := t.progress.Best != nil && t.progress.Best.Step == f.step
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
	step int // anyStep: the name does not say
	path string
}

const anyStep = -1

func checkpointPath(dir string, step int) string {
	return filepath.Join(dir, fmt.Sprintf("step-%08d.ckpt", step))
}

// checkpointStep reads the step from the name of a checkpoint's file.
func checkpointStep(name string) (step int, ok bool) {
	step, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(name, "step-"), ".ckpt"))
	return step, err == nil && filepath.Base(checkpointPath("", step)) == name
}

// checkpointFiles lists a directory's checkpoints, the newest first.
func checkpointFiles(dir string) (found []checkpointFile, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	for _, e := range entries {
		if step, ok := checkpointStep(e.Name()); ok {
			found = append(found, checkpointFile{step, filepath.Join(dir, e.Name())})
		}
	}
	slices.SortFunc(found, func(a, b checkpointFile) int { return b.step - a.step })
	return found, nil
}
