//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime/cgo"
	"slices"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/functional"
	"github.com/bitnet-rust/bitnet_rust/core/model"
	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// trainingRun is what a Python TrainingRun object owns; that object lets in one thread at a time.
type trainingRun struct {
	runner  *runner
	trainer *train.Trainer
}

// parseTrainingConfig reads the JSON that Python writes.
func parseTrainingConfig(text []byte) (c train.Config, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("%w: training options: %w", errArgument, err)
	}
	if !slices.Contains(optim.Names(), c.Optimizer.Name) {
		return c, fmt.Errorf("%w: optimizer = %q: expected one of %q", errArgument, c.Optimizer.Name, optim.Names())
	}
	if !slices.Contains(optim.ScheduleNames(), c.Schedule.Name) {
		return c, fmt.Errorf("%w: scheduler = %q: expected one of %q", errArgument, c.Schedule.Name, optim.ScheduleNames())
	}
	return c, nil
}

// bn_train_check refuses options that no model and no data would make right; teacher says whether there will be one.
//
//export bn_train_check
func bn_train_check(options *C.char, teacher C.int, errOut **C.char) C.int {
	return guard(errOut, func() error {
		c, err := parseTrainingConfig([]byte(C.GoString(options)))
		if err != nil {
			return err
		}
		if teacher != 0 {
			c.Teacher = new(model.Model) // that it is there is all that counts here
		}
		return c.Validate()
	})
}

// bn_train_new prepares a run on a dataset; the handles of the evaluation's and of the teacher may be 0.
//
//export bn_train_new
func bn_train_new(h C.uintptr_t, options *C.char, data, eval, teacher C.uintptr_t, out *C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		r := value[*runner](h)
		c, err := parseTrainingConfig([]byte(C.GoString(options)))
		if err != nil {
			return err
		}
		var check train.Dataset
		if eval != 0 {
			check = value[*dataset](eval)
		}
		if teacher != 0 {
			c.Teacher = value[*runner](teacher).model
		}
		run := &trainingRun{runner: r}
		return run.change(func() error {
			run.trainer, err = train.NewTrainer(r.model, c, value[*dataset](data), check)
			if err != nil {
				return err
			}
			*out = C.uintptr_t(cgo.NewHandle(run))
			return nil
		})
	})
}

// change runs body while nobody else changes or closes the model.
func (t *trainingRun) change(body func() error) error {
	if !t.runner.training.TryLock() {
		return fmt.Errorf("%w: the model is being trained by another call", errArgument)
	}
	defer t.runner.training.Unlock()
	if t.runner.closed {
		return fmt.Errorf("%w: the model is closed", errArgument)
	}
	return body()
}

// with is change unless the run is closed.
func (t *trainingRun) with(body func() error) error {
	if t.trainer == nil {
		return fmt.Errorf("%w: the training run is closed", errArgument)
	}
	return t.change(body)
}

// bn_train_run makes the remaining updates. event hears of the run.
//
//export bn_train_run
func bn_train_run(h C.uintptr_t, poll C.bn_poll, event C.bn_event, state unsafe.Pointer, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*trainingRun](h)
		return t.with(func() error {
			t.trainer.Callbacks = []train.Callback{&listener{run: t, event: event, state: state}}
			defer func() { t.trainer.Callbacks = nil }() // state ends with this call
			return t.trainer.Train(newInterrupts(poll, state))
		})
	})
}

// listener tells Python of a run, on the thread of the call.
type listener struct {
	run   *trainingRun
	event C.bn_event
	state unsafe.Pointer
}

func (l *listener) RunStart(t *train.Trainer) error {
	return l.tell("start", map[string]int{"step": t.Step(), "next": t.NextRecord(), "steps": t.Steps()}, nil)
}

func (l *listener) Evaluation(_ *train.Trainer, r *train.Record) error {
	return l.tell("evaluation", r, r)
}

func (l *listener) Step(_ *train.Trainer, r train.Record) error { return l.tell("step", r, nil) }

func (l *listener) Checkpoint(t *train.Trainer, path string) error {
	return l.tell("checkpoint", map[string]any{"path": path, "step": t.Step()}, nil)
}

// RunEnd is told by Python itself, which knows of the exception.
func (l *listener) RunEnd(*train.Trainer, error) error { return nil }

