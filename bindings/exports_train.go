//go:build cgo && pyext

package main

// #include "bindings.h"
import "C"

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/cgo"
	"slices"
	"unsafe"

	"github.com/bitnet-rust/bitnet_rust/core/optim"
	"github.com/bitnet-rust/bitnet_rust/core/train"
)

// trainingRun is what a Python TrainingRun object owns; that object lets in one thread at a time.
type trainingRun struct {
	runner  *runner
	trainer *train.Trainer
	last    train.Record
}

// errUpdated ends train.Trainer.Train after one update: Python runs the loop.
var errUpdated = errors.New("updated")

// trainingConfig is the JSON that Python writes.
type trainingConfig struct {
	Steps        int                  `json:"max_steps"`
	BatchSize    int                  `json:"batch_size"`
	Accumulation int                  `json:"accumulation"`
	Order        train.Order          `json:"order"`
	DropLast     bool                 `json:"drop_last"`
	Optimizer    optim.Config         `json:"optimizer"`
	Schedule     optim.ScheduleConfig `json:"scheduler"`
	GradientClip float64              `json:"gradient_clip"`
	EvalEvery    int                  `json:"eval_every"`
	Seed         uint64               `json:"seed"`
}

func parseTrainingConfig(text []byte) (c trainingConfig, err error) {
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

// bn_train_new prepares a run on a dataset; the handle of the evaluation's may be 0.
//
//export bn_train_new
func bn_train_new(h C.uintptr_t, options *C.char, data, eval C.uintptr_t, out *C.uintptr_t, errOut **C.char) C.int {
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
		run := &trainingRun{runner: r}
		return run.change(func() error {
			run.trainer, err = train.NewTrainer(r.model, train.Config{
				Steps: c.Steps, BatchSize: c.BatchSize, Accumulation: c.Accumulation, Order: c.Order, DropLast: c.DropLast,
				Optimizer: c.Optimizer, Schedule: c.Schedule, GradientClip: c.GradientClip, EvalEvery: c.EvalEvery, Seed: c.Seed,
			}, value[*dataset](data), check)
			if err != nil {
				return err
			}
			run.trainer.OnStep = func(record train.Record) error {
				run.last = record
				return errUpdated
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

// bn_train_step makes one update and what evaluation is due then. updated is 0 when all updates have been made before.
//
//export bn_train_step
func bn_train_step(h C.uintptr_t, poll C.bn_poll, state unsafe.Pointer, record *C.bn_record, updated *C.int32_t, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*trainingRun](h)
		return t.with(func() error {
			err := t.trainer.Train(newInterrupts(poll, state))
			if !errors.Is(err, errUpdated) {
				return err // nil at the end of the run
			}
			l := t.last
			*updated = 1
			*record = C.bn_record{
				step: C.int64_t(l.Step), loss: C.double(l.Loss), gradient_norm: C.double(l.GradientNorm), learning_rate: C.double(l.LearningRate),
				tokens_per_second: C.double(l.TokensPerSecond), eval_loss: C.double(l.EvalLoss),
			}
			return nil
		})
	})
}

// bn_train_evaluate computes the mean loss over the evaluation dataset, which there must be.
//
//export bn_train_evaluate
func bn_train_evaluate(h C.uintptr_t, poll C.bn_poll, state unsafe.Pointer, loss *C.double, errOut **C.char) C.int {
	return guard(errOut, func() error {
		t := value[*trainingRun](h)
		return t.with(func() error {
			e, err := t.trainer.Evaluate(newInterrupts(poll, state))
			*loss = C.double(e.Loss())
			return err
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
