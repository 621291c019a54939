package train

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
)

// What can go wrong on resuming.
var (
	ErrNoCheckpoint = errors.New("train: no readable checkpoint")
	ErrDamaged      = errors.New("train: damaged checkpoint")
	ErrMismatch     = errors.New("train: checkpoint of another run")
)

// DamagedError is a checkpoint that cannot be read. It matches ErrDamaged and what is wrong with the file.
type DamagedError struct {
	Path string // of the file
	Err  error  // what is wrong with it
}

// Error has the file and what is wrong with it.
func (e *DamagedError) Error() string { return fmt.Sprintf("%v: %s: %v", ErrDamaged, e.Path, e.Err) }

// Unwrap gives the sentinel and the cause.
func (e *DamagedError) Unwrap() []error { return []error{ErrDamaged, e.Err} }

// MismatchError is a checkpoint of a run with another model, configuration or text. It matches ErrMismatch.
type MismatchError struct {
	Path            string // of the checkpoint
	Field           string // "model.hidden_size", "config.optimizer.lr", "data.crc32c"
	Found, Expected string // JSON; "none" for a field that is not there
}

// Error has the file, the field, what it holds and what was expected.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("%v: %s: %s: found %s, expected %s", ErrMismatch, e.Path, e.Field, e.Found, e.Expected)
}

// Unwrap gives the sentinel.
func (e *MismatchError) Unwrap() error { return ErrMismatch }

// Resumed says what a run continues from.
type Resumed struct {
	Path    string          // of the checkpoint
	Step    int             // updates that it has
	Skipped []*DamagedError // newer checkpoints that cannot be read, the newest first
}

// Resume continues from a checkpoint, or from the newest readable one of a directory: the updates that follow are those of a run that
// was never interrupted, to the last bit. Newer checkpoints that cannot be read are listed in Resumed. Without a readable one the error
// matches ErrNoCheckpoint, and ErrDamaged if there are unreadable ones; a checkpoint of another model, configuration or text is a
// *MismatchError. On an error the trainer is as it was.
func (t *Trainer) Resume(path string) (Resumed, error) {
	var r Resumed
	found, err := findCheckpoints(path)
	if err != nil {
		return r, err
	}
	causes := []error{fmt.Errorf("%w in %s", ErrNoCheckpoint, path)}
	for _, f := range found {
		err := t.load(f)
		var damaged *DamagedError
		switch {
		case errors.As(err, &damaged):
			r.Skipped, causes = append(r.Skipped, damaged), append(causes, err)
			continue
		case err != nil:
			return r, err
		}
		r.Path, r.Step = f.path, t.step
		if sameDirectory(filepath.Dir(f.path), t.config.Checkpoint.Dir) {
			t.claimed = true
			t.damaged = map[string]bool{}
			for _, d := range r.Skipped {
				t.damaged[d.Path] = true
			}
		}
		return r, nil
	}
	return r, errors.Join(causes...)
}

// sameDirectory says whether two paths are the same directory, however they are written.
func sameDirectory(a, b string) bool {
	if b == "" {
		return false
	}
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// findCheckpoints lists the files to try, the best first.
func findCheckpoints(path string) ([]checkpointFile, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCheckpoint, err)
	}
	if info.IsDir() {
		return checkpointFiles(path)
	}
	if step, ok := checkpointStep(filepath.Base(path)); ok {
		return []checkpointFile{{step, path}}, nil
	}
	return []checkpointFile{{anyStep, path}}, nil
}

// load continues from one file.
func (t *Trainer) load(f checkpointFile) error {
	damaged := func(err error) error { return &DamagedError{f.path, err} }
	s, err := model.ReadSnapshot(f.path)
	if err != nil {
		return damaged(err)
	}
	var state checkpointState
	if err := json.Unmarshal(s.State, &state); err != nil {
		return damaged(err)
	}
	run, err := t.describe()
	if err != nil {
		return err
	}
	switch field, found, expected, err := difference(state.Run, run); {
	case err != nil:
		return damaged(err)
	case field != "":
		return &MismatchError{f.path, field, found, expected}
	case state.Step != f.step && f.step != anyStep:
		return damaged(fmt.Errorf("step: found %d, expected %d as in the name", state.Step, f.step))
	case state.Scheduler.Step != state.Step:
		return damaged(fmt.Errorf("scheduler.step: found %d, expected %d", state.Scheduler.Step, state.Step))
	case state.Open != nil && state.Open.Step != state.Step:
		return damaged(fmt.Errorf("open.step: found %d, expected %d", state.Open.Step, state.Step))
	case (state.Scaler != nil) != (t.scaler != nil):
		return damaged(fmt.Errorf("scaler: found one: %v, expected one: %v", state.Scaler != nil, t.scaler != nil))
	}
	weights, best, moments := split(s.Tensors)
	if err := t.checkWeights(weights); err != nil {
		return damaged(err)
	}
	if t.restoresBest() && state.Progress.Best != nil {
		if err := t.checkWeights(best); err != nil {
			return damaged(fmt.Errorf("%s: %w", bestPrefix, err))
		}
	}
	opt, err := optim.ParseStateDict(state.Optimizer, moments)
	if err != nil {
		return damaged(err)
	}
	var bestCopy *weightCopy
	if t.restoresBest() && state.Progress.Best != nil {
		if bestCopy, err = newWeightCopy(t.engine.params); err != nil {
			return err
		}
		for i, p := range t.engine.params {
			copy(bestCopy.values[i], best[p.Name])
		}
	}
	if err := t.restore(opt, state.Scheduler, state.Scaler); err != nil {
		bestCopy.free()
		if errors.Is(err, optim.ErrState) {
			return damaged(err)
		}
		return err
	}
	t.best.free()
	t.step, t.tokens, t.skips, t.open, t.progress = state.Step, state.Tokens, state.Skips, state.Open, state.Progress
	t.best, t.restored, t.halfway, t.watch = bestCopy, false, false, nil
	return t.engine.model.SetWeights(weights)
}