// tell calls Python, which may use and change the model meanwhile, and notes what it answers; metrics go to r.
func (l *listener) tell(kind string, what any, r *train.Record) error {
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	ckind, ctext := C.CString(kind), C.CString(string(text))
	defer C.free(unsafe.Pointer(ckind))
	defer C.free(unsafe.Pointer(ctext))
	var answer *C.char
	l.run.runner.training.Unlock()
	code := C.bn_call_event(l.event, l.state, ckind, ctext, &answer)
	l.run.runner.training.Lock()
	defer C.free(unsafe.Pointer(answer))
	switch {
	case code != 0:
		return context.Canceled // its Python error is pending
	case l.run.runner.closed:
		return fmt.Errorf("%w: the model is closed", errArgument)
	case answer == nil:
		return nil
	}
	var a struct {
		Stop    bool                `json:"stop"`
		Metrics map[string]*float64 `json:"metrics"`
	}
	if err := json.Unmarshal([]byte(C.GoString(answer)), &a); err != nil {
		return fmt.Errorf("%w: answer to %s: %w", errArgument, kind, err)
	}
	if a.Stop {
		l.run.trainer.Stop()
	}
	if r == nil || len(a.Metrics) == 0 {
		return nil
	}
	r.Metrics = train.Metrics{}
	for name, v := range a.Metrics {
		r.Metrics[name] = math.NaN()
		if v != nil {
			r.Metrics[name] = *v
		}
	}
	return nil
}

// bn_train_resume continues from a checkpoint or the newest of a directory. Where there is none, optional makes that a beginning.
//
//export bn_train_resume
func bn_train_resume(h C.uintptr_t, path *C.char, optional C.int, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*trainingRun](h)
		return t.with(func() error {
			r, err := t.trainer.Resume(C.GoString(path))
			if optional != 0 && errors.Is(err, train.ErrNoCheckpoint) && !errors.Is(err, train.ErrDamaged) {
				err = nil
			}
			if err != nil {
				return err
			}
			type skipped struct {
				Path  string `json:"path"`
				Error string `json:"error"`
			}
			s := []skipped{}
			for _, d := range r.Skipped {
				s = append(s, skipped{d.Path, d.Err.Error()})
			}
			return jsonOut(out, map[string]any{"path": r.Path, "step": r.Step, "skipped": s})
		})
	})
}

// bn_train_save writes a checkpoint to a path, or to the run's directory if that is empty.
//
//export bn_train_save
func bn_train_save(h C.uintptr_t, path *C.char, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*trainingRun](h)
		return t.with(func() (err error) {
			name := C.GoString(path)
			if name == "" {
				name, err = t.trainer.SaveCheckpoint()
			} else {
				err = t.trainer.WriteCheckpoint(name)
			}
			if err != nil {
				return err
			}
			return jsonOut(out, name)
		})
	})
}

// bn_train_optimizer takes over the state of an Optimizer object, or gives it that of the run.
//
//export bn_train_optimizer
func bn_train_optimizer(h, optimizer C.uintptr_t, load C.int, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*trainingRun](h)
		o, ok := value[*object](optimizer).value.(*functional.Optimizer)
		if !ok {
			return fmt.Errorf("%w: optimizer: expected an optimizer's object", errArgument)
		}
		return t.with(func() error {
			if load != 0 {
				return t.trainer.LoadOptimizerState(o.StateDict())
			}
			return o.LoadStateDict(t.trainer.OptimizerState())
		})
	})
}

// bn_train_state says how far the run is.
//
//export bn_train_state
func bn_train_state(h C.uintptr_t, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*trainingRun](h)
		return t.with(func() error {
			return jsonOut(out, map[string]any{
				"step": t.trainer.Step(), "steps": t.trainer.Steps(), "best": t.trainer.Best(), "stopped_early": t.trainer.StoppedEarly(),
			})
		})
	})
}

// bn_train_evaluate scores the evaluation dataset, which there must be.
//
//export bn_train_evaluate
func bn_train_evaluate(h C.uintptr_t, poll C.bn_poll, state unsafe.Pointer, out **C.char, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*trainingRun](h)
		return t.with(func() error {
			score, err := t.trainer.Evaluate(newInterrupts(poll, state))
			if err != nil {
				return err
			}
			return jsonOut(out, train.NewEvalRecord(score))
		})
	})
}

// Closing twice does nothing.
//
//export bn_train_close
func bn_train_close(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		value[*trainingRun](h).close()
		return nil
	})
}

func (t *trainingRun) close() {
	if t.trainer != nil {
		t.trainer.Close()
		t.trainer = nil
	}
}

//export bn_train_free
func bn_train_free(h C.uintptr_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*trainingRun](h)
		cgo.Handle(h).Delete()
		t.close()
		return nil
	})
}