// split sorts tensors into weights, the best weights, and those of the optimizer.
func split(tensors []model.SnapshotTensor) (weights, best map[string][]float32, moments []optim.NamedTensor) {
	weights, best = map[string][]float32{}, map[string][]float32{}
	for _, v := range tensors {
		if name, ok := strings.CutPrefix(v.Name, optimizerPrefix); ok {
			moments = append(moments, optim.NamedTensor{Name: name, Tensor: optim.Tensor{Shape: v.Shape, Data: v.Data}})
		} else if name, ok := strings.CutPrefix(v.Name, bestPrefix); ok {
			best[name] = v.Data
		} else {
			weights[v.Name] = v.Data
		}
	}
	return weights, best, moments
}

func (t *Trainer) checkWeights(weights map[string][]float32) error {
	for _, p := range t.engine.params {
		if n := len(weights[p.Name]); n != len(p.Data) {
			return fmt.Errorf("%s: found %d values, expected %d", p.Name, n, len(p.Data))
		}
		if i, ok := firstNotFinite(weights[p.Name]); ok { // no run could go on from it
			return fmt.Errorf("%s[%d]: found %v, expected a finite number", p.Name, i, weights[p.Name][i])
		}
	}
	if len(weights) != len(t.engine.params) {
		return fmt.Errorf("weights: found %d tensors, expected %d", len(weights), len(t.engine.params))
	}
	return nil
}

// restore loads the states or none. Those of the scheduler and the scaler come first, as a trial; the scheduler's again after the
// optimizer's, whose rates it sets.
func (t *Trainer) restore(opt *optim.StateDict, schedule optim.SchedulerState, scaler *optim.ScalerState) error {
	before := t.schedule.StateDict()
	if err := t.schedule.LoadStateDict(schedule); err != nil {
		return err
	}
	undo := func(err error) error { return errors.Join(err, t.schedule.LoadStateDict(before)) }
	if scaler != nil {
		scale := t.scaler.StateDict()
		if err := t.scaler.LoadStateDict(*scaler); err != nil {
			return undo(err)
		}
		schedules := undo
		undo = func(err error) error { return errors.Join(schedules(err), t.scaler.LoadStateDict(scale)) }
	}
	if err := t.opt.LoadStateDict(opt); err != nil {
		return undo(err)
	}
	return t.schedule.LoadStateDict(schedule)
}

const restoreBest = "config.early_stopping.restore_best"

// difference finds the first field in which two JSON objects differ, by name, leaving out those that may.
func difference(found, expected []byte) (field, is, want string, err error) {
	a, b := map[string]string{}, map[string]string{}
	if err := errors.Join(flatten("", found, a), flatten("", expected, b)); err != nil {
		return "", "", "", err
	}
	for _, values := range []map[string]string{a, b} { // no early stopping restores nothing
		values[restoreBest] = cmp.Or(values[restoreBest], "false")
	}
	for _, values := range []map[string]string{a, b} {
		for name := range values {
			if a[name] != b[name] && !slices.Contains(mayDiffer, name) && (field == "" || name < field) {
				field = name
			}
		}
	}
	if field == "" {
		return "", "", "", nil
	}
	return field, cmp.Or(a[field], "none"), cmp.Or(b[field], "none"), nil
}

// flatten lists an object's values by their path: {"a": {"b": 1}} has "a.b".
func flatten(path string, data []byte, into map[string]string) error {
	if trimmed := bytes.TrimSpace(data); len(trimmed) == 0 || trimmed[0] != '{' {
		if path == "" {
			return errors.New("run: expected a JSON object")
		}
		into[path] = string(trimmed)
		return nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	for name, value := range object {
		if path != "" {
			name = path + "." + name
		}
		if err := flatten(name, value, into); err != nil {
			return err
		}
	}
	return nil
}
